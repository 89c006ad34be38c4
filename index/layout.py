"""The byte layouts that the kernels, their numpy twins and the files agree on.

Numbers only: sizes and views of arrays, no files and no arithmetic on vectors. The same constants
stand in ``native/kernels.h``; the grammars are in README.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

BLOCK_ROWS: Final = 32
GROUP_ROWS: Final = 4096
GROUP_BLOCKS: Final = GROUP_ROWS // BLOCK_ROWS
GROUP_ALLOWED: Final = GROUP_ROWS // 8
"""Bytes of a bitset over the rows of a group."""
FACTOR_BYTES: Final = 4
"""A row's offset and slope, each the upper half of a float."""
TABLE_MAX: Final = 63
"""The greatest entry of a query's tables."""
PLANES: Final = 5
"""Bits of a query's coordinate where rows are estimated one by one."""
ROTATION_ROUNDS: Final = 4
RECORD_HEAD_BYTES: Final = 12
RECORD_TAIL_BYTES: Final = 4

METRICS: Final = {"cosine": 0, "ip": 1, "l2": 2, "hamming": 3}
INT8: Final = 0
FLOAT16: Final = 1
INT5: Final = 2
INT4: Final = 3
INT2: Final = 4
BITS: Final = 5
INT1: Final = 6
PRECISIONS: Final = {
    "standard": INT8,
    "exact": FLOAT16,
    "compact": INT5,
    "nano": INT2,
    "pico": INT1,
}
"""By profile; a Hamming space keeps its bits whatever the profile."""
PRECISION_BITS: Final = {INT8: 8, FLOAT16: 16, INT5: 5, INT4: 4, INT2: 2, BITS: 1, INT1: 1}
PACKED: Final = (INT5, INT4, INT2, INT1)
"""Precisions whose payload is a bit stream of levels."""


def words_of(dim: int) -> int:
    """64-bit words of a sign code."""
    return (dim + 63) // 64


def group_bytes(dim: int) -> int:
    """Bytes of 4,096 codes and their factors; a multiple of 4,096."""
    return GROUP_ROWS * (8 * words_of(dim) + FACTOR_BYTES)


def block_bytes(dim: int) -> int:
    """Bytes of 32 codes and their factors."""
    return BLOCK_ROWS * (8 * words_of(dim) + FACTOR_BYTES)


def row_bytes(dim: int) -> int:
    """Bytes of a code and its factors side by side."""
    return 8 * words_of(dim) + FACTOR_BYTES


def payload_bytes(dim: int, precision: int) -> int:
    return (dim * PRECISION_BITS[precision] + 7) // 8


def record_bytes(dim: int, precision: int) -> int:
    return RECORD_HEAD_BYTES + payload_bytes(dim, precision) + RECORD_TAIL_BYTES


def record_type(dim: int, precision: int) -> np.dtype[np.void]:
    """The record as a numpy structure, unaligned; a packed payload is bytes."""
    payload = {
        FLOAT16: ("<f2", (dim,)),
        INT8: ("i1", (dim,)),
    }.get(precision, ("u1", (payload_bytes(dim, precision),)))
    return np.dtype(
        [
            ("slot", "<u4"),
            ("scale", "<f4"),
            ("norm", "<f4"),
            ("payload", *payload),
            ("crc", "<u4"),
        ]
    )


GRAPH_PAGE_BYTES: Final = 4096
GRAPH_HEAD_BYTES: Final = 16
"""Bytes of a graph's page before its records."""


def graph_record_bytes(degree: int) -> int:
    """A slot, how many neighbours it has, and room for ``degree`` of them."""
    return 4 + 3 * degree


def graph_records(degree: int) -> int:
    """Records of a graph's page."""
    return (GRAPH_PAGE_BYTES - GRAPH_HEAD_BYTES - 1) // graph_record_bytes(degree)


@dataclass(frozen=True, slots=True)
class Group:
    """Views into one group: codes (128, bytes, 32) uint8, factors (4096,) uint32."""

    codes: NDArray[np.uint8]
    factors: NDArray[np.uint32]


def group_at(groups: NDArray[np.uint8], dim: int, number: int, *, rows: bool = False) -> Group:
    """Group ``number`` of the (bytes,) uint8 body of a codes file, in blocks or in ``rows``."""
    size = group_bytes(dim)
    code = 8 * words_of(dim)
    body = groups[number * size : (number + 1) * size]
    if rows:
        table = body.reshape(GROUP_ROWS, code + FACTOR_BYTES)
        blocks = table[:, :code].reshape(GROUP_BLOCKS, BLOCK_ROWS, code)
        return Group(blocks.transpose(0, 2, 1), table[:, code:].view("<u4")[:, 0])
    return Group(
        body[: GROUP_ROWS * code].reshape(GROUP_BLOCKS, code, BLOCK_ROWS),
        body[GROUP_ROWS * code :].view("<u4"),
    )


def pack_factors(offsets: NDArray[np.float32], slopes: NDArray[np.float32]) -> NDArray[np.uint32]:
    """(n,) words: offset in the low half, slope in the high one, rounded to nearest, even."""
    return _upper_half(offsets) | _upper_half(slopes) << np.uint32(16)


def _upper_half(numbers: NDArray[np.float32]) -> NDArray[np.uint32]:
    words = numbers.astype(np.float32).view(np.uint32)
    return words + np.uint32(0x7FFF) + (words >> np.uint32(16) & np.uint32(1)) >> np.uint32(16)


def unpack_factors(
    words: NDArray[np.uint32],
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """(n,) offsets and (n,) slopes."""
    offsets = (words << np.uint32(16)).view(np.float32)
    return offsets, (words & np.uint32(0xFFFF0000)).view(np.float32)


def rotation_signs(dim: int, seed: int) -> NDArray[np.float32]:
    """(4, dim) of +1 and -1: the low bits of SplitMix64 from ``seed``, alike on every machine."""
    count = np.arange(1, ROTATION_ROUNDS * dim + 1, dtype=np.uint64)
    state = np.uint64(seed) + count * np.uint64(0x9E3779B97F4A7C15)
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    bits = (state ^ (state >> np.uint64(31))) & np.uint64(1)
    return np.where(bits, np.float32(1), np.float32(-1)).reshape(ROTATION_ROUNDS, dim)
