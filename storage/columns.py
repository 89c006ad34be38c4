"""Columns of numbers as few bytes: what cold records and series blocks are made of.

Integers are differenced up to twice (a regular clock becomes zeros), shifted so that the least is
zero, divided by what divides them all (milliseconds), cut to the fewest whole bytes and written
byte plane by byte plane, so that zstd sees the high bytes, nearly all equal, in one place.
Arithmetic is modulo 2**64 throughout, which makes every int64 come back exactly, overflow or not.
Floats that are decimals of few digits (21.5, as sensors send) become integers and a power of ten;
others are split into byte planes.

Sources: differences of differences from Pelkonen et al., "Gorilla: A Fast, Scalable, In-Memory
Time Series Database", VLDB 2015, section 4.1.1; decimal floats from Afroozeh, Kuffo and Boncz,
"ALP: Adaptive Lossless Floating-Point Compression", SIGMOD 2023, section 3.1. Differences to
both: whole bytes and zstd instead of bit packing, because Python reads bytes.

The encoded forms are lists that msgpack can carry. This file knows no records and no tables.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import zstandard
from numpy.typing import NDArray

from memdb.errors import StoreCorrupt

_MAX_ORDER = 2
_MAX_DECIMALS = 9
_EXACT_FLOAT_INTEGER = float(1 << 53)
_SAMPLED = 32
MAX_FRAME_BYTES = 1 << 30


def compress(content: bytes, level: int) -> bytes:
    """One zstd frame that tells the size of its content; nothing is trained."""
    return zstandard.ZstdCompressor(level=level, write_content_size=True).compress(content)


def decompress(frame: bytes | memoryview) -> bytes:
    """The content of one frame; ``StoreCorrupt`` for anything else."""
    try:
        size = zstandard.frame_content_size(frame)
        if not 0 <= size <= MAX_FRAME_BYTES:
            raise StoreCorrupt("a compressed block has no sound length", path="kv")
        return zstandard.ZstdDecompressor().decompress(frame)
    except zstandard.ZstdError as error:
        raise StoreCorrupt("a compressed block does not decompress", path="kv") from error


def encode_ints(values: NDArray[np.int64]) -> list[Any]:
    """``[order, heads, least, unit, width, planes]`` of (n,) int64."""
    best: tuple[float, int, NDArray[np.int64]] | None = None
    rest = values
    for order in range(min(_MAX_ORDER, max(0, len(values) - 1)) + 1):
        cost = _cost(rest)
        if best is None or cost < best[0]:
            best = (cost, order, rest)
        rest = rest[1:] - rest[:-1]
    if best is None:
        return [0, [], 0, 1, 0, b""]
    _, order, rest = best
    heads = []
    level = values
    for _ in range(order):
        heads.append(int(level[0]))
        level = level[1:] - level[:-1]
    least = int(rest.min()) if len(rest) else 0
    shifted = rest.view(np.uint64) - np.array(least, dtype=np.int64).view(np.uint64)
    unit = int(np.gcd.reduce(shifted)) or 1  # clocks that tick in milliseconds
    shifted //= np.uint64(unit)
    greatest = int(shifted.max()) if len(shifted) else 0
    width = (greatest.bit_length() + 7) // 8
    return [order, heads, least, unit, width, _planes(shifted.view(np.uint8), 8, width)]


def decode_ints(encoded: list[Any], count: int) -> NDArray[np.int64]:
    """The (count,) int64 that ``encode_ints`` was given."""
    order, heads, least, unit, width, planes = encoded
    shifted = _unplane(planes, count - order if count else 0, 8, width)
    values = (shifted * np.uint64(unit)).view(np.int64)
    values += np.int64(least)
    for head in reversed(heads):
        values = np.cumsum(np.concatenate(([np.int64(head)], values)), dtype=np.int64)
    return values


def _cost(values: NDArray[np.int64]) -> float:
    """Bits a value would take, roughly; a few outliers do not decide."""
    if not len(values):
        return 0.0
    middle = np.partition(values, len(values) // 2)[len(values) // 2]
    away = np.abs(values.astype(np.float64) - float(middle))
    return float(np.log2(away + 1).sum())


def _planes(octets: NDArray[np.uint8], size: int, width: int) -> bytes:
    """The first ``width`` bytes of each little-endian item of ``size``, one plane a byte."""
    return octets.reshape(-1, size)[:, :width].T.tobytes()


def _unplane(planes: bytes, count: int, size: int, width: int) -> NDArray[np.uint64]:
    if len(planes) != count * width:
        raise StoreCorrupt("a column has another length than its block", path="kv")
    octets = np.zeros((count, size), dtype=np.uint8)
    octets[:, :width] = np.frombuffer(planes, dtype=np.uint8).reshape(width, count).T
    return octets.view("<u8").reshape(count)


def encode_floats(values: NDArray[np.float64]) -> list[Any]:
    """``[decimals, integers]`` or ``[-1, planes]`` of (n,) float64, bit for bit."""
    for decimals in range(_MAX_DECIMALS + 1):
        if _as_decimals(values[:_SAMPLED], decimals) is None:
            continue
        integers = _as_decimals(values, decimals)
        if integers is not None:
            return [decimals, encode_ints(integers)]
    return [-1, _planes(values.view(np.uint8), 8, 8)]


def decode_floats(encoded: list[Any], count: int) -> NDArray[np.float64]:
    """The (count,) float64 that ``encode_floats`` was given, bit for bit."""
    decimals, inner = encoded
    if decimals < 0:
        return _unplane(inner, count, 8, 8).view(np.float64)
    scale = np.float64(10.0**decimals)
    return decode_ints(inner, count).astype(np.float64) / scale


def _as_decimals(values: NDArray[np.float64], decimals: int) -> NDArray[np.int64] | None:
    """``values`` times a power of ten as integers, if that loses no bit of any.

    A quotient of an integer below 2**53 and a power of ten up to 10**22 is correctly rounded
    (IEEE 754), so it is the same double that a decimal literal is read as.
    """
    power = 10.0**decimals
    with np.errstate(over="ignore", invalid="ignore"):
        scaled = np.rint(values * power)
        if not (np.abs(scaled) < _EXACT_FLOAT_INTEGER).all():
            return None  # also for what is not finite
    integers = scaled.astype(np.int64)
    back = integers.astype(np.float64) / power
    return integers if np.array_equal(back.view(np.int64), values.view(np.int64)) else None
