"""Neighbours: a part of the score of what was said just before and just after.

In a conversation the answer often holds none of the question's words: the turn before it does.
Neighbours are adjacent positions of one stream, close in time; a memory without a stream has
none. Two look-ups a candidate, in one batch; only allowed rows count.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any, ClassVar, Final

import numpy as np

from memdb.query.pipeline import NO_ROWS, Candidates, Parts, Rows, Stage
from memdb.query.stages.asked import Asked
from memdb.storage import lookups
from memdb.types import Memory

SHARE: Final = 0.3  # of what the legs say of a neighbour: design page 08
CLOSE: Final = timedelta(hours=1)  # farther apart, two turns are two conversations
_LEGS: Final = ("lexical", "vector")


class Neighbours(Stage):
    """0.3 of what words and meaning say of the memory before and of the one after."""

    name: ClassVar[str] = "neighbours"

    def __init__(self, asked: Asked) -> None:
        self._asked = asked
        self._beside: dict[int, tuple[int, ...]] = {}
        self._prefixes: dict[tuple[str, str], bytes] = {}

    def bring(self, shortlist: Candidates) -> Rows:
        if self._asked.mode != "hybrid":
            return NO_ROWS
        placed = [
            (row, memory)
            for row, memory in self._asked.memories(shortlist.rows).items()
            if memory.stream is not None and memory.position is not None
        ]
        if not placed:
            return NO_ROWS
        found = lookups.beside(self._asked.txn, [self._place(memory) for _, memory in placed])
        allowed = self._asked.allowed
        near = np.array([row for pair in found for row in pair if row in allowed], np.uint32)
        others = self._asked.memories(np.unique(near))
        for (row, memory), pair in zip(placed, found, strict=True):
            close = tuple(one for one in pair if one in others and _close(memory, others[one]))
            self._beside[row] = close
        return np.unique(
            np.array([one for pair in self._beside.values() for one in pair], np.uint32)
        )

    def weigh(self, candidates: Candidates) -> Parts | None:
        if not self._beside:
            return None
        legs = np.zeros(len(candidates))
        for leg in _LEGS:
            legs += candidates.parts.get(leg, 0.0)
        own = legs.tolist()  # by plain numbers: they are few, and looked up one by one
        places = {row: place for place, row in enumerate(candidates.rows.tolist())}
        part = [0.0] * len(own)
        for row, pair in self._beside.items():
            here = places[row]
            for one in pair:
                there = places[one]
                part[here] += SHARE * own[there]
                if one not in self._beside:  # it was brought: its other side is not looked up
                    part[there] += SHARE * own[here]
        return np.array(part)

    def say(self, candidates: Candidates, place: int) -> str:
        return (
            "what was said just before and after it matches"
            if (candidates.parts[self.name][place])
            else ""
        )

    def report(self) -> dict[str, Any]:
        return {"neighbours": sum(map(len, self._beside.values()))}

    def _place(self, memory: Memory) -> tuple[bytes, int]:
        named = memory.namespace, memory.stream or ""
        prefix = self._prefixes.get(named)
        if prefix is None:
            prefix = self._prefixes[named] = lookups.stream_prefix(self._asked.txn, *named)
        return prefix, memory.position or 0


def _close(one: Memory, other: Memory) -> bool:
    if one.stream != other.stream or one.namespace != other.namespace:
        return False  # two streams whose hashes are equal
    if one.event_time is None or other.event_time is None:
        return True
    return abs(one.event_time - other.event_time) <= CLOSE
