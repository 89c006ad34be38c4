"""What a graph is searched and built with: arrays side by side, and the native routines over them.

Shapes are checked in ``native/graph_module.cpp``; the twins are in ``reference_graph``. This file
knows arrays; what a file, a space or a commit is, it does not know.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import ModuleType
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from memdb.index import layout

Floats = NDArray[np.float32]
Bytes = NDArray[np.uint8]
Slots = NDArray[np.uint32]

MOST_DEGREE = 64
"""Neighbours that a list in memory may have, those beyond the degree waiting to be pruned."""
NOWHERE = 2**32 - 1
"""The place of a slot that is in no page."""
NONE: Final = np.empty(0, np.uint32)


@dataclass(frozen=True, slots=True)
class SpaceArrays:
    """A space as searches by row read it: groups of codes in rows, and records."""

    groups: Bytes
    records: Bytes
    metric: int
    precision: int
    signs: Floats
    centre: Floats

    @property
    def rows(self) -> Bytes:
        """(capacity, stride) code and factors of each slot."""
        return self.groups.reshape(-1, layout.row_bytes(len(self.centre)))


@dataclass(frozen=True, slots=True)
class GraphArrays:
    """A graph as searches read it.

    pages (n, 4096) uint8; checked (n,) uint8, written by searches: 0 not looked at, 1 sound, 2
    torn; places (slots,) uint32: page << 8 | record in the page, or NOWHERE; entries (e,) slots at
    which walks begin, and (e, stride) copies of their codes.
    """

    pages: Bytes
    checked: Bytes
    degree: int
    places: Slots
    entries: Slots
    entry_rows: Bytes


@dataclass(frozen=True, slots=True)
class LinkArrays:
    """A graph in memory, and what it is linked by; all by slot.

    The int8 numbers of slot s begin at column ``offset`` of row s of ``numbers``; shapes (n, 4):
    factor, square, extra, 0 (``native/graph_build.h`` says what they are for); lists (n, 1 + room)
    uint32: how many neighbours, then these.
    """

    groups: Bytes
    dim: int
    numbers: Bytes
    offset: int
    shapes: Floats
    lists: Slots
    entries: Slots
    entry_rows: Bytes
    centre: Floats


@dataclass(frozen=True, slots=True)
class Linking:
    """How slots are linked: neighbours that pruning leaves, breadth of a slot's walk, alpha."""

    degree: int
    breadth: int
    alpha: float
    threads: int


@dataclass(frozen=True, slots=True)
class Walked:
    """(q, k) slots and distances; (q,) how many of them were found; what was done, in all.

    Fewer than k where the graph led to no more, or where a walk inside an allowed set gave up.
    """

    slots: Slots
    distances: Floats
    found: Slots
    hops: int
    estimated: int
    scored: int
    damaged: int
    """A slot whose record is damaged, or -1."""


class GraphKernels(Protocol):
    """The routines of a graph. All arrays are C-contiguous."""

    def query_planes(self, queries: Floats) -> tuple[NDArray[np.uint64], Floats]:
        """(n, 5, words) planes of bits and (n,) steps: coordinate i is step * (2 u - 31), bit b of
        u in plane b."""
        ...

    def estimate_rows(self, groups: Bytes, query: Floats, slots: Slots) -> Floats:
        """(n,) keys of slots for one rotated, centred (dim,) query."""
        ...

    def gather(
        self, space: SpaceArrays, queries: Floats, listed: Slots, *, k: int, keep: int, threads: int
    ) -> tuple[Slots, Floats, int]:
        """(q, k) nearest of the listed slots, distances, and a damaged slot or -1.

        The best ``keep`` by estimate are scored, but for those whose estimate is too far off.
        """
        ...

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
        """A walk for each query, of whose list the allowed ones count; ``inside``, one that goes on
        until as many allowed ones were found, or ``most_hops`` nodes looked at. The ``beside_keep``
        of the slots ``beside`` that are nearest by estimate join the list of a walk that found k.
        """
        ...

    def graph_link(self, arrays: LinkArrays, slots: Slots, how: Linking) -> None:
        """Give slots neighbours, and these edges back, in ``arrays.lists``."""
        ...

    def graph_trim(self, arrays: LinkArrays, slots: Slots, how: Linking) -> None:
        """Prune the lists of slots that have more neighbours than the degree."""
        ...

    def graph_reached(self, lists: Slots, entries: Slots) -> NDArray[np.bool_]:
        """(n,) whether the entries lead to each slot."""
        ...

    def graph_order(self, lists: Slots, slots: Slots, entries: Slots, together: int) -> Slots:
        """The slots, distinct ones, in an order that keeps neighbours together: in groups of so
        many, the first of which begin at the entries."""
        ...


