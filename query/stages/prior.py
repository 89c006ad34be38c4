"""Prior: what is recent, and what its owner called important, before anything is asked.

Off unless asked for: how old an answer is, or how important, says little of whether it is one, and
where a question means a time it says so (``time``). It is for those whose questions are mostly
about what is going on. Log-odds: at most ``RECENT`` for what happened just now, half of it a month
ago, and up to ``IMPORTANT`` for an importance of 1; a memory without a time or an importance gets
none of that.
"""

from __future__ import annotations

from datetime import datetime
from typing import ClassVar, Final

import numpy as np

from memdb.query.pipeline import Candidates, Parts, Stage
from memdb.query.stages.asked import Asked
from memdb.types import Memory

RECENT: Final = 0.5
HALF_LIFE_DAYS: Final = 30.0
IMPORTANT: Final = 0.5
_DAY_S: Final = 86_400.0


class Prior(Stage):
    """Recency and importance of the shortlist."""

    name: ClassVar[str] = "prior"
    default: ClassVar[bool] = False

    def __init__(self, asked: Asked) -> None:
        self._asked = asked

    def weigh(self, candidates: Candidates) -> Parts | None:
        memories, moment = self._asked.memories(candidates.rows), self._moment
        part = np.zeros(len(candidates))
        for place, row in enumerate(candidates.rows.tolist()):
            if row in memories:
                part[place] = recency(memories[row], moment) + weight(memories[row])
        return part

    def say(self, candidates: Candidates, place: int) -> str:
        row = candidates.rows[place : place + 1]
        memory = self._asked.memories(row).get(int(row[0]))
        if memory is None:
            return ""
        said = []
        days = _age_days(memory, self._moment)
        if days is not None and days >= 0:
            said.append(f"is {days:.0f} days old")
        if memory.importance is not None:
            said.append(f"has importance {memory.importance:g}")
        return " and ".join(said)

    @property
    def _moment(self) -> datetime:
        return self._asked.as_of or self._asked.now


def recency(memory: Memory, moment: datetime) -> float:
    """Log-odds of having happened, or been noted, lately; none of what is still to come."""
    days = _age_days(memory, moment)
    return 0.0 if days is None or days < 0 else RECENT * float(2 ** (-days / HALF_LIFE_DAYS))


def weight(memory: Memory) -> float:
    """Log-odds of the importance that the memory was given."""
    return IMPORTANT * (memory.importance or 0.0)


def _age_days(memory: Memory, moment: datetime) -> float | None:
    at = memory.event_time or memory.recorded_at
    return None if at is None else (moment - at).total_seconds() / _DAY_S
