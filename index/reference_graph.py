"""The numpy twins of the graph's native routines: the definition they are tested against.

Slow and plain, for small spaces. Estimates agree to the bit; distances to rounding, and so do walks
where no two estimates tie.
"""

from __future__ import annotations

import bisect
import heapq
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import numpy as np
from google_crc32c import value as crc32c
from numpy.typing import NDArray

from memdb.index import layout
from memdb.index.graph_kernels import (
    NONE,
    NOWHERE,
    Bytes,
    Floats,
    GraphArrays,
    LinkArrays,
    Linking,
    Slots,
    SpaceArrays,
    Walked,
)

F32 = np.float32
_TOP = F32((1 << layout.PLANES) - 1)
_COUNTS = np.array([byte.bit_count() for byte in range(256)], np.uint8)
_STARTS = 4
_DOUBT = F32(3.0) * F32(0.6)
_SCORED_AT_ONCE = 16
_NEAR, _STEADY, _SEEDS = 8, 8, 64  # of an order that keeps neighbours together

Neighbours = Callable[[int], Iterable[int]]
Ranked = list[tuple[float, int]]


def query_planes(queries: Floats) -> tuple[NDArray[np.uint64], Floats]:
    n, dim = queries.shape
    most = np.abs(queries).max(axis=1, initial=0)
    if dim >= 64:
        wide = queries.astype(np.float64)
        squares = np.add.accumulate(wide * wide, axis=1)[:, -1]
        most = np.minimum(most, F32(3) * np.sqrt(squares / dim).astype(F32))
    steps = (most / _TOP).astype(F32)
    inverse = np.divide(F32(0.5), steps, out=np.zeros_like(steps), where=steps > 0)
    levels = np.rint(queries * inverse[:, None] + F32(0.5) * _TOP)
    levels = np.clip(levels, 0, _TOP).astype(np.uint8)
    levels[steps <= 0] = 0
    bits = np.zeros((n, layout.PLANES, 64 * layout.words_of(dim)), np.uint8)
    for plane in range(layout.PLANES):
        bits[:, plane, :dim] = (levels >> plane) & 1
    return np.packbits(bits, axis=2, bitorder="little").view("<u8"), steps


class Estimator:
    """Keys of rows for one rotated, centred query."""

    def __init__(self, groups: Bytes, query: Floats) -> None:
        self._dim = len(query)
        self.rows = groups.reshape(-1, layout.row_bytes(self._dim))
        planes, steps = query_planes(query[None])
        self._planes, self._step = planes[0].view(np.uint8), steps[0]

    def factors(self, slots: Slots) -> NDArray[np.uint32]:
        words: NDArray[np.uint32] = self.rows[slots, -4:].copy().view("<u4").reshape(-1)
        return words

    def keys(self, slots: Slots) -> Floats:
        codes = self.rows[slots, :-4]
        sums = np.zeros(len(slots), np.int64)
        for plane, bits in enumerate(self._planes):
            sums += _COUNTS[codes ^ bits].sum(axis=1, dtype=np.int64) << plane
        dots = self._step * (int(_TOP) * self._dim - 2 * sums).astype(F32)
        offsets, slopes = layout.unpack_factors(self.factors(slots))
        with np.errstate(all="ignore"):  # damaged factors may be anything: the record decides
            keys = offsets + slopes * dots
        return np.where(np.isnan(keys), F32(-np.inf), keys)

    def ranked(self, slots: Slots, keep: int) -> Ranked:
        """The ``keep`` nearest of them, ascending."""
        keys = self.keys(slots)
        best = np.lexsort((slots, keys))[:keep]
        return list(zip(keys[best].tolist(), slots[best].tolist(), strict=True))


