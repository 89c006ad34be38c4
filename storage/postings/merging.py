"""Merging segments sixteen to one, in slices that any crash may separate.

A slice reads the sources in order of (hash, row) from where the last one stopped, writes what is
complete to the target, and records in the manifest where it stopped. The sources answer queries
until the last slice swaps them for the target in the same commit; later slices delete them.
Removing a row meanwhile reaches sources and target alike (see ``writing.remove``).
"""

from __future__ import annotations

import heapq
import time
from collections.abc import Generator
from itertools import islice
from typing import Final

import numpy as np
from numpy.typing import NDArray
from pyroaring import BitMap

from memdb.storage import tables
from memdb.storage.environment import WriteTxn
from memdb.storage.postings import manifest as manifests
from memdb.storage.postings.layout import (
    EVERY_ROW,
    HASH_BYTES,
    entries_of,
    entry_key,
    pack_values,
    sort_order,
)
from memdb.storage.postings.manifest import Manifest, Merge, Segment

FAN_IN: Final = 16
_TIER_ROWS: Final = 256  # a segment of tier t holds up to 256 * 16 ** (t + 1) rows
_VALUES_PER_CHECK: Final = 64
_DELETES_PER_CHECK: Final = 256
_READING_SHARE: Final = 0.4

_Position = tuple[bytes, int]  # (hash, row)


def merge_step(
    txn: WriteTxn, budget_ms: float = 5.0, stored: BitMap | None = None, *, fan_in: int = FAN_IN
) -> bool:
    """One slice of at most ``budget_ms`` of work; True while there is more to do.

    ``stored``: the rows that exist; others are left out of what is merged. ``fan_in`` segments of
    one tier start a merge; 2 brings an idle store to few segments.
    """
    # Writing what was read, and the commit, take as long again as reading it.
    deadline = time.perf_counter() + budget_ms / 1000 * _READING_SHARE
    manifest = manifests.load(txn)
    if manifest.dropping:
        _drop(txn, manifest, deadline)
    elif manifest.merge is not None:
        _merge(txn, manifest, manifest.merge, deadline, stored)
    else:
        sources = _choose(manifest, fan_in)
        if not sources:
            return False
        merge = Merge(manifest.target_id(), sources, EVERY_ROW, 0)
        manifest.merge = merge
        _merge(txn, manifest, merge, deadline, stored)
    manifests.save(txn, manifest)
    busy = manifest.merge is not None or bool(manifest.dropping)
    return busy or bool(_choose(manifest, fan_in))


def _tier(segment: Segment) -> int:
    tier, top = 0, _TIER_ROWS * FAN_IN
    while segment.rows >= top:
        tier, top = tier + 1, top * FAN_IN
    return tier


def _choose(manifest: Manifest, fan_in: int) -> list[int]:
    """The segments to merge next: the first tier that holds enough of them."""
    tiers: dict[int, list[int]] = {}
    for segment in manifest.segments:
        tiers.setdefault(_tier(segment), []).append(segment.id)
    for _, members in sorted(tiers.items()):
        if len(members) >= fan_in:
            return members[:FAN_IN]
    return []


def _values(txn: WriteTxn, source: int, start: _Position) -> Generator[tuple[bytes, int, bytes]]:
    """(hash, first row, payload) of a source, from the value that may hold ``start``."""
    key = entry_key(source, *start)
    found = txn.floor(tables.POSTINGS, key)
    if found is not None and found[0][:16] == key[:16]:
        key = found[0]
    for name, payload in txn.scan(tables.POSTINGS, key, (source + 1).to_bytes(4, "big")):
        yield name[4:16], int.from_bytes(name[16:], "big"), payload


