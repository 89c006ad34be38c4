"""Reading postings: the entries of a term over all segments and the fresh rows.

A ``PostingsReader`` belongs to one read transaction: it loads the manifest and the fresh rows
once for all terms of a query. Each row occurs at most once in what it returns for a term.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from memdb.errors import StoreCorrupt
from memdb.storage import tables
from memdb.storage.environment import ReadTxn
from memdb.storage.postings import manifest as manifests
from memdb.storage.postings.layout import (
    ENTRY,
    EVERY_ROW,
    AnalysedBatch,
    decode_forwards,
    encode_lengths,
    entries_of,
)


class Fresh(NamedTuple):
    """Rows that are in no segment yet: rows (n,) ascending and their analysis."""

    rows: NDArray[np.uint32]
    batch: AnalysedBatch


def fresh(txn: ReadTxn) -> Fresh:
    """About a microsecond a row."""
    keys = list(txn.scan_keys(tables.FRESH_FORWARD))
    found = txn.get_many(tables.FORWARD, keys)
    if len(found) != len(keys):
        raise StoreCorrupt("a fresh row has no forward row", path="kv")
    rows = np.frombuffer(b"".join(keys), ">u4").astype(np.uint32)
    return Fresh(rows, decode_forwards([found[key] for key in keys]))


class PostingsReader:
    """Postings as one snapshot sees them."""

    def __init__(self, txn: ReadTxn) -> None:
        self._txn = txn
        self.statistics = manifests.stats(txn)
        self._segments = [one.id.to_bytes(4, "big") for one in manifests.load(txn).segments]
        self._fresh = fresh(txn)
        batch = self._fresh.batch
        self._words = np.ascontiguousarray(batch.hashes).view(np.uint32)  # (terms, 3)
        self._codes = encode_lengths(batch.lengths)

    def entries(self, term_hash: bytes) -> NDArray[np.void]:
        """(n,) of dtype ``ENTRY``: rows that hold the term, in no particular order."""
        values = self._txn.prefixed(tables.POSTINGS, [one + term_hash for one in self._segments])
        in_segments = entries_of(b"".join(values))
        in_fresh = self._fresh_entries(term_hash)
        return np.concatenate((in_segments, in_fresh)) if len(in_fresh) else in_segments

    def every_row(self) -> NDArray[np.void]:
        """(n,) of dtype ``ENTRY``: each row that has postings, with its length."""
        return self.entries(EVERY_ROW)

    def _fresh_entries(self, term_hash: bytes) -> NDArray[np.void]:
        rows, batch = self._fresh
        if not len(rows):
            return np.empty(0, ENTRY)
        if term_hash == EVERY_ROW:
            owner = np.arange(len(rows))
            tfs: NDArray[np.uint8] = np.ones(len(rows), np.uint8)
        else:
            word = np.frombuffer(term_hash, np.uint32)
            at = np.flatnonzero(self._words[:, 0] == word[0])
            at = at[(self._words[at] == word).all(axis=1)]
            owner = np.searchsorted(batch.offsets, at, side="right") - 1
            tfs = batch.tfs[at]
        entries = np.empty(len(owner), ENTRY)
        entries["row"], entries["tf"], entries["length"] = rows[owner], tfs, self._codes[owner]
        return entries


def postings(
    txn: ReadTxn, term_hash: bytes
) -> tuple[NDArray[np.uint32], NDArray[np.uint8], NDArray[np.uint8]]:
    """(rows u32, tf u8, length byte u8), each (n,), of one term; see ``layout.LENGTHS``."""
    entries = PostingsReader(txn).entries(term_hash)
    return entries["row"].copy(), entries["tf"].copy(), entries["length"].copy()


__all__ = ["Fresh", "PostingsReader", "fresh", "postings"]
