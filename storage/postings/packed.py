"""Packed segments: postings in the fewest bytes, made where room is dear.

A segment as ``writing`` makes it has a value a term, twelve bytes of hash and six an entry, and a
forward row beside each record. A packed one has many terms a value, and no forward rows. It is made
by a copy of the store (``packing``) and never changed: a row that goes is entered in a set, *gone*,
which readers leave out and the next copy drops. So nothing needs to know what a row's terms were,
except for a second look at it (``forwards``), which reads through the segment.

Grammar, in table ``postings`` (numbers of a list are LEB128: seven bits a byte, low ones first)::

    segment u32 | twelve zeros | first row u32  -> 1 | length u8 ...        of the segment's rows
    segment u32 | hash 12 | 0                   -> 2 | count u8 | hash 12 * (count - 1)
                                                     | size of a list u8 * count | list * count
    segment u32 | hash 12 | number u32          -> 3 | list                 pieces of one long list
    list := (step * 2, or step * 2 + 1 followed by tf * 2) ...

``step`` is the distance to the row before in the list, in its first entry that to the segment's
first row; without a ``tf`` it is 1. Lengths are those of ``layout``, in ascending order of rows.
The rows themselves are in ``meta``, as those of every segment (``manifest``).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pyroaring import BitMap

from memdb.errors import StoreCorrupt
from memdb.storage import tables
from memdb.storage.environment import ReadTxn
from memdb.storage.postings import manifest as manifests
from memdb.storage.postings.layout import (
    ENTRY,
    EVERY_ROW,
    HASH_BYTES,
    LENGTHS,
    Analysed,
    encode_forward,
    entry_key,
)

_LENGTHS_KIND, _TERMS_KIND, _PIECE_KIND = b"\1", b"\2", b"\3"
VALUE_BYTES: Final = 1_290  # three of them, with their keys, fill a page
_LIST_MAX: Final = 255  # bytes of a list that shares a value with others
_TERMS_MAX: Final = 255
_LAST: Final = 0xFFFFFFFF
_SCRATCH: Final = "packed postings"

Rows = NDArray[np.int64]
Octets = NDArray[np.uint8]


class Entries(NamedTuple):
    """Postings of many terms: ``hashes`` (t, 12) ascending; term i has the entries
    ``offsets[i]:offsets[i + 1]`` of ``rows`` and ``tfs`` (n,), ascending by row.
    """

    hashes: Octets
    offsets: Rows
    rows: Rows
    tfs: Rows


# --- lists ----------------------------------------------------------------------------------


def encode_list(steps: Rows, tfs: Rows) -> tuple[bytes, Rows]:
    """The bytes of (n,) entries in a row, and the bytes (n,) that each takes."""
    flagged = tfs != 1
    many = np.flatnonzero(flagged)
    values = np.insert(steps * 2 + flagged, many + 1, tfs[many] * 2)
    sizes = np.ones(len(values), np.int64)
    for shift in (7, 14, 21, 28):
        sizes += values >= 1 << shift
    starts = np.cumsum(sizes) - sizes
    octets = np.zeros(int(sizes.sum()), np.uint8)
    for place in range(int(sizes.max(initial=0))):
        mine = np.flatnonzero(sizes > place)
        more = (sizes[mine] > place + 1) * 128
        octets[starts[mine] + place] = (values[mine] >> 7 * place & 127) | more
    owner = np.repeat(np.arange(len(steps)), 1 + flagged)
    return octets.tobytes(), np.bincount(owner, sizes, len(steps)).astype(np.int64)


def _numbers(octets: Octets) -> tuple[Rows, Rows]:
    """The LEB128 numbers (n,) in ``octets``, and where each ends."""
    ends = np.flatnonzero(octets < 128)
    if len(octets) and (not len(ends) or ends[-1] != len(octets) - 1):
        raise StoreCorrupt("a packed posting list does not end", path="kv")
    starts = np.empty_like(ends)
    starts[:1], starts[1:] = 0, ends[:-1] + 1
    sizes = ends - starts + 1
    longest = int(sizes.max(initial=0))
    if longest > 5:
        raise StoreCorrupt("a packed posting list has an impossible number", path="kv")
    values = (octets[starts] & 127).astype(np.int64)
    for place in range(1, longest):
        mine = np.flatnonzero(sizes > place)
        values[mine] |= (octets[starts[mine] + place] & 127).astype(np.int64) << 7 * place
    return values, ends


def decode_lists(octets: Octets, ends: Rows) -> tuple[Rows, Rows, Rows]:
    """(rows from the segment's first, tfs, entries of each list) of lists ending before ``ends``.

    rows and tfs (n,), entries (len(ends),).
    """
    values, number_ends = _numbers(octets)
    flagged = (values & 1).astype(np.bool_)
    is_entry = np.ones(len(values), np.bool_)
    is_entry[1:] = ~flagged[:-1]
    heads = np.flatnonzero(is_entry)
    tfs = np.ones(len(heads), np.int64)
    with_tf = np.flatnonzero(flagged[heads])
    if len(with_tf) and heads[with_tf[-1]] + 1 >= len(values):
        raise StoreCorrupt("a packed posting list does not end", path="kv")
    tfs[with_tf] = values[heads[with_tf] + 1] >> 1
    steps = values[heads] >> 1
    counted = np.searchsorted(number_ends[heads], ends)
    counts = np.diff(counted, prepend=0)
    rows = np.cumsum(steps)
    firsts = counted - counts
    some = counts > 0
    before = np.zeros(len(ends), np.int64)
    before[some] = rows[firsts[some]] - steps[firsts[some]]
    return rows - np.repeat(before, counts), tfs, counts


# --- writing a segment ----------------------------------------------------------------------


def pack(
    segment: int, rows: Rows, lengths: Octets, entries: Entries
) -> Iterator[tuple[bytes, bytes]]:
    """(key, payload) of a whole segment in key order; ``rows`` (n,) ascend, ``lengths`` (n,)."""
    for start in range(0, len(rows), VALUE_BYTES):
        key = entry_key(segment, EVERY_ROW, int(rows[start]))
        yield key, _LENGTHS_KIND + lengths[start : start + VALUE_BYTES].tobytes()
    if not len(entries.hashes):
        return
    base = int(rows[0])
    counts = np.diff(entries.offsets)
    steps = np.diff(entries.rows, prepend=0)
    firsts = entries.offsets[:-1]
    steps[firsts] = entries.rows[firsts] - base
    octets, sizes = encode_list(steps, entries.tfs)
    bounds = np.concatenate(([0], np.cumsum(sizes)))[entries.offsets].tolist()
    names = [one.tobytes() for one in entries.hashes]
    held: list[tuple[bytes, bytes]] = []
    room = VALUE_BYTES
    for place, name in enumerate(names):
        size = bounds[place + 1] - bounds[place]
        if size > _LIST_MAX:
            yield from _shared(segment, held)
            held, room = [], VALUE_BYTES
            part = slice(int(entries.offsets[place]), int(entries.offsets[place] + counts[place]))
            for number, piece in enumerate(
                _pieces(entries.rows[part] - base, entries.tfs[part], sizes[part])
            ):
                yield entry_key(segment, name, number), _PIECE_KIND + piece
            continue
        if size + HASH_BYTES + 1 > room or len(held) == _TERMS_MAX:
            yield from _shared(segment, held)
            held, room = [], VALUE_BYTES
        held.append((name, octets[bounds[place] : bounds[place + 1]]))
        room -= size + HASH_BYTES + 1
    yield from _shared(segment, held)


def _shared(segment: int, held: list[tuple[bytes, bytes]]) -> Iterator[tuple[bytes, bytes]]:
    if held:
        names = b"".join([name for name, _ in held[1:]])
        sizes = bytes([len(one) for _, one in held])
        body = b"".join([one for _, one in held])
        head = _TERMS_KIND + bytes((len(held),))
        yield entry_key(segment, held[0][0], 0), head + names + sizes + body


def _pieces(rows: Rows, tfs: Rows, sizes: Rows) -> Iterator[bytes]:
    """A long list, cut; each piece begins anew from the segment's first row."""
    number = np.cumsum(sizes) // (VALUE_BYTES - 8)
    cuts = np.flatnonzero(np.diff(number, prepend=-1)).tolist()
    for start, stop in zip(cuts, [*cuts[1:], len(rows)], strict=True):
        yield encode_list(np.diff(rows[start:stop], prepend=0), tfs[start:stop])[0]


# --- reading --------------------------------------------------------------------------------


class Packed:
    """One packed segment, in any snapshot of the environment that holds it."""

    def __init__(self, txn: ReadTxn, number: int) -> None:
        self.number = number
        self.rows = np.frombuffer(manifests.rows_of(txn, number).to_array(), "u4").astype(np.int64)
        start, stop = entry_key(number, EVERY_ROW, 0), entry_key(number, EVERY_ROW, _LAST) + b"\0"
        found = txn.entries(tables.POSTINGS, start, stop)
        codes = b"".join([payload[1:] for _, payload in found])
        if len(codes) != len(self.rows) or any(p[:1] != _LENGTHS_KIND for _, p in found):
            raise StoreCorrupt("a packed segment lacks lengths", path="kv")
        self.base = int(self.rows[0]) if len(self.rows) else 0
        self.codes = np.frombuffer(codes, np.uint8)
        self._direct: Octets | None = None
        span = int(self.rows[-1]) - self.base + 1 if len(self.rows) else 0
        if span <= 8 * len(self.rows):
            self._direct = np.zeros(span, np.uint8)
            self._direct[self.rows - self.base] = self.codes

    @classmethod
    def of(cls, txn: ReadTxn, number: int) -> Packed:
        """From what transactions of this environment share: a segment never changes."""
        known: dict[int, Packed] = txn.of_copy.setdefault(_SCRATCH, {})
        if number not in known:
            known[number] = cls(txn, number)
        return known[number]

    def codes_of(self, steps: Rows) -> Octets:
        """The lengths of rows given from the segment's first."""
        if self._direct is not None:
            if len(steps) and int(steps.max()) >= len(self._direct):
                raise StoreCorrupt("a packed segment names a row that it has not", path="kv")
            return self._direct[steps]
        return self.codes[np.searchsorted(self.rows, steps + self.base)]

    def entries(self, txn: ReadTxn, term_hash: bytes, gone: BitMap) -> NDArray[np.void]:
        """(n,) of dtype ``ENTRY``: the rows that hold a term, ascending."""
        if term_hash == EVERY_ROW:
            steps, tfs = self.rows - self.base, np.ones(len(self.rows), np.int64)
        else:
            steps, tfs = self._look_up(txn, term_hash)
        made = np.empty(len(steps), ENTRY)
        made["row"] = steps + self.base
        made["tf"], made["length"] = tfs, self.codes_of(steps)
        if gone and len(made):
            made = made[~np.isin(made["row"], np.frombuffer(gone.to_array(), "u4"))]
        return made

    def _look_up(self, txn: ReadTxn, term_hash: bytes) -> tuple[Rows, Rows]:
        nothing = np.empty(0, np.int64)
        found = txn.floor(tables.POSTINGS, entry_key(self.number, term_hash, _LAST))
        head = entry_key(self.number, term_hash, 0)
        if found is None or found[0][:4] != head[:4]:
            return nothing, nothing
        key, payload = found
        if payload[:1] == _PIECE_KIND:
            if key[:16] != head[:16]:
                return nothing, nothing
            pieces = [payload]
            if key != head:
                stop = entry_key(self.number, term_hash, _LAST) + b"\0"
                pieces = [one for _, one in txn.entries(tables.POSTINGS, head, stop)]
            body = b"".join([one[1:] for one in pieces])
            ends = np.cumsum([len(one) - 1 for one in pieces])
        elif payload[:1] == _TERMS_KIND:
            names, sizes, lists = _parts(key, payload)
            at = names.find(term_hash)
            while at % HASH_BYTES and at >= 0:
                at = names.find(term_hash, at + 1)
            if at < 0:
                return nothing, nothing
            place = at // HASH_BYTES
            start = sum(sizes[:place])
            body = lists[start : start + sizes[place]]
            ends = np.array([len(body)])
        else:
            return nothing, nothing
        steps, tfs, _ = decode_lists(np.frombuffer(body, np.uint8), ends)
        return steps, tfs

    def everything(self, txn: ReadTxn, gone: BitMap) -> Entries:
        """All postings of the segment but those of ``gone``."""
        names, counts, rows, tfs = [], [], [], []
        start, stop = self.number.to_bytes(4, "big"), (self.number + 1).to_bytes(4, "big")
        for key, payload in txn.entries(tables.POSTINGS, start, stop):
            if payload[:1] == _LENGTHS_KIND:
                continue
            if payload[:1] == _TERMS_KIND:
                name, sizes, lists = _parts(key, payload)
            else:
                name, sizes, lists = key[4:16], bytes(1), payload[1:]
            ends = np.cumsum(np.frombuffer(sizes, np.uint8), dtype=np.int64)
            ends[-1] = len(lists)
            found = decode_lists(np.frombuffer(lists, np.uint8), ends)
            names.append(name)
            rows.append(found[0])
            tfs.append(found[1])
            counts.append(found[2])
        if not names:
            empty = np.empty(0, np.int64)
            return Entries(np.empty((0, HASH_BYTES), np.uint8), np.zeros(1, np.int64), empty, empty)
        hashes = np.frombuffer(b"".join(names), np.uint8).reshape(-1, HASH_BYTES)
        owner = np.repeat(np.arange(len(hashes)), np.concatenate(counts))
        all_rows, all_tfs = np.concatenate(rows) + self.base, np.concatenate(tfs)
        if gone:
            kept = ~np.isin(all_rows, np.frombuffer(gone.to_array(), "u4"))
            owner, all_rows, all_tfs = owner[kept], all_rows[kept], all_tfs[kept]
        return grouped(hashes, owner, all_rows, all_tfs)


def _parts(key: bytes, payload: bytes) -> tuple[bytes, bytes, bytes]:
    """(hashes in a row, sizes of the lists, the lists) of a value that terms share."""
    count = payload[1] if len(payload) > 1 else 0
    names_end = 2 + HASH_BYTES * (count - 1)
    sizes = payload[names_end : names_end + count]
    lists = payload[names_end + count :]
    if not count or len(sizes) != count or sum(sizes) != len(lists):
        raise StoreCorrupt("a packed value of postings has an impossible length", path="kv")
    return key[4:16] + payload[2:names_end], sizes, lists


def grouped(hashes: Octets, owner: Rows, rows: Rows, tfs: Rows) -> Entries:
    """Entries in any order, entry i of term ``hashes[owner[i]]``, sorted by (hash, row)."""
    words = np.ascontiguousarray(hashes)
    high = words[:, :8].copy().view(">u8").ravel().astype(np.uint64)
    low = words[:, 8:].copy().view(">u4").ravel().astype(np.uint32)
    by_hash = np.lexsort((low, high))
    new = np.ones(len(by_hash), np.bool_)
    new[1:] = (high[by_hash][1:] != high[by_hash][:-1]) | (low[by_hash][1:] != low[by_hash][:-1])
    number = np.empty(len(by_hash), np.int64)
    number[by_hash] = np.cumsum(new) - 1
    terms = number[owner]
    order = np.lexsort((rows, terms))
    counts = np.bincount(terms, minlength=int(new.sum()))
    used = counts > 0
    offsets = np.concatenate(([0], np.cumsum(counts[used])))
    return Entries(words[by_hash[new]][used], offsets, rows[order], tfs[order])


# --- rows that have no forward row ------------------------------------------------------------


def forwards(txn: ReadTxn, rows: Iterable[int]) -> dict[int, bytes]:
    """The forward rows of those of ``rows`` that packed segments hold, made from their postings.

    A length is one of ``LENGTHS``. Reads the segments through: a tenth of a second for 100,000
    rows.
    """
    manifest = manifests.load(txn)
    if not manifest.packed:
        return {}
    wanted = BitMap(rows) - manifests.gone(txn)
    found: dict[int, bytes] = {}
    for one in manifest.packed:
        mine = wanted & manifests.rows_of(txn, one.id)
        if mine:
            _invert(txn, Packed.of(txn, one.id), mine, found)
    return found


def _invert(txn: ReadTxn, segment: Packed, wanted: BitMap, found: dict[int, bytes]) -> None:
    every = segment.everything(txn, BitMap())
    numbers = np.frombuffer(wanted.to_array(), "u4").astype(np.int64)
    owner = np.repeat(np.arange(len(every.hashes)), np.diff(every.offsets))
    kept = np.flatnonzero(np.isin(every.rows, numbers))
    order = kept[np.argsort(every.rows[kept], kind="stable")]  # terms stay in order of hashes
    starts = np.searchsorted(every.rows[order], numbers).tolist()
    hashes = every.hashes[owner[order]].tobytes()
    tfs = every.tfs[order].astype(np.uint8).tobytes()
    lengths = LENGTHS[segment.codes_of(numbers - segment.base)].tolist()
    stops: Sequence[int] = [*starts[1:], len(order)]
    for row, length, start, stop in zip(numbers.tolist(), lengths, starts, stops, strict=True):
        names = hashes[HASH_BYTES * start : HASH_BYTES * stop]
        found[row] = encode_forward(Analysed(names, tfs[start:stop], length))
