"""``python -m bench ann filter``: allowed sets of every size, related to the query or not.

    random     drawn from all vectors, shared by all queries
    topic      the cells nearest to the query of some hundreds of cells, until there are enough
    off-topic  the cells farthest from it
    nearest    drawn from the 1.25 m vectors nearest to the query
    farthest   drawn from the 1.25 m farthest: the true ten lie at its edge, where the most vectors
               have nearly the same distance

Topic and off-topic are how filters are correlated and anti-correlated with queries in life: cells
are those of random vectors, and vectors belong to the nearest. Nearest and farthest are extremes.
Each query is asked in turn with and without its set, ``rounds`` times, and the fastest of each
counts, so that p99 speaks of the query and not of who else is at work. Filters are compiled before,
and the time for that stands beside.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench import report
from bench.ann import children, truth
from bench.ann.data import DataSet
from bench.ann.measuring import Built, Contestant, Row, Run, build_index, child_of
from bench.measure import load, percentile

SHARES = (1.0, 0.5, 0.2, 0.1, 0.05, 0.01, 0.001, 0.0001)
RELATIONS = ("random", "topic", "off-topic", "nearest", "farthest")
ADAPTERS = ("memdb", "hnswlib", "turbovec")
LEAST_RECALL, MOST_P99_RATIO = 0.98, 2.0
SSD_LEAST_RECALL, SSD_MOST_P99_RATIO = 0.95, 3.0

_POOL = 1.25
_BLOCK = 16_384
_ROWS_A_CELL = 250
_CELLS = (8, 400)
_ASKED = {"memdb": {"effort": None}, "hnswlib": {"ef": 160}, "turbovec": {"rerank": 50}}

Distances = NDArray[np.float64]
Sets = NDArray[np.integer[Any]]


@dataclass(frozen=True)
class Case:
    """``sets`` (1 or q, m): the rows allowed to all queries, or to each."""

    relation: str
    share: float
    sets: Sets

    @property
    def name(self) -> str:
        return f"{self.relation} {self.share * 100:g} %"


def all_distances(data: DataSet, queries: NDArray[np.float32]) -> Distances:
    """(q, n) float64 distances of every query to every vector."""
    found = np.empty((len(queries), len(data.base)))
    asked = queries.astype(np.float64)
    lengths = (asked**2).sum(axis=1)
    for first in range(0, len(data.base), _BLOCK):
        block = data.base[first : first + _BLOCK].astype(np.float64)
        products = asked @ block.T
        squares = (block**2).sum(axis=1)
        if data.metric == "l2":
            made = lengths[:, None] + squares - 2 * products
        elif data.metric == "ip":
            made = -products
        else:
            made = 1 - products / np.maximum(np.sqrt(lengths[:, None] * squares), 1e-300)
        found[:, first : first + _BLOCK] = made
    return found


class Cells:
    """Rows of the base by the cell they are in, and how far each cell's centre is from a query."""

    def __init__(self, data: DataSet, distances: Distances, rng: np.random.Generator) -> None:
        base = data.base
        count = int(np.clip(len(base) // _ROWS_A_CELL, *_CELLS))
        centres = np.sort(rng.choice(len(base), min(count, len(base)), replace=False))
        asked = replace(data, queries=base[centres])
        cell = all_distances(asked, asked.queries).argmin(axis=0)
        order = np.argsort(cell, kind="stable")
        ends = np.cumsum(np.bincount(cell, minlength=len(centres)))
        self._members = np.split(order, ends[:-1])
        self._distances = distances[:, centres]
        self._rng = rng

    def rows(self, query: int, m: int, *, nearest: bool) -> NDArray[np.int64]:
        """m rows: whole cells in order of their distance, and a draw from the last."""
        order = np.argsort(self._distances[query])
        taken, missing = [], m
        for number in order if nearest else order[::-1]:
            members = self._members[number]
            if len(members) > missing:
                members = self._rng.choice(members, missing, replace=False)
            taken.append(members)
            missing -= len(members)
            if not missing:
                break
        return np.sort(np.concatenate(taken))


def cases(data: DataSet, distances: Distances, seed: int) -> Iterator[Case]:
    """Every relation at every share of which at least one vector is left."""
    queries, count = distances.shape
    rng = np.random.default_rng(seed)
    cells = Cells(data, distances, rng)
    for share in SHARES:
        m = round(count * share)
        if not m:
            continue
        yield Case("random", share, np.sort(rng.permutation(count)[None, :m]))
        if m == count:
            continue
        for relation in RELATIONS[1:]:
            sets = np.empty((queries, m), np.int64)
            for number in range(queries):
                if relation in ("topic", "off-topic"):
                    sets[number] = cells.rows(number, m, nearest=relation == "topic")
                else:
                    signs = distances[number] * (1 if relation == "nearest" else -1)
                    sets[number] = _drawn(signs, m, rng)
            yield Case(relation, share, sets)


def _drawn(distances: Distances, m: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """m of the 1.25 m nearest rows."""
    pool = min(len(distances), max(m, round(m * _POOL)))
    near = np.argpartition(distances, pool - 1)[:pool]
    return np.sort(rng.choice(near, m, replace=False))


def judged(case: Case, distances: Distances, ids: NDArray[np.int64], k: int) -> Row:
    """Recall, and whether each query got exactly min(k, m) distinct rows of its set."""
    hits = wanted = exact = outside = 0
    for number, found in enumerate(ids):
        allowed = np.asarray(case.sets[number % len(case.sets)])
        due = min(k, len(allowed))
        given = np.unique(found[found >= 0])
        inside = given[np.isin(given, allowed)]
        outside += len(given) - len(inside)
        exact += int(len(inside) == due and (found >= 0).sum() == due)
        limit = np.partition(distances[number, allowed], due - 1)[due - 1]
        limit += truth.RELATIVE_EPSILON * abs(limit)
        hits += min(due, int((distances[number, inside] <= limit).sum()))
        wanted += due
    return {"recall": hits / wanted, "exact_counts": exact / len(ids), "outside": outside}


def measure(
    run: Run, contestants: list[Contestant], seed: int, hear: Callable[[Row], None]
) -> None:
    """Rows of every engine and case; an engine that fails is a row with ``error``."""
    queries = run.data.queries
    report.progress("distances of all queries to all vectors")
    distances = all_distances(run.data, queries)
    files = []
    for number, case in enumerate(cases(run.data, distances, seed)):
        report.progress(f"allowed sets: {case.name}")
        path = run.folder / f"sets-{number}.npy"
        np.save(path, case.sets.astype(np.uint32))
        # Mapped from here on: all sets of a million vectors are gigabytes.
        files.append((replace(case, sets=np.load(path, mmap_mode="r")), path))
    run.steps = 2 * sum(len(contestant.variants) for contestant in contestants)
    for contestant in contestants:
        for variant in contestant.variants:
            name = f"filter-{contestant.engine.name}-{os.getpid()}"
            facts = {"engine": contestant.engine.name, "label": variant.label}
            one = Built(variant, contestant, Path(), name, facts)
            try:
                build_index(run, one)
                _ask(run, one, files, distances, hear)
            except children.EngineFailed as error:
                hear({"label": variant.label, "part": "filter", "error": str(error)})


def _ask(
    run: Run,
    one: Built,
    files: list[tuple[Case, Path]],
    distances: Distances,
    hear: Callable[[Row], None],
) -> None:
    by_name = {f"case-{number}": case for number, (case, _) in enumerate(files)}
    asked = one.variant.searches[0] if one.variant.fixed else _ASKED[one.contestant.engine.name]

    def filtered(event: children.Event) -> None:
        if event["event"] != "filtered":
            return
        case, path = by_name[event["name"]], Path(event["results"])
        with np.load(path) as results:
            found = {name: results[name] for name in results.files}
        path.unlink()
        hear(_row(run, one, case, asked, found, distances))

    listed = [
        {"name": name, "queries": str(run.folder / "queries.npy"), "sets": str(path),
         "asked": asked}
        for name, (_, path) in zip(by_name, files, strict=True)
    ]  # fmt: skip
    with tempfile.TemporaryDirectory(dir=run.folder) as results:
        child_of(run, one, "filter", filtered, cases=listed, rounds=run.rounds, results=results)


def _row(
    run: Run, one: Built, case: Case, asked: Row, found: dict[str, Any], distances: Distances
) -> Row:
    seconds, free = found["seconds"], found["unfiltered"]
    row = {
        "part": "filter",
        "label": one.variant.label,
        "case": case.name,
        "relation": case.relation,
        "share": case.share,
        "allowed": int(case.sets.shape[1]),
        "asked": asked,
        "vectors": len(run.data.base),
        **judged(case, distances, found["ids"], run.k),
        "p50_ms": percentile(seconds, 50) * 1e3,
        "p99_ms": percentile(seconds, 99) * 1e3,
        "free_p50_ms": percentile(free, 50) * 1e3,
        "free_p99_ms": percentile(free, 99) * 1e3,
        "p99_cpu_ms": percentile(found["cpu"], 99) * 1e3,
        "free_p99_cpu_ms": percentile(found["free_cpu"], 99) * 1e3,
        "compile_ms": percentile(found["compiling"], 50) * 1e3,
        "load": load()["load"],
    }
    row["p99_ratio"] = row["p99_ms"] / row["free_p99_ms"]
    row["p99_cpu_ratio"] = row["p99_cpu_ms"] / row["free_p99_cpu_ms"]
    limits = (LEAST_RECALL, MOST_P99_RATIO)
    if one.variant.build.get("kind") == "ssd":
        limits = (SSD_LEAST_RECALL, SSD_MOST_P99_RATIO)
    met = (
        row["recall"] >= limits[0]
        and row["exact_counts"] == 1
        and not row["outside"]
        and row["p99_ratio"] <= limits[1]
    )
    row["verdict"] = "met" if met else "not met"
    return row


def table(rows: list[Row]) -> list[Row]:
    """One line a case."""
    return [
        {
            "engine": row["label"],
            "allowed": row["case"],
            "m": row["allowed"],
            "recall": f"{row['recall']:.4f}",
            "exact counts": f"{row['exact_counts'] * 100:.0f} %",
            "p50 ms": row["p50_ms"],
            "p99 ms": row["p99_ms"],
            "unfiltered p50": row["free_p50_ms"],
            "unfiltered p99": row["free_p99_ms"],
            "p99 ratio": row["p99_ratio"],
            "p99 cpu ratio": row.get("p99_cpu_ratio"),
            "compile ms": row["compile_ms"],
            "limit": row["verdict"],
        }
        for row in rows
        if row.get("part") == "filter" and "error" not in row
    ]
