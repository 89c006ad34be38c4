"""Strings in order, without a string in any key: sorted (text, row) blocks under ordered labels.

    table key     := field u16 | label u64
    table payload := n u16 LE | n rows u32 LE | common prefix { FF suffix } x n

Blocks of one field are ordered by label, and labels by the texts in them; text is in the values
only. Labels are handed out as in order maintenance (Dietz and Sleator 1987; here as the simple
list labelling of Bender et al. 2002): a new block takes one between its neighbours', and when
there is none a neighbourhood is relabelled evenly. To find a block one bisects the labels, reading
a first text at each step. 0xFF occurs in no UTF-8 text, so it separates.

A string with at most ``INLINE_MAX`` rows has one entry per row, so that a prefix over many
distinct strings reads no bitmaps; one with more has a single entry whose row is ``MANY``, and
its rows are in its bitmap. This file knows fields by number and texts as bytes.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence

from memdb.storage import tables
from memdb.storage.environment import ReadTxn, WriteTxn
from memdb.storage.filters import string_blocks
from memdb.storage.filters.bitmaps import row_array, row_bytes
from memdb.storage.kernels import KERNELS
from memdb.storage.values import SMALL_PAYLOAD_MAX_BYTES

MANY = 0xFFFF_FFFF
TEXT_MAX_BYTES = 512
_FIRST_LABEL = 1 << 63
_STEP = 1 << 40
_LABEL_END = 1 << 64
_BATCH = 8  # from so many entries on, listing a field's labels is cheaper than bisecting each

Entry = tuple[bytes, int]
from_bytes = int.from_bytes


class Labels:
    """The labels of one field in order, and the first entries read so far. Lives for one call."""

    def __init__(self, txn: ReadTxn, field: int, *, listed: bool) -> None:
        self._txn = txn
        self._field = field
        self._firsts: dict[int, Entry] = {}
        self._list = list(labels_of(txn, field)) if listed else None
        self._near = 0  # the place in the list where the last look-up ended
        self._ends: tuple[int, int] | None = None
        self._steps: dict[int, int | None] = {}

    def locate(self, entry: Entry) -> int | None:
        """The last block that begins at or before ``entry``; the first one if none does.

        Of listed labels, entries ask in ascending order: the search goes on where it ended.
        """
        if self._list is None:
            return self._bisect(entry)
        if not self._list:
            return None
        low, step = self._near, 1
        while low + step < len(self._list) and self.first(self._list[low + step]) <= entry:
            low += step
            step *= 2
        high = min(low + step, len(self._list))
        at = bisect_right(self._list, entry, low, high, key=self.first)
        self._near = max(at - 1, 0)
        return self._list[self._near]

    def _bisect(self, entry: Entry) -> int | None:
        txn, field = self._txn, self._field
        if self._ends is None:
            start, stop = block_key(field, 0), block_key(field + 1, 0)
            first, last = (
                find(tables.NAMES, start, stop) for find in (txn.first_key, txn.last_key)
            )
            if first is None or last is None:
                return None
            self._ends = from_bytes(first[2:], "big"), from_bytes(last[2:], "big") + 1
        low, high = self._ends
        while high - low > 1:
            middle = (low + high) // 2
            label = self._at_or_before(middle)
            if label is None or label <= low:  # the lower half is empty
                after = self.after(middle)
                if after is None or after >= high or self.first(after) > entry:
                    return low
                low = after
            elif self.first(label) <= entry:
                low = label
            else:
                high = label
        return low

    def _at_or_before(self, label: int) -> int | None:
        """The field's last label up to ``label``; remembered, since bisections begin alike."""
        if label not in self._steps:
            found = self._txn.floor(tables.NAMES, block_key(self._field, label))
            if found is None or found[0][:2] != self._field.to_bytes(2, "big"):
                self._steps[label] = None
            else:
                at = self._steps[label] = from_bytes(found[0][2:], "big")
                self._firsts[at] = first_entry(found[1])
        return self._steps[label]

    def first(self, label: int) -> Entry:
        entry = self._firsts.get(label)
        if entry is None:
            payload = self._txn.get(tables.NAMES, block_key(self._field, label)) or b""
            entry = self._firsts[label] = first_entry(payload)
        return entry

    def after(self, label: int) -> int | None:
        """The label following ``label``."""
        if self._list is not None:
            at = bisect_right(self._list, label)
            return self._list[at] if at < len(self._list) else None
        found = self._txn.first_key(
            tables.NAMES, block_key(self._field, label + 1), block_key(self._field + 1, 0)
        )
        return None if found is None else from_bytes(found[2:], "big")

    def wrote(self, label: int, first: Entry) -> None:
        """A block was written under ``label``."""
        self._firsts[label] = first
        self._steps.clear()
        self._ends = None
        if self._list is not None:
            at = bisect_left(self._list, label)
            if at == len(self._list) or self._list[at] != label:
                self._list.insert(at, label)

    def dropped(self, label: int) -> None:
        """The block under ``label`` was deleted."""
        self._firsts.pop(label, None)
        self._steps.clear()
        self._ends = None
        if self._list is not None:
            self._list.remove(label)
            self._near = max(self._near - 1, 0)


