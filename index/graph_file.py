"""graph.bin: who is near whom, on pages. Derived: losing it costs time and never a vector.

    graph.bin := header (version 2) | entry page[4] | extent*
    fields    := dim u32 | metric u8 | degree u8 | 0 u16 | seed u64 | longest f32
    extent    := place page | page[ceil(1016 / records of a page)]
    page      := crc u32 of all after it | number u32 | 0 u64 | record* | 0*
    record    := slot u24 | neighbours u8 | neighbour u24[degree]
    place page:= crc u32 | number u32 | 0 u64 | place u32[1016] | 0*
    place     := page << 8 | record in the page, or 2^32 - 1: of 1016 slots, in order
    entry page:= crc u32 | number u32 | 0 u64 | slot + 1 u32[1016] | 0*

A page's number is its place in the body, whatever kind it is of; one of zeros was never written. So
the file grows by extents, and pages are written anew where they are: by one process at a time, in
whole, while others have them mapped. An edge is a hint: distances come from codes and records, and
who is in the index is the caller's to say. So a page whose checksum fails is taken for empty, and
its slots for not linked. This file knows no distances.
"""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import Any, Final

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
VERSION: Final = 2
MOST_SLOTS: Final = 1 << 24
"""Slots that edges can name; those beyond are scanned."""
PLACES: Final = 1016
"""Places of a page; as bits they are whole bytes."""
ENTRY_PAGES: Final = 4
MOST_ENTRIES: Final = ENTRY_PAGES * PLACES
TORN: Final = 2
_FIELDS = struct.Struct("<IBBHQf")
_HEAD: Final = layout.GRAPH_HEAD_BYTES
_PAGE: Final = layout.GRAPH_PAGE_BYTES
_EXTENTS_AT_ONCE: Final = 32
_LOOKS: Final = 4  # at a page that may be being written

Bytes = NDArray[np.uint8]
Slots = NDArray[np.uint32]


