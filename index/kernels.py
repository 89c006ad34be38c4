"""Which kernels run: the best native ones this machine has, or their numpy twins.

``MEMDB_KERNELS`` = scalar, avx2, avx512, neon or numpy forces one. All give the same answers.
This file knows arrays and their shapes; what a file or a space is, it does not know.
"""

from __future__ import annotations

import importlib
import os
from functools import cache
from types import ModuleType
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from memdb.errors import InvalidArgument
from memdb.index import layout
from memdb.index.graph_kernels import GraphKernels, NativeGraph
from memdb.index.live_kernels import LiveKernels, NativeLive
from memdb.index.reference import Bytes, Floats, NumpyKernels, Slots


class Kernels(GraphKernels, LiveKernels, Protocol):
    """What an engine computes with. All arrays are C-contiguous."""

    @property
    def name(self) -> str: ...

    def rotate(self, x: Floats, signs: Floats, *, back: bool = False) -> Floats:
        """(n, dim) rotated by the rotation of ``signs`` (4, dim), or rotated back."""
        ...

    def quantise8(self, x: Floats) -> tuple[NDArray[np.int8], Floats]:
        """(n, dim) int8 and (n,) scales: x is about scale * payload."""
        ...

    def sign_codes(self, residuals: Floats) -> NDArray[np.uint64]:
        """(n, words): bit i of a row is set where its coordinate i is not negative."""
        ...

    def quantise_packed(self, precision: int, x: Floats) -> tuple[Bytes, Floats, Floats]:
        """(n, bytes) payloads of levels, (n,) scales and (n,) lengths.

        <x, q> is about scale * <numbers, q>, without bias (``reference.unpack`` has the numbers).
        """
        ...

    def query_tables(self, queries: Floats) -> tuple[Bytes, Floats, Floats]:
        """(n, 2 * bytes, 16) entries, (n,) bases and (n,) steps: see ``reference``."""
        ...

    def seal(self, records: Bytes, slots: Slots) -> None:
        """Write slot number and checksum into (n, size) records, in place."""
        ...

    def check(self, records: Bytes, slots: Slots) -> int:
        """The place of the first record that is damaged or belongs to another slot, or -1."""
        ...

    def scan(
        self,
        groups: Bytes,
        dim: int,
        entries: Bytes,
        base: float,
        step: float,
        allowed: Bytes,
        keep: int,
    ) -> tuple[Slots, Floats]:
        """The ``keep`` allowed slots of smallest estimated key, and the keys; in no order."""
        ...

    def rescore(
        self,
        records: Bytes,
        dim: int,
        metric: int,
        precision: int,
        query: Floats,
        slots: Slots,
    ) -> tuple[Floats, int]:
        """Distances of slots to a prepared query, and a damaged slot or -1."""
        ...

    def score(self, metric: int, queries: Floats, rows: Floats) -> Floats:
        """(q, n) distances of (q, dim) queries to (n, dim) vectors, at full precision."""
        ...

    def search(
        self,
        *,
        groups: Bytes | None,
        records: Bytes,
        metric: int,
        precision: int,
        queries: Floats,
        signs: Floats,
        centre: Floats,
        allowed: Bytes,
        k: int,
        keep: int,
        threads: int,
        rough: bool = False,
    ) -> tuple[Slots, Floats, int]:
        """(q, k) nearest allowed slots, their distances, and a damaged slot or -1.

        The best ``keep`` by estimate are scored from their records. The estimate comes from the
        codes in ``groups``; where that is None and ``rough`` is set, from the records themselves,
        unchecked; otherwise there is none and every allowed record is scored. k is at most the
        number of allowed slots.
        """
        ...


