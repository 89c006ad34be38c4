"""The numpy twins of the routines that change a graph in place: their definition.

Slow and plain, for small spaces. As with building, lists agree where no two estimates or distances
tie.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from google_crc32c import value as crc32c
from numpy.typing import NDArray

from memdb.index import layout
from memdb.index.graph_kernels import MOST_DEGREE, GraphArrays, Linking
from memdb.index.live_kernels import ERASED, Bytes, Floats, LiveArrays, Slots
from memdb.index.reference_graph import F32, Estimator, Walk, nearest_entries, neighbours, record

_INSTEAD = 3
_LONGEST = F32(1e15)

Row = tuple[NDArray[np.int32], np.float32, np.float32, np.float32]
"""Numbers, factor, square and extra."""


class _Rows:
    """Rows in 8 bits and their shapes, as ``RowCache`` of ``native/graph_live.cpp``."""

    def __init__(self, kernels: NumpyLive, live: LiveArrays) -> None:
        self._kernels, self._live = kernels, live
        self._dim = len(live.space.centre)
        self._known: dict[int, Row] = {}

    def row(self, slot: int) -> Row:
        if slot not in self._known:
            self._known[slot] = self._decoded(slot)
        return self._known[slot]

    def _decoded(self, slot: int) -> Row:
        space, precision = self._live.space, self._live.space.precision
        found = space.records[slot].view(layout.record_type(self._dim, precision))[0]
        scale, norm = F32(found["scale"]), F32(found["norm"])
        if precision == layout.INT8:
            numbers = found["payload"].astype(np.int32)
        elif precision == layout.FLOAT16:
            rotated = self._kernels.rotate(found["payload"].astype(F32)[None], space.signs)
            whole, steps = self._kernels.quantise8(rotated)
            numbers, scale = whole[0].astype(np.int32), scale * steps[0]
        else:
            bits = np.unpackbits(found["payload"], bitorder="little")
            width = layout.PRECISION_BITS[precision]
            levels = bits[: self._dim * width].reshape(-1, width) @ (1 << np.arange(width))
            numbers = (2 * levels + 1 - (1 << width)).astype(np.int32)
            scale = norm / np.sqrt(F32(numbers @ numbers))
        factor, square, extra = scale, norm * norm, F32(0)
        with np.errstate(all="ignore"):  # damaged records may hold anything
            if space.metric == layout.METRICS["cosine"]:
                factor, square = scale / norm, F32(1)
        if not (np.isfinite(factor) and np.isfinite(square)):
            factor, square = F32(0), F32(0)
        factor = np.clip(factor, -_LONGEST, _LONGEST)
        square = np.minimum(square, _LONGEST * _LONGEST)
        longest = F32(self._live.longest)
        if space.metric == layout.METRICS["ip"] and square < longest:
            extra, square = np.sqrt(longest - square), longest
        return numbers, factor, square, extra

    def distance(self, a: int, b: int) -> np.float32:
        left, right = self.row(a), self.row(b)
        product = F32(left[0] @ right[0])
        common = left[1] * right[1] * product + left[3] * right[3]
        found: np.float32 = np.maximum(left[2] + right[2] - F32(2) * common, F32(0))
        return found


class _Change:
    """The graph with changed lists before those of its pages."""

    def __init__(self, kernels: NumpyLive, live: LiveArrays, how: Linking) -> None:
        self._live, self._graph, self._how = live, live.graph, how
        self._rows = _Rows(kernels, live)
        self.lists: dict[int, list[int]] = {}
        self.leaving: set[int] = set()

    def link(self, slot: int) -> None:
        chosen = self._pruned(slot, self._near(slot))
        self.lists[slot] = chosen
        for other in chosen:
            there = self._list(other)
            if slot not in there:
                self._set(other, [*there, slot])

    def unlink(self, slot: int) -> None:
        near = self._near(slot)
        instead = {*self._list(slot), *near[: self._graph.degree]} - {slot}
        instead = {one for one in instead if self._stays(one)}
        for other in near:
            there = self._list(other)
            if slot not in there:
                continue
            there.remove(slot)
            rest = sorted(
                (self._rows.distance(other, one), one) for one in instead - {other, *there}
            )
            self._set(other, there + [one for _, one in rest[:_INSTEAD]])

    def _near(self, slot: int) -> list[int]:
        space = self._live.space
        numbers, factor, _, _ = self._rows.row(slot)
        residual = factor * numbers.astype(F32) - space.centre
        estimator = Estimator(space.groups, residual)

        def forgotten(one: int) -> bool:
            return not estimator.factors(np.array([one], np.uint32))[0] and not self._inside(one)

        starts = nearest_entries(self._graph.entries, self._graph.entry_rows, residual)
        found = Walk(estimator, self._list, starts, len(space.rows)).nearest(
            self._how.breadth, forgotten
        )
        near = [one for _, one in found if one != slot and self._stays(one)]
        return near + [
            one for one in self._list(slot) if one != slot and one not in near and self._stays(one)
        ]

    def _list(self, slot: int) -> list[int]:
        return list(self.lists[slot]) if slot in self.lists else neighbours(self._graph, slot)

    def _inside(self, slot: int) -> bool:
        space = self._live.space
        if slot >= min(len(space.records), len(space.rows)):
            return False
        return slot in self.lists or record(self._graph, slot) is not None

    def _stays(self, slot: int) -> bool:
        return self._inside(slot) and slot not in self.leaving

    def _set(self, slot: int, there: list[int]) -> None:
        there = [one for one in there if one != slot and self._stays(one)]
        degree = self._graph.degree
        if len(there) > degree + min(degree // 3, MOST_DEGREE - degree):
            there = self._pruned(slot, there)
        self.lists[slot] = there

    def finish(self) -> None:
        """Cut lists that are too long to what a record has room for."""
        for slot, there in self.lists.items():
            if len(there) > self._graph.degree:
                self.lists[slot] = self._pruned(slot, there)

    def _pruned(self, slot: int, near: list[int]) -> list[int]:
        chosen: list[int] = []
        for apart, one in sorted((self._rows.distance(slot, one), one) for one in set(near)):
            if len(chosen) == self._graph.degree:
                break
            alpha = F32(self._how.alpha)
            if not any(alpha * self._rows.distance(other, one) <= apart for other in chosen):
                chosen.append(one)
        return chosen


class NumpyLive:
    """The routines of ``LiveKernels`` in numpy."""

    if TYPE_CHECKING:  # what the class that has these mixed in brings

        def rotate(self, x: Floats, signs: Floats, *, back: bool = False) -> Floats: ...

        def quantise8(self, x: Floats) -> tuple[NDArray[np.int8], Floats]: ...

    def graph_change(
        self,
        live: LiveArrays,
        slots: Slots,
        how: Linking,
        *,
        unlink: bool,
        patience_ms: int = 0,
    ) -> tuple[Slots, Slots]:
        change = _Change(self, live, how)
        if unlink:
            change.leaving = set(slots.tolist())
        for slot in slots.tolist():
            if unlink:
                change.unlink(slot)
            else:
                change.link(slot)
        change.finish()
        lists = np.zeros((len(change.lists), 1 + live.graph.degree), np.uint32)
        for row, there in zip(lists, change.lists.values(), strict=True):
            row[0] = len(there)
            row[1 : 1 + len(there)] = there
        return np.array(list(change.lists), np.uint32), lists

    def graph_pages(
        self, graph: GraphArrays, slots: Slots, places: Slots, lists: Slots
    ) -> tuple[Slots, Bytes]:
        made: dict[int, Bytes] = {}
        size = layout.graph_record_bytes(graph.degree)
        for slot, place, row in zip(slots.tolist(), places.tolist(), lists, strict=True):
            number, at = divmod(place, 256)
            if number not in made:
                stored = graph.pages[number].copy()
                if not self.check_pages(stored[None], number)[0]:
                    stored[:] = 0
                stored[4:8] = np.frombuffer(number.to_bytes(4, "little"), np.uint8)
                made[number] = stored
            first = layout.GRAPH_HEAD_BYTES + at * size
            body = np.zeros(size, np.uint8)
            if row[0] != ERASED:
                named = row[1 : 1 + min(int(row[0]), graph.degree)].tolist()
                raw = slot.to_bytes(3, "little") + bytes([len(named)])
                raw += b"".join(one.to_bytes(3, "little") for one in named)
                body[: len(raw)] = np.frombuffer(raw, np.uint8)
            made[number][first : first + size] = body
        for page in made.values():
            page[:4] = np.frombuffer(crc32c(page[4:].tobytes()).to_bytes(4, "little"), np.uint8)
        pages = np.stack(list(made.values())) if made else np.empty((0, 4096), np.uint8)
        return np.array(list(made), np.uint32), pages

    def graph_leads(self, graph: GraphArrays) -> NDArray[np.bool_]:
        reached = np.zeros(len(graph.places), np.bool_)
        open_ = graph.entries.tolist()
        while open_:
            here = open_.pop()
            if here < len(reached) and not reached[here]:
                reached[here] = True
                open_ += neighbours(graph, here)
        return reached

    def check_pages(self, pages: Bytes, first: int) -> NDArray[np.bool_]:
        sound = np.zeros(len(pages), np.bool_)
        for at, page in enumerate(pages):
            raw = page.tobytes()
            number = (first + at).to_bytes(4, "little")
            sound[at] = raw[:8] == crc32c(raw[4:]).to_bytes(4, "little") + number
        return sound
