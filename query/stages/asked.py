"""What a stage may look at: one question, one snapshot, and ways to bring more of it.

It holds a store's read side and calls that the wiring lends; it decides nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, tzinfo
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from pyroaring import BitMap

from memdb.query.lexical import LexicalQuery
from memdb.query.moment import Moment
from memdb.query.pipeline import Rows
from memdb.storage.environment import ReadTxn
from memdb.storage.filters import FilterIndex
from memdb.types import Memory

Similarities = NDArray[np.float32]


class Meaning(Protocol):
    """The question's vector in one space."""

    def nearest(self, limit: int) -> tuple[Rows, Similarities]:
        """The min(limit, matches) allowed rows closest to the question, closest first."""
        ...

    def of(self, rows: Rows) -> Similarities:
        """(n,) similarities of any rows; NaN where a row has no vector."""
        ...

    def sample(self) -> Similarities:
        """(n,) similarities of allowed rows chosen without regard to the question."""
        ...

    def matches(self) -> int:
        """Allowed rows that have a vector."""
        ...

    def plan(self, limit: int) -> dict[str, Any]:
        """Which way ``nearest`` goes, why, and what it touches."""
        ...


class Judge(Protocol):
    """A model that reads a question and a memory together."""

    def text_of(self, memory: Memory) -> str | None:
        """What it reads of a memory; None: nothing."""
        ...

    def scores(self, question: str, texts: Sequence[str]) -> NDArray[np.float64]:
        """(n,) log-odds that each text answers the question."""
        ...


@dataclass(slots=True)
class Asked:
    """One question to one snapshot.

    ``allowed``: the rows that may be answered with, or looked at at all: nothing outside it may
    leave a trace. ``visible``: all that may be seen whatever is asked; None: all there is.
    ``words``: the question looked up in the lexicon, None where words do not count. ``meaning``:
    None where there is no vector. ``read``: rows to memories. ``moment``: what the question says of
    time, None where that does not count. ``judge``: who reads the best again, None: nobody.
    ``confidence``: what the stage of that name says once the candidates are weighed.
    """

    text: str | None
    k: int
    mode: str
    namespace: str
    now: datetime
    as_of: datetime | None
    zone: tzinfo
    txn: ReadTxn
    allowed: BitMap
    filters: FilterIndex
    words: LexicalQuery | None
    meaning: Meaning | None
    read: Callable[[Sequence[int]], dict[int, Memory]]
    moment: Moment | None = None
    judge: Judge | None = None
    visible: BitMap | None = None
    confidence: float | None = None
    _known: dict[int, Memory] = field(default_factory=dict)

    def memories(self, rows: Rows) -> dict[int, Memory]:
        """The memories of those rows that exist; each row is read once a question."""
        listed, known = rows.tolist(), self._known
        wanted = [row for row in listed if row not in known]
        if wanted:
            known.update(self.read(sorted(wanted)))
        return {row: known[row] for row in listed if row in known}
