"""De-duplication: what says the same as a better hit steps back, so that a hit says something new.

The same words apart from case and space, about the same time of the same kind of memory. Nothing
is taken out: with k large enough the copy is still there, after what is not one. Told apart by
text alone it would lose what happens again and again, so a copy of another day is none.
"""

from __future__ import annotations

from typing import Any, ClassVar, Final

import numpy as np

from memdb.query.pipeline import Candidates, Parts, Stage
from memdb.query.stages.asked import Asked
from memdb.types import Memory

COPY: Final = -3.0  # log-odds: behind nearly all that was found for the question


class Duplicates(Stage):
    """Copies of a better candidate."""

    name: ClassVar[str] = "duplicates"

    def __init__(self, asked: Asked) -> None:
        self._asked = asked
        self._copies: dict[int, int] = {}

    def weigh(self, candidates: Candidates) -> Parts | None:
        memories = self._asked.memories(candidates.rows)
        first: dict[tuple[Any, ...], int] = {}
        part = np.zeros(len(candidates))
        rows = candidates.rows.tolist()
        for place in candidates.order().tolist():
            row = rows[place]
            memory = memories.get(row)
            said = None if memory is None else _said(memory)
            if said is not None and first.setdefault(said, row) != row:
                self._copies[row] = first[said]
                part[place] = COPY
        return part if self._copies else None

    def say(self, candidates: Candidates, place: int) -> str:
        copied = self._copies.get(int(candidates.rows[place]))
        if copied is None:
            return ""
        return f"says the same as {self._asked.memories(np.array([copied], np.uint32))[copied].id}"

    def report(self) -> dict[str, Any]:
        return {"copies": len(self._copies)} if self._copies else {}


def _said(memory: Memory) -> tuple[Any, ...] | None:
    """Equal for memories that tell the same; None for what has no text."""
    if not memory.text:
        return None
    day = None if memory.event_time is None else memory.event_time.date()
    return (" ".join(memory.text.split()).casefold(), memory.kind, memory.subject, memory.key, day)
