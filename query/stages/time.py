"""Time: what lies in the time that the question names, and the first or last where it asks so.

A soft boost: a memory of another time stays where its words and meaning put it. What lies in a
named time is proposed as well, so that "what did I do yesterday?", which holds no word of the
answer, finds it. An order ("when did I last ...") decides among the memories that hold as much of
the question as any; next to a named event ("after the trip"), nearness in time does.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar, Final

import numpy as np
from numpy.typing import NDArray
from pyroaring import BitMap

from memdb.query import fusion
from memdb.query import moment as moments
from memdb.query.moment import Moment
from memdb.query.pipeline import NO_ROWS, Candidates, Parts, Rows, Stage
from memdb.query.stages.asked import Asked
from memdb.query.stages.legs import legs
from memdb.types import Memory, to_micros

ITSELF: Final = -0.5  # of being the event that others are asked for before or after
ORDERED: Final = 1.6  # of being the first, or the last, of the plausible ones
TOLD: Final = 0.5  # of that for what is no event: a message is often about another time
_PLAUSIBLE: Final = 0.75  # log-odds behind the best, where words cannot tell
_COVERED: Final = 0.1  # of what the question's words tell, less than the one that holds most
_ORDERED_AT_MOST: Final = 64


class TimeStage(Stage):
    """The time a question names, as a boost."""

    name: ClassVar[str] = "time"
    wide: ClassVar[bool] = True
    compares: ClassVar[bool] = True

    def __init__(self, asked: Asked) -> None:
        self._asked = asked
        self._moment: Moment | None = asked.moment
        self._ordered: dict[int, float] = {}

    def find(self, limit: int) -> Rows:
        asked, moment = self._asked, self._moment
        if moment is None or not moment.bounded:
            return NO_ROWS
        txn, filters = asked.txn, asked.filters
        span = moment.start_us, moment.end_us
        inside = moments.rows_at(txn, filters, asked.allowed, *span)
        if len(inside) <= limit:
            return np.array(inside.to_array(), np.uint32)
        worded = NO_ROWS if asked.words is None else asked.words.search(inside, limit)[0]
        if len(worded) and moment.anchor is None:
            return np.sort(worded)
        near = moments.nearest_to(txn, filters, inside, *span, limit, visible=asked.visible)
        return np.union1d(worded, np.array(near, np.uint32))

    def weigh(self, candidates: Candidates) -> Parts | None:
        moment = self._moment
        if moment is None or not len(candidates):
            return None
        part = np.zeros(len(candidates))
        if moment.bounded:
            part += self._worth(moment) * self._inside(candidates.rows, moment)
        if moment.anchor is not None:
            part[candidates.rows == moment.anchor.row] += ITSELF
        if moment.reading.order is not None or moment.anchor is not None:
            before = candidates.total() - candidates.parts.get(self.name, 0.0)
            part += self._in_order(candidates, before + part, moment)
        return part

    def _worth(self, moment: Moment) -> float:
        """Log-odds of lying in the time that is named: how surprising that is of any memory."""
        asked = self._asked
        span = moment.start_us, moment.end_us
        inside = len(moments.rows_at(asked.txn, asked.filters, asked.allowed, *span))
        share = max(inside, 1) / max(len(asked.allowed), 1)
        return fusion.CALIBRATION[legs(asked)][1] * -math.log(share)

    def _inside(self, rows: Rows, moment: Moment) -> Parts:
        """1 for events of the time, ``TOLD`` for what was said or noted then, else 0."""
        asked = self._asked
        among = BitMap(rows.tolist())
        inside = moments.rows_at(asked.txn, asked.filters, among, moment.start_us, moment.end_us)
        told = inside - asked.filters.equals(asked.txn, "kind", "event")
        part = np.isin(rows, np.array(inside.to_array(), np.uint32)).astype(np.float64)
        part[np.isin(rows, np.array(told.to_array(), np.uint32))] = TOLD
        return part

    def _in_order(self, candidates: Candidates, total: Parts, moment: Moment) -> Parts:
        """For the plausible ones, ``ORDERED`` over their place in the order asked for."""
        plausible = self._plausible(candidates, total)
        memories = self._asked.memories(candidates.rows[plausible])
        now = to_micros(self._asked.as_of or self._asked.now)
        keys = []
        for place in plausible.tolist():
            row = int(candidates.rows[place])
            key = _sort_key(memories[row], moment, now)
            if key is not None:
                keys.append((key, place, row, memories[row].kind == "event"))
        happened = any(event for *_, event in keys)
        if happened:  # what happened is asked for, not who spoke of it
            keys = [one for one in keys if one[-1]]
        most = ORDERED if happened else TOLD * ORDERED
        part = np.zeros(len(candidates))
        for rank, (_, place, row, _) in enumerate(sorted(keys)):
            part[place] = self._ordered[row] = most / (1 + rank)
        return part

    def _plausible(self, candidates: Candidates, total: Parts) -> NDArray[np.int64]:
        """Places of those that say as much of the question as any, best first; without words,
        of those about as relevant as the best."""
        words = self._asked.words
        held = None if words is None else words.coverage(candidates.rows)
        if held is None or not held.max():
            places = np.flatnonzero(total >= float(total.max()) - _PLAUSIBLE)
        else:
            places = np.flatnonzero(held >= held.max() - _COVERED)
        return places[np.argsort(-total[places], kind="stable")][:_ORDERED_AT_MOST]

    def say(self, candidates: Candidates, place: int) -> str:
        moment = self._moment
        if moment is None:
            return ""
        row = int(candidates.rows[place])
        if moment.anchor is not None and row == moment.anchor.row:
            return "is the event itself that the question speaks of"
        added = candidates.parts[self.name][place]
        said = []
        if added - self._ordered.get(row, 0.0) > 0:
            said.append(f"lies in the time that {moment.reading.words!r} means")
        if row in self._ordered:
            ahead = sum(part > self._ordered[row] for part in self._ordered.values())
            said.append(f"place {ahead + 1} in the order asked for")
        return "; ".join(said)

    def report(self) -> dict[str, Any]:
        return {} if self._moment is None else self._moment.to_dict()


def _sort_key(memory: Memory, moment: Moment, now_us: int) -> int | None:
    """Smaller comes first in the order asked for; None: it has no place in it."""
    at = memory.event_time or memory.valid_from
    if at is None:
        return None
    micros = to_micros(at)
    order = moment.reading.order
    if order == "next":
        return micros if micros > now_us else None
    if order == "last" and micros > now_us:
        return None
    if order is None:  # next to an event: the nearest on the side that is asked for
        if not _within(micros, moment):
            return None
        return micros if moment.reading.relation == "after" else -micros
    return micros if order == "first" else -micros


def _within(micros: int, moment: Moment) -> bool:
    if moment.start_us is not None and micros < moment.start_us:
        return False
    return moment.end_us is None or micros < moment.end_us