def _merge(
    txn: WriteTxn, manifest: Manifest, merge: Merge, deadline: float, stored: BitMap | None
) -> None:
    start = (merge.next_hash, merge.next_row)
    streams = [_values(txn, source, start) for source in merge.sources]
    hashes: list[bytes] = []
    payloads: list[bytes] = []
    stop: _Position | None = None
    # Values arrive by (hash, first row), so all entries below the next value's are complete.
    for term_hash, first, payload in heapq.merge(*streams):
        late = len(payloads) % _VALUES_PER_CHECK == 0 and time.perf_counter() >= deadline
        if payloads and late and (term_hash, first) > start:
            stop = (term_hash, first)
            break
        hashes.append(term_hash)
        payloads.append(payload)
    for stream in streams:
        stream.close()  # no cursor may outlive what is written below
    rows = BitMap()
    for source in merge.sources:
        rows |= manifests.rows_of(txn, source)
    absent = rows - stored if stored is not None else BitMap()
    _write(txn, manifest, merge, (hashes, payloads), stop, absent)
    if stop is not None:
        manifest.merge = Merge(merge.target, merge.sources, *stop)
    else:
        _swap(txn, manifest, merge, rows - absent)


def _write(
    txn: WriteTxn,
    manifest: Manifest,
    merge: Merge,
    values: tuple[list[bytes], list[bytes]],
    stop: _Position | None,
    absent: BitMap,
) -> None:
    """Write the entries from the merge's position up to ``stop`` to the target."""
    hashes, payloads = values
    entries = entries_of(b"".join(payloads))
    counts = [len(payload) // entries.dtype.itemsize for payload in payloads]
    matrix = np.frombuffer(b"".join(hashes), np.uint8).reshape(-1, HASH_BYTES)
    owner = np.repeat(np.arange(len(payloads)), counts)
    rows = entries["row"].astype(np.uint32)
    keep = np.ones(len(entries), np.bool_)
    # Values of one hash are neighbours here, so the first and the last decide what is partial.
    if len(keep):
        keep &= ~(_equal(matrix, merge.next_hash)[owner] & (rows < merge.next_row))
    if len(keep) and stop is not None:
        keep &= ~(_equal(matrix, stop[0])[owner] & (rows >= stop[1]))
    if absent:
        keep &= ~np.isin(rows, np.frombuffer(absent.to_array(), np.uint32))
    wide = matrix[owner[keep]]
    kept = entries[keep]
    order = sort_order(wide, kept["row"])
    pairs = pack_values(merge.target, wide[order], kept[order])
    txn.put_many(tables.POSTINGS, pairs, append=manifest.appendable(merge.target))


def _equal(matrix: NDArray[np.uint8], term_hash: bytes) -> NDArray[np.bool_]:
    same: NDArray[np.bool_] = (matrix == np.frombuffer(term_hash, np.uint8)).all(axis=1)
    return same


def _swap(txn: WriteTxn, manifest: Manifest, merge: Merge, rows: BitMap) -> None:
    """The target takes the sources' place."""
    gone = set(merge.sources)
    manifest.segments = [one for one in manifest.segments if one.id not in gone]
    if rows:
        manifest.segments = [*manifest.segments, Segment(merge.target, len(rows))]
        manifests.set_rows(txn, merge.target, rows)
    manifest.dropping = [*manifest.dropping, *merge.sources]
    manifest.finish_merge()


def _drop(txn: WriteTxn, manifest: Manifest, deadline: float) -> None:
    """Delete entries of segments that no reader of this or a later commit looks at."""
    while manifest.dropping and time.perf_counter() < deadline:
        segment = manifest.dropping[0]
        start, stop = segment.to_bytes(4, "big"), (segment + 1).to_bytes(4, "big")
        ahead = islice(txn.scan_keys(tables.POSTINGS, start, stop), _DELETES_PER_CHECK, None)
        bound = next(ahead, stop)
        del ahead  # its cursor may not outlive what is deleted below
        txn.delete_range(tables.POSTINGS, start, bound)
        if bound == stop:
            manifests.forget_rows(txn, segment)
            manifest.dropping = manifest.dropping[1:]
