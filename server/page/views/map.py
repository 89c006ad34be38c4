"""The map: memories in the plane, near each other where they mean nearly the same."""

from __future__ import annotations

import json
import threading
from collections import Counter, OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from flask import render_template, request
from numpy.typing import NDArray

from memdb import Memory, Space, SpaceSample
from memdb.server.page import door, mapping, shown
from memdb.server.page.blueprint import page
from memdb.server.page.choosing import Chosen
from memdb.server.page.views.search import choices

SHOWN: Final = 700
KINDS: Final = 7  # that have a colour and a shape of their own
SHAPES: Final = ("circle", "square", "triangle", "diamond")
_LABEL: Final = (2.0, 4.0)  # width of a letter and height of a line in a name on the map
_SAID: Final = 110  # characters of a memory in the list


@dataclass(frozen=True, slots=True)
class Point:
    """One memory on the map; ``look`` is the number of its kind's colour and shape."""

    number: int
    memory: Memory
    x: float
    y: float
    look: int
    words: str

    @property
    def shape(self) -> str:
        return SHAPES[self.look % len(SHAPES)]


@dataclass(frozen=True, slots=True)
class Part:
    """A region: its name, where that is written, and its memories, the latest first."""

    name: str
    x: float
    y: float
    points: Sequence[Point]

    @property
    def title(self) -> str:
        """The name as a heading; not all parts have words of their own."""
        return self.name[:1].upper() + self.name[1:] if self.name else "This and that"


@page.get("/map")
def map() -> str:
    """The picture, and the same as a list by region."""
    acting = door.acting()
    chosen = Chosen.of(request.args)
    shared: dict[str, Any] = {"chosen": chosen, "choices": choices(acting)}
    spaces = [one for one in acting.spaces.list() if one.vectors and one.replaces is None]
    if not spaces:
        return render_template("map.html", points=[], spaces=[], sample=None, **shared)
    space = _chosen_space(spaces, request.args.get("space", ""))
    where = chosen.where_with_times()
    sample: SpaceSample = acting.spaces.sample(space.name, where=where, limit=SHOWN)
    at = _places(sample, (str(door.database().path), json.dumps(where, sort_keys=True)))
    looks = _looks([one.kind for one in sample.memories])
    points = [
        Point(number, memory, float(x), float(y), looks[memory.kind], shown.words_of(memory))
        for number, (memory, (x, y)) in enumerate(zip(sample.memories, at, strict=True))
    ]
    return render_template(
        "map.html",
        points=points,
        parts=_parts(points, at),
        legend=_legend(points),
        spaces=spaces,
        space=space.name,
        sample=sample,
        size=max(0.55, min(1.3, 9 / max(1, len(points)) ** 0.5)),
        width=mapping.WIDTH,
        height=mapping.HEIGHT,
        said=_SAID,
        **shared,
    )


def _chosen_space(spaces: Sequence[Space], name: str) -> Space:
    """The one named, else the one with the most memories."""
    named = [one for one in spaces if one.name == name]
    return named[0] if named else max(spaces, key=lambda one: one.vectors)


# --- places, kept as long as nothing changes ------------------------------------------------------

_Key = tuple[str, str, str, int]
_kept: OrderedDict[_Key, NDArray[np.float32]] = OrderedDict()
_guard = threading.Lock()
_MOST_KEPT: Final = 8


def _places(sample: SpaceSample, of: tuple[str, str]) -> NDArray[np.float32]:
    """(n, 2) places; computed once for a state of a database. No text is kept."""
    key = (*of, sample.space, sample.content_seq)
    with _guard:
        found = _kept.get(key)
        if found is not None and len(found) == len(sample.memories):
            _kept.move_to_end(key)
            return found
    at = mapping.place(sample.vectors, gap=1.1)
    with _guard:
        _kept[key] = at
        while len(_kept) > _MOST_KEPT:
            _kept.popitem(last=False)
    return at


# --- colours, shapes, names -----------------------------------------------------------------------


def _looks(kinds: Sequence[str]) -> dict[str, int]:
    """The look of each kind: the most frequent have one of their own, the rest the last."""
    ranked = sorted(Counter(kinds).items(), key=lambda one: (-one[1], one[0]))
    return {kind: min(place, KINDS) for place, (kind, _) in enumerate(ranked)}


def _legend(points: Sequence[Point]) -> list[dict[str, Any]]:
    """What each look stands for: kind (None for the rest), shape, and how many."""
    found: dict[int, dict[str, Any]] = {}
    for one in points:
        entry = found.setdefault(
            one.look, {"look": one.look, "shape": one.shape, "kind": one.memory.kind, "number": 0}
        )
        entry["number"] += 1
        if entry["kind"] != one.memory.kind:
            entry["kind"] = None
    return [found[look] for look in sorted(found)]


def _parts(points: Sequence[Point], at: NDArray[np.float32]) -> list[Part]:
    found: list[Part] = []
    taken: list[tuple[float, float, float, float]] = []
    for region in mapping.regions(at, [one.words for one in points]):
        members = sorted(
            (points[number] for number in region.members),
            key=lambda one: (shown.moment_of(one.memory) is None, _moment(one), one.number),
            reverse=True,
        )
        x, y = _free(region, taken)
        found.append(Part(region.name, x, y, members))
    return found


def _moment(point: Point) -> float:
    found = shown.moment_of(point.memory)
    return 0.0 if found is None else found[0].timestamp()


def _free(
    region: mapping.Region, taken: list[tuple[float, float, float, float]]
) -> tuple[float, float]:
    """Where a region's name stands: at its middle, or next to it where another name is."""
    half, line = len(region.name) * _LABEL[0] / 2, _LABEL[1]
    x = min(max(region.x, half + 1), max(mapping.WIDTH - half - 1, half + 1))
    for step in (0, -1, 1, -2, 2, -3, 3, -4, 4):
        y = min(max(region.y + step * line, line), mapping.HEIGHT - 1)
        box = (x - half, y - line, x + half, y)
        if not any(_meet(box, other) for other in taken):
            break
    taken.append((x - half, y - line, x + half, y))
    return x, y


def _meet(a: tuple[float, float, float, float], b: tuple[float, float, float, float]) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]
