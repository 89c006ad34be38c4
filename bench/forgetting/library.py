"""What the library itself does under a budget: what is never lost, what it takes, what a level
costs.

Plans are applied through ``db.retention`` alone, those of single steps written by hand.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

import memdb
from bench import report
from bench.forgetting.history import NOT_ASKED
from bench.recall_data import conversations, memory_of, questions_of

SHARES = (0.25, 0.5, 0.75)
SIZE_LIMIT = 0.15
_FACTS, _PINNED_EVERY = 10, 10
_VECTORS = Path("../vectors/minilm384-100k-base.f16.npy")
_TOP = 10


def _items(conversation: dict[str, Any], name: str) -> list[dict[str, Any]]:
    found = [memory_of(conversation, item, n) for n, item in enumerate(conversation["items"])]
    return [{**one, "namespace": name, "kind": "event"} for one in found]


def disk_bytes(path: Path) -> dict[str, int]:
    """Allocated bytes by part of the directory."""
    found: dict[str, int] = {}
    for folder, _, files in os.walk(path):
        part = (*Path(folder).relative_to(path).parts, "top")[0]
        for name in files:
            size = os.stat(os.path.join(folder, name)).st_blocks * 512
            found[part] = found.get(part, 0) + size
    return found


# --- what is never lost ---------------------------------------------------------------------


def protected(path: Path, embedder: Any = None) -> list[dict[str, Any]]:
    """Pinned memories and facts among all the others, at each share of what they take."""
    rows = []
    for number, conversation in enumerate(conversations(path)):
        for share in SHARES:
            report.progress(f"protected: conversation {number + 1}, {share:.0%}")
            rows.append(_protected_at(conversation, share, embedder))
    return rows


def _protected_at(conversation: dict[str, Any], share: float, embedder: Any) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder, memdb.open(folder, embedder=embedder) as db:
        items = _items(conversation, "default")
        for item in items[::_PINNED_EVERY]:
            item["pinned"] = True
        written = db.remember_many(items)
        kept = [one.id for one in written if one.memory.pinned]
        kept += [db.profile.set(f"fact {n}", n, subject="user").id for n in range(_FACTS)]
        db.compact()
        refused = False
        try:
            bound = db.retention.status()["bytes"]["bound"]
            db.retention.apply(db.retention.plan(disk_budget=int(share * bound)))
        except memdb.BudgetExceeded:
            refused = True
        lost = sum(memory is None for memory in db.get_many(kept))
        return {
            "conversation": conversation["id"],
            "bytes kept": share,
            "memories": len(written),
            "left": db.count({"kind": "event"}),
            "protected": len(kept),
            "lost": lost,
            "refused": refused,
            "verdict": "met" if not lost else "not met",
        }


# --- what it takes --------------------------------------------------------------------------


class _Later:
    """A clock far enough ahead for every record to be cold."""

    def now(self) -> datetime:
        return datetime(2030, 1, 1, tzinfo=UTC)


def sizes(folder: Path, embedder: Any = None) -> list[dict[str, Any]]:
    """Everything of all files, compressed, beside UTF-8 text and float32 vectors.

    With the embedded default and, where the file is, with MiniLM vectors of other sentences, which
    take the same bytes as these texts' own would.
    """
    rows = _sizes_with(folder, embedder or "static", None)
    vectors = folder / _VECTORS
    if embedder is None and vectors.exists():
        rows += _sizes_with(folder, "none", np.load(vectors, mmap_mode="r"))
    return rows


def _everything(folder: Path) -> Iterator[dict[str, Any]]:
    for path in sorted(folder.glob("*.jsonl")):
        for conversation in conversations(path):
            yield from _items(conversation, f"{path.stem}/{conversation['id']}".replace("#", "-"))


def _sizes_with(folder: Path, embedder: Any, vectors: Any) -> list[dict[str, Any]]:
    with (
        tempfile.TemporaryDirectory() as directory,
        memdb.open(directory, embedder=embedder, namespace="") as db,
    ):
        text = 0
        batch: list[dict[str, Any]] = []
        for count, item in enumerate(_everything(folder)):
            if vectors is not None:
                item["vector"] = np.asarray(vectors[count % len(vectors)], np.float32)
            text += len(item["text"].encode())
            batch.append(item)
            if len(batch) == 4096:
                report.progress(f"size: {count} memories")
                db.remember_many(batch)
                batch = []
        db.remember_many(batch)
        (space,) = db.spaces.list()
        _take(db, "encode")
        _take(db, "cold")
        _take(db, "space", space=space.name, profile="pico")
        db.compact()
        parts = disk_bytes(Path(directory))
        stored = db.count()
        tables = db.stats()["bytes"]["tables"]
    naive = text + 4 * space.dim * stored
    named = "MiniLM vectors, 384" if vectors is not None else f"{embedder}, {space.dim}"
    shown = {**{f"kv/{name}": size for name, size in tables.items() if size > naive / 2000}}
    shown.update((name, size) for name, size in parts.items())
    total = sum(parts.values())
    rows = [
        {"vectors": named, "part": name, "bytes": size, "a memory": size / stored,
         "of naive": size / naive, "limit": None, "verdict": None}
        for name, size in shown.items()
    ]  # fmt: skip
    rows.append(
        {"vectors": named, "part": "directory", "bytes": total, "a memory": total / stored,
         "of naive": total / naive, "limit": f"<= {SIZE_LIMIT}",
         "verdict": "met" if total <= SIZE_LIMIT * naive else "not met"}
    )  # fmt: skip
    return rows


def _take(db: memdb.Database, what: str, **where: Any) -> None:
    """One step of the ladder, as a plan written by hand."""
    plan = db.retention.plan({}).to_dict()
    step = {"what": what, "level": 0, "bytes": 0, "final": False, **where}
    db.retention.apply({**plan, "steps": [step]})


# --- what a level costs ---------------------------------------------------------------------

_STEPS: Sequence[tuple[str, str, dict[str, str]]] = (
    ("as written", "", {}),
    ("encoded", "encode", {}),
    ("cold", "cold", {}),
    ("compact", "space", {"profile": "compact"}),
    ("nano", "space", {"profile": "nano"}),
    ("pico", "space", {"profile": "pico"}),
    ("packed", "compact", {}),
)


def levels(path: Path, embedder: Any = None) -> list[dict[str, Any]]:
    """Recall of all conversations in one database, a step of the ladder after the other."""
    everything = list(conversations(path))
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder, memdb.open(folder, embedder=embedder) as db:
        for one in everything:
            db.remember_many(_items(one, one["id"]))
        (space,) = db.spaces.list()
        for level, what, where in _STEPS:
            if what == "compact":
                db.compact()
            elif what:
                named = {"space": space.name, **where} if what == "space" else {}
                _take(db, what, **named)
            for mode in ("hybrid", "vector"):
                report.progress(f"levels: {level}, {mode}")
                some, whole = _recall(db, everything, mode)
                first = next((row for row in rows if row["mode"] == mode), None)
                rows.append(
                    {
                        "level": level,
                        "mode": mode,
                        "mean@10": some,
                        "all@10": whole,
                        "loss of mean@10": 0.0 if first is None else 1 - some / first["mean@10"],
                        "loss of all@10": 0.0 if first is None else 1 - whole / first["all@10"],
                        "bytes": sum(disk_bytes(Path(folder)).values()),
                    }
                )
    return rows


def _recall(db: memdb.Database, everything: list[dict[str, Any]], mode: Any) -> tuple[float, float]:
    some, whole = [], []
    for conversation in everything:
        for query, kind, evidence in questions_of(conversation):
            if kind in NOT_ASKED:
                continue
            hits = db.recall(query, k=_TOP, mode=mode, namespace=conversation["id"])
            found = evidence & {hit.memory.external_id for hit in hits}
            some.append(len(found) / len(evidence))
            whole.append(found == evidence)
    return float(np.mean(some)), float(np.mean(whole))
