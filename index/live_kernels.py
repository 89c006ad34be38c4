"""What a graph on pages is changed in place with: the native routines, and their arrays.

Shapes are checked in ``native/graph_live_module.cpp``; the twins are in ``reference_live``. This
file knows arrays; what a file, a space or a commit is, it does not know.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import ModuleType
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from memdb.index import layout
from memdb.index.graph_kernels import GraphArrays, Linking, SpaceArrays

Floats = NDArray[np.float32]
Bytes = NDArray[np.uint8]
Slots = NDArray[np.uint32]

ERASED: Final = 2**32 - 1
"""The count of neighbours that leaves a record of zeros."""


@dataclass(frozen=True, slots=True)
class LiveArrays:
    """A graph, and the space that it is linked by; ``longest`` is the squared length to which the
    vectors of an inner product are completed."""

    graph: GraphArrays
    space: SpaceArrays
    longest: float


class LiveKernels(Protocol):
    """The routines that change a graph in place. All arrays are C-contiguous."""

    def graph_change(
        self,
        live: LiveArrays,
        slots: Slots,
        how: Linking,
        *,
        unlink: bool,
        patience_ms: int = 0,
    ) -> tuple[Slots, Slots]:
        """Link slots, or take linked ones out of the lists of others.

        Returns (n,) slots whose lists changed, and these (n, 1 + degree): how many neighbours, then
        them. Nothing is written. For ``patience_ms`` it is tried only where nobody else wants the
        core, if the system can do that.
        """
        ...

    def graph_pages(
        self, graph: GraphArrays, slots: Slots, places: Slots, lists: Slots
    ) -> tuple[Slots, Bytes]:
        """(p,) numbers and (p, 4096) pages in which the lists of slots are at their places."""
        ...

    def graph_leads(self, graph: GraphArrays) -> NDArray[np.bool_]:
        """(places,) whether the entries lead to each slot."""
        ...

    def check_pages(self, pages: Bytes, first: int) -> NDArray[np.bool_]:
        """(n,) whether pages are sound, whose numbers begin with ``first``."""
        ...


class NativeLive:
    """The compiled routines at one level of ``_native.available()``."""

    _native: ModuleType
    _level: int

    def graph_change(
        self,
        live: LiveArrays,
        slots: Slots,
        how: Linking,
        *,
        unlink: bool,
        patience_ms: int = 0,
    ) -> tuple[Slots, Slots]:
        graph, space = live.graph, live.space
        room = len(slots) * (1 + graph.degree + how.breadth)
        changed = np.empty(room, np.uint32)
        lists = np.empty((room, 1 + graph.degree), np.uint32)
        count = self._native.graph_change(
            self._level,
            unlink,
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
            space.signs,
            space.centre,
            live.longest,
            slots,
            how.breadth,
            how.alpha,
            changed,
            lists,
            patience_ms,
        )
        return changed[:count], lists[:count]

    def graph_pages(
        self, graph: GraphArrays, slots: Slots, places: Slots, lists: Slots
    ) -> tuple[Slots, Bytes]:
        numbers = np.empty(len(slots), np.uint32)
        made = np.empty((len(slots), layout.GRAPH_PAGE_BYTES), np.uint8)
        count = self._native.graph_pages(
            self._level,
            graph.pages,
            graph.checked,
            graph.degree,
            slots,
            places,
            lists,
            numbers,
            made,
        )
        return numbers[:count], made[:count]

    def graph_leads(self, graph: GraphArrays) -> NDArray[np.bool_]:
        reached = np.zeros(len(graph.places), np.uint8)
        self._native.graph_leads(
            self._level,
            graph.pages,
            graph.checked,
            graph.degree,
            graph.places,
            graph.entries,
            reached,
        )
        return reached.astype(np.bool_)

    def check_pages(self, pages: Bytes, first: int) -> NDArray[np.bool_]:
        sound = np.empty(len(pages), np.uint8)
        self._native.check_pages(self._level, pages, first, sound)
        return sound.astype(np.bool_)
