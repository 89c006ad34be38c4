"""Re-ranking: a model reads the question and each of the best memories together.

Off unless a model is given with the question. What it says of a pair is taken as log-odds and
added as it is; a model's own scale decides how much it counts. Only the best by then are read, and
those behind them get the least that was given to any, so that none of them comes past by not having
been looked at.
"""

from __future__ import annotations

from typing import Any, ClassVar, Final

import numpy as np

from memdb.query.pipeline import Candidates, Parts, Stage
from memdb.query.stages.asked import Asked

READ: Final = 32  # pairs: some tenths of a second on a processor


class Rerank(Stage):
    """What a cross-encoder says of the best."""

    name: ClassVar[str] = "rerank"

    def __init__(self, asked: Asked) -> None:
        self._asked = asked
        self._said: dict[int, float] = {}

    def weigh(self, candidates: Candidates) -> Parts | None:
        asked = self._asked
        if asked.judge is None or asked.text is None or not len(candidates):
            return None
        best = candidates.order()[:READ]
        memories = asked.memories(candidates.rows[best])
        rows = [row for row in candidates.rows[best].tolist() if row in memories]
        texts = {row: asked.judge.text_of(memories[row]) for row in rows}
        read = [row for row in rows if texts[row]]
        if not read:
            return None
        given = asked.judge.scores(asked.text, [texts[row] or "" for row in read])
        self._said = dict(zip(read, given.tolist(), strict=True))
        part = np.full(len(candidates), float(given.min()))
        for place, row in enumerate(candidates.rows.tolist()):
            part[place] = self._said.get(row, part[place])
        return part

    def say(self, candidates: Candidates, place: int) -> str:
        row = int(candidates.rows[place])
        if row not in self._said:
            return "was not read again"
        return f"the re-ranking model gives it {self._said[row]:.2f}"

    def report(self) -> dict[str, Any]:
        return {"read": len(self._said)} if self._said else {}
