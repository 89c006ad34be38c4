"""The numpy twin of every native kernel: the definition they are tested against.

The same functions as ``kernels.NativeKernels``, slow and plain. They run where no native module is
(``MEMDB_KERNELS=numpy`` forces them). Integer results and single rounded operations agree to the
bit; sums of products agree to rounding, for they add in another order.
"""

from __future__ import annotations

import numpy as np
from google_crc32c import value as crc32c
from numpy.typing import NDArray

from memdb.index import layout
from memdb.index.layout import BLOCK_ROWS, FLOAT16, GROUP_BLOCKS, QUERY_BITS

F32 = np.float32
Floats = NDArray[np.float32]
Bytes = NDArray[np.uint8]
Slots = NDArray[np.uint32]

_HALF_ROOT = F32(0.70710678118654752)
_COUNTS = np.array([byte.bit_count() for byte in range(256)], np.uint8)


class NumpyKernels:
    """Kernels in numpy. All arrays are C-contiguous; shapes are those of ``NativeKernels``."""

    name = "numpy"

    def rotate(self, x: Floats, signs: Floats, *, back: bool = False) -> Floats:
        y = np.array(x, F32)
        dim = y.shape[1]
        size = 1 << (dim.bit_length() - 1)
        rounds = range(layout.ROTATION_ROUNDS)
        for number in reversed(rounds) if back else rounds:
            first = dim - size if number % 2 else 0
            if not back:
                y *= signs[number]
            elif size != dim:
                _mix_halves(y)
            _hadamard(y[:, first : first + size])
            if back:
                y *= signs[number]
            elif size != dim:
                _mix_halves(y)
        return y

    def quantise8(self, x: Floats) -> tuple[NDArray[np.int8], Floats]:
        scales = (np.abs(x).max(axis=1, initial=0) / F32(127)).astype(F32)
        divisors = np.where(scales > 0, scales, F32(1))
        levels = np.clip(np.rint(x / divisors[:, None]), -127, 127)
        levels[scales == 0] = 0
        return levels.astype(np.int8), scales

    def sign_codes(self, residuals: Floats) -> NDArray[np.uint64]:
        n, dim = residuals.shape
        bits = np.zeros((n, layout.words_of(dim) * 64), np.uint8)
        bits[:, :dim] = residuals >= 0
        packed = np.packbits(bits, axis=1, bitorder="little")
        return packed.view("<u8").reshape(n, layout.words_of(dim))

    def quantise_queries(self, queries: Floats) -> tuple[NDArray[np.uint64], Floats]:
        n, dim = queries.shape
        deltas = (np.abs(queries).max(axis=1, initial=0) / F32(15)).astype(F32)
        inverse = np.divide(F32(0.5), deltas, out=np.zeros_like(deltas), where=deltas > 0)
        levels = np.clip(np.rint(queries * inverse[:, None] + F32(7.5)), 0, 15).astype(np.uint8)
        levels[deltas == 0] = 0
        bits = np.zeros((n, QUERY_BITS, layout.words_of(dim) * 64), np.uint8)
        for plane in range(QUERY_BITS):
            bits[:, plane, :dim] = (levels >> plane) & 1
        packed = np.packbits(bits, axis=2, bitorder="little")
        return packed.view("<u8").reshape(n, QUERY_BITS, layout.words_of(dim)), deltas

    def seal(self, records: Bytes, slots: Slots) -> None:
        records[:, :4] = slots.astype("<u4").view(np.uint8).reshape(-1, 4)
        for record in records:
            record[-4:] = np.frombuffer(crc32c(record[:-4].tobytes()).to_bytes(4, "little"), "u1")

    def check(self, records: Bytes, slots: Slots) -> int:
        for at, (record, slot) in enumerate(zip(records, slots, strict=True)):
            raw = record.tobytes()
            stored = int.from_bytes(raw[-4:], "little")
            if int.from_bytes(raw[:4], "little") != slot or stored != crc32c(raw[:-4]):
                return at
        return -1

    def scan(
        self,
        groups: Bytes,
        dim: int,
        planes: NDArray[np.uint64],
        delta: float,
        allowed: Bytes,
        keep: int,
    ) -> tuple[Slots, Floats]:
        base = F32(delta) * (F32(15) * F32(dim))
        step = F32(-2) * F32(delta)
        slots, keys = np.zeros(0, np.uint32), np.zeros(0, F32)
        for number in range(-(-len(allowed) // GROUP_BLOCKS)):
            permitted = allowed[number * GROUP_BLOCKS : (number + 1) * GROUP_BLOCKS]
            group = layout.group_at(groups, dim, number)
            rows = np.flatnonzero(np.unpackbits(permitted, bitorder="little"))
            codes = group.codes[rows // BLOCK_ROWS, :, rows % BLOCK_ROWS]
            weighted = np.zeros(len(rows), np.int64)
            for plane in range(QUERY_BITS):
                differing = np.ascontiguousarray(codes ^ planes[plane]).view(np.uint8)
                weighted += _COUNTS[differing].sum(axis=1, dtype=np.int64) << plane
            # Damaged factors may be anything; the records decide in the end.
            with np.errstate(all="ignore"):
                found = group.offsets[rows] + group.slopes[rows] * (
                    base + step * weighted.astype(F32)
                )
            keys = np.concatenate((keys, np.where(np.isnan(found), F32(-np.inf), found)))
            slots = np.concatenate((slots, (rows + number * layout.GROUP_ROWS).astype(np.uint32)))
            best = np.lexsort((slots, keys))[:keep]
            keys, slots = keys[best], slots[best]
        return slots, keys

    def rescore(
        self,
        records: Bytes,
        dim: int,
        metric: int,
        precision: int,
        query: Floats,
        slots: Slots,
    ) -> tuple[Floats, int]:
        missing = slots[slots >= len(records)]
        if len(missing):
            return np.zeros(0, F32), int(missing[0])
        chosen = records[slots]
        bad = self.check(chosen, slots)
        if bad >= 0:
            return np.zeros(0, F32), int(slots[bad])
        fields = chosen.view(layout.record_type(dim, precision)).reshape(-1)
        numbers, scale, norm = fields["payload"].astype(F32), fields["scale"], fields["norm"]
        if metric == layout.METRICS["l2"]:
            gaps = query - scale[:, None] * numbers
            return np.einsum("ij,ij->i", gaps, gaps), -1
        dots = numbers @ query
        if metric == layout.METRICS["ip"]:
            return -(dots * scale), -1
        share = np.divide(scale, norm, out=np.zeros_like(scale), where=norm > 0)
        return (F32(1) - dots * share).astype(F32), -1

    def score(self, metric: int, queries: Floats, rows: Floats) -> Floats:
        if metric == layout.METRICS["l2"]:
            # By differences: the expanded square loses near neighbours of long vectors.
            found = np.empty((len(queries), len(rows)), F32)
            for at, query in enumerate(queries):
                gaps = rows - query
                np.einsum("ij,ij->i", gaps, gaps, out=found[at])
            return found
        with np.errstate(all="ignore"):  # some BLAS raise flags for lanes they do not use
            products = queries.astype(np.float64) @ rows.astype(np.float64).T
        if metric == layout.METRICS["ip"]:
            products *= -1
            return products.astype(F32)
        lengths = np.sqrt(
            np.einsum("ij,ij->i", queries, queries, dtype=np.float64)[:, None]
            * np.einsum("ij,ij->i", rows, rows, dtype=np.float64)
        )
        cosines = np.divide(products, lengths, out=np.zeros_like(lengths), where=lengths > 0)
        distances: Floats = np.subtract(1, cosines).astype(F32)
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
    ) -> tuple[Slots, Floats, int]:
        n, dim = queries.shape
        rotated = self.rotate(queries, signs)
        scored = queries if precision == FLOAT16 else rotated
        slots, distances = np.empty((n, k), np.uint32), np.empty((n, k), F32)
        if groups is None:
            everyone = np.flatnonzero(np.unpackbits(allowed, bitorder="little")).astype(np.uint32)
        else:
            planes, deltas = self.quantise_queries(rotated - centre)
        for at in range(n):
            if groups is None:
                candidates = everyone
            else:
                found, _ = self.scan(groups, dim, planes[at], float(deltas[at]), allowed, keep)
                candidates = np.sort(found)
            scores, bad = self.rescore(records, dim, metric, precision, scored[at], candidates)
            if bad >= 0:
                return slots, distances, bad
            best = np.lexsort((candidates, scores))[:k]
            slots[at], distances[at] = candidates[best], scores[best]
        return slots, distances, -1


def _hadamard(x: Floats) -> None:
    """Orthonormal Hadamard transform of the rows of (n, power of two), in place."""
    n, size = x.shape
    scale = F32(1)
    half = 1
    while half < size:
        pairs = np.ascontiguousarray(x).reshape(n, size // (2 * half), 2, half)
        a, b = pairs[:, :, 0].copy(), pairs[:, :, 1].copy()
        pairs[:, :, 0] = a + b
        pairs[:, :, 1] = a - b
        x[...] = pairs.reshape(n, size)
        scale *= _HALF_ROOT
        half *= 2
    x *= scale


def _mix_halves(x: Floats) -> None:
    half = x.shape[1] // 2
    if not half:
        return
    a, b = x[:, :half].copy(), x[:, -half:].copy()
    x[:, :half] = (a + b) * _HALF_ROOT
    x[:, -half:] = (a - b) * _HALF_ROOT
