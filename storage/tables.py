"""The named B-trees of the LMDB environment, and what their keys are made of.

No key holds user text: a deleted key's bytes outlive it in branch pages (measured: LMDB keeps
separators), so strings are keyed by a keyed hash and live in values. Integers in keys are
big-endian, so that the tree's order is their order. This file is the map; each table's values
are documented in the module that owns it.

========== ====================================================== ====================
table      key                                                    owner
========== ====================================================== ====================
meta       short ASCII name                                       store, and each owner
records    row u32                                                records
cold       block u32 (64 rows) | 2^31 + group u32                 records
ids        ULID, 16 bytes                                         records
versions   ULID, 16 bytes | version u32                           records
external   keyed hash of (namespace, external_id), 16 bytes       records
profile    keyed hash of (namespace, subject, key), 16 | seq u32  records
bitmaps    field u16 | value hash 8 | first row u32               filters
numbers    field u16 | a block's first ordered value 8 | row u32  filters
times      field u16 | a block's first ordered time 8 | row u32   filters
names      field u16 | label of a block of strings 8              filters
forward    row u32                                                postings
fresh_fwd  row u32                                                postings
postings   segment u32 | term hash 12 | first row u32             postings
series     series hash 8 | ordered time 8 | block u32             series
samples    series hash 8 | sequence u64                           series
vectors    space u16 | row u32                                    fresh vectors
spaces     space u16                                              spaces
changes    content_seq u64                                        change log
streams    keyed hash of (namespace, stream), 8 | position 8      records
files      keyed hash of (root, path), 16 bytes                   file ledger
blobs      content hash, 32 bytes                                 blobs
fresh_flt  row u32                                                filters
erased     fingerprint, 16 bytes of keyed hash                    erased
tokens     token's id, 8 random bytes                             tokens
audit      sequence u64                                           audit
dense      table u8 | a block's first key                         dense
========== ====================================================== ====================
"""

from __future__ import annotations

from typing import Final

META: Final = "meta"
RECORDS: Final = "records"
COLD: Final = "cold"
IDS: Final = "ids"
VERSIONS: Final = "versions"
EXTERNAL: Final = "external"
PROFILE: Final = "profile"
BITMAPS: Final = "bitmaps"
NUMBERS: Final = "numbers"
TIMES: Final = "times"
NAMES: Final = "names"
FORWARD: Final = "forward"
FRESH_FORWARD: Final = "fresh_fwd"
POSTINGS: Final = "postings"
SERIES: Final = "series"
SAMPLES: Final = "samples"
VECTORS: Final = "vectors"
SPACES: Final = "spaces"
CHANGES: Final = "changes"
STREAMS: Final = "streams"
FILES: Final = "files"
BLOBS: Final = "blobs"
FRESH_FILTERS: Final = "fresh_flt"
ERASED: Final = "erased"
TOKENS: Final = "tokens"
AUDIT: Final = "audit"
DENSE: Final = "dense"

ALL: Final = (
    META,
    RECORDS,
    COLD,
    IDS,
    VERSIONS,
    EXTERNAL,
    PROFILE,
    BITMAPS,
    NUMBERS,
    TIMES,
    NAMES,
    FORWARD,
    FRESH_FORWARD,
    POSTINGS,
    SERIES,
    SAMPLES,
    VECTORS,
    SPACES,
    CHANGES,
    STREAMS,
    FILES,
    BLOBS,
    FRESH_FILTERS,
    ERASED,
    TOKENS,
    AUDIT,
    DENSE,
)
LATER: Final = frozenset([FRESH_FILTERS, ERASED, TOKENS, AUDIT, DENSE])
"""Tables that stores of an earlier memdb lack until they are opened for writing."""
