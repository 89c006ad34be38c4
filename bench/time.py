"""Is the right memory first when a question is about time?

    python -m bench time [--worlds 5] [--embedder static --embedder none] [--show]

Each world is a database of its own, at a moment and in a zone of its own; its questions are made
from its records by templates, with the answer computed by the calendar (``time_worlds``):
relative dates, orders, named events, facts that were superseded, facts as of a day, and days whose
limits depend on the zone. A question counts if the right memory is the first hit.
"""

from __future__ import annotations

import argparse
import tempfile
from collections import Counter
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import memdb
from bench import report
from bench.time_worlds import Asked, World, worlds

TARGET = 0.95


@dataclass(frozen=True)
class Frozen:
    """A clock that stands still."""

    moment: datetime

    def now(self) -> datetime:
        return self.moment


@dataclass(frozen=True)
class Answer:
    """What came first for a question."""

    asked: Asked
    found: str | None
    text: str | None

    @property
    def right(self) -> bool:
        return self.found == self.asked.right


def answers(world: World, embedder: str, **options: Any) -> list[Answer]:
    """Ask every question of one world."""
    with (
        tempfile.TemporaryDirectory() as folder,
        memdb.open(folder, embedder=embedder, clock=Frozen(world.now)) as db,
    ):
        db.settings.time_zone = world.zone
        db.remember_many(world.records)
        found = []
        for asked in world.asked:
            hits = db.recall(asked.query, k=1, **asked.options, **options)
            first = hits[0] if hits else None
            found.append(Answer(asked, first and first.memory.external_id, first and first.text))
        return found


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench time", description=__doc__)
    parser.add_argument("--worlds", type=int, default=5, help="of some 70 questions each")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--embedder", action="append", help="static and none by default")
    parser.add_argument("--off", action="store_true", help="also with the stages of time off")
    parser.add_argument("--show", action="store_true", help="print what was answered wrongly")
    parser.add_argument("--json", type=Path, help="write the figures to this file as well")
    options = parser.parse_args(arguments)
    rows: list[dict[str, Any]] = []
    made = worlds(options.worlds, options.seed)
    ways: list[tuple[str, dict[str, Any]]] = [("all stages", {})]
    if options.off:
        ways.append(("time off", {"time": "off"}))
        ways.append(("profile off", {"stages": {"profile": False}}))
    met = True
    for embedder in options.embedder or ["static", "none"]:
        for name, switched in ways:
            given: list[Answer] = []
            for number, world in enumerate(made):
                report.progress(f"{embedder}, {name}: world {number + 1}/{len(made)}")
                given += answers(world, embedder, **switched)
            row = _row(embedder, name, given)
            if not switched:
                met = met and row["all"] >= TARGET
                row["verdict"] = "met" if row["all"] >= TARGET else "not met"
            rows.append(row)
            if options.show:
                _show(given)
    report.table(rows)
    report.save(options.json, "time", arguments, rows)
    return 0 if met else 1


def _row(embedder: str, name: str, given: list[Answer]) -> dict[str, Any]:
    asked = Counter(one.asked.kind for one in given)
    right = Counter(one.asked.kind for one in given if one.right)
    row: dict[str, Any] = {"embedder": embedder, "stages": name, "questions": len(given)}
    row["all"] = right.total() / max(1, len(given))
    row.update({kind: right[kind] / number for kind, number in asked.items()})
    return row


def _show(given: list[Answer]) -> None:
    report.progress("")
    for one in given:
        if not one.right:
            print(f"{one.asked.kind}: {one.asked.query} -> {one.text}")