def insert(txn: WriteTxn, field: int, entries: Sequence[Entry]) -> None:
    """Enter (text, row) pairs, in any order; those already there stay once."""
    bounds = block_key(field, 0), block_key(field + 1, 0)
    ordered = string_blocks.enter(txn, bounds, sorted(set(entries)))
    listed = len(ordered) >= _BATCH
    labels = Labels(txn, field, listed=listed)
    at = 0
    while at < len(ordered):
        label = labels.locate(ordered[at])
        stop = len(ordered)
        block: list[Entry] = []
        if label is None:
            label, following = _FIRST_LABEL, None
        else:
            following = labels.after(label)
            if following is not None and stop - at > 1:
                stop = max(bisect_left(ordered, labels.first(following), at), at + 1)
            payload = txn.get(tables.NAMES, block_key(field, label)) or b""
            joined = KERNELS.join_block(payload, ordered[at:stop])
            if joined is not None:
                _put(txn, field, label, joined)
                labels.wrote(label, min(labels.first(label), ordered[at]))
                at = stop
                continue
            block = decode_block(payload)
        appended = not block or ordered[at] > block[-1]
        for entry in ordered[at:stop]:
            place = bisect_left(block, entry)
            if place == len(block) or block[place] != entry:
                block.insert(place, entry)
        pieces = _cut(block, appended=appended)
        places = _places(label, following, len(pieces))
        if places is None:
            _make_room(txn, field, label)
            labels = Labels(txn, field, listed=listed)
            continue
        for place, (first, payload) in zip(places, pieces, strict=True):
            _put(txn, field, place, payload)
            labels.wrote(place, first)
        at = stop


def remove(txn: WriteTxn, field: int, entries: Sequence[Entry]) -> None:
    """Take (text, row) pairs out; those not there are passed over."""
    ordered = sorted(set(entries))
    labels = Labels(txn, field, listed=len(ordered) >= _BATCH)
    at = 0
    while at < len(ordered):
        label = labels.locate(ordered[at])
        if label is None:
            return
        following = labels.after(label) if len(ordered) - at > 1 else None
        stop = at + 1
        if following is not None:
            stop = max(bisect_left(ordered, labels.first(following), at), stop)
        elif len(ordered) - at > 1:
            stop = len(ordered)
        block = decode_block(txn.get(tables.NAMES, block_key(field, label)) or b"")
        gone = set(ordered[at:stop])
        kept = [entry for entry in block if entry not in gone]
        if kept and len(kept) < len(block):
            _put(txn, field, label, _encode(kept))
            labels.wrote(label, kept[0])
        elif not kept:
            txn.delete(tables.NAMES, block_key(field, label))
            txn.moved_block(block_key(field, label))
            labels.dropped(label)
        at = stop


def count_below(payload: bytes, bound: bytes) -> int:
    """How many of a block's texts lie below ``bound``."""
    count = from_bytes(payload[:2], "little")
    prefix, *suffixes = payload[2 + 4 * count :].split(b"\xff")
    if bound <= prefix:
        return 0
    return bisect_left(suffixes, bound[len(prefix) :]) if bound.startswith(prefix) else count


