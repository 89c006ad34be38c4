"""Which code does the work of every value: the compiled module, or its twins in ``reference``.

``MEMDB_KERNELS=numpy`` forces the twins, as it does for the index. Both give the same answers and
the same errors. This file knows names, not what they do.
"""

from __future__ import annotations

import contextlib
import importlib
import os
from collections.abc import Iterable
from typing import Protocol, cast

from memdb.storage import reference

Pair = tuple[bytes, bytes]


class Kernels(Protocol):
    """What both have; ``reference`` says what each does."""

    def crc32c(self, data: bytes) -> int: ...
    def seal(self, key: bytes, payload: bytes) -> bytes: ...
    def seal_many(self, items: Iterable[Pair]) -> list[Pair]: ...
    def unseal(self, key: bytes, value: bytes) -> bytes: ...
    def unseal_until(self, entries: Iterable[Pair], stop: bytes) -> list[Pair]: ...


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