class Walk:
    """The walk of ``native/graph_walk.h``."""

    def __init__(
        self, estimator: Estimator, neighbours: Neighbours, starts: Ranked, seen_most: int
    ) -> None:
        self._estimator = estimator
        self._neighbours = neighbours
        self._starts = starts
        self._limit = seen_most
        self.hops = self.estimated = 0
        self._seen: set[int] = set()

    def _fresh(self, slots: Iterable[int]) -> list[int]:
        found = []
        for slot in slots:
            if slot < self._limit and slot not in self._seen:
                self._seen.add(slot)
                found.append(slot)
        return found

    def look_at(self, slot: int) -> Ranked:
        found = np.array(self._fresh(self._neighbours(slot)), np.uint32)
        self.hops += 1
        self.estimated += len(found)
        return list(zip(self._estimator.keys(found).tolist(), found.tolist(), strict=True))

    def begin(self) -> Ranked:
        return [start for start in self._starts if self._fresh([start[1]])]

    def nearest(self, breadth: int, forgotten: Callable[[int], bool]) -> Ranked:
        found: Ranked = []
        open_: set[int] = set()
        for start in self.begin():
            bisect.insort(found, start)
            open_.add(start[1])
        while here := next((one for one in found if one[1] in open_), None):
            open_.remove(here[1])
            for one in self.look_at(here[1]):
                if forgotten(one[1]):
                    continue
                if len(found) == breadth:
                    if one >= found[-1]:
                        continue
                    open_.discard(found.pop()[1])
                bisect.insort(found, one)
                open_.add(one[1])
        return found

    def nearest_inside(
        self,
        breadth: int,
        most_hops: int,
        allowed: Callable[[int], bool],
        forgotten: Callable[[int], bool],
    ) -> Ranked | None:
        open_: Ranked = []
        inside: Ranked = []

        def offer(one: tuple[float, int]) -> None:
            if len(inside) >= breadth and one >= inside[-1]:
                return
            heapq.heappush(open_, one)
            if allowed(one[1]):
                bisect.insort(inside, one)
                del inside[breadth:]

        for start in self.begin():
            offer(start)
        hops = 0
        while open_ and not (len(inside) >= breadth and inside[-1] < open_[0]):
            if hops >= most_hops:
                return None
            hops += 1
            for one in self.look_at(heapq.heappop(open_)[1]):
                if not forgotten(one[1]):
                    offer(one)
        return inside


