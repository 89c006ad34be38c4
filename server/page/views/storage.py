"""Storage: what is stored, and what it costs in bytes, by part, kind and level of fidelity."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from flask import render_template

from memdb.server.page import door, shown
from memdb.server.page.blueprint import page

PARTS: Final[Mapping[str, tuple[str, str]]] = {
    "kv": ("Memories and their index", "texts, facts, times, words: the store itself"),
    "space": ("Meanings", "the vectors by which things are found by what they mean"),
    "blob": ("Long texts", "contents of more than 64 KiB, compressed"),
    "audit": ("Audit", "who read and wrote what, and when"),
    "trash": ("Trash", "files on their way out"),
    "tmp": ("Work in progress", "gone when it is done"),
    "top": ("Settings", "the name of the format, and small files"),
}


@dataclass(frozen=True, slots=True)
class Slice:
    """One part of a whole: ``start`` and ``share`` in percent of it."""

    name: str
    words: str
    bytes: int
    start: float
    share: float
    memories: int | None = None


@page.get("/storage")
def storage() -> str:
    """The picture, and the same as a table."""
    stats = door.acting().stats()
    kinds = stats["bytes"]["kinds"]
    return render_template(
        "storage.html",
        stats=stats,
        parts=slices(_by_part(stats["bytes"]["files"])),
        kinds=slices(_by_kind(kinds)),
        levels=slices(_by_level(kinds)),
        budget=door.database().settings.disk_budget,
        vectors=sum(stats["vectors"].values()),
    )


Row = tuple[str, str, int, int | None]


def _by_part(files: Mapping[str, int]) -> list[Row]:
    return [(*PARTS.get(name, (name, "")), count, None) for name, count in files.items() if count]


def _by_kind(kinds: Mapping[str, Mapping[str, Mapping[str, int]]]) -> list[Row]:
    found: list[Row] = []
    for kind, levels in kinds.items():
        number = sum(one["memories"] for one in levels.values())
        cost = sum(one["bytes"] for one in levels.values())
        found.append((shown.kind_word(kind, 2).capitalize(), "", cost, number))
    return found


def _by_level(kinds: Mapping[str, Mapping[str, Mapping[str, int]]]) -> list[Row]:
    summed: dict[str, list[int]] = {}
    for levels in kinds.values():
        for level, one in levels.items():
            into = summed.setdefault(level, [0, 0])
            into[0] += one["memories"]
            into[1] += one["bytes"]
    return [
        (shown.level_word(level).capitalize(), level, cost, number)
        for level, (number, cost) in sorted(summed.items())
    ]


def slices(rows: list[Row]) -> list[Slice]:
    """Parts of a whole beside each other, the largest first."""
    whole = sum(row[2] for row in rows) or 1
    found, start = [], 0.0
    for name, words, count, number in sorted(rows, key=lambda row: -row[2]):
        share = 100 * count / whole
        found.append(Slice(name, words, count, start, share, number))
        start += share
    return found


def used(budget: int | None, total: int) -> dict[str, Any] | None:
    """How full a budget is."""
    return None if not budget else {"share": min(100.0, 100 * total / budget)}
