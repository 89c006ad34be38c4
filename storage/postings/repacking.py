"""All that is filed, as packed segments: what a copy of the store writes instead of what it finds.

It reads one snapshot and gives what tables ``postings``, ``forward`` and ``meta`` will hold in the
copy. What was merged halfway is left out, its sources being whole; rows that went from packed
segments are left out as well. Fresh rows stay fresh. This file knows no copy and no generation.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from memdb.storage import tables
from memdb.storage.environment import ReadTxn
from memdb.storage.postings import manifest as manifests
from memdb.storage.postings import packed
from memdb.storage.postings.layout import (
    EVERY_ROW,
    HASH_BYTES,
    LENGTHS,
    entries_of,
    lengths_of,
)
from memdb.storage.postings.manifest import Manifest, Segment, Statistics
from memdb.storage.postings.packed import Entries, Packed

SEGMENT_ROWS: Final = 1 << 17
"""Rows of a packed segment at most: what bounds the memory that reading one through takes."""
_WORTH: Final = 8  # a copy packs what is filed once that is an eighth of what is packed

Pair = tuple[bytes, bytes]


class Repacked(NamedTuple):
    """(key, payload) in key order: all of ``postings``, what of ``forward`` stays, and the keys of
    ``meta`` that tell of segments, in the place of those that do now."""

    postings: Iterator[Pair]
    forwards: Iterator[Pair]
    meta: list[Pair]


def has_gone(txn: ReadTxn) -> bool:
    """Whether packed segments hold postings of rows that are gone."""
    return bool(manifests.gone(txn))


def gone_bytes(txn: ReadTxn) -> int:
    """About what a copy frees of packed segments."""
    gone = len(manifests.gone(txn))
    held = sum(one.rows for one in manifests.load(txn).packed)
    return txn.bytes_of(tables.POSTINGS) * gone // held if held else 0


def is_due(txn: ReadTxn) -> bool:
    """Whether enough was filed since the last packing for another one to be worth the work."""
    manifest = manifests.load(txn)
    filed = sum(one.rows for one in manifest.segments)
    return filed > 0 and filed * _WORTH >= sum(one.rows for one in manifest.packed)


def repack(txn: ReadTxn) -> Repacked | None:
    """None where it is not worth the work."""
    if not is_due(txn) and not has_gone(txn):
        return None
    manifest = manifests.load(txn)
    rows, codes, every = _gather(txn, manifest)
    made = Manifest(next_id=manifest.next_id)
    bounds = range(0, len(rows), SEGMENT_ROWS)
    parts = [rows[start : start + SEGMENT_ROWS] for start in bounds]
    made.packed = [Segment(made.next_id + place, len(part)) for place, part in enumerate(parts)]
    made.next_id += len(parts)
    numbers = {
        one.id: manifests.bitmap_of(part.astype(np.uint32))
        for one, part in zip(made.packed, parts, strict=True)
    }
    return Repacked(
        _postings(made, parts, codes, every),
        _fresh_forwards(txn),
        manifests.entries(made, _totals(txn, rows, codes), numbers),
    )


def _postings(
    made: Manifest, parts: list[packed.Rows], codes: packed.Octets, every: Entries
) -> Iterator[Pair]:
    start = 0
    for one, part in zip(made.packed, parts, strict=True):
        mine = every
        if len(parts) > 1:
            kept = (every.rows >= part[0]) & (every.rows <= part[-1])
            owner = np.repeat(np.arange(len(every.hashes)), np.diff(every.offsets))
            mine = packed.grouped(every.hashes, owner[kept], every.rows[kept], every.tfs[kept])
        yield from packed.pack(one.id, part, codes[start : start + len(part)], mine)
        start += len(part)


def _gather(txn: ReadTxn, manifest: Manifest) -> tuple[packed.Rows, packed.Octets, Entries]:
    """(rows (n,) ascending, their lengths (n,) u8, all postings) of every segment."""
    gone = manifests.gone(txn)
    rows: list[NDArray[np.int64]] = []
    codes: list[NDArray[np.uint8]] = []
    found: list[Entries] = []
    for one in manifest.packed:
        segment = Packed.of(txn, one.id)
        kept = ~np.isin(segment.rows, np.frombuffer(gone.to_array(), "u4"))
        rows.append(segment.rows[kept])
        codes.append(segment.codes[kept])
        found.append(segment.everything(txn, gone))
    for one in manifest.segments:
        of_rows, of_codes, entries = _filed(txn, one.id)
        rows.append(of_rows)
        codes.append(of_codes)
        found.append(entries)
    hashes = np.concatenate([one.hashes for one in found])
    shift = np.cumsum([0, *(len(one.hashes) for one in found)])
    owner = np.concatenate(
        [
            np.repeat(np.arange(len(one.hashes)) + start, np.diff(one.offsets))
            for one, start in zip(found, shift, strict=False)
        ]
    )
    all_rows = np.concatenate(rows)
    order = np.argsort(all_rows)
    every = packed.grouped(
        hashes,
        owner,
        np.concatenate([one.rows for one in found]),
        np.concatenate([one.tfs for one in found]),
    )
    return all_rows[order], np.concatenate(codes)[order], every


def _filed(txn: ReadTxn, segment: int) -> tuple[packed.Rows, packed.Octets, Entries]:
    """The same of one segment that is not packed."""
    names, payloads = [], []
    start, stop = segment.to_bytes(4, "big"), (segment + 1).to_bytes(4, "big")
    for key, payload in txn.entries(tables.POSTINGS, start, stop):
        names.append(key[4:16])
        payloads.append(payload)
    entries = entries_of(b"".join(payloads))
    counts = [len(payload) // entries.dtype.itemsize for payload in payloads]
    hashes = np.frombuffer(b"".join(names), np.uint8).reshape(-1, HASH_BYTES)
    owner = np.repeat(np.arange(len(names)), counts)
    whole = np.array([name == EVERY_ROW for name in names], np.bool_)[owner]
    rows, tfs = entries["row"].astype(np.int64), entries["tf"].astype(np.int64)
    kept = ~whole
    every = packed.grouped(hashes, owner[kept], rows[kept], tfs[kept])
    return rows[whole], entries["length"][whole].copy(), every


def _totals(txn: ReadTxn, rows: packed.Rows, codes: packed.Octets) -> Statistics:
    """Lengths of packed rows count as their byte says, so that they can be taken off again."""
    fresh = [key for key in txn.scan_keys(tables.FRESH_FORWARD)]
    payloads = list(txn.get_many(tables.FORWARD, fresh).values())
    length = int(LENGTHS[codes].sum()) + int(lengths_of(payloads).astype(np.int64).sum())
    return Statistics(len(rows) + len(payloads), length)


def _fresh_forwards(txn: ReadTxn) -> Iterator[Pair]:
    for key in txn.scan_keys(tables.FRESH_FORWARD):
        payload = txn.get(tables.FORWARD, key)
        if payload is not None:
            yield key, payload
