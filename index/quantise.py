"""From vectors to what the files hold, and back.

The lasting record comes first and the sign code is derived from the *record*, not from the vector
it was made of: so codes can be made again, bit for bit, from what is on disk.

Codes are those of RaBitQ (Gao and Long, SIGMOD 2024), section 3: the signs of the rotated, centred
vector, with a factor that makes the estimate of the inner product unbiased. Arrays only.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from memdb.index import layout
from memdb.index.kernels import Kernels
from memdb.index.protocol import Encoded, SpaceSpec
from memdb.index.reference import Bytes, Floats, numbers_of

_ASKING = 256
_NEAREST = 10
_F16_MAX = 65504.0
_F16_COMFORT = 2.0**-4  # below this the largest coordinate would lose bits to subnormals


@dataclass(frozen=True)
class Quantiser:
    """The transforms of one space, by its spec."""

    spec: SpaceSpec
    kernels: Kernels

    @property
    def precision(self) -> int:
        return self.spec.precision

    @cached_property
    def signs(self) -> Floats:
        """(4, dim) of the rotation."""
        return layout.rotation_signs(self.spec.dim, self.spec.seed)

    @cached_property
    def _record_type(self) -> np.dtype[np.void]:
        return layout.record_type(self.spec.dim, self.precision)

    def to_records(self, vectors: Floats) -> Bytes:
        """(n, record bytes) of (n, dim), unsealed."""
        records = np.zeros(len(vectors), self._record_type)
        payload: NDArray[Any]
        if self.precision == layout.BITS:
            records["payload"] = np.packbits(vectors > 0.5, axis=1, bitorder="little")
            records["scale"], records["norm"] = 1, 1
        elif self.precision in layout.PACKED:
            rotated = self.kernels.rotate(vectors, self.signs)
            payload, scales, norms = self.kernels.quantise_packed(self.precision, rotated)
            records["payload"], records["scale"], records["norm"] = payload, scales, norms
        else:
            if self.precision == layout.INT8:
                payload, scales = self.kernels.quantise8(self.kernels.rotate(vectors, self.signs))
            else:
                payload, scales = _to_halves(vectors)
            numbers = payload.astype(np.float32)
            lengths = np.sqrt(np.einsum("ij,ij->i", numbers, numbers))
            records["payload"], records["scale"] = payload, scales
            records["norm"] = lengths * scales
        return records.view(np.uint8).reshape(len(vectors), self._record_type.itemsize)

    def _numbers(self, records: Bytes) -> tuple[Floats, Floats, Floats]:
        """Numbers (n, dim), the scales that bring them closest to the vectors, and lengths.

        The scale of a packed record makes products unbiased, which is too long to be the closest.
        """
        fields = records.view(self._record_type).reshape(-1)
        numbers = numbers_of(fields["payload"], self.spec.dim, self.precision)
        scales, norms = fields["scale"], fields["norm"]
        if self.precision in layout.PACKED:
            squares = np.einsum("ij,ij->i", numbers, numbers) * scales
            scales = np.divide(norms * norms, squares, out=np.zeros_like(norms), where=squares > 0)
        return numbers, scales, norms

    def to_vectors(self, records: Bytes) -> Floats:
        """(n, dim) of sound records."""
        numbers, scales, _ = self._numbers(records)
        numbers *= scales[:, None]
        if self.precision in (layout.FLOAT16, layout.BITS):
            return numbers
        return self.kernels.rotate(numbers, self.signs, back=True)

    def rotated(self, records: Bytes) -> Floats:
        """(n, dim) rotated, of unit length for cosine: what codes are made of."""
        numbers, scales, norms = self._numbers(records)
        if self.spec.metric == "cosine":
            scales = np.divide(scales, norms, out=np.zeros_like(scales), where=norms > 0)
        numbers *= scales[:, None]
        if self.precision == layout.FLOAT16:
            return self.kernels.rotate(numbers, self.signs)
        return numbers

    def centre(self, records: Bytes) -> Floats:
        """(dim,) rotated mean of the vectors that codes are made of."""
        if not len(records):
            return np.zeros(self.spec.dim, np.float32)
        mean: Floats = self.rotated(records).mean(axis=0, dtype=np.float64).astype(np.float32)
        return mean

    def residuals(self, records: Bytes, centre: Floats) -> Floats:
        """(n, dim) rotated and centred: the signs of these are the code."""
        residuals = self.rotated(records)
        residuals -= centre
        return residuals

    def encode(self, records: Bytes, centre: Floats, epoch: int) -> Encoded:
        """Codes and factors of records.

        With r the rotated, centred vector, s its signs and q the same of a query:
        <r, q> is about |r|^2 / sum|r_i| * <s, q>. Ranking needs, up to what all rows share,
        |r|^2 - 2 <r, q> for l2 and -<c, r> - <r, q> for inner products.
        """
        if not self.spec.has_codes:
            return Encoded(epoch, records, np.zeros((0, 0), np.uint8), np.zeros(0, np.uint32))
        residuals = self.residuals(records, centre)
        squares, factors = _estimator(residuals)
        if self.spec.metric == "l2":
            offsets, slopes = squares, -2 * factors
        else:
            offsets, slopes = -(residuals @ centre), -factors
        codes = self.kernels.sign_codes(residuals).view(np.uint8)
        return Encoded(epoch, records, codes, layout.pack_factors(offsets, slopes))

    def codes_hold(
        self, records: Bytes, centre: Floats, codes: Bytes, factors: NDArray[np.uint32]
    ) -> NDArray[np.bool_]:
        """(n,) whether codes and factors are those of the records."""
        wanted = self.encode(records, centre, 0)
        # Kernels of another machine sum in another order: the sign of next to nothing may
        # differ, and the last bits of factors.
        residuals = np.abs(self.residuals(records, centre))
        sure = np.ones((len(records), 8 * codes.shape[1]), np.bool_)
        sure[:, : self.spec.dim] = residuals > 1e-4 * residuals.max(axis=1, keepdims=True)
        flipped = np.unpackbits(codes ^ wanted.codes, axis=1, bitorder="little")
        same: Any = ~(sure & (flipped > 0)).any(axis=1)
        for here, there in zip(
            layout.unpack_factors(factors), layout.unpack_factors(wanted.factors), strict=True
        ):
            same = same & np.isclose(here, there, rtol=2**-7, atol=1e-6)
        held: NDArray[np.bool_] = same
        return held

    def shortlist(self, records: Bytes, centre: Floats) -> int:
        """How many estimates hold 995 of 1,000 true neighbours among these records.

        Up to 256 of them, evenly spread, ask for their ten nearest; the answer is the 99.5th
        percentile of the ranks at which the estimate puts those.
        """
        vectors = self.rotated(records)
        n = len(vectors)
        if n <= 2 * _NEAREST:
            return 0
        asking = np.arange(0, n, max(1, n // _ASKING))[:_ASKING]
        queries = vectors[asking]
        products = queries @ vectors.T
        residuals = vectors - centre
        squares, factors = _estimator(residuals)
        signs = np.where(residuals >= 0, np.float32(1), np.float32(-1))
        estimates = ((queries - centre) @ signs.T) * factors
        if self.spec.metric == "l2":
            true = np.einsum("ij,ij->i", vectors, vectors) - 2 * products
            keys = squares - 2 * estimates
        else:
            true, keys = -products, -(residuals @ centre) - estimates
        itself = (np.arange(len(asking)), asking)
        true[itself] = keys[itself] = np.inf
        nearest = np.argpartition(true, _NEAREST - 1, axis=1)[:, :_NEAREST]
        ranks = keys.argsort(axis=1).argsort(axis=1)
        found = np.take_along_axis(ranks, nearest, axis=1)
        return int(np.quantile(found, 0.995)) + 1

    def queries(self, queries: Floats) -> Floats:
        """(q, dim) as the kernels score them: of unit length for cosine."""
        if self.spec.metric != "cosine":
            return queries
        if len(queries) == 1:  # the same in fewer steps
            wide = queries.astype(np.float64)
            length = math.sqrt(float(wide[0] @ wide[0]))
            return (wide / length).astype(np.float32) if length > 0 else queries
        lengths = np.sqrt(np.einsum("ij,ij->i", queries, queries, dtype=np.float64))
        return (queries / np.where(lengths > 0, lengths, 1)[:, None]).astype(np.float32)


def _estimator(residuals: Floats) -> tuple[Floats, Floats]:
    """(n,) |r|^2, and |r|^2 / sum|r_i|: <r, q> is about that times <signs of r, q>."""
    squares = np.einsum("ij,ij->i", residuals, residuals)
    sums = np.abs(residuals).sum(axis=1)
    return squares, np.divide(squares, sums, out=np.zeros_like(sums), where=sums > 0)


def _to_halves(vectors: Floats) -> tuple[NDArray[np.float16], Floats]:
    """float16 and (n,) scales: 1 where float16 fits as it is, else a power of two."""
    largest = np.abs(vectors).max(axis=1, initial=0)
    _, exponents = np.frexp(largest)
    fits = (largest <= _F16_MAX) & ((largest >= _F16_COMFORT) | (largest == 0))
    scales = np.where(fits, np.float32(1), np.ldexp(np.float32(1), exponents)).astype(np.float32)
    # float32 has no power of two this small; such a vector is zero to every metric.
    scales[scales < np.finfo(np.float32).tiny] = np.finfo(np.float32).tiny
    return (vectors / scales[:, None]).astype("<f2"), scales
