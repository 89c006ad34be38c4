"""graph.bin: who is near whom, on pages. Derived: losing it costs time and never a vector.

    graph.bin := header | page[pages] | place page[...]
    fields    := dim u32 | metric u8 | degree u8 | 0 u16 | seed u64 | pages u32 | slots u32
                 | entries u32 | entry u32[entries]
    page      := crc u32 of all after it | number u32 | 0 u64 | record* | 0*
    record    := slot u24 | neighbours u8 | neighbour u24[degree]
    place page:= crc u32 | number u32 | 0 u64 | place u32[1020]
    place     := page << 8 | record in the page, or 2^32 - 1: of slots 0, 1, 2 ...

The numbers of place pages go on from those of pages. An edge is a hint: distances come from codes
and records, and who is in the index is the caller's to say. So a page whose checksum fails is
taken for empty, and its slots for not linked. It knows no distances.
"""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import Final

import numpy as np
from google_crc32c import value as crc32c
from numpy.typing import NDArray

from memdb.index import files, layout
from memdb.index.graph_kernels import MOST_DEGREE, NOWHERE
from memdb.index.protocol import SpaceSpec
from memdb.index.slots import SlotSet

NAME: Final = "graph.bin"
DRAFT: Final = "graph.bin.new"
MAGIC: Final = b"MDBGRAPH"
MOST_SLOTS: Final = 1 << 24
"""Slots that edges can name; those beyond are scanned."""
MOST_ENTRIES: Final = 4096
TORN: Final = 2
_FIELDS = struct.Struct("<IBBHQIII")
_HEAD: Final = layout.GRAPH_HEAD_BYTES
_PAGE: Final = layout.GRAPH_PAGE_BYTES
_PLACES: Final = (_PAGE - _HEAD) // 4
_PAGES_AT_ONCE: Final = 1024

Bytes = NDArray[np.uint8]
Slots = NDArray[np.uint32]


