"""Do grants leak? And what do they and the audit cost?

    python -m bench grants                   10,000 pairs of a grant and a question, then the costs
    python -m bench grants --pairs 500
    python -m bench grants --only cost --memories 100000

*Leaks*: a made-up life is asked through a made-up grant, and so is a second database that holds
only what the grant shows, exported through the grant and imported there: the same ids, times and
fields. The answers must be equal to the byte: what was found, in which order, with which scores,
how many, in which words it was refused. The second database is asked twice, through the same grant
and through a plain handle that is limited by nothing; of what a plain handle says otherwise by
design (cursors, statistics) only the first is compared.

*Cost*: a recall through a grant and without one, and the processor time of a row of the audit.
"""

from __future__ import annotations

import argparse
import random
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np

import memdb
from bench import report
from bench.canaries import Clock
from bench.grants_worlds import NOW, Ask, WordVectors, grant, live, question, said

_SIZES: Final = (60, 400, 120, 90)  # memories of a life; all of them lie fresh, at full precision
_GRANTS_A_LIFE: Final = 8
_DIM: Final = 384
_ASKED_A_GRANT: Final = 50


# --- answers, as bytes ------------------------------------------------------------------------


def answer(asked: Any, ask: Ask, *, plain: bool = False) -> bytes:
    """What a handle says, to the byte; of errors, which and in which words. ``plain``: without the
    plan of a filter, which tells what a grant leaves out."""
    verb = asked
    for name in ask.verb.split("."):
        verb = getattr(verb, name)
    arguments = ask.arguments
    try:
        found = verb(**arguments)
        if isinstance(found, Iterator):
            found = list(found)
    except memdb.MemdbError as error:
        found = (type(error).__name__, error.message, error.hint)
    told = _told(found)
    if plain and isinstance(found, memdb.Hits):
        told[1].pop("filter", None)
    return msgspec.json.encode(told, order="deterministic")


def _told(found: Any) -> Any:
    """Without what no two questions share: the id of a search, how long it took, and the ids of
    samples, which each database makes for itself."""
    if isinstance(found, memdb.Hits):
        plan = {name: part for name, part in found.plan.items() if name != "times_ms"}
        for stage in plan.get("stages", {}).values():
            stage.pop("ms", None)
        return [[_told(hit) for hit in found], plan, found.degraded]
    if isinstance(found, memdb.Hit):
        return [_told(found.memory), found.score, found.why, [_told(one) for one in found.history]]
    if isinstance(found, memdb.Context):
        return [found.text, found.items, found.dropped, found.tokens]
    if isinstance(found, memdb.Page):
        return [[_told(one) for one in found.items], found.next_cursor]
    if isinstance(found, memdb.Memory):
        fields = found.to_dict()
        return {**fields, "id": "a sample"} if found.kind == "pulse" else fields
    if isinstance(found, list | tuple):
        return [_told(one) for one in found]
    return found


# --- leaks --------------------------------------------------------------------------------------


@dataclass
class Leak:
    """One pair that was not answered alike."""

    life: int
    grant: memdb.Grant
    ask: Ask
    whole: bytes
    apart: bytes
    by: str


def leaks(
    root: Path,
    seed: int,
    pairs: int,
    sizes: Sequence[int] = _SIZES,
    each: int = _ASKED_A_GRANT,
) -> tuple[int, list[Leak]]:
    """Ask that many pairs, ``each`` of a grant, of lives of so many memories in turn; how many were
    asked, and those that leaked."""
    asked, found, life = 0, list[Leak](), 0
    while asked < pairs:
        life += 1
        rng = random.Random(f"{seed}/{life}")
        with _opened(root / f"life-{life}") as db:
            ids = [*live(db, rng, sizes[life % len(sizes)]), "01JNABCDEFGHJKMNPQRSTVWXYZ"]
            for number in range(_GRANTS_A_LIFE):
                if asked >= pairs:
                    break
                count = min(each, pairs - asked)
                place = root / f"apart-{life}-{number}"
                found += _one_grant(db, place, life, rng, ids, count)
                asked += count
                report.progress(f"{asked:,} of {pairs:,} pairs, {len(found)} leaks")
    return asked, found


def _one_grant(
    db: memdb.Database, place: Path, life: int, rng: random.Random, ids: list[str], count: int
) -> list[Leak]:
    principal = memdb.Principal("planner", grant(rng))
    whole = db.acting(principal)
    exported = place.with_suffix(".jsonl")
    whole.export(exported)
    found = _exported_wrongly(db, exported, principal, life)
    with _opened(place) as alone:
        alone.import_(exported)
        apart = alone.acting(principal)
        for _ in range(count):
            ask = question(rng, ids)
            said, heard = answer(whole, ask), answer(apart, ask)
            if said != heard:
                found.append(Leak(life, principal.grant, ask, said, heard, "the same grant"))
            if ask.plain:
                said, heard = answer(whole, ask, plain=True), answer(alone, ask, plain=True)
                if said != heard:
                    found.append(Leak(life, principal.grant, ask, said, heard, "no grant"))
    return found


def _exported_wrongly(
    db: memdb.Database, exported: Path, principal: memdb.Principal, life: int
) -> list[Leak]:
    """Whether the export holds what a plain filter selects, and names nothing else."""
    where = _as_filter(principal)
    memories = list(db.iter(where))
    samples = [one.data for one in db.history.range("pulse", where=where)]
    lines = [msgspec.json.decode(line) for line in exported.read_bytes().splitlines()]
    told = [line for line in lines if "kind" in line]
    ids = {one["id"] for one in told if one["kind"] != "pulse"}
    named = {
        one for line in told for one in (*line.get("derived_from", ()), *line.get("links", ()))
    }
    expected = [sorted(one.id for one in memories), len(samples), []]
    got = [sorted(ids), sum(one["kind"] == "pulse" for one in told), sorted(named - ids)]
    if got == expected:
        return []
    ask = Ask("export", {})
    encode = msgspec.json.encode
    return [Leak(life, principal.grant, ask, encode(got), encode(expected), "a plain filter")]