class NumpyGraph:
    """The routines of ``GraphKernels`` in numpy."""

    def query_planes(self, queries: Floats) -> tuple[NDArray[np.uint64], Floats]:
        return query_planes(queries)

    def estimate_rows(self, groups: Bytes, query: Floats, slots: Slots) -> Floats:
        return Estimator(groups, query).keys(slots)

    if TYPE_CHECKING:  # what the class that has these mixed in brings

        def rotate(self, x: Floats, signs: Floats, *, back: bool = False) -> Floats: ...

        def rescore(
            self, records: Bytes, dim: int, metric: int, precision: int, query: Floats, slots: Slots
        ) -> tuple[Floats, int]: ...

    def gather(
        self, space: SpaceArrays, queries: Floats, listed: Slots, *, k: int, keep: int, threads: int
    ) -> tuple[Slots, Floats, int]:
        slots, distances = np.empty((len(queries), k), np.uint32), np.empty((len(queries), k), F32)
        for at, query in enumerate(queries):
            rotated = self.rotate(query[None], space.signs)[0]
            ranked = Estimator(space.groups, rotated - space.centre).ranked(listed, keep)
            found, bad, _ = self._refined(space, query, rotated, ranked, k)
            if bad >= 0:
                return slots, distances, bad
            distances[at], slots[at] = [one[0] for one in found], [one[1] for one in found]
        return slots, distances, -1

    def _refined(
        self, space: SpaceArrays, query: Floats, rotated: Floats, ranked: Ranked, k: int
    ) -> tuple[Ranked, int, int]:
        """The best k of an ascending list, a damaged slot or -1, and how many were scored."""
        residual = rotated - space.centre
        square = float(residual.astype(np.float64) @ residual)
        to_distance = -float(space.centre.astype(np.float64) @ rotated)
        if space.metric == layout.METRICS["cosine"]:
            to_distance += 1
        elif space.metric == layout.METRICS["l2"]:
            to_distance = square
        words: NDArray[np.uint32] = space.rows[[slot for _, slot in ranked], -4:].copy().view("<u4")
        doubts = np.abs(layout.unpack_factors(words.reshape(-1))[1]) * _DOUBT * np.sqrt(square)
        scored_query = query if space.precision == layout.FLOAT16 else rotated
        best: Ranked = []
        at = scored = 0
        while at < len(ranked):
            limit = best[-1][0] if len(best) == k else np.inf
            chosen: list[int] = []
            while at < len(ranked) and len(chosen) < _SCORED_AT_ONCE:
                if not ranked[at][0] + to_distance - doubts[at] > limit:
                    chosen.append(ranked[at][1])
                at += 1
            slots = np.array(chosen, np.uint32)
            found, bad = self.rescore(
                space.records, len(query), space.metric, space.precision, scored_query, slots
            )
            if bad >= 0:
                return best, bad, scored
            scored += len(chosen)
            best = sorted(best + list(zip(found.tolist(), chosen, strict=True)))[:k]
        return best, -1, scored

    def graph_search(
        self,
        graph: GraphArrays,
        space: SpaceArrays,
        queries: Floats,
        *,
        allowed: Bytes,
        inside: bool,
        k: int,
        breadth: int,
        most_hops: int,
        threads: int,
        beside: Slots = NONE,
        beside_keep: int = 0,
    ) -> Walked:
        slots, distances = np.empty((len(queries), k), np.uint32), np.empty((len(queries), k), F32)
        counts = np.zeros(len(queries), np.uint32)
        hops = estimated = scored = 0
        bits = np.unpackbits(allowed, bitorder="little")

        def permitted(slot: int) -> bool:
            return slot < len(bits) and bool(bits[slot])

        for at, query in enumerate(queries):
            rotated = self.rotate(query[None], space.signs)[0]
            estimator = Estimator(space.groups, rotated - space.centre)
            walk = Walk(
                estimator,
                lambda slot: neighbours(graph, slot),
                nearest_entries(graph.entries, graph.entry_rows, rotated - space.centre),
                len(space.rows),
            )

            def forgotten(slot: int, one: Estimator = estimator) -> bool:
                empty = not one.factors(np.array([slot], np.uint32))[0]
                return empty and record(graph, slot) is None

            ranked: Ranked | None
            if not inside:
                ranked = [one for one in walk.nearest(breadth, forgotten) if permitted(one[1])]
            else:
                ranked = walk.nearest_inside(breadth, most_hops, permitted, forgotten)
                if ranked is not None and len(ranked) < min(breadth, k):
                    ranked = None
            hops, estimated = hops + walk.hops, estimated + walk.estimated + len(beside)
            if ranked is not None and len(beside):
                near = estimator.ranked(beside, beside_keep)
                ranked = sorted(ranked + near) if len(ranked) >= k else None
            if ranked is None:
                continue
            found, bad, count = self._refined(space, query, rotated, ranked, k)
            if bad >= 0:
                return Walked(slots, distances, counts, hops, estimated, scored, bad)
            scored += count
            counts[at] = len(found)
            distances[at, : len(found)] = [one[0] for one in found]
            slots[at, : len(found)] = [one[1] for one in found]
        return Walked(slots, distances, counts, hops, estimated, scored, -1)

    def graph_link(self, arrays: LinkArrays, slots: Slots, how: Linking) -> None:
        for slot in slots.tolist():
            factor = arrays.shapes[slot, 0]
            residual = factor * _numbers(arrays, [slot])[0].astype(F32) - arrays.centre
            walk = Walk(
                Estimator(arrays.groups, residual),
                lambda at: arrays.lists[at, 1 : 1 + arrays.lists[at, 0]].tolist(),
                nearest_entries(arrays.entries, arrays.entry_rows, residual),
                len(arrays.lists),
            )
            near = [one for _, one in walk.nearest(how.breadth, lambda _: False)] + _list(
                arrays, slot
            )
            chosen = _prune(arrays, slot, near, how)
            _put(arrays, slot, chosen)
            for other in chosen:
                there = _list(arrays, other)
                if slot in there:
                    continue
                there.append(slot)
                if len(there) >= arrays.lists.shape[1]:
                    there = _prune(arrays, other, there, how)
                _put(arrays, other, there)

    def graph_trim(self, arrays: LinkArrays, slots: Slots, how: Linking) -> None:
        for slot in slots.tolist():
            there = _list(arrays, slot)
            if len(there) > how.degree:
                _put(arrays, slot, _prune(arrays, slot, there, how))

    def graph_reached(self, lists: Slots, entries: Slots) -> NDArray[np.bool_]:
        reached = np.zeros(len(lists), np.bool_)
        open_ = entries.tolist()
        while open_:
            here = open_.pop()
            if here < len(lists) and not reached[here]:
                reached[here] = True
                open_ += lists[here, 1 : 1 + lists[here, 0]].tolist()
        return reached

    def graph_order(self, lists: Slots, slots: Slots, entries: Slots, together: int) -> Slots:
        edges = _near_edges(lists, slots)
        left = {slot: len(edges[slot]) for slot in edges}
        seeds = [slot for slot in entries.tolist() if slot in edges]
        order: dict[int, None] = {}
        drawn: dict[int, int] = {}  # to the group: how many edges of what waits, in the order found
        while len(order) < len(slots):
            waiting = {slot: count for slot, count in drawn.items() if slot not in order}
            if len(order) % together == 0:
                seeds += sorted(waiting, key=lambda slot: -waiting[slot])[:_SEEDS]
                drawn = waiting = {}
            if waiting:
                here = max(waiting, key=lambda slot: waiting[slot] / (_STEADY + left[slot]))
            else:
                here = next(slot for slot in (*seeds, *slots.tolist()) if slot not in order)
            order[here] = None
            for slot in edges[here]:
                left[slot] -= 1
                if slot not in order:
                    drawn[slot] = drawn.get(slot, 0) + 1
        return np.array(list(order), np.uint32)


