"""Which code does the work of every value: the compiled module, or its twins in ``reference``.

``MEMDB_KERNELS=numpy`` forces the twins, as it does for the index. Both give the same answers and
the same errors. This file knows names, not what they do.
"""

from __future__ import annotations

import contextlib
import importlib
import os
from collections.abc import Iterable, Sequence
from typing import Any, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from memdb.storage import reference
from memdb.storage.reference import Entry, Numbers, Pair, RowSet, Terms, Text
from memdb.storage.reference_scores import Scores


class Kernels(Protocol):
    """What both have; ``reference`` says what each does."""

    def crc32c(self, data: bytes) -> int: ...
    def seal(self, key: bytes, payload: bytes) -> bytes: ...
    def seal_many(self, items: Iterable[Pair]) -> list[Pair]: ...
    def unseal(self, key: bytes, value: bytes) -> bytes: ...
    def unseal_until(self, entries: Iterable[Pair], stop: bytes) -> list[Pair]: ...
    def digest(self, key: bytes, data: bytes, size: int) -> bytes: ...
    def digest_of_parts(
        self, key: bytes, tag: bytes, parts: tuple[str, ...], size: int
    ) -> bytes: ...
    def set_prefixes(
        self, key: bytes, tag: bytes, field: int, texts: list[bytes]
    ) -> list[bytes]: ...
    def plain_strings(self, values: tuple[object, ...]) -> bool: ...
    def blocks_for(
        self, cursor: Any, field: int, entries: list[Entry]
    ) -> tuple[list[Pair], list[int]]: ...
    def extend_sets(
        self, cursor: Any, sets: list[RowSet]
    ) -> tuple[list[list[int] | None], list[Pair], list[int]]: ...
    def merge_blocks(
        self, field: int, blocks: list[Pair], bounds: list[int], entries: list[Entry], full: int
    ) -> tuple[list[Pair], list[bytes]]: ...
    def radix_sets(
        self, field: int, shifts: list[int], first_level: int, entries: list[Entry]
    ) -> list[RowSet]: ...
    def join_block(self, block: bytes, entries: Sequence[Text]) -> bytes | None: ...
    def join_blocks(
        self, blocks: list[Pair], entries: list[Text]
    ) -> tuple[list[Pair], list[Text]]: ...
    def count_terms(
        self,
        tokens: list[int],
        counts: list[int],
        starts: Numbers,
        sizes: Numbers,
        numbers: Numbers,
        hashes: NDArray[np.uint8],
    ) -> list[Terms]: ...
    def invert(
        self, segment: int, rows: list[int], forwards: list[bytes], lengths: bytes
    ) -> list[Pair]: ...
    def unseal_joined(
        self, entries: Iterable[Pair], stop: bytes | None
    ) -> tuple[bytes, bytes, bytes]: ...
    def union_rows(self, blocks: list[Pair], packed: list[bytes]) -> bytes: ...
    def postings_end(self, postings: bytes) -> int: ...
    def add_scores(self, postings: bytes, norm: Scores, weight: float, scores: Scores) -> None: ...
    def build_rows(self, shape: Any, leaves: list[list[Any]]) -> list[Any]: ...
    def clear_scores(self, postings: bytes, scores: Scores) -> None: ...


def available() -> dict[str, Kernels]:
    """By name: "numpy" always, "native" where it was built."""
    found = {"numpy": cast(Kernels, reference)}
    with contextlib.suppress(ImportError):  # a checkout without a compiler has the twins alone
        found["native"] = cast(Kernels, importlib.import_module("memdb.storage._native"))
    return found


def _chosen() -> Kernels:
    found = available()
    twins = os.environ.get("MEMDB_KERNELS") == "numpy"
    return found["numpy"] if twins else found.get("native", found["numpy"])


KERNELS = _chosen()
