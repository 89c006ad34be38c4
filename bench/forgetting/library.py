"""What the library itself does under a budget: what is never lost, and what a level costs.

Plans are applied through ``db.retention`` alone, those of single steps written by hand.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

import memdb
from bench import report
from bench.forgetting.history import NOT_ASKED
from bench.recall_data import conversations, memory_of, questions_of

SHARES = (0.25, 0.5, 0.75)
_FACTS, _PINNED_EVERY = 10, 10
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


# --- what a level costs ---------------------------------------------------------------------


def take(db: memdb.Database, what: str, **where: Any) -> None:
    """One step of the ladder, as a plan written by hand."""
    plan = db.retention.plan({}).to_dict()
    step = {"what": what, "level": 0, "bytes": 0, "final": False, **where}
    db.retention.apply({**plan, "steps": [step]})


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
                take(db, what, **named)
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
