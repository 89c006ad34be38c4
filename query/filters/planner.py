"""A filter evaluated over the index: exact sets first, single memories only where it must be.

Each node yields two sets within a scope: the rows that surely meet it and those that may. Where the
index decides, they are equal; where it does not (metadata keys past the limit, very long
strings, a costly condition of which only a handful of candidates is left), the difference is
looked at row by row at the end, once, against the whole filter. ``And`` narrows the scope from
its smallest part on; complements are taken within the scope, so a ``Not`` never reaches rows
outside the universe. This file decides no rank and knows no table.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from pyroaring import BitMap

from memdb.query.filters.ast import (
    And,
    Between,
    Equals,
    Exists,
    Filter,
    Not,
    Or,
    Prefix,
    Within,
)
from memdb.query.filters.match import matches
from memdb.storage.environment import ReadTxn
from memdb.storage.filters import METADATA, FilterIndex
from memdb.types import Memory

__all__ = ["Evaluation", "Plan", "evaluate", "explain"]

Fetch = Callable[[BitMap], Iterable[tuple[int, Memory]]]

CHECK_AT_MOST = 32  # candidates so few are cheaper to look at than a range is to read
_FEW_VALUES = 64


@dataclass(frozen=True, slots=True)
class Plan:
    """What became of one node: ``sure`` rows by the index, ``open`` ones left to row checks."""

    condition: str
    estimated: int
    sure: int
    open: int
    how: str
    parts: tuple[Plan, ...] = ()

    def to_dict(self) -> dict[str, object]:
        return {
            "condition": self.condition,
            "estimated": self.estimated,
            "sure": self.sure,
            "open": self.open,
            "how": self.how,
            "parts": [part.to_dict() for part in self.parts],
        }


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The rows, how they were found, and how many memories had to be looked at."""

    rows: BitMap
    plan: Plan
    checked: int


def evaluate(
    condition: Filter, txn: ReadTxn, index: FilterIndex, universe: BitMap, fetch: Fetch
) -> BitMap:
    """The rows of ``universe`` that meet ``condition``.

    ``fetch(rows)`` gives the memories of the rows the index cannot decide.
    """
    return explain(condition, txn, index, universe, fetch).rows


def explain(
    condition: Filter,
    txn: ReadTxn,
    index: FilterIndex,
    universe: BitMap,
    fetch: Fetch,
    *,
    unsure: frozenset[str] = frozenset(),
) -> Evaluation:
    """``evaluate`` with its plan: estimated and actual counts, and what was checked by row.

    ``unsure``: fields of which ``fetch`` may show less than the index knows; memories that have
    one are looked at.
    """
    planner = _Planner(txn, index, len(universe), unsure)
    sure, maybe, plan = planner.solve(condition, universe)
    unknown = BitMap() if maybe is sure else maybe - sure
    if unknown:
        sure = sure | BitMap([row for row, memory in fetch(unknown) if matches(condition, memory)])
    return Evaluation(sure.copy() if sure is universe else sure, plan, len(unknown))


Solved = tuple[BitMap, BitMap, Plan]


