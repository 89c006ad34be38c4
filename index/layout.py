"""The byte layouts that the kernels, their numpy twins and the files agree on.

Numbers only: sizes and views of arrays, no files and no arithmetic on vectors. The same constants
stand in ``native/kernels.h``; the grammars are in README.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

BLOCK_ROWS: Final = 8
GROUP_ROWS: Final = 4096
GROUP_BLOCKS: Final = GROUP_ROWS // BLOCK_ROWS
QUERY_BITS: Final = 4
ROTATION_ROUNDS: Final = 4
RECORD_HEAD_BYTES: Final = 12
RECORD_TAIL_BYTES: Final = 4

METRICS: Final = {"cosine": 0, "ip": 1, "l2": 2}
INT8: Final = 0
FLOAT16: Final = 1
PRECISIONS: Final = {"standard": INT8, "exact": FLOAT16}
"""By profile."""


def words_of(dim: int) -> int:
    """64-bit words of a sign code."""
    return (dim + 63) // 64


def group_bytes(dim: int) -> int:
    """Bytes of 4,096 codes and their factors; a multiple of 4,096."""
    return GROUP_ROWS * (8 * words_of(dim) + 8)


def record_bytes(dim: int, precision: int) -> int:
    return RECORD_HEAD_BYTES + dim * (2 if precision == FLOAT16 else 1) + RECORD_TAIL_BYTES


def record_type(dim: int, precision: int) -> np.dtype[np.void]:
    """The record as a numpy structure, unaligned."""
    payload = ("<f2" if precision == FLOAT16 else "i1", (dim,))
    return np.dtype(
        [
            ("slot", "<u4"),
            ("scale", "<f4"),
            ("norm", "<f4"),
            ("payload", *payload),
            ("crc", "<u4"),
        ]
    )


@dataclass(frozen=True, slots=True)
class Group:
    """Views into one group: codes (512, words, 8) uint64, offsets and slopes (4096,) float32."""

    codes: NDArray[np.uint64]
    offsets: NDArray[np.float32]
    slopes: NDArray[np.float32]


def group_at(groups: NDArray[np.uint8], dim: int, number: int) -> Group:
    """Group ``number`` of the (bytes,) uint8 body of a codes file."""
    size = group_bytes(dim)
    words = words_of(dim)
    body = groups[number * size : (number + 1) * size]
    factors = body[GROUP_ROWS * 8 * words :].view("<f4")
    return Group(
        body[: GROUP_ROWS * 8 * words].view("<u8").reshape(GROUP_BLOCKS, words, BLOCK_ROWS),
        factors[:GROUP_ROWS],
        factors[GROUP_ROWS:],
    )


def rotation_signs(dim: int, seed: int) -> NDArray[np.float32]:
    """(4, dim) of +1 and -1: the low bits of SplitMix64 from ``seed``, alike on every machine."""
    count = np.arange(1, ROTATION_ROUNDS * dim + 1, dtype=np.uint64)
    state = np.uint64(seed) + count * np.uint64(0x9E3779B97F4A7C15)
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    bits = (state ^ (state >> np.uint64(31))) & np.uint64(1)
    return np.where(bits, np.float32(1), np.float32(-1)).reshape(ROTATION_ROUNDS, dim)
