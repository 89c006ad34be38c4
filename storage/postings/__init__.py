"""Postings: which row holds which term, as an inverted index in LMDB beside the records.

The strategy. A write leaves one *forward row* (the row's terms), which stays with its record so
that erasing never depends on how terms were made. Rows not yet in a segment are *fresh* and are
read from their forward rows. Folding turns fresh rows into a *segment*, sorted by term; segments
are merged sixteen to one in slices, the manifest last, so that a reader sees each row exactly once
at every instant and a process killed between two slices costs nothing but the slice.

Terms are 12-byte keyed hashes here. This package does not know words, scores or filters.

====================  ==================================================================
layout.py             bytes: entries, keys, forward rows, quantised lengths
manifest.py           which segments exist, the merge in progress, totals
writing.py            add, add_segment, fold, remove
merging.py            merge_step
reading.py            stats, postings, fresh rows
packed.py             the bytes of packed segments, and reading them
repacking.py          all segments as packed ones, for a copy of the store
====================  ==================================================================
"""

from __future__ import annotations

from memdb.storage.postings.layout import (
    ENTRY,
    EVERY_ROW,
    HASH_BYTES,
    LENGTHS,
    Analysed,
    decode_forwards,
    decode_lengths,
    encode_lengths,
)
from memdb.storage.postings.manifest import Statistics, stats
from memdb.storage.postings.merging import FAN_IN, merge_step, merging
from memdb.storage.postings.reading import (
    PostingsReader,
    forward_rows,
    fresh,
    postings,
    row_count,
)
from memdb.storage.postings.repacking import gone_bytes, has_gone, is_due, repack
from memdb.storage.postings.writing import FOLD_ROWS, add, add_segment, fold, fresh_count, remove

__all__ = [
    "ENTRY",
    "EVERY_ROW",
    "FAN_IN",
    "FOLD_ROWS",
    "HASH_BYTES",
    "LENGTHS",
    "Analysed",
    "PostingsReader",
    "Statistics",
    "add",
    "add_segment",
    "decode_forwards",
    "decode_lengths",
    "encode_lengths",
    "fold",
    "forward_rows",
    "fresh",
    "fresh_count",
    "gone_bytes",
    "has_gone",
    "is_due",
    "merge_step",
    "merging",
    "postings",
    "remove",
    "repack",
    "row_count",
    "stats",
]