def _as_filter(principal: memdb.Principal) -> dict[str, Any]:
    """A grant as the filter that its documentation says it is."""
    its, own = principal.grant, principal.grant.namespace
    order = ("public", "personal", "private", "secret")
    labels = [] if its.sensitivity is None else order[: order.index(its.sensitivity) + 1]
    parts: list[dict[str, Any]] = [
        dict(its.where)
        if its.where is not None
        else {"$or": [{"namespace": own}, {"namespace": {"$prefix": f"{own}/"}}]},
        {"$or": [{"sensitivity": {"$exists": False}}, {"sensitivity": {"$in": list(labels)}}]},
    ]
    if its.deny is not None:
        parts.append({"$not": dict(its.deny)})
    return {"$and": parts}


def _opened(place: Path) -> memdb.Database:
    return memdb.open(place, embedder=WordVectors(), namespace="", source="bench", clock=_clock)


_clock: Final = Clock()
_clock.moment = NOW


# --- what it costs ------------------------------------------------------------------------------


def cost(root: Path, memories: int, rounds: int) -> dict[str, Any]:
    """Milliseconds of processor time of a recall, plain, as the owner and through a grant of half
    of it, in turns; microseconds of it that acting adds to a read."""
    rng = np.random.default_rng(5)
    maker = random.Random(5)
    with memdb.open(root / "cost", embedder="none", namespace="", source="bench") as db:
        for start in range(0, memories, 4_096):
            size = min(4_096, memories - start)
            matrix = rng.standard_normal((size, _DIM)).astype(np.float32)
            db.remember_many(
                [
                    {
                        "text": f"{said(maker)} {said(maker)} n{start + n}",
                        "vector": matrix[n],
                        "namespace": "home" if (start + n) % 2 else "work",
                    }
                    for n in range(size)
                ],
                batch=4_096,
            )
            report.progress(f"{start + size:,} of {memories:,} memories")
        db._maintenance.drain()
        half = memdb.Grant(where={"namespace": "home"}, namespace="home")
        handles: dict[str, Any] = {
            "plain, half of it": lambda: db,
            "owner": lambda: db.acting(db.tokens.owner(), purpose="bench", tool="memory_search"),
            "grant, half of it": lambda: db.acting(
                memdb.Principal("planner", half), purpose="bench", tool="memory_search"
            ),
        }
        where = {"plain, half of it": {"namespace": "home"}, "owner": {"namespace": "home"}}
        times: dict[str, list[float]] = {name: [] for name in handles}
        for number in range(rounds + 10):
            vector = rng.standard_normal(_DIM).astype(np.float32)
            words = said(maker)
            for name, handle in handles.items():
                started = time.process_time()
                handle().recall(words, vector=vector, where=where.get(name))
                if number >= 10:
                    times[name].append((time.process_time() - started) * 1e3)
        calls = {f"a read of {count}": _call_us(db, count) for count in (1, 10)}
    figures = {
        name: {
            "p50_ms": round(float(np.percentile(one, 50)), 3),
            "p99_ms": round(float(np.percentile(one, 99)), 3),
        }
        for name, one in times.items()
    }
    p50 = figures["plain, half of it"]["p50_ms"]
    return {
        "memories": memories,
        "recall": figures,
        "call_us": calls,
        "call_share_of_p50": round(calls["a read of 10"] / 1e3 / p50, 4),
    }


def _call_us(db: memdb.Database, ids: int, calls: int = 5_000) -> float:
    """Processor time that acting adds to a read of so many memories: the checks, a row of the
    audit with their ids, and its share of what syncs it."""
    wanted = [one.id for one in db.list(limit=10).items][:ids]
    principal = db.tokens.owner()
    spent = {"plain": 0.0, "acting": 0.0}
    for _ in range(calls // 500):
        for name in spent:
            started = time.process_time()
            for _ in range(500):
                asked = db if name == "plain" else db.acting(principal, purpose="bench")
                asked.get_many(wanted)
            spent[name] += time.process_time() - started
    return round((spent["acting"] - spent["plain"]) / calls * 1e6, 1)


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m bench grants",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--pairs", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--memories", type=int, default=20_000, help="of the measured store")
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--only", choices=("leaks", "cost"))
    parser.add_argument("--json", type=Path, help="write the figures to this file as well")
    options = parser.parse_args(arguments)
    results: dict[str, Any] = {}
    met = True
    with tempfile.TemporaryDirectory(prefix="memdb-grants-") as folder:
        root = Path(folder)
        if options.only != "cost":
            asked, found = leaks(root, options.seed, options.pairs)
            met = not found
            results["leaks"] = {"pairs": asked, "leaks": len(found), "seed": options.seed}
            report.table([{**results["leaks"], "verdict": "met" if met else "not met"}])
            for one in found[:10]:
                print(f"life {one.life}, {one.grant.to_dict()}, {one.ask}, by {one.by}")
        if options.only != "leaks":
            results["cost"] = measured = cost(root, options.memories, options.rounds)
            report.table([{"recall": name, **part} for name, part in measured["recall"].items()])
            report.table(
                [{"acting adds (us)": us, "to": name} for name, us in measured["call_us"].items()]
            )
            share = measured["call_share_of_p50"]
            report.table([{"share of p50": share, "verdict": "met" if share <= 0.1 else "not met"}])
            met = met and share <= 0.1
    report.save(options.json, "grants", arguments, results)
    return 0 if met else 1