class NativeGraph:
    """The compiled routines at one level of ``_native.available()``."""

    _native: ModuleType
    _level: int

    def query_planes(self, queries: Floats) -> tuple[NDArray[np.uint64], Floats]:
        n, dim = queries.shape
        planes = np.empty((n, layout.PLANES, layout.words_of(dim)), np.uint64)
        steps = np.empty(n, np.float32)
        self._native.query_planes(queries, planes, steps)
        return planes, steps

    def estimate_rows(self, groups: Bytes, query: Floats, slots: Slots) -> Floats:
        keys = np.empty(len(slots), np.float32)
        self._native.estimate_rows(self._level, groups, query, slots, keys)
        return keys

    def gather(
        self, space: SpaceArrays, queries: Floats, listed: Slots, *, k: int, keep: int, threads: int
    ) -> tuple[Slots, Floats, int]:
        slots = np.empty((len(queries), k), np.uint32)
        distances = np.empty((len(queries), k), np.float32)
        bad = self._native.gather(
            self._level,
            space.groups,
            space.records,
            space.metric,
            space.precision,
            queries,
            space.signs,
            space.centre,
            listed,
            keep,
            threads,
            slots,
            distances,
        )
        return slots, distances, int(bad)

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
        slots = np.empty((len(queries), k), np.uint32)
        distances = np.empty((len(queries), k), np.float32)
        found = np.zeros(len(queries), np.uint32)
        counted = np.zeros(3, np.uint64)
        bad = self._native.graph_search(
            self._level,
            graph.pages,
            graph.checked,
            graph.degree,
            graph.places,
            graph.entries,
            graph.entry_rows,
            space.groups,
            space.records,
            space.metric,
            space.precision,
            queries,
            space.signs,
            space.centre,
            inside,
            allowed,
            breadth,
            most_hops,
            threads,
            slots,
            distances,
            found,
            counted,
            beside,
            beside_keep,
        )
        hops, estimated, scored = counted.tolist()
        return Walked(slots, distances, found, hops, estimated, scored, int(bad))

    def graph_link(self, arrays: LinkArrays, slots: Slots, how: Linking) -> None:
        self._link(arrays, slots, how, trim=False)

    def graph_trim(self, arrays: LinkArrays, slots: Slots, how: Linking) -> None:
        self._link(arrays, slots, how, trim=True)

    def _link(self, arrays: LinkArrays, slots: Slots, how: Linking, *, trim: bool) -> None:
        self._native.graph_link(
            self._level,
            trim,
            arrays.groups,
            arrays.dim,
            arrays.numbers,
            arrays.offset,
            arrays.shapes,
            arrays.lists,
            arrays.entries,
            arrays.entry_rows,
            arrays.centre,
            slots,
            how.degree,
            how.breadth,
            how.alpha,
            how.threads,
        )

    def graph_reached(self, lists: Slots, entries: Slots) -> NDArray[np.bool_]:
        reached = np.zeros(len(lists), np.uint8)
        self._native.graph_reached(lists, entries, reached)
        return reached.astype(np.bool_)

    def graph_order(self, lists: Slots, slots: Slots, entries: Slots, together: int) -> Slots:
        order = slots.copy()
        self._native.graph_order(lists, entries, together, order)
        return order
