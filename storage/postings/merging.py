"""Merging segments sixteen to one, in slices that any crash may separate.

A slice reads the sources in order of (hash, row) from where the last one stopped, writes what is
complete to the target, and records in the manifest where it stopped. The sources answer queries
until the last slice swaps them for the target in the same commit; later slices delete them.
Removing a row meanwhile reaches sources and target alike (see ``writing.remove``).
"""

from __future__ import annotations

import time
from bisect import bisect_left
from itertools import islice
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pyroaring import BitMap

from memdb.storage import tables
from memdb.storage.environment import ReadTxn, WriteTxn
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
_PAGE_VALUES: Final = 64
_ROW_AT: Final = 4 + HASH_BYTES  # where a key's row begins
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


class Merging(NamedTuple):
    """Whether ``merge_step`` has something to do, and how many segments a reader looks into."""

    due: bool
    segments: int


def merging(txn: ReadTxn, *, fan_in: int = FAN_IN) -> Merging:
    """What there is to merge, without taking the writer's place to find out."""
    manifest = manifests.load(txn)
    busy = manifest.merge is not None or bool(manifest.dropping)
    return Merging(busy or bool(_choose(manifest, fan_in)), len(manifest.segments))


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


class _Source:
    """One segment being read in order, a page at a time."""

    __slots__ = ("_next", "_stop", "_txn", "more", "names", "payloads")

    def __init__(self, txn: WriteTxn, segment: int, start: _Position) -> None:
        """From the value that may hold ``start``: the last one whose key is not beyond it."""
        self._txn = txn
        self._next = entry_key(segment, *start)
        self._stop = (segment + 1).to_bytes(4, "big")
        found = txn.floor(tables.POSTINGS, self._next)
        if found is not None and found[0][:_ROW_AT] == self._next[:_ROW_AT]:
            self._next = found[0]
        self.names: list[bytes] = []  # hash | first row, of values read and not yet taken
        self.payloads: list[bytes] = []
        self.more = True

    def fill(self) -> None:
        """Read a page when only the last one's last value, which bounds the others, is left."""
        if len(self.names) > 1 or not self.more:
            return
        page = self._txn.page(tables.POSTINGS, self._next, self._stop, _PAGE_VALUES)
        self.names += [key[4:] for key, _ in page]
        self.payloads += [payload for _, payload in page]
        self.more = len(page) == _PAGE_VALUES
        if self.more:
            self._next = page[-1][0] + b"\0"

    def take(self, bound: bytes | None) -> tuple[list[bytes], list[bytes]]:
        """What comes before ``bound``; everything read without one."""
        cut = len(self.names) if bound is None else bisect_left(self.names, bound)
        taken = self.names[:cut], self.payloads[:cut]
        self.names, self.payloads = self.names[cut:], self.payloads[cut:]
        return taken


def _merge(
    txn: WriteTxn, manifest: Manifest, merge: Merge, deadline: float, stored: BitMap | None
) -> None:
    start = (merge.next_hash, merge.next_row)
    begin = entry_key(0, *start)[4:]
    sources = [_Source(txn, segment, start) for segment in merge.sources]
    names: list[bytes] = []
    payloads: list[bytes] = []
    bound: bytes | None = begin
    # Every entry of an unread value is at or past that value's key, so all entries before the
    # first unread one are complete.
    while bound is not None and (bound <= begin or time.perf_counter() < deadline):
        for source in sources:
            source.fill()
        bound = min((one.names[-1] for one in sources if one.more), default=None)
        for source in sources:
            taken = source.take(bound)
            names += taken[0]
            payloads += taken[1]
    rows = BitMap()
    for segment in merge.sources:
        rows |= manifests.rows_of(txn, segment)
    absent = rows - stored if stored is not None else BitMap()
    stop = (
        None if bound is None else (bound[:HASH_BYTES], int.from_bytes(bound[HASH_BYTES:], "big"))
    )
    _write(txn, manifest, merge, (names, payloads), stop, absent)
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
    names, payloads = values
    entries = entries_of(b"".join(payloads))
    counts = [len(payload) // entries.dtype.itemsize for payload in payloads]
    matrix = np.frombuffer(b"".join(names), np.uint8).reshape(-1, HASH_BYTES + 4)[:, :HASH_BYTES]
    owner = np.repeat(np.arange(len(payloads)), counts)
    rows = entries["row"].astype(np.uint32)
    keep = np.ones(len(entries), np.bool_)
    # Values that begin before the slice, or reach past it, are read again by the other slice.
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