def _near_edges(lists: Slots, slots: Slots) -> dict[int, list[int]]:
    """Of each of the slots the others of them to whose nearest, or from which, an edge leads."""
    edges: dict[int, list[int]] = {slot: [] for slot in slots.tolist()}
    for here in edges:
        named = lists[here, 1 : 1 + min(_NEAR, lists[here, 0])].tolist()
        edges[here] = [slot for slot in named if slot in edges]
    leading = [(there, here) for here in sorted(edges, reverse=True) for there in edges[here]]
    for there, here in leading:
        edges[there].append(here)
    return edges


def nearest_entries(entries: Slots, entry_rows: Bytes, query: Floats) -> Ranked:
    """Up to four of the entries nearest to a rotated, centred query."""
    keys = Estimator(entry_rows.reshape(-1), query).keys(np.arange(len(entries), dtype=np.uint32))
    return sorted(zip(keys.tolist(), entries.tolist(), strict=True))[:_STARTS]


def record(graph: GraphArrays, slot: int) -> Bytes | None:
    """The slot's record, where its page is sound."""
    if slot >= len(graph.places) or graph.places[slot] == NOWHERE:
        return None
    page, at = divmod(int(graph.places[slot]), 256)
    if page >= len(graph.pages) or at >= layout.graph_records(graph.degree):
        return None
    if not graph.checked[page]:
        raw = graph.pages[page].tobytes()
        sound = raw[:8] == crc32c(raw[4:]).to_bytes(4, "little") + page.to_bytes(4, "little")
        graph.checked[page] = 1 if sound else 2
    if graph.checked[page] != 1:
        return None
    size = layout.graph_record_bytes(graph.degree)
    first = layout.GRAPH_HEAD_BYTES + at * size
    stored = graph.pages[page, first : first + size]
    return stored if int.from_bytes(stored[:3].tobytes(), "little") == slot else None


def neighbours(graph: GraphArrays, slot: int) -> list[int]:
    found = record(graph, slot)
    if found is None:
        return []
    count = min(int(found[3]), graph.degree)
    words = found[4 : 4 + 3 * count].reshape(count, 3).astype(np.uint32)
    named: list[int] = (words @ np.array([1, 1 << 8, 1 << 16], np.uint32)).tolist()
    return named


def _list(arrays: LinkArrays, slot: int) -> list[int]:
    there: list[int] = arrays.lists[slot, 1 : 1 + arrays.lists[slot, 0]].tolist()
    return there


def _put(arrays: LinkArrays, slot: int, chosen: list[int]) -> None:
    arrays.lists[slot, 0] = len(chosen)
    arrays.lists[slot, 1 : 1 + len(chosen)] = chosen


def _numbers(arrays: LinkArrays, slots: list[int]) -> NDArray[np.int8]:
    part = arrays.numbers[slots, arrays.offset : arrays.offset + arrays.dim]
    return np.ascontiguousarray(part).view(np.int8)


def _distances(arrays: LinkArrays, slot: int, others: list[int]) -> Floats:
    mine, theirs = arrays.shapes[slot], arrays.shapes[others]
    products = (
        _numbers(arrays, others).astype(np.int32) @ _numbers(arrays, [slot])[0].astype(np.int32)
    ).astype(F32)
    common = mine[0] * theirs[:, 0] * products + mine[2] * theirs[:, 2]
    found: Floats = np.maximum(mine[1] + theirs[:, 1] - F32(2) * common, F32(0))
    return found


def _prune(arrays: LinkArrays, slot: int, near: list[int], how: Linking) -> list[int]:
    """Vamana's robust prune: see ``native/graph_build.cpp``."""
    others = sorted({one for one in near if one != slot})
    ranked = sorted(zip(_distances(arrays, slot, others).tolist(), others, strict=True))
    chosen: list[int] = []
    for distance, one in ranked:
        if len(chosen) == how.degree:
            break
        if chosen and (F32(how.alpha) * _distances(arrays, one, chosen) <= F32(distance)).any():
            continue
        chosen.append(one)
    return chosen
