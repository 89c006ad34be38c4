"""Ranking as a row of small stages, each named, each switchable, each accountable for its part.

    find     stages that know rows propose them; their union are the candidates
    weigh    each stage in turn adds its part to each candidate: log-odds that it is relevant
    bring    between the two kinds of weighing, rows that the best of the candidates lead to

A candidate's total is the plain sum of its parts, beginning with ``base``: what any candidate of
the question starts from. Its score is the logistic of that sum and nothing else. A stage that is
switched off adds nothing, and the parts of the others stay what they are. Stages that look far
(``wide = False``) see only the best of the candidates by then, and what these brought, so that what
they cost follows the shortlist and not the store.

This file knows rows, parts and stages; no store, no record, and not what a stage does.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Final

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.uint32]
Parts = NDArray[np.float64]

BASE: Final = "base"
NO_ROWS: Final[Rows] = np.empty(0, np.uint32)


class Candidates:
    """Rows (n,) with what each stage added to each of them.

    ``parts``: by stage, (n,); those of stages named in ``silent`` are there for others to read and
    do not count. ``measures``: (n,) raw figures that stages leave for those after them and for
    ``why``, by name, NaN where unknown.
    """

    def __init__(
        self, rows: Rows, base: float | None, silent: frozenset[str] = frozenset()
    ) -> None:
        """``base`` None: the caller brings all parts, ``BASE`` among them."""
        self.rows = rows
        self.silent = silent
        self.parts: dict[str, Parts] = {} if base is None else {BASE: np.full(len(rows), base)}
        self.measures: dict[str, NDArray[np.float32]] = {}

    def __len__(self) -> int:
        return len(self.rows)

    def counted(self) -> dict[str, Parts]:
        """The parts that count, in the order in which they were weighed."""
        return {name: part for name, part in self.parts.items() if name not in self.silent}

    def total(self) -> Parts:
        """(n,) the sum of the parts that count, added up in their order."""
        total = np.zeros(len(self.rows))
        for name, part in self.parts.items():
            if name not in self.silent:
                total += part
        return total

    def order(self) -> NDArray[np.int64]:
        """Places, best first; equal totals by row."""
        return np.lexsort((self.rows, -self.total()))

    def taken(self, places: NDArray[Any]) -> Candidates:
        """Those at ``places``, in that order."""
        chosen = Candidates(self.rows[places], None, self.silent)
        chosen.parts = {name: part[places] for name, part in self.parts.items()}
        chosen.measures = {name: one[places] for name, one in self.measures.items()}
        return chosen

    def joined(self, more: Candidates) -> Candidates:
        """These and others, ascending by row; a part or measure that one side lacks is 0 or NaN."""
        places = np.argsort(np.concatenate([self.rows, more.rows]), kind="stable")
        both = Candidates(np.concatenate([self.rows, more.rows])[places], None, self.silent)
        for name in dict.fromkeys([*self.parts, *more.parts]):
            sides = [one.parts.get(name, np.zeros(len(one))) for one in (self, more)]
            both.parts[name] = np.concatenate(sides)[places]
        for name in dict.fromkeys([*self.measures, *more.measures]):
            known = [
                one.measures.get(name, np.full(len(one), np.nan, np.float32))
                for one in (self, more)
            ]
            both.measures[name] = np.concatenate(known)[places]
        return both


class Stage:
    """One step of ranking, made anew for each question; override what it does.

    ``name`` is what ``explain`` and the ``stages`` argument call it. ``needed``: others read what
    it found or measured, so that it runs although it is switched off, and only its part is left
    out. ``wide``: it weighs every candidate, before the shortlist is drawn up. ``compares``: what
    it adds to one depends on the others, so that it weighs anew when some are brought.
    ``default``: whether it is on when nobody says.
    """

    name: ClassVar[str]
    needed: ClassVar[bool] = False
    wide: ClassVar[bool] = False
    compares: ClassVar[bool] = False
    default: ClassVar[bool] = True

    def expects(self) -> int | None:
        """How many rows ``find`` will give, estimated before it is asked; None if it gives none."""
        return None

    def find(self, limit: int) -> Rows:
        """Distinct allowed rows that this stage wants ranked; ``limit`` is a hint."""
        return NO_ROWS

    def bring(self, shortlist: Candidates) -> Rows:
        """Allowed rows to be ranked because of what is on the shortlist; wide stages weigh them."""
        return NO_ROWS

    def weigh(self, candidates: Candidates) -> Parts | None:
        """(n,) what to add to each candidate; None: nothing to any.

        May leave ``measures``; must not change rows and parts.
        """
        return None

    def say(self, candidates: Candidates, place: int) -> str:
        """In plain words, why it added what it added to the candidate at ``place``."""
        return ""

    def report(self) -> dict[str, Any]:
        """What it did with this question, for ``plan``."""
        return {}


class Pipeline:
    """The stages of one question, in order, with a log of what each did and how long it took.

    ``switched`` overrides the default of the stages it names; ``explain`` asks for estimates too.
    """

    def __init__(
        self, stages: Sequence[Stage], switched: Mapping[str, bool], *, explain: bool
    ) -> None:
        self._explain = explain
        self._stages = [(stage, switched.get(stage.name, stage.default)) for stage in stages]
        self._silent = frozenset(stage.name for stage, on in self._stages if not on)
        self._working = [stage for stage, on in self._stages if on or stage.needed]
        self._bringing = [
            stage for stage, on in self._stages if on and type(stage).bring is not Stage.bring
        ]
        self._seconds = dict.fromkeys((stage.name for stage in stages), 0.0)
        self._found: dict[str, dict[str, int]] = {}

    def find(self, limit: int) -> Rows:
        """The union, ascending, of what the stages propose."""
        found = []
        for stage in self._working:
            started = time.perf_counter()
            expected = stage.expects() if self._explain else None
            rows = stage.find(limit)
            self._took(stage, started)
            if expected is not None:
                self._found[stage.name] = {"estimated": expected, "found": len(rows)}
            if len(rows):
                found.append(rows)
        return union(found)

    def rank(self, rows: Rows, base: float, shortlist: int) -> Candidates:
        """Weigh ``rows``; the best ``shortlist`` of them and what these brought, best first."""
        candidates = Candidates(rows, base, self._silent)
        self._weigh(candidates, wide=True)
        if len(candidates) > shortlist:
            candidates = candidates.taken(np.sort(candidates.order()[:shortlist]))
        brought = self._bring(candidates)
        if len(brought):
            brought = brought[~np.isin(brought, candidates.rows)]
        if len(brought):
            more = Candidates(brought, base, self._silent)
            self._weigh(more, wide=True, compares=False)
            candidates = candidates.joined(more)
            self._weigh(candidates, wide=True, compares=True)
        self._weigh(candidates, wide=False)
        return candidates.taken(candidates.order())

    def said(self, candidates: Candidates, place: int) -> dict[str, str]:
        """What each stage that took part says of the candidate at ``place``."""
        said = {
            stage.name: stage.say(candidates, place)
            for stage, _ in self._stages
            if stage.name in candidates.counted()
        }
        return {name: text for name, text in said.items() if text}

    def log(self) -> dict[str, dict[str, Any]]:
        """By stage: whether it was on, what it took in milliseconds, what it reports of itself."""
        return {
            stage.name: {
                "on": on,
                "ms": round(self._seconds[stage.name] * 1e3, 3),
                **self._found.get(stage.name, {}),
                **stage.report(),
            }
            for stage, on in self._stages
        }

    def _bring(self, shortlist: Candidates) -> Rows:
        brought = []
        for stage in self._bringing:
            started = time.perf_counter()
            rows = stage.bring(shortlist)
            self._took(stage, started)
            if len(rows):
                brought.append(rows)
        return union(brought)

    def _weigh(self, candidates: Candidates, *, wide: bool, compares: bool | None = None) -> None:
        for stage in self._working:
            if stage.wide != wide:
                continue
            if compares is not None and stage.compares != compares:
                continue
            started = time.perf_counter()
            part = stage.weigh(candidates)
            self._took(stage, started)
            if part is not None:
                candidates.parts[stage.name] = np.asarray(part, np.float64)

    def _took(self, stage: Stage, since: float) -> None:
        self._seconds[stage.name] += time.perf_counter() - since


def union(parts: Sequence[Rows]) -> Rows:
    """All rows of several, ascending, each once."""
    if not parts:
        return NO_ROWS
    rows = np.sort(parts[0] if len(parts) == 1 else np.concatenate(parts))
    if len(rows) < 2:
        return rows
    first = np.empty(len(rows), np.bool_)
    first[0] = True
    np.not_equal(rows[1:], rows[:-1], out=first[1:])
    return rows[first]


def score_of(total: Parts) -> Parts:
    """(n,) the estimates in [0, 1] that totals stand for."""
    scores: Parts = 1 / (1 + np.exp(-total))
    return scores