@dataclass(slots=True)
class _Planner:
    txn: ReadTxn
    index: FilterIndex
    total: int
    unsure: frozenset[str] = frozenset()
    loaded: dict[Filter, tuple[BitMap, BitMap]] = field(default_factory=dict)
    estimates: dict[Filter, int] = field(default_factory=dict)
    undecided: dict[tuple[str, bool], BitMap] = field(default_factory=dict)

    def solve(self, node: Filter, scope: BitMap) -> Solved:
        """(surely, possibly, plan) within ``scope``; the very same set twice where both are equal.

        Sets that come from here are shared: nobody changes them.
        """
        if isinstance(node, And):
            return self._and(node, scope)
        if isinstance(node, Or):
            return self._or(node, scope)
        if isinstance(node, Not):
            sure, maybe, plan = self.solve(node.part, scope)
            if maybe is sure:
                sure = maybe = scope - sure
            else:
                sure, maybe = scope - maybe, scope - sure
            estimated = max(0, self.total - plan.estimated)
            how = "complement"
            return sure, maybe, _plan(node, estimated, sure, maybe, how, (plan,))
        if node not in self.loaded and len(scope) <= CHECK_AT_MOST and _is_costly(node):
            left = _plan(node, self.estimate(node), BitMap(), scope, "left to row checks")
            return BitMap(), scope, left
        sure, maybe = self._leaf(node)
        estimated = self.estimate(node)  # of what was read by now, unless its order was in question
        if maybe is sure:
            sure = maybe = sure & scope
        else:
            sure, maybe = sure & scope, maybe & scope
        how = "index" if len(sure) == len(maybe) else "index, then row checks"
        return sure, maybe, _plan(node, estimated, sure, maybe, how)

    def _and(self, node: And, scope: BitMap) -> Solved:
        sure = maybe = scope
        plans = []
        parts = self._paired(node.parts)
        if len(parts) > 1:
            parts = sorted(parts, key=self.estimate)
        for part in parts:
            if not maybe:
                break
            part_sure, part_maybe, plan = self.solve(part, maybe)
            sure, maybe = part_sure if maybe is sure else sure & part_sure, part_maybe
            plans.append(plan)
        estimated = min((plan.estimated for plan in plans), default=self.total)
        return sure, maybe, _plan(node, estimated, sure, maybe, "intersection", tuple(plans))

    def _or(self, node: Or, scope: BitMap) -> Solved:
        sure = maybe = BitMap()
        plans = []
        for part in node.parts:
            part_sure, part_maybe, plan = self.solve(part, scope - sure if sure else scope)
            if maybe is sure and part_maybe is part_sure:
                sure = maybe = sure | part_sure if sure else part_sure
            else:
                sure, maybe = sure | part_sure, maybe | part_maybe
            plans.append(plan)
        if maybe is not sure:
            maybe = maybe | sure
        estimated = min(sum(plan.estimated for plan in plans), self.total)
        return sure, maybe, _plan(node, estimated, sure, maybe, "union", tuple(plans))

    def estimate(self, node: Filter) -> int:
        """Rows a node is likely to have, before costly ones are read."""
        found = self.estimates.get(node)
        if found is None:
            found = self.estimates[node] = self._estimate(node)
        return found

    def _estimate(self, node: Filter) -> int:
        if isinstance(node, And):
            return min((self.estimate(part) for part in node.parts), default=self.total)
        if isinstance(node, Or):
            return min(sum(self.estimate(part) for part in node.parts), self.total)
        if isinstance(node, Not):
            return max(0, self.total - self.estimate(node.part))
        if node in self.loaded or not _is_costly(node):
            return len(self._leaf(node)[1])
        if isinstance(node, Within):
            spans = [(span.start, span.end) for span in node.spans]
            return sum(self._share(node.field, low, high) for low, high in spans)
        if isinstance(node, Between) and not isinstance(node.low, str | None):
            high = None if isinstance(node.high, str) else node.high
            return self._share(node.field, node.low, high)
        if isinstance(node, Between) and not isinstance(node.high, str | None):
            return self._share(node.field, None, node.high)
        return self.total // 10

    def _share(self, name: str, low: float | None, high: float | None) -> int:
        """Rows between two bounds if they were spread evenly between the least and greatest."""
        bounds = self.index.bounds(self.txn, name)
        if bounds is None:
            return 0
        least, greatest = bounds
        width = max(greatest - least, 1e-9)
        start = least if low is None else max(low, least)
        stop = greatest if high is None else min(high, greatest)
        return int(self.total * min(1.0, max(0.0, (stop - start) / width)))

    def _leaf(self, node: Filter) -> tuple[BitMap, BitMap]:
        found = self.loaded.get(node)
        if found is None:
            found = self.loaded[node] = self._read(node)
        return found

    def _read(self, node: Filter) -> tuple[BitMap, BitMap]:
        txn, index = self.txn, self.index
        if self.unsure and getattr(node, "field", None) in self.unsure:
            return BitMap(), index.present(txn, node.field)  # type: ignore[attr-defined]
        ordered = False
        if isinstance(node, Equals):
            name = node.field
            sure = index.any_of(txn, name, [value for _, value in node.values])
        elif isinstance(node, Exists):
            name = node.field
            sure = index.present(txn, name)
        elif isinstance(node, Prefix):
            name, ordered = node.field, True
            sure = index.prefix(txn, name, node.text)
        elif isinstance(node, Within):
            name = node.field
            found = [index.range(txn, name, span.start, span.end) for span in node.spans]
            sure = BitMap.union(*found) if found else BitMap()
        elif isinstance(node, Between):
            name, ordered = node.field, isinstance(node.low, str) or isinstance(node.high, str)
            sure = index.range(
                txn,
                name,
                node.low,
                node.high,
                include_low=node.include_low,
                include_high=node.include_high,
            )
        else:
            raise TypeError(f"not a filter: {type(node).__name__}")
        undecided = self._undecided(name, ordered=ordered)
        return sure, sure | undecided if undecided else sure

    def _undecided(self, name: str, *, ordered: bool) -> BitMap:
        asked = (name, ordered)
        found = self.undecided.get(asked)
        if found is None:
            found = self.undecided[asked] = self.index.undecided(self.txn, name, ordered=ordered)
        return found

    def _paired(self, parts: tuple[Filter, ...]) -> list[Filter]:
        """A lower and an upper bound of one field read as one range, where that is the same.

        It is where no memory has several values under the field: of a list, one element may
        meet the one bound and another the other.
        """
        lows: dict[tuple[str, bool], Between] = {}
        highs: dict[tuple[str, bool], Between] = {}
        for part in parts:
            if isinstance(part, Between):
                side, bound = (lows, part.low) if part.high is None else (highs, part.high)
                side.setdefault((part.field, isinstance(bound, str)), part)
        merged = list(parts)
        for key, low in lows.items():
            high = highs.get(key)
            if high is None or not self._is_single(key[0]):
                continue
            merged.remove(low)
            merged.remove(high)
            merged.append(Between(key[0], low.low, high.high, low.include_low, high.include_high))
        return merged

    def _is_single(self, name: str) -> bool:
        if not name.startswith(METADATA):
            return not self.index.has_many(name)
        return not self.index.several(self.txn, name) and not self._undecided(name, ordered=False)


def _is_costly(node: Filter) -> bool:
    if isinstance(node, Equals):
        return len(node.values) > _FEW_VALUES
    if isinstance(node, Prefix):
        return not FilterIndex.has_part(node.field, node.text)
    return isinstance(node, Between | Within)


def _plan(
    node: Filter,
    estimated: int,
    sure: BitMap,
    maybe: BitMap,
    how: str,
    parts: tuple[Plan, ...] = (),
) -> Plan:
    return Plan(str(node), estimated, len(sure), len(maybe) - len(sure), how, parts)