def write_draft(
    directory: Path, spec: SpaceSpec, degree: int, lists: Slots, order: Slots, entries: Slots
) -> None:
    """Write the graph of ``lists`` beside the present one, durably; ``install`` puts it in place.

    lists (slots, 1 + room) uint32: how many neighbours, then these, of which ``degree`` are kept;
    order: the slots that are linked, as pages are to hold them.
    """
    records = layout.graph_records(degree)
    pages = -(-len(order) // records)
    fields = _FIELDS.pack(
        spec.dim, layout.METRICS[spec.metric], degree, 0, spec.seed, pages, len(lists), len(entries)
    )
    head = files.seal_header(MAGIC, fields + entries.astype("<u4").tobytes())
    path = directory / DRAFT
    with files.typed_errors(path), open(path, "wb") as handle:
        handle.write(head)
        for first in range(0, pages, _PAGES_AT_ONCE):
            part = order[first * records : (first + _PAGES_AT_ONCE) * records]
            handle.write(_sealed(_pages_of(part, lists, degree), first))
        handle.write(_sealed(_place_pages(order, len(lists), records), pages))
        handle.flush()
        os.fsync(handle.fileno())


def install(directory: Path) -> None:
    """Put the draft in the graph's place, durably."""
    files.move(directory / DRAFT, directory / NAME)


def _pages_of(slots: Slots, lists: Slots, degree: int) -> Bytes:
    """(pages, 4096) of these slots' records, without checksums."""
    size, records = layout.graph_record_bytes(degree), layout.graph_records(degree)
    body = np.zeros((-(-len(slots) // records) * records, size), np.uint8)
    chosen = lists[slots]
    body[: len(slots), :3] = _low_bytes(slots[:, None])
    body[: len(slots), 3] = np.minimum(chosen[:, 0], degree)
    kept = chosen[:, 1 : 1 + degree]
    body[: len(slots), 4 : 4 + 3 * kept.shape[1]] = _low_bytes(kept)
    pages = np.zeros((len(body) // records, _PAGE), np.uint8)
    pages[:, _HEAD : _HEAD + records * size] = body.reshape(len(pages), -1)
    return pages


def _low_bytes(numbers: Slots) -> Bytes:
    """(n, 3 m): three bytes of each of (n, m)."""
    raw = np.ascontiguousarray(numbers, "<u4").view(np.uint8)
    return raw.reshape(*numbers.shape, 4)[:, :, :3].reshape(len(numbers), -1)


def _place_pages(order: Slots, slots: int, records: int) -> Bytes:
    places = np.full(-(-slots // _PLACES) * _PLACES, NOWHERE, "<u4")
    at = np.arange(len(order), dtype=np.uint32)
    places[order] = at // records << 8 | at % records
    pages = np.zeros((len(places) // _PLACES, _PAGE), np.uint8)
    pages[:, _HEAD:] = places.view(np.uint8).reshape(len(pages), -1)
    return pages


def _sealed(pages: Bytes, first: int) -> bytes:
    """The pages with numbers from ``first`` and checksums."""
    numbers = np.arange(first, first + len(pages), dtype="<u4")
    pages[:, 4:8] = numbers.view(np.uint8).reshape(-1, 4)
    for page in pages:
        page[:4] = np.frombuffer(crc32c(page[4:].tobytes()).to_bytes(4, "little"), np.uint8)
    return pages.tobytes()


class GraphFile:
    """An open graph.bin. Raises ``StoreCorrupt`` or ``FormatTooNew`` where it cannot be used."""

    def __init__(self, directory: Path, spec: SpaceSpec, *, writable: bool) -> None:
        self.file = files.MappedFile(directory / NAME, MAGIC, writable=writable)
        try:
            self._load(spec)
        except BaseException:
            self.file.close()
            raise

    def _load(self, spec: SpaceSpec) -> None:
        fields = self.file.fields
        if len(fields) < _FIELDS.size:
            raise self.file.corrupt("has fields of another length")
        dim, metric, degree, _, seed, pages, slots, entries = _FIELDS.unpack_from(fields)
        if (dim, metric, seed) != (spec.dim, layout.METRICS[spec.metric], spec.seed):
            raise self.file.corrupt("belongs to another space")
        if not 1 <= degree <= MOST_DEGREE or slots > MOST_SLOTS:
            raise self.file.corrupt("has a degree or a number of slots that cannot be")
        place_pages = -(-slots // _PLACES)
        body = self.file.body
        if (
            len(fields) != _FIELDS.size + 4 * entries
            or len(body) != (pages + place_pages) * _PAGE
            or not 1 <= entries <= MOST_ENTRIES
        ):
            raise self.file.corrupt("has another length than its header says")
        self.degree = degree
        self.entries = np.frombuffer(fields, "<u4", offset=_FIELDS.size).astype(np.uint32)
        if int(self.entries.max()) >= slots:
            raise self.file.corrupt("has an entry that is no slot")
        self._pages = pages
        self.checked = np.zeros(pages, np.uint8)
        self.torn_places = 0
        self._placed: tuple[int, SlotSet] | None = None  # as of so many torn pages
        self.places = self._read_places(body[pages * _PAGE :].reshape(place_pages, _PAGE), slots)

    def _read_places(self, stored: Bytes, slots: int) -> Slots:
        """(slots,) places; those of a torn page are nowhere."""
        found = np.empty((len(stored), _PLACES), np.uint32)
        for number, page in enumerate(stored):
            raw = page.tobytes()
            wanted = crc32c(raw[4:]).to_bytes(4, "little")
            if raw[:8] == wanted + (self._pages + number).to_bytes(4, "little"):
                found[number] = np.frombuffer(raw, "<u4", offset=_HEAD)
            else:
                found[number] = NOWHERE
                self.torn_places += 1
        return np.ascontiguousarray(found.reshape(-1)[:slots])

    @property
    def pages(self) -> Bytes:
        """(pages, 4096) of the mapped file."""
        return self.file.body[: self._pages * _PAGE].reshape(self._pages, _PAGE)

    @property
    def slots(self) -> int:
        """One past the greatest slot that the graph knows of."""
        return len(self.places)

    def placed(self) -> SlotSet:
        """The slots that have a record, but for those on pages known to be torn."""
        torn = self.torn()
        if self._placed is None or self._placed[0] != torn:
            self._placed = torn, self._find_placed()
        return self._placed[1]

    def _find_placed(self) -> SlotSet:
        there = self.places != NOWHERE
        pages = np.where(there, self.places >> 8, 0)
        there &= pages < self._pages
        if there.any():
            there[there] = self.checked[pages[there]] != TORN
        return SlotSet(np.packbits(there, bitorder="little"))

    def torn(self) -> int:
        """How many pages failed their checksum when they were looked at."""
        return int(np.count_nonzero(self.checked == TORN)) + self.torn_places

    def verify(self) -> None:
        """Look at every page; ``StoreCorrupt`` names the first that is torn."""
        if self.torn_places:
            raise self.file.corrupt("has a torn page of places")
        for number, page in enumerate(self.pages):
            raw = page.tobytes()
            if raw[:8] != crc32c(raw[4:]).to_bytes(4, "little") + number.to_bytes(4, "little"):
                raise self.file.corrupt(f"has a torn page, number {number}")

    def fill(self, lists: Slots) -> None:
        """Put what sound pages hold in (slots, 1 + room) lists, as ``write_draft`` takes them."""
        slots, room = lists.shape[0], lists.shape[1] - 1
        size, records = layout.graph_record_bytes(self.degree), layout.graph_records(self.degree)
        kept = min(self.degree, room)
        for first in range(0, self._pages, _PAGES_AT_ONCE):
            pages = [
                page
                for number, page in enumerate(self.pages[first : first + _PAGES_AT_ONCE], first)
                if self._is_sound(page, number)
            ]
            if not pages:
                continue
            body = np.stack(pages)[:, _HEAD : _HEAD + records * size].reshape(-1, size)
            owners = _numbers(body[:, :3])[:, 0]
            valid = (owners < min(slots, self.slots)) & (body[:, 3] > 0)
            body, owners = body[valid], owners[valid]
            lists[owners, 0] = np.minimum(body[:, 3], kept)
            lists[owners, 1 : 1 + kept] = _numbers(body[:, 4 : 4 + 3 * kept])

    def _is_sound(self, page: Bytes, number: int) -> bool:
        raw = page.tobytes()
        wanted: bytes = crc32c(raw[4:]).to_bytes(4, "little") + number.to_bytes(4, "little")
        return raw[:8] == wanted

    def clear(self, slots: Slots) -> None:
        """Zero the records of slots, durably; edges to them lead nowhere then."""
        inside = slots[slots < self.slots]
        places = self.places[inside]
        inside, places = inside[places != NOWHERE], places[places != NOWHERE]
        size = layout.graph_record_bytes(self.degree)
        for number in np.unique(places >> 8):
            if number >= self._pages:
                continue
            page = self.pages[number].copy()
            for at in places[places >> 8 == number] & 0xFF:
                first = _HEAD + int(at) * size
                page[first : first + size] = 0
            self.file.write(int(number) * _PAGE, _sealed(page[None], int(number)))
        if not len(inside):
            return
        self.places[inside] = NOWHERE
        self._placed = None
        for number in np.unique(inside // _PLACES):
            page = np.zeros((1, _PAGE), np.uint8)
            part = np.full(_PLACES, NOWHERE, "<u4")
            mine = self.places[number * _PLACES : (number + 1) * _PLACES]
            part[: len(mine)] = mine
            page[0, _HEAD:] = part.view(np.uint8)
            at = self._pages + int(number)
            self.file.write(at * _PAGE, _sealed(page, at))
        self.file.sync()

    def close(self) -> None:
        self.file.close()


def _numbers(low_bytes: Bytes) -> Slots:
    """(n, m) of (n, 3 m): the inverse of ``_low_bytes``."""
    parts = low_bytes.reshape(len(low_bytes), -1, 3).astype(np.uint32)
    return (parts @ np.array([1, 1 << 8, 1 << 16], np.uint32)).astype(np.uint32)