def scan(txn: ReadTxn, field: int) -> Iterator[Entry]:
    """Every (text, row) of a field in order."""
    for _, payload in txn.scan(tables.NAMES, block_key(field, 0), block_key(field + 1, 0)):
        yield from decode_block(payload)


def labels_of(txn: ReadTxn, field: int, start: int = 0) -> Iterator[int]:
    for key in txn.scan_keys(tables.NAMES, block_key(field, start), block_key(field + 1, 0)):
        yield int.from_bytes(key[2:], "big")


def _places(label: int, following: int | None, count: int) -> list[int] | None:
    """Labels for the pieces of a block, its own first; None when there is no room."""
    if following is None:
        last = label + _STEP * (count - 1)
        return [label + _STEP * i for i in range(count)] if last < _LABEL_END else None
    gap = (following - label) // count
    return [label + gap * i for i in range(count)] if gap or count == 1 else None


def _make_room(txn: WriteTxn, field: int, label: int) -> None:
    """Relabel a neighbourhood evenly: the smallest around ``label`` that is thin enough."""
    labels = list(labels_of(txn, field))
    at = bisect_left(labels, label)
    width = 16
    while True:
        start, stop = max(at - width, 0), min(at + width, len(labels))
        low = labels[start - 1] if start else 0
        high = labels[stop] if stop < len(labels) else _LABEL_END
        gap = (high - low) // (stop - start + 1)
        if gap >= 1 << 20 or (start == 0 and stop == len(labels)):
            break
        width *= 2
    payloads = [txn.get(tables.NAMES, block_key(field, old)) or b"" for old in labels[start:stop]]
    txn.delete_range(
        tables.NAMES, block_key(field, labels[start]), block_key(field, labels[stop - 1] + 1)
    )
    for old in labels[start:stop]:
        txn.moved_block(block_key(field, old))
    for i, payload in enumerate(payloads, 1):
        _put(txn, field, low + gap * i, payload)


def _put(txn: WriteTxn, field: int, label: int, payload: bytes) -> None:
    key = block_key(field, label)
    txn.put(tables.NAMES, key, payload)
    txn.moved_block(key)


def block_key(field: int, label: int) -> bytes:
    if label >= _LABEL_END:
        return block_key(field + 1, 0)
    return field.to_bytes(2, "big") + label.to_bytes(8, "big") if field <= 0xFFFF else b"\xff" * 11


def _encode(block: Sequence[Entry]) -> bytes:
    first, last = block[0][0], block[-1][0]
    shorter = min(len(first), len(last))
    size = next((i for i in range(shorter) if first[i] != last[i]), shorter)
    prefix = first[:size]  # the block is sorted: what its ends share, all share
    texts = b"".join([b"\xff" + text[size:] for text, _ in block])
    rows = row_bytes(row for _, row in block)
    return len(block).to_bytes(2, "little") + rows + prefix + texts


def decode_block(payload: bytes) -> list[Entry]:
    count = int.from_bytes(payload[:2], "little")
    prefix, *suffixes = payload[2 + 4 * count :].split(b"\xff")
    rows = row_array(payload[2 : 2 + 4 * count])
    return list(zip([prefix + suffix for suffix in suffixes], rows, strict=True))


def first_entry(payload: bytes) -> Entry:
    at = 2 + 4 * int.from_bytes(payload[:2], "little")
    prefix, suffix = payload[at : at + 2 * TEXT_MAX_BYTES + 2].split(b"\xff", 2)[:2]
    return prefix + suffix, int.from_bytes(payload[2:6], "little")


def _cut(block: list[Entry], *, appended: bool) -> list[tuple[Entry, bytes]]:
    """The block in pieces that obey the size limit: (first entry, payload)."""
    payload = _encode(block)
    if len(payload) <= SMALL_PAYLOAD_MAX_BYTES:
        return [(block[0], payload)]
    middle = len(block) // 2
    if appended:  # ascending texts: leave full blocks behind
        low, high = 1, len(block)
        while high - low > 1:
            middle = (low + high) // 2
            fits = len(_encode(block[:middle])) <= SMALL_PAYLOAD_MAX_BYTES
            low, high = (middle, high) if fits else (low, middle)
        middle = low
    left = _cut(block[:middle], appended=appended)
    return left + _cut(block[middle:], appended=appended)
