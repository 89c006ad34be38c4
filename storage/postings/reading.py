"""Reading postings: the entries of a term over all segments and the fresh rows.

A ``PostingsReader`` belongs to one read transaction: it loads the manifest and the fresh rows
once for all terms of a query. Each row occurs at most once in what it returns for a term.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pyroaring import BitMap

from memdb.errors import StoreCorrupt
from memdb.storage import tables
from memdb.storage.changes import changes_since
from memdb.storage.environment import ReadTxn, WriteTxn
from memdb.storage.postings import manifest as manifests
from memdb.storage.postings.layout import (
    ENTRY,
    EVERY_ROW,
    AnalysedBatch,
    decode_forwards,
    encode_lengths,
    entries_of,
    row_key,
)
from memdb.storage.postings.packed import Packed, forwards


class Fresh(NamedTuple):
    """Rows that are in no segment yet: rows (n,) ascending and their analysis."""

    rows: NDArray[np.uint32]
    batch: AnalysedBatch


def fresh(txn: ReadTxn) -> Fresh:
    """About two microseconds a row."""
    return _load_fresh(txn, list(txn.scan_keys(tables.FRESH_FORWARD)))


def _load_fresh(txn: ReadTxn, keys: list[bytes]) -> Fresh:
    found = txn.get_many(tables.FORWARD, keys)
    if len(found) != len(keys):
        raise StoreCorrupt("a fresh row has no forward row", path="kv")
    rows = np.frombuffer(b"".join(keys), ">u4").astype(np.uint32)
    return Fresh(rows, decode_forwards([found[key] for key in keys]))


class _FreshTerms:
    """Fresh rows ready for look-ups by term."""

    def __init__(self, found: Fresh) -> None:
        self.rows, self.batch = found
        self.words = np.ascontiguousarray(self.batch.hashes).view(np.uint32)  # (terms, 3)
        self.codes = encode_lengths(self.batch.lengths)

    @classmethod
    def of(cls, txn: ReadTxn) -> _FreshTerms:
        """From the cache if nothing changed since: the same rows at the same ``content_seq``; with
        the rows that came since, if nothing else did."""
        keys = list(txn.scan_keys(tables.FRESH_FORWARD))
        sequence = getattr(getattr(txn, "state", None), "content_seq", None)
        if sequence is None or isinstance(txn, WriteTxn):
            return cls(_load_fresh(txn, keys))
        mark = (sequence, b"".join(keys))
        # Replaced whole, never mutated, so threads need no lock; readers repeat questions far more
        # often than a store changes.
        cached: tuple[tuple[int, bytes], _FreshTerms] | None = txn.scratch.get(_SCRATCH)
        if cached is not None and cached[0] == mark:
            return cached[1]
        found = None if cached is None else cached[1]._extended(txn, *cached[0], *mark)
        if found is None:
            found = cls(_load_fresh(txn, keys))
        txn.scratch[_SCRATCH] = (mark, found)
        return found

    def _extended(
        self, txn: ReadTxn, before: int, known: bytes, now: int, wanted: bytes
    ) -> _FreshTerms | None:
        """These and the rows whose keys, in a row, ``wanted`` has after the ``known`` ones; None
        where more happened to these than that others came."""
        if before > now or not wanted.startswith(known):
            return None
        change = changes_since(txn, before, now)
        if change is None or any(row in change.added for row in self.rows.tolist()):
            return None
        more = [wanted[at : at + 4] for at in range(len(known), len(wanted), 4)]
        if not more:
            return self
        (rows, batch), old = _load_fresh(txn, more), self.batch
        together = AnalysedBatch(
            np.concatenate((old.offsets, old.offsets[-1] + batch.offsets[1:])),
            np.concatenate((old.hashes, batch.hashes)),
            np.concatenate((old.tfs, batch.tfs)),
            np.concatenate((old.lengths, batch.lengths)),
        )
        return _FreshTerms(Fresh(np.concatenate((self.rows, rows)), together))

    def entries(self, term_hash: bytes) -> NDArray[np.void]:
        if not len(self.rows):
            return np.empty(0, ENTRY)
        if term_hash == EVERY_ROW:
            owner = np.arange(len(self.rows))
            tfs: NDArray[np.uint8] = np.ones(len(self.rows), np.uint8)
        else:
            word = np.frombuffer(term_hash, np.uint32)
            at = np.flatnonzero(self.words[:, 0] == word[0])
            at = at[(self.words[at] == word).all(axis=1)]
            owner = np.searchsorted(self.batch.offsets, at, side="right") - 1
            tfs = self.batch.tfs[at]
        entries = np.empty(len(owner), ENTRY)
        entries["row"], entries["tf"] = self.rows[owner], tfs
        entries["length"] = self.codes[owner]
        return entries


_SCRATCH: Final = "fresh postings"


class PostingsReader:
    """Postings as one snapshot sees them."""

    def __init__(self, txn: ReadTxn) -> None:
        self._txn = txn
        self.statistics = manifests.stats(txn)
        manifest = manifests.load(txn)
        self._segments = [one.id.to_bytes(4, "big") for one in manifest.segments]
        self._packed = [Packed.of(txn, one.id) for one in manifest.packed]
        self._gone = manifests.gone(txn) if self._packed else BitMap()
        self._fresh = _FreshTerms.of(txn)

    def entries(self, term_hash: bytes) -> NDArray[np.void]:
        """(n,) of dtype ``ENTRY``: rows that hold the term, in no particular order."""
        return entries_of(self.packed(term_hash))

    def packed(self, term_hash: bytes) -> bytes:
        """The bytes of ``entries``."""
        filed = self._txn.joined(tables.POSTINGS, [one + term_hash for one in self._segments])
        found = [one.entries(self._txn, term_hash, self._gone) for one in self._packed]
        found.append(self._fresh.entries(term_hash))
        return b"".join([filed, *[one.tobytes() for one in found if len(one)]])

    def every_row(self) -> NDArray[np.void]:
        """(n,) of dtype ``ENTRY``: each row that has postings, with its length."""
        return self.entries(EVERY_ROW)


def postings(
    txn: ReadTxn, term_hash: bytes
) -> tuple[NDArray[np.uint32], NDArray[np.uint8], NDArray[np.uint8]]:
    """(rows u32, tf u8, length byte u8), each (n,), of one term; see ``layout.LENGTHS``."""
    entries = PostingsReader(txn).entries(term_hash)
    return entries["row"].copy(), entries["tf"].copy(), entries["length"].copy()


def forward_rows(txn: ReadTxn, rows: Iterable[int]) -> dict[int, bytes]:
    """The forward row of each of ``rows`` that has postings; of those in packed segments, made
    from them, which reads those through."""
    keys = {row_key(row): row for row in rows}
    found = {keys[key]: one for key, one in txn.get_many(tables.FORWARD, sorted(keys)).items()}
    missing = [row for row in keys.values() if row not in found]
    return {**found, **forwards(txn, missing)} if missing else found


def row_count(txn: ReadTxn) -> int:
    """How many rows have postings, counted where they lie; ``stats`` must say the same."""
    packed = [manifests.rows_of(txn, one.id) for one in manifests.load(txn).packed]
    held = BitMap.union(*packed) if packed else BitMap()
    return txn.count(tables.FORWARD) + len(held - manifests.gone(txn))


__all__ = ["Fresh", "PostingsReader", "forward_rows", "fresh", "postings", "row_count"]
