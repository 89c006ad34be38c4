"""Linking in place: slots are put into graph.bin, and taken out of it, while others read it.

After Xu et al., *In-Place Updates of a Graph Index for Streaming Approximate Nearest Neighbor
Search*, 2025 (IP-DiskANN): a slot that goes is looked for by its own vector; who led to it leads to
some that are near instead. Pages are written anew in whole, and made durable by ``flush``; only
then may the caller commit that slots are linked, or hand out again those that were taken out. One
process at a time does this, and whoever begins looks first at what a killed one may have left. No
journal: an edge is a hint, a torn page is an empty one. What is committed this file does not know.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from memdb.index import layout
from memdb.index.flat import FlatIndex
from memdb.index.graph_file import (
    ENTRY_PAGES,
    MOST_ENTRIES,
    MOST_SLOTS,
    PLACES,
    GraphFile,
    numbers_of,
    pages_of_extent,
    place_page,
    seal,
    spread,
)
from memdb.index.graph_kernels import NOWHERE, GraphArrays, Linking
from memdb.index.live_kernels import ERASED, LiveArrays

AT_ONCE: Final = 64
"""Slots of one change: some tens of milliseconds."""
_LOOKED_AT_ONCE: Final = 256
_NOT_ASKED: Final = 16  # changes that do not wait, after one that did in vain
_NEAR: Final = 8  # neighbours whose pages are asked for room
_SPARE_ENTRIES: Final = MOST_ENTRIES // 2
_RECKONED: Final = 10  # one in so many changed: what no walk reaches any more is looked for

Slots = NDArray[np.uint32]
Floats = NDArray[np.float32]
Bytes = NDArray[np.uint8]


class LiveGraph:
    """One process's linking in place, while it keeps others from writing the graph."""

    def __init__(self, flat: FlatIndex, file: GraphFile, how: Linking) -> None:
        """``file`` is this object's own, writable; it is closed with it."""
        self.flat = flat
        self.file = file
        self.patience_ms = 0
        """How long a change waits for a core that nobody else wants, before it takes its turn."""
        self._in_vain = 0
        self._how = replace(how, degree=file.degree, threads=1)
        self._size = layout.graph_record_bytes(file.degree)
        self._records = layout.graph_records(file.degree)
        self._places = file.places.copy()
        self._entries = file.entries
        self._dirty: set[int] = set()
        self._dirty_places: set[int] = set()
        self._dirty_entries = False
        self._changed_since = 0
        self._open = ENTRY_PAGES + 1
        self._used = np.zeros((0, self._records), np.bool_)
        self._room = np.zeros(0, np.int64)  # records of each page that are not used
        self._recent: list[Slots] = []
        self._look_over()

    def close(self) -> None:
        self.file.close()

    @property
    def is_replaced(self) -> bool:
        """Whether another file has taken the place of this one."""
        return self.file.file.is_replaced()

    # --- what there is ---------------------------------------------------------------------

    def _look_over(self) -> None:
        """Find what is free; zero what no place leads to; forget places in what is torn."""
        pages = self.file.pages
        self._used = np.zeros((len(pages), self._records), np.bool_)
        self._used[:ENTRY_PAGES] = True
        self._used[place_page(0, self.file.degree) :: self._stride] = True
        owners = np.full(self._used.shape, NOWHERE, np.uint32)
        placed = np.flatnonzero(self._places != NOWHERE).astype(np.uint32)
        page, at = self._places[placed] >> 8, self._places[placed] & 0xFF
        wrong = (page >= len(pages)) | (at >= self._records)
        wrong[~wrong] = self._used[page[~wrong], at[~wrong]]
        self._forget(placed[wrong])
        placed, page, at = placed[~wrong], page[~wrong], at[~wrong]
        owners[page, at] = placed  # of two that claim one record its head tells
        for first in range(ENTRY_PAGES, len(pages), _LOOKED_AT_ONCE):
            self._look_at(first, owners[first : first + _LOOKED_AT_ONCE])
        placed = np.flatnonzero(self._places != NOWHERE).astype(np.uint32)
        self._used[self._places[placed] >> 8, self._places[placed] & 0xFF] = True
        self._room = self._records - self._used.sum(axis=1)
        self._entries = self._entries[self.is_placed(self._entries)]
        self._reckon()

    @property
    def _stride(self) -> int:
        return 1 + pages_of_extent(self.file.degree)

    def _look_at(self, first: int, owners: Slots) -> None:
        pages = self.file.pages[first : first + len(owners)]
        sound = self.flat.kernels.check_pages(pages, first)
        sound |= ~pages.any(axis=1)  # never written
        body = pages[:, layout.GRAPH_HEAD_BYTES :][:, : self._records * self._size]
        records = body.reshape(len(pages), self._records, self._size)
        heads = numbers_of(records[:, :, :3].reshape(-1, 3)).reshape(owners.shape)
        held = sound[:, None] & (heads == owners)
        lost = (owners != NOWHERE) & ~held
        self._forget(owners[lost])
        stray = records.any(axis=2) & ~held
        stray[self._used[first : first + len(owners), 0]] = False  # pages of places
        for at in np.flatnonzero(stray.any(axis=1)).tolist():
            page = np.zeros((1, layout.GRAPH_PAGE_BYTES), np.uint8)
            kept = np.where(held[at][:, None], records[at], 0)
            page[0, layout.GRAPH_HEAD_BYTES :][: kept.size] = kept.reshape(-1)
            number = np.array([first + at])
            self._put(number, seal(page, number))

    def _forget(self, slots: Slots) -> None:
        self._places[slots] = NOWHERE
        self._dirty_places.update((slots // PLACES).tolist())

    def _put(self, numbers: NDArray[np.integer[Any]], pages: Bytes) -> None:
        self.file.write(numbers, pages)
        self.file.changed(numbers.astype(np.uint32))
        self._dirty.update(numbers.tolist())

    def is_placed(self, slots: Slots) -> NDArray[np.bool_]:
        """(n,) whether the slots have a record."""
        found = np.zeros(len(slots), np.bool_)
        inside = slots < len(self._places)
        found[inside] = self._places[slots[inside]] != NOWHERE
        return found

    def ordered(self, slots: Slots) -> Slots:
        """The slots, those near to each other together: they share pages."""
        if not len(self._entries) or len(slots) <= AT_ONCE:
            return slots
        centroids = self.flat.rotated(self._entries)
        squares = np.einsum("ij,ij->i", centroids, centroids)
        nearest = np.empty(len(slots), np.int64)
        for first in range(0, len(slots), 1024):
            part = self.flat.rotated(slots[first : first + 1024])
            nearest[first : first + 1024] = np.argmin(squares - 2 * (part @ centroids.T), axis=1)
        return slots[np.argsort(nearest, kind="stable")]

    # --- changes ---------------------------------------------------------------------------

    def link(self, slots: Slots) -> int:
        """Link some ``AT_ONCE`` sound slots; how many. Edges cannot name those past 2^24."""
        space = self.flat.space_arrays()
        if space is None:
            return 0
        slots = slots[slots < min(MOST_SLOTS, len(space.rows), len(space.records))]
        if not len(slots):
            return 0
        self._grow(int(slots.max()) + 1)
        if not len(self._entries):
            self._enter(slots[:1])
        changed, lists = self._changed(slots, unlink=False)
        self._place(changed, lists)
        self._write(changed, lists)
        named = lists[:, 1:][np.arange(self.file.degree) < lists[:, :1]]
        self._enter(slots[~np.isin(slots, named)])  # nobody leads there: walks begin there
        self._recent.append(slots)
        self._changed_since += len(slots)
        return len(slots)

    def unlink(self, slots: Slots) -> None:
        """Take slots out: nobody whom a walk finds leads to them, and their records are zeros."""
        slots = slots[self.is_placed(slots)]
        space = self.flat.space_arrays()
        for first in range(0, len(slots), AT_ONCE):
            part = slots[first : first + AT_ONCE]
            self._leave_entries(part)
            changed, lists = part[:0], np.empty((0, 1 + self.file.degree), np.uint32)
            if space is not None and int(part.max()) < min(len(space.rows), len(space.records)):
                changed, lists = self._changed(part, unlink=True)
            gone = np.zeros((len(part), lists.shape[1]), np.uint32)
            gone[:, 0] = ERASED
            self._write(np.concatenate((changed, part)), np.concatenate((lists, gone)))
            at = self._places[part]
            self._used[at >> 8, at & 0xFF] = False
            np.add.at(self._room, at >> 8, 1)
            self._forget(part)
            self._changed_since += len(part)

    def flush(self) -> Slots:
        """Make all of it durable; the numbers of the pages that were written since the last."""
        self._enter_recent()
        if self._changed_since * _RECKONED > np.count_nonzero(self._places != NOWHERE):
            self._reckon()
        numbers = np.array(sorted(self._dirty_places), np.int64)
        if len(numbers):
            self.file.write_places(self._places, numbers)
        if self._dirty_entries:
            self.file.write_entries(self._entries)
        dirty = np.array(sorted(self._dirty), np.uint32)
        if len(dirty) or len(numbers) or self._dirty_entries:
            self.file.sync()
        self._dirty.clear()
        self._dirty_places.clear()
        self._dirty_entries = False
        return dirty

    def _graph(self) -> GraphArrays:
        space = self.flat.space_arrays()
        assert space is not None
        return GraphArrays(
            self.file.pages,
            self.file.checked,
            self.file.degree,
            self._places,
            self._entries,
            np.ascontiguousarray(space.rows[self._entries]),
        )

    def _changed(self, slots: Slots, *, unlink: bool) -> tuple[Slots, Slots]:
        space = self.flat.space_arrays()
        assert space is not None
        live = LiveArrays(self._graph(), space, self.file.longest)
        patience_ms = 0 if self._in_vain else self.patience_ms
        began = time.monotonic()
        found = self.flat.kernels.graph_change(
            live, np.ascontiguousarray(slots), self._how, unlink=unlink, patience_ms=patience_ms
        )
        if patience_ms and (time.monotonic() - began) * 1e3 >= patience_ms:
            self._in_vain = _NOT_ASKED  # the cores are busy: they will be for a while
        else:
            self._in_vain = max(0, self._in_vain - 1)
        return found

    def _write(self, slots: Slots, lists: Slots) -> None:
        numbers, pages = self.flat.kernels.graph_pages(
            self._graph(), slots, self._places[slots], lists
        )
        self._put(numbers, pages)

    def _grow(self, slots: int) -> None:
        if slots <= len(self._places):
            return
        self.file.grow(slots)
        places = np.full(self.file.slots, NOWHERE, np.uint32)
        places[: len(self._places)] = self._places
        used = np.zeros((len(self.file.pages), self._records), np.bool_)
        used[: len(self._used)] = self._used
        used[place_page(0, self.file.degree) :: self._stride] = True
        room = self._records - used[len(self._used) :].sum(axis=1)
        self._room = np.concatenate((self._room, room))
        self._places, self._used = places, used

    def _place(self, slots: Slots, lists: Slots) -> None:
        """Find room for those that have none: with their nearest neighbours where there is some.

        In plain numbers, because the thread that links keeps others from Python meanwhile.
        """
        for i in np.flatnonzero(self._places[slots] == NOWHERE).tolist():
            page = self._with_room(lists[i, 1 : 1 + min(_NEAR, int(lists[i, 0]))])
            at = int(np.argmin(self._used[page]))
            self._used[page, at] = True
            self._room[page] -= 1
            self._places[slots[i]] = page << 8 | at
            self._dirty_places.add(int(slots[i]) // PLACES)

    def _with_room(self, near: Slots) -> int:
        """A page that has some: of a slot that is near, the earlier the better, or any."""
        for place in self._places[near].tolist():
            if place != NOWHERE and self._room[place >> 8]:
                return int(place >> 8)
        if not self._room[self._open]:
            self._open = int(np.argmax(self._room))
        return self._open

    # --- where walks begin -----------------------------------------------------------------

    def _enter(self, slots: Slots) -> None:
        room = MOST_ENTRIES - len(self._entries)
        if len(slots) and room:
            self._entries = np.union1d(self._entries, slots[:room]).astype(np.uint32)
            self._dirty_entries = True

    def _leave_entries(self, slots: Slots) -> None:
        """A neighbour takes the place of an entry that goes."""
        going = self._entries[np.isin(self._entries, slots)]
        if not len(going):
            return
        self._entries = np.setdiff1d(self._entries, going)
        self._dirty_entries = True
        for slot in going.tolist():
            page, at = divmod(int(self._places[slot]), 256)
            first = layout.GRAPH_HEAD_BYTES + at * self._size
            record = self.file.pages[page, first : first + self._size]
            named = numbers_of(record[4 : 4 + 3 * int(record[3])][None])[0]
            named = named[self.is_placed(named) & ~np.isin(named, slots)]
            self._enter(named[~np.isin(named, self._entries)][:1])
        if not len(self._entries):
            placed = np.flatnonzero(self._places != NOWHERE).astype(np.uint32)
            self._enter(np.setdiff1d(placed, slots)[:1])

    def _enter_recent(self) -> None:
        """As many entries as there are about, the square root of what is linked: from new ones."""
        recent = np.concatenate([np.zeros(0, np.uint32), *self._recent])
        self._recent.clear()
        recent = recent[self.is_placed(recent)]
        linked = int(np.count_nonzero(self._places != NOWHERE))
        wanted = min(int(np.sqrt(linked)), _SPARE_ENTRIES) - len(self._entries)
        if wanted > 0 and len(recent):
            self._enter(recent[:: max(1, len(recent) // wanted)][:wanted])

    def _reckon(self) -> None:
        """What no walk reaches any more is where some begin."""
        self._changed_since = 0
        placed = np.flatnonzero(self._places != NOWHERE).astype(np.uint32)
        if not len(placed) or self.flat.space_arrays() is None:
            return
        if not len(self._entries):
            self._enter(spread(placed))
        for _ in range(4):
            reached = self.flat.kernels.graph_leads(self._graph())
            astray = placed[~reached[placed]]
            if not len(astray) or len(self._entries) == MOST_ENTRIES:
                return
            self._enter(astray[:64])
