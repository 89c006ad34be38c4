"""Writing postings: single rows, batches, the fold of fresh rows, removal for good.

Every function is one step inside the caller's write transaction; aborting it undoes it. Rows are
analysed by the caller. A row is added once and never changed: an update is a new row.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray
from pyroaring import BitMap

from memdb.errors import StoreCorrupt
from memdb.storage import tables
from memdb.storage.environment import WriteTxn
from memdb.storage.kernels import KERNELS
from memdb.storage.postings import manifest as manifests
from memdb.storage.postings.layout import (
    EVERY_ROW,
    HASH_BYTES,
    LENGTHS,
    Analysed,
    decode_forward,
    encode_forward,
    encode_lengths,
    entries_of,
    entry_key,
    lengths_of,
    row_key,
)
from memdb.storage.postings.manifest import Manifest, Segment
from memdb.storage.postings.packed import Packed

FOLD_ROWS: Final = 256  # fresh rows that are worth a segment
_FOLD_AT_MOST: Final = 512  # rows of one fold: keeps its transaction within 5 ms


def add(txn: WriteTxn, row: int, analysed: Analysed) -> None:
    """Enter one row: two small values, whatever the number of its terms."""
    key = row_key(row)
    if txn.exists(tables.FORWARD, key):
        raise ValueError(f"row {row} has postings already")
    txn.put(tables.FORWARD, key, encode_forward(analysed))
    txn.put_key(tables.FRESH_FORWARD, key)
    manifests.shift_stats(txn, 1, analysed.length)


def add_segment(txn: WriteTxn, rows: Sequence[int], texts: Sequence[Analysed]) -> None:
    """Enter many rows as a segment of their own; ``rows`` distinct, in any order."""
    if not len(rows):
        return
    numbers = np.asarray(rows, dtype=np.uint32)
    forwards = list(map(encode_forward, texts))
    pairs = sorted(zip(map(row_key, numbers.tolist()), forwards, strict=True))
    last = next(txn.scan_keys(tables.FORWARD, reverse=True), b"")
    txn.put_many(tables.FORWARD, pairs, append=last < pairs[0][0])  # fuller pages
    manifest = manifests.load(txn)
    _write_segment(txn, manifest, numbers, forwards)
    manifests.save(txn, manifest)
    manifests.shift_stats(txn, len(numbers), sum([text.length for text in texts]))


def fresh_count(txn: WriteTxn) -> int:
    return txn.count(tables.FRESH_FORWARD)


def fold(txn: WriteTxn, *, at_least: int = FOLD_ROWS) -> int:
    """Turn fresh rows into a segment; returns how many, 0 if fewer than ``at_least`` are fresh.

    At most 512 a call, the lowest rows first: a backlog takes several transactions.
    """
    if txn.count(tables.FRESH_FORWARD) < max(1, at_least):
        return 0
    keys = []
    for key in txn.scan_keys(tables.FRESH_FORWARD):
        keys.append(key)
        if len(keys) == _FOLD_AT_MOST:
            break
    found = txn.get_many(tables.FORWARD, keys)
    if len(found) != len(keys):
        raise StoreCorrupt("a fresh row has no forward row", path="kv")
    rows = np.frombuffer(b"".join(keys), ">u4").astype(np.uint32)
    manifest = manifests.load(txn)
    _write_segment(txn, manifest, rows, [found[key] for key in keys])
    manifests.save(txn, manifest)
    for key in keys:
        txn.delete(tables.FRESH_FORWARD, key)
    return len(keys)


def _write_segment(
    txn: WriteTxn, manifest: Manifest, rows: NDArray[np.uint32], forwards: list[bytes]
) -> None:
    number = manifest.new_id()
    append = manifest.appendable(number)
    lengths = encode_lengths(lengths_of(forwards)).tobytes()
    pairs = KERNELS.invert(number, rows.tolist(), forwards, lengths)
    txn.put_many(tables.POSTINGS, pairs, append=append)
    manifests.set_rows(txn, number, manifests.bitmap_of(rows))
    manifest.segments = [*manifest.segments, Segment(number, len(rows))]


def remove(txn: WriteTxn, rows: Iterable[int]) -> int:
    """Take rows out of every posting list, physically; returns how many had postings.

    Reaches fresh rows, segments, a merge's half-written target and segments still being dropped.
    What a packed segment has of a row goes with the next copy that packs (``repack``).
    Costs about 5 us for each distinct term of each row: the caller cuts large sets into slices.
    """
    fresh_rows, settled, length = [], {}, 0
    bare = []
    for row in rows:
        payload = txn.get(tables.FORWARD, row_key(row))
        if payload is None:
            bare.append(row)
        if payload is None or row in settled:
            continue
        analysed = decode_forward(payload)
        length += analysed.length
        if txn.delete(tables.FRESH_FORWARD, row_key(row)):
            fresh_rows.append(row)
        else:
            settled[row] = analysed
        txn.delete(tables.FORWARD, row_key(row))
    if settled:
        _remove_settled(txn, settled)
    removed = len(settled) + len(fresh_rows)
    if removed:
        manifests.shift_stats(txn, -removed, -length)
    return removed + (_leave_packed(txn, bare) if bare else 0)


def _leave_packed(txn: WriteTxn, rows: list[int]) -> int:
    """Enter those of ``rows`` that packed segments hold in the set of what is gone from them."""
    manifest = manifests.load(txn)
    if not manifest.packed:
        return 0
    gone = manifests.gone(txn)
    wanted = BitMap(rows) - gone
    count = length = 0
    for one in manifest.packed:
        mine = wanted & manifests.rows_of(txn, one.id)
        if mine:
            segment = Packed.of(txn, one.id)
            steps = np.frombuffer(mine.to_array(), "u4").astype(np.int64) - segment.base
            length += int(LENGTHS[segment.codes_of(steps)].sum())
            count += len(mine)
            gone |= mine
    if count:
        manifests.set_gone(txn, gone)
        manifests.shift_stats(txn, -count, -length)
    return count


def _remove_settled(txn: WriteTxn, settled: dict[int, Analysed]) -> None:
    manifest = manifests.load(txn)
    wanted = BitMap(list(settled))
    places = [one.id for one in manifest.segments] + manifest.dropping
    sources = set(manifest.merge.sources) if manifest.merge is not None else set()
    for segment in places:
        held = manifests.rows_of(txn, segment)
        mine = held & wanted
        if not mine:
            continue
        by_term: dict[bytes, list[int]] = {EVERY_ROW: list(mine)}
        for row in mine:
            hashes = settled[row].hashes
            for start in range(0, len(hashes), HASH_BYTES):
                by_term.setdefault(hashes[start : start + HASH_BYTES], []).append(row)
        targets = [segment]
        if manifest.merge is not None and segment in sources:
            targets.append(manifest.merge.target)
        for term_hash, members in sorted(by_term.items()):
            for place in targets:
                _remove_entries(txn, place, term_hash, members)
        manifests.set_rows(txn, segment, held - mine)


def _remove_entries(txn: WriteTxn, segment: int, term_hash: bytes, rows: list[int]) -> None:
    """Remove ascending ``rows`` from one term's values in one segment."""
    prefix = entry_key(segment, term_hash, 0)[:16]
    left = rows
    while left:
        found = txn.floor(tables.POSTINGS, entry_key(segment, term_hash, left[-1]))
        if found is None or not found[0].startswith(prefix):
            return  # not there: dropped already, or not merged yet
        key, payload = found
        first = int.from_bytes(key[16:], "big")
        here = [row for row in left if row >= first]
        left = left[: len(left) - len(here)]
        entries = entries_of(payload)
        kept = entries[~np.isin(entries["row"], here)]
        if not len(kept):
            txn.delete(tables.POSTINGS, key)
        elif len(kept) < len(entries):
            txn.put(tables.POSTINGS, key, kept.tobytes())