def pages_of_extent(degree: int) -> int:
    """Pages that hold the records of as many slots as a page of places has places."""
    return -(-PLACES // layout.graph_records(degree))


def place_page(number: int, degree: int) -> int:
    """Which page has the places of slots ``PLACES * number`` and those after it."""
    return ENTRY_PAGES + number * (1 + pages_of_extent(degree))


def spread(slots: Slots) -> Slots:
    """Some of the slots, about the square root of their number: entries for want of others."""
    return slots[:: max(1, int(np.sqrt(len(slots))))][:MOST_ENTRIES]


def write_draft(
    directory: Path,
    spec: SpaceSpec,
    degree: int,
    lists: Slots,
    order: Slots,
    entries: Slots,
    longest: float = 0.0,
) -> None:
    """Write the graph of ``lists`` beside the present one, durably; ``install`` puts it in place.

    lists (slots, 1 + room) uint32: how many neighbours, then these, of which ``degree`` are kept;
    order: the slots that are linked, as pages are to hold them; longest: the squared length that
    inner products are completed to.
    """
    records, pages = layout.graph_records(degree), pages_of_extent(degree)
    metric = layout.METRICS[spec.metric]
    fields = _FIELDS.pack(spec.dim, metric, degree, 0, spec.seed, longest)
    numbers = np.arange(-(-len(order) // records), dtype=np.uint32)
    numbers = place_page(0, degree) + 1 + numbers // pages * (1 + pages) + numbers % pages
    at = np.arange(len(order))
    extents = -(-len(lists) // PLACES)
    places = np.full(extents * PLACES, NOWHERE, np.uint32)
    places[order] = numbers[at // records] << 8 | at % records
    path = directory / DRAFT
    with files.typed_errors(path), open(path, "wb") as handle:
        head = files.seal_header(MAGIC, fields, VERSION)
        handle.write(head + seal(entry_pages(entries), np.arange(ENTRY_PAGES)).tobytes())
        for first in range(0, extents, _EXTENTS_AT_ONCE):
            count = min(_EXTENTS_AT_ONCE, extents - first)
            part = order[first * pages * records :][: count * pages * records]
            filled = _pages_of(part, lists, degree)
            body = np.zeros((count, 1 + pages, _PAGE), np.uint8)
            body[:, 0] = _place_pages(places[first * PLACES :][: count * PLACES])
            here, there = divmod(np.arange(len(filled)), pages)
            body[here, 1 + there] = filled
            used = np.zeros((count, 1 + pages), np.bool_)
            used[:, 0] = used[here, 1 + there] = True
            at = place_page(first, degree) + np.flatnonzero(used)
            made = seal(body[used], at)
            for run in np.split(np.arange(len(at)), np.flatnonzero(np.diff(at) != 1) + 1):
                handle.seek(len(head) + int(at[run[0]]) * _PAGE)
                handle.write(made[run[0] : run[-1] + 1].tobytes())
        handle.truncate(len(head) + place_page(extents, degree) * _PAGE)
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
    pages[:, _HEAD : _HEAD + records * size] = body.reshape(len(pages), records * size)
    return pages


def _low_bytes(numbers: Slots) -> Bytes:
    """(n, 3 m): three bytes of each of (n, m)."""
    raw = np.ascontiguousarray(numbers, "<u4").view(np.uint8)
    return raw.reshape(*numbers.shape, 4)[:, :, :3].reshape(len(numbers), 3 * numbers.shape[1])


def numbers_of(low_bytes: Bytes) -> Slots:
    """(n, m) of (n, 3 m): the inverse of ``_low_bytes``."""
    parts = low_bytes.reshape(len(low_bytes), -1, 3).astype(np.uint32)
    return (parts @ np.array([1, 1 << 8, 1 << 16], np.uint32)).astype(np.uint32)


def _words(rows: Slots) -> Bytes:
    """(n, 4096) pages of (n, 1016) words, without checksums."""
    pages = np.zeros((len(rows), _PAGE), np.uint8)
    pages[:, _HEAD : _HEAD + 4 * PLACES] = np.ascontiguousarray(rows, "<u4").view(np.uint8)
    return pages


def _place_pages(places: Slots) -> Bytes:
    return _words(places.reshape(-1, PLACES))


def entry_pages(entries: Slots) -> Bytes:
    """(4, 4096) pages of up to ``MOST_ENTRIES`` slots, without checksums."""
    words = np.zeros(MOST_ENTRIES, np.uint32)
    words[: len(entries)] = entries + 1
    return _words(words.reshape(ENTRY_PAGES, PLACES))


def seal(pages: Bytes, numbers: NDArray[np.integer[Any]]) -> Bytes:
    """The pages with their numbers and checksums, in place."""
    pages[:, 4:8] = numbers.astype("<u4").view(np.uint8).reshape(-1, 4)
    for page in pages:
        page[:4] = np.frombuffer(crc32c(page[4:].tobytes()).to_bytes(4, "little"), np.uint8)
    return pages


def _seals_of(pages: Bytes, numbers: NDArray[np.integer[Any]]) -> Slots:
    return pages[numbers, :4].copy().view("<u4").reshape(-1)


def _read_words(pages: Bytes, number: int) -> tuple[Slots | None, int]:
    """What a page of words holds, and its checksum; None where that fails."""
    for _ in range(_LOOKS):
        raw = pages[number].tobytes()
        if raw[:8] == crc32c(raw[4:]).to_bytes(4, "little") + number.to_bytes(4, "little"):
            words = np.frombuffer(raw, "<u4", PLACES, _HEAD)
            return words.astype(np.uint32), int.from_bytes(raw[:4], "little")
    return None, 0


class GraphFile:
    """An open graph.bin. Raises ``StoreCorrupt`` or ``FormatTooNew`` where it cannot be used.

    ``checked`` (n,), ``places`` (slots,) and ``entries`` are replaced by
    ``refresh``, never resized: hold on to one value of them during a search.
    """

    def __init__(self, directory: Path, spec: SpaceSpec, *, writable: bool) -> None:
        self.file = files.MappedFile(directory / NAME, MAGIC, writable=writable, version=VERSION)
        try:
            self._load(spec)
        except BaseException:
            self.file.close()
            raise

    def _load(self, spec: SpaceSpec) -> None:
        if self.file.version < VERSION:
            raise self.file.corrupt("has an older layout")
        if len(self.file.fields) != _FIELDS.size:
            raise self.file.corrupt("has fields of another length")
        dim, metric, degree, _, seed, self.longest = _FIELDS.unpack(self.file.fields)
        if (dim, metric, seed) != (spec.dim, layout.METRICS[spec.metric], spec.seed):
            raise self.file.corrupt("belongs to another space")
        if not 1 <= degree <= MOST_DEGREE:
            raise self.file.corrupt("has a degree that cannot be")
        self.degree = degree
        self.checked = np.zeros(0, np.uint8)
        self.places = np.zeros(0, np.uint32)
        self.entries = np.zeros(0, np.uint32)
        self._seals = np.zeros(0, np.uint32)  # of the places as they were last read
        self._entry_seals = np.zeros(0, np.uint32)
        self._torn_places: set[int] = set()
        self._bits = np.zeros(0, np.uint8)  # which places lead somewhere
        self._placed: tuple[int, Bytes, SlotSet] | None = None
        pages, rest = divmod(self.file.body_bytes, _PAGE)
        if rest or pages < ENTRY_PAGES or (pages - ENTRY_PAGES) % (1 + pages_of_extent(degree)):
            raise self.file.corrupt("has another length than its pages")
        self.refresh()

    # --- reading ---------------------------------------------------------------------------

    def refresh(self) -> bool:
        """See what was written to the same file; whether anything about places has changed."""
        self.file.refresh()
        pages = self.pages
        if len(pages) != len(self.checked):
            checked = np.zeros(len(pages), np.uint8)
            checked[: len(self.checked)] = self.checked[: len(pages)]
            self.checked = checked
        moved = self._read_places(pages)
        return self._read_entries(pages) or moved

    @property
    def pages(self) -> Bytes:
        """(pages, 4096) of the mapped file; where none is kept, of one for the caller alone."""
        body = self.file.body
        return body[: len(body) // _PAGE * _PAGE].reshape(-1, _PAGE)

    def _read_places(self, pages: Bytes) -> bool:
        """Read the pages of places whose checksums are others than before."""
        extents = (len(pages) - ENTRY_PAGES) // (1 + pages_of_extent(self.degree))
        extents = max(0, min(extents, -(-MOST_SLOTS // PLACES)))
        seals = _seals_of(pages, place_page(0, self.degree) + self._every(extents))
        known = np.zeros(extents, np.uint32)
        known[: len(self._seals)] = self._seals[:extents]
        stale = np.flatnonzero(seals != known)
        if not len(stale) and len(self.places) == extents * PLACES:
            return False
        places = np.full(extents * PLACES, NOWHERE, np.uint32)
        places[: len(self.places)] = self.places[: len(places)]
        bits = np.zeros(extents * PLACES // 8, np.uint8)
        bits[: len(self._bits)] = self._bits[: len(bits)]
        for number in stale.tolist():
            words, seal_of = _read_words(pages, place_page(number, self.degree))
            self._torn_places.discard(number)
            if words is None:  # also where somebody is still at it: looked at again next time
                self._torn_places.add(number)
                continue
            known[number] = seal_of
            at = slice(number * PLACES, (number + 1) * PLACES)
            places[at] = words
            there = (words != NOWHERE) & (words >> 8 < len(pages))
            bits[at.start // 8 : at.stop // 8] = np.packbits(there, bitorder="little")
        self.places, self._bits, self._seals = places, bits, known
        return True

    def _every(self, extents: int) -> NDArray[np.int64]:
        return np.arange(extents) * (1 + pages_of_extent(self.degree))

    def _read_entries(self, pages: Bytes) -> bool:
        seals = _seals_of(pages, np.arange(ENTRY_PAGES))
        if np.array_equal(seals, self._entry_seals):
            return False
        parts, known = [], seals.copy()
        for number in range(ENTRY_PAGES):
            words, _ = _read_words(pages, number)
            if words is None:
                known[number] = ~seals[number]  # looked at again next time
            else:
                parts.append(words[(words > 0) & (words <= len(self.places))] - 1)
        self.entries = np.unique(np.concatenate([np.zeros(0, np.uint32), *parts]))
        self._entry_seals = known
        return True

    @property
    def slots(self) -> int:
        """One past the greatest slot that the file has a place for."""
        return len(self.places)

    def placed(self) -> SlotSet:
        """The slots that have a record, but for those on pages known to be torn."""
        torn = self.torn()
        known = self._placed
        if known is None or known[0] != torn or known[1] is not self._bits:
            known = self._placed = torn, self._bits, self._find_placed()
        return known[2]

    def _find_placed(self) -> SlotSet:
        torn = np.flatnonzero(self.checked == TORN)
        if not len(torn):
            return SlotSet(self._bits)
        there = np.unpackbits(self._bits, bitorder="little").astype(np.bool_)
        there[there] = ~np.isin(self.places[there] >> 8, torn)
        return SlotSet(np.packbits(there, bitorder="little"))

    def torn(self) -> int:
        """How many pages failed their checksum when they were looked at."""
        return int(np.count_nonzero(self.checked == TORN)) + len(self._torn_places)

    def changed(self, numbers: Slots | None) -> None:
        """Pages with these numbers, or any, were written anew: they are to be looked at again."""
        if numbers is None:
            self.checked[:] = 0
        else:
            self.checked[numbers[numbers < len(self.checked)]] = 0

    def verify(self) -> None:
        """Look at every page that is used; ``StoreCorrupt`` names the first that is torn."""
        if self._torn_places:
            raise self.file.corrupt("has a torn page of places")
        used, pages = np.unique(self.places[self.places != NOWHERE] >> 8), self.pages
        for number in used.tolist():
            if number >= len(pages) or not self._is_sound(pages[number], number):
                raise self.file.corrupt(f"has a torn page, number {number}")

    def _is_sound(self, page: Bytes, number: int) -> bool:
        raw = page.tobytes()
        wanted: bytes = crc32c(raw[4:]).to_bytes(4, "little") + number.to_bytes(4, "little")
        return raw[:8] == wanted

    def fill(self, lists: Slots) -> None:
        """Put what sound pages hold in (slots, 1 + room) lists, as ``write_draft`` takes them."""
        slots, room = lists.shape[0], lists.shape[1] - 1
        size, records = layout.graph_record_bytes(self.degree), layout.graph_records(self.degree)
        kept = min(self.degree, room)
        placed = np.flatnonzero(self.places != NOWHERE).astype(np.uint32)
        placed = placed[np.argsort(self.places[placed], kind="stable")]
        used, pages = self.places[placed] >> 8, self.pages
        for number in np.unique(used).tolist():
            page = pages[number] if number < len(pages) else None
            if page is None or not self._is_sound(page, number):
                continue
            body = page[_HEAD : _HEAD + records * size].reshape(-1, size)
            first, last = np.searchsorted(used, [number, number + 1])
            mine = placed[first:last]
            at = self.places[mine] & 0xFF
            mine, at = mine[at < records], at[at < records]
            body = body[at]
            valid = (numbers_of(body[:, :3])[:, 0] == mine) & (mine < slots)
            body, mine = body[valid], mine[valid]
            lists[mine, 0] = np.minimum(body[:, 3], kept)
            lists[mine, 1 : 1 + kept] = numbers_of(body[:, 4 : 4 + 3 * kept])

    # --- writing: by one process at a time ---------------------------------------------------

    def grow(self, slots: int) -> None:
        """Make room for slots up to this many."""
        extents = -(-min(slots, MOST_SLOTS) // PLACES)
        if extents * PLACES > self.slots:
            self.file.grow(place_page(extents, self.degree) * _PAGE)
            self.refresh()

    def write(self, numbers: NDArray[np.integer[Any]], pages: Bytes) -> None:
        """Write sealed pages, neighbours together; durable after ``sync``."""
        order = np.argsort(numbers)
        cuts = np.flatnonzero(np.diff(numbers[order]) != 1) + 1
        for run in np.split(order, cuts):
            if len(run):
                part = pages[run[0]] if len(run) == 1 else pages[run].reshape(-1)
                self.file.write(int(numbers[run[0]]) * _PAGE, part.data)

    def write_places(self, places: Slots, numbers: NDArray[np.integer[Any]]) -> None:
        """Write these pages of places of (slots,) ``places``."""
        pages = _place_pages(places.reshape(-1, PLACES)[numbers].reshape(-1))
        at = place_page(0, self.degree) + numbers * (1 + pages_of_extent(self.degree))
        self.write(at, seal(pages, at))

    def write_entries(self, entries: Slots) -> None:
        numbers = np.arange(ENTRY_PAGES)
        self.write(numbers, seal(entry_pages(entries), numbers))

    def sync(self) -> None:
        self.file.sync()

    def close(self) -> None:
        self.file.close()