class NativeKernels(NativeGraph, NativeLive):
    """The compiled kernels at one level of ``_native.available()``."""

    def __init__(self, native: ModuleType, level: int) -> None:
        self.name: str = native.available()[level]
        self._native = native
        self._level = level

    @property
    def native(self) -> tuple[ModuleType, int]:
        """The compiled module and the level at which its routines are called."""
        return self._native, self._level

    def rotate(self, x: Floats, signs: Floats, *, back: bool = False) -> Floats:
        y = np.array(x, np.float32, order="C")
        self._native.rotate(y, signs, back)
        return y

    def quantise8(self, x: Floats) -> tuple[NDArray[np.int8], Floats]:
        payload, scales = np.empty(x.shape, np.int8), np.empty(len(x), np.float32)
        self._native.quantise8(x, payload, scales)
        return payload, scales

    def sign_codes(self, residuals: Floats) -> NDArray[np.uint64]:
        codes = np.empty((len(residuals), layout.words_of(residuals.shape[1])), np.uint64)
        self._native.sign_codes(residuals, codes)
        return codes

    def quantise_packed(self, precision: int, x: Floats) -> tuple[Bytes, Floats, Floats]:
        n, dim = x.shape
        payload = np.empty((n, layout.payload_bytes(dim, precision)), np.uint8)
        scales, norms = np.empty(n, np.float32), np.empty(n, np.float32)
        self._native.quantise_packed(precision, x, payload, scales, norms)
        return payload, scales, norms

    def query_tables(self, queries: Floats) -> tuple[Bytes, Floats, Floats]:
        n, dim = queries.shape
        entries = np.empty((n, 16 * layout.words_of(dim), 16), np.uint8)
        bases, steps = np.empty(n, np.float32), np.empty(n, np.float32)
        self._native.query_tables(queries, entries, bases, steps)
        return entries, bases, steps

    def seal(self, records: Bytes, slots: Slots) -> None:
        self._native.seal(self._level, records, slots)

    def check(self, records: Bytes, slots: Slots) -> int:
        return int(self._native.check(self._level, records, slots))

    def scan(
        self,
        groups: Bytes,
        dim: int,
        entries: Bytes,
        base: float,
        step: float,
        allowed: Bytes,
        keep: int,
    ) -> tuple[Slots, Floats]:
        slots, keys = np.empty(keep, np.uint32), np.empty(keep, np.float32)
        found = self._native.scan(
            self._level, groups, dim, entries, base, step, allowed, slots, keys
        )
        return slots[:found], keys[:found]

    def rescore(
        self,
        records: Bytes,
        dim: int,
        metric: int,
        precision: int,
        query: Floats,
        slots: Slots,
    ) -> tuple[Floats, int]:
        distances = np.empty(len(slots), np.float32)
        bad = self._native.rescore(
            self._level, records, dim, metric, precision, query, slots, distances
        )
        return distances, int(bad)

    def score(self, metric: int, queries: Floats, rows: Floats) -> Floats:
        distances = np.empty((len(queries), len(rows)), np.float32)
        self._native.score(self._level, metric, queries, rows, distances)
        return distances

    def search(
        self,
        *,
        groups: Bytes | None,
        records: Bytes,
        metric: int,
        precision: int,
        queries: Floats,
        signs: Floats,
        centre: Floats,
        allowed: Bytes,
        k: int,
        keep: int,
        threads: int,
        rough: bool = False,
    ) -> tuple[Slots, Floats, int]:
        shape = (len(queries), k)
        slots, distances = np.empty(shape, np.uint32), np.empty(shape, np.float32)
        bad = self._native.search(
            self._level,
            groups is not None,
            rough,
            _NOTHING if groups is None else groups,
            records,
            metric,
            precision,
            queries,
            signs,
            centre,
            allowed,
            keep,
            threads,
            slots,
            distances,
        )
        return slots, distances, int(bad)


_NOTHING = np.zeros(0, np.uint8)


def available() -> list[Kernels]:
    """Every kernel set that runs on this machine, slowest first; numpy always."""
    found: list[Kernels] = [NumpyKernels()]
    try:
        native = importlib.import_module("memdb.index._native")
    except ImportError:
        return found  # a checkout without a compiler: the twins give the same answers
    found += [NativeKernels(native, level) for level in range(len(native.available()))]
    return found


@cache
def default_kernels() -> Kernels:
    """The fastest of ``available``, or the one that MEMDB_KERNELS names."""
    found = available()
    wanted = os.environ.get("MEMDB_KERNELS")
    if not wanted:
        return found[-1]
    for kernels in found:
        if kernels.name == wanted:
            return kernels
    names = ", ".join(kernels.name for kernels in found)
    raise InvalidArgument(
        f"MEMDB_KERNELS names kernels this machine lacks; it has {names}", field="MEMDB_KERNELS"
    )
