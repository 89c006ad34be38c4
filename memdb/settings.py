"""Limits and defaults that every layer shares, with their units in their names.

This file is data. It imports nothing of memdb and decides nothing; whoever enforces a limit
raises the error that names it.
"""

from __future__ import annotations

from typing import Final

FORMAT_NAME: Final = "memdb"
FORMAT_VERSION: Final = 2

# --- limits on what one call may bring in -------------------------------------------------
MAX_TEXT_BYTES: Final = 1 << 20
MAX_DATA_BYTES: Final = 1 << 20
MAX_NAME_BYTES: Final = 512  # namespace, stream, source, kind, subject, key, external_id, tag
MAX_LIST_ITEMS: Final = 256  # tags, about, derived_from, list-valued metadata
MAX_METADATA_KEYS: Final = 64
MAX_METADATA_BYTES: Final = 64 << 10
MAX_JSON_DEPTH: Final = 32
MAX_FILTER_DEPTH: Final = 32
MAX_FILTER_NODES: Final = 1024
MAX_FILTER_VALUES: Final = 4096  # values of one $in / $nin / $all
MAX_QUERY_BYTES: Final = 64 << 10
MAX_K: Final = 10_000
MAX_DIM: Final = 8192
MAX_INDEXED_METADATA_KEYS: Final = 256  # a namespace; further keys are checked row by row
MAX_SAFE_INTEGER: Final = (1 << 53) - 1  # I-JSON, RFC 7493 section 2.2

# --- storage ------------------------------------------------------------------------------
MAP_SIZE_BYTES: Final = 64 << 30  # sparse: address space, not disk
RUN_ROWS: Final = 1 << 16  # row ids are handed to spaces in runs of one roaring container
FRESH_VECTORS_MAX: Final = 4096
ENCODE_DIRECTLY_AT: Final = 256  # vectors of one batch worth two syncs of the files at once
ENCODE_AT: Final = 512  # fresh vectors of a trained space that are worth a batch
INDEX_ENCODE_DIRECTLY_AT: Final = 512  # vectors of one batch that a VectorIndex encodes at once
GRAPH_BUILD_AT: Final = 1024  # slots waiting for a graph that are worth building one
GRAPH_COMMIT_AT: Final = 512  # slots linked between two syncs and commits
GRAPH_REAP_AT: Final = 256  # removed slots that are worth two syncs
GRAPH_RETIRED_MOST: Final = 4096  # with more of them waiting, writers help
FRESH_POSTINGS_MAX: Final = 256
FRESH_FILTERS_MAX: Final = 256  # rows that maintenance lets come together before it files them
FRESH_FILTERS_LIMIT: Final = 1024  # with more than these, writers file some themselves
BLOB_THRESHOLD_BYTES: Final = 64 << 10
TRASH_DAYS: Final = 7
MAINTENANCE_POLL_MS: Final = 50
MAINTENANCE_SLICE_MS: Final = 5

# --- who may know what --------------------------------------------------------------------
SENSITIVITIES: Final = ("public", "personal", "private", "secret")
"""Labels of ``sensitivity``, each above the one before it. A memory without a label is below all of
them, one with a label that is not here above all."""
MAX_PURPOSE_BYTES: Final = 512

# --- what a person gets who configures nothing --------------------------------------------
DEFAULT_NAMESPACE: Final = "default"
DEFAULT_EMBEDDER: Final = "static"
DEFAULT_PROFILE: Final = "standard"
DEFAULT_MEMORY_BUDGET: Final = "256MiB"
DEFAULT_PATH: Final = "~/.memdb"
