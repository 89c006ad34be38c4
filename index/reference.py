"""The numpy twin of every native kernel: the definition they are tested against.

The same functions as ``kernels.NativeKernels``, slow and plain. They run where no native module is
(``MEMDB_KERNELS=numpy`` forces them). Integer results and single rounded operations agree to the
bit; sums of products agree to rounding, for they add in another order.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from google_crc32c import value as crc32c
from numpy.typing import NDArray

from memdb.index import layout
from memdb.index.layout import BITS, BLOCK_ROWS, FLOAT16, GROUP_ALLOWED, INT1, INT2, PACKED
from memdb.index.reference_graph import NumpyGraph
from memdb.index.reference_live import NumpyLive

F32 = np.float32
Floats = NDArray[np.float32]
Bytes = NDArray[np.uint8]
Slots = NDArray[np.uint32]

_HALF_ROOT = F32(0.70710678118654752)
_COUNTS = np.array([byte.bit_count() for byte in range(256)], np.uint8)


class NumpyKernels(NumpyGraph, NumpyLive):
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

    def quantise_packed(self, precision: int, x: Floats) -> tuple[Bytes, Floats, Floats]:
        bits = layout.PRECISION_BITS[precision]
        half = 1 << (bits - 1)
        wide = x.astype(np.float64)
        squares = _in_order(wide * wide)
        norms = np.sqrt(squares).astype(F32)
        steps = np.sqrt(squares / x.shape[1]) * _NORMAL_STEP[bits]
        empty = ~((norms > 0) & (steps > 0))
        levels = np.floor(wide / np.where(empty, 1, steps)[:, None]) + half
        levels = np.clip(levels, 0, 2 * half - 1).astype(np.int64)
        products = _in_order((2.0 * levels + 1 - 2 * half) * wide)
        scales = np.divide(squares, products, out=np.zeros_like(squares), where=~empty)
        levels[empty] = 0
        norms[empty] = 0
        stream = (levels[:, :, None] >> np.arange(bits)) & 1
        payload = np.packbits(
            stream.reshape(len(x), -1).astype(np.uint8), axis=1, bitorder="little"
        )
        return payload, scales.astype(F32), norms

    def query_tables(self, queries: Floats) -> tuple[Bytes, Floats, Floats]:
        """Tables of what each value of four sign bits contributes to <sign, query>.

        Entry v of table j is the sum of the coordinates 4 j ... 4 j + 3, each with the sign of its
        bit in v, in steps from the least such sum; 63 steps cover the widest table. With T the sum
        of the entries that a code selects, <sign, query> is about base + step * T.
        """
        n, dim = queries.shape
        padded = np.zeros((n, layout.words_of(dim) * 64), F32)
        padded[:, :dim] = queries
        parts = padded.reshape(n, -1, 4)
        least = np.zeros(parts.shape[:2], F32)
        sums = np.zeros((*parts.shape[:2], 16), F32)
        values = np.arange(16)
        for bit in range(4):
            least += np.abs(parts[:, :, bit])
            part = parts[:, :, bit, None]
            sums += np.where((values >> bit) & 1, part, -part)
        widest = least.max(axis=1, initial=0)
        steps = (F32(2) * widest / F32(layout.TABLE_MAX)).astype(F32)
        inverse = np.divide(F32(1), steps, out=np.zeros_like(steps), where=steps > 0)
        entries = np.rint((sums + least[:, :, None]) * inverse[:, None, None])
        bases = (-_in_order(least.astype(np.float64))).astype(F32)
        return np.clip(entries, 0, layout.TABLE_MAX).astype(np.uint8), bases, steps

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
        entries: Bytes,
        base: float,
        step: float,
        allowed: Bytes,
        keep: int,
    ) -> tuple[Slots, Floats]:
        slots, keys = np.zeros(0, np.uint32), np.zeros(0, F32)
        tables = np.arange(len(entries))
        for number in range(-(-len(allowed) // GROUP_ALLOWED)):
            permitted = allowed[number * GROUP_ALLOWED : (number + 1) * GROUP_ALLOWED]
            group = layout.group_at(groups, dim, number)
            rows = np.flatnonzero(np.unpackbits(permitted, bitorder="little"))
            codes = group.codes[rows // BLOCK_ROWS, :, rows % BLOCK_ROWS]
            halves = np.stack((codes & 15, codes >> 4), axis=2).reshape(len(rows), -1)
            sums = entries[tables, halves].sum(axis=1, dtype=np.int64)
            # Damaged factors may be anything; the records decide in the end.
            with np.errstate(all="ignore"):
                offsets, slopes = layout.unpack_factors(group.factors[rows])
                found = offsets + slopes * (F32(base) + F32(step) * sums.astype(F32))
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
        if precision == BITS:
            bits = np.packbits(query > 0.5, bitorder="little")
            differing: Floats = _COUNTS[fields["payload"] ^ bits].sum(axis=1).astype(F32)
            return differing, -1
        numbers, scale, norm = numbers_of(fields["payload"], dim, precision), *_factors(fields)
        if metric == layout.METRICS["l2"] and precision not in PACKED:
            gaps = query - scale[:, None] * numbers
            return np.einsum("ij,ij->i", gaps, gaps), -1
        return _from_products(metric, numbers @ query, scale, norm, query), -1

    def _rough(
        self, records: Bytes, dim: int, metric: int, precision: int, query: Floats, slots: Slots
    ) -> Floats:
        """Distances from records as they are; of 1 and 2 bits a number, to the query in 8 bits."""
        fields = records[slots].view(layout.record_type(dim, precision)).reshape(-1)
        if precision not in (INT1, INT2):
            sealed = records.copy()
            self.seal(sealed, np.arange(len(sealed), dtype=np.uint32))
            return self.rescore(sealed, dim, metric, precision, query, slots)[0]
        levels, steps = self.quantise8(query[None, :])
        numbers = numbers_of(fields["payload"], dim, precision)
        products = (numbers @ levels[0].astype(F32)).astype(F32) * steps[0]
        return _from_products(metric, products, *_factors(fields), query)

    def score(self, metric: int, queries: Floats, rows: Floats) -> Floats:
        if metric in (layout.METRICS["l2"], layout.METRICS["hamming"]):  # the same of 0 and 1
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
        rough: bool = False,
    ) -> tuple[Slots, Floats, int]:
        n, dim = queries.shape
        as_given = precision in (FLOAT16, BITS)
        rotated = self.rotate(queries, signs) if groups is not None or not as_given else queries
        scored = queries if as_given else rotated
        slots, distances = np.empty((n, k), np.uint32), np.empty((n, k), F32)
        everyone = np.flatnonzero(np.unpackbits(allowed, bitorder="little")).astype(np.uint32)
        if groups is not None:
            entries, bases, steps = self.query_tables(rotated - centre)
        for at in range(n):
            score = partial(self.rescore, records, dim, metric, precision, scored[at])
            candidates = everyone
            if groups is not None:
                tables = entries[at], float(bases[at]), float(steps[at])
                listed = self.scan(groups, dim, *tables, allowed, keep)
                candidates, bad = _near(groups, metric, rotated[at], centre, listed, k, score)
                if bad >= 0:
                    return slots, distances, bad
            elif rough:
                keys = self._rough(records, dim, metric, precision, scored[at], everyone)
                candidates = np.sort(everyone[np.lexsort((everyone, keys))[:keep]])
            scores, bad = score(candidates)
            if bad >= 0:
                return slots, distances, bad
            best = np.lexsort((candidates, scores))[:k]
            slots[at], distances[at] = candidates[best], scores[best]
        return slots, distances, -1


_FIRST_SCORED, _FIRST_PER_RESULT = 128, 4
_DOUBT = F32(3.0) * F32(0.6)  # standard errors, and one of <s, q> / |q|: sqrt(1 - 2 / pi)
_OFFSET_ERROR = F32(1 / 256)  # of itself: eight bits of it are kept
_ROUNDING = F32(1e-4)  # equal vectors have equal estimates but for that


def _near(
    groups: Bytes,
    metric: int,
    query: Floats,
    centre: Floats,
    listed: tuple[Slots, Floats],
    k: int,
    score: Callable[[Slots], tuple[Floats, int]],
) -> tuple[Slots, int]:
    """Of a shortlist (slots and keys, ascending), the slots that may be among the ``k`` nearest.

    The best are scored in any case; of the others those are left out that would not be near enough
    were their estimates off by three standard errors. Also a slot without a sound record among
    those that were looked at, or -1.
    """
    slots, keys = listed
    first = max(_FIRST_SCORED, _FIRST_PER_RESULT * k)
    if len(slots) <= first:
        return np.sort(slots), -1
    scores, bad = score(np.sort(slots[:first]))
    if bad >= 0:
        return slots, bad
    residual = query - centre
    square = F32(residual.astype(np.float64) @ residual)
    to_distance = -F32(centre.astype(np.float64) @ query)
    if metric == layout.METRICS["cosine"]:
        to_distance += F32(1)
    if metric == layout.METRICS["l2"]:
        to_distance = square
    last = np.sort(scores)[k - 1]
    limit = last + _ROUNDING * (abs(last) + abs(to_distance))
    words = np.array(
        [
            layout.group_at(groups, len(query), int(slot) // layout.GROUP_ROWS).factors[
                int(slot) % layout.GROUP_ROWS
            ]
            for slot in slots[first:]
        ],
        np.uint32,
    )
    with np.errstate(all="ignore"):  # damaged factors may be anything; what is no number is near
        offsets, slopes = layout.unpack_factors(words)
        doubts = _DOUBT * np.sqrt(square) * np.abs(slopes) + _OFFSET_ERROR * np.abs(offsets)
        near = ~(keys[first:] + to_distance - doubts > limit)
    return np.sort(np.concatenate((slots[:first], slots[first:][near]))), -1


_NORMAL_STEP = {1: 1.5958, 2: 0.9957, 4: 0.3352, 5: 0.1881}
"""The step of the uniform quantiser that loses least of a unit normal, by bits a number: Max,
"Quantizing for Minimum Distortion", IRE Transactions on Information Theory, 1960, table II."""


def numbers_of(payload: NDArray[Any], dim: int, precision: int) -> Floats:
    """(n, dim) the numbers of payloads, unscaled."""
    if precision == BITS:
        return np.unpackbits(payload, axis=1, count=dim, bitorder="little").astype(F32)
    if precision not in PACKED:
        return payload.astype(F32)
    bits = layout.PRECISION_BITS[precision]
    stream = np.unpackbits(payload, axis=1, count=dim * bits, bitorder="little")
    levels = stream.reshape(len(payload), dim, bits) @ (1 << np.arange(bits, dtype=np.int64))
    return (2 * levels + 1 - (1 << bits)).astype(F32)


def _factors(fields: NDArray[np.void]) -> tuple[Floats, Floats]:
    return fields["scale"], fields["norm"]


def _from_products(metric: int, dots: Floats, scale: Floats, norm: Floats, query: Floats) -> Floats:
    """Distances from the products of numbers and query."""
    if metric == layout.METRICS["ip"]:
        return -(dots * scale)
    if metric == layout.METRICS["l2"]:
        squared: Floats = norm * norm + query @ query - F32(2) * (dots * scale)
        return np.maximum(squared, F32(0))
    share = np.divide(scale, norm, out=np.zeros_like(scale), where=norm > 0)
    return (F32(1) - dots * share).astype(F32)


def _in_order(terms: NDArray[np.float64]) -> NDArray[np.float64]:
    """(n,) sums of the rows of (n, m), one term after the other as compiled code adds them."""
    sums: NDArray[np.float64] = np.add.accumulate(terms, axis=1)[:, -1]
    return sums


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
