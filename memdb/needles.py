"""Finding thousands of byte strings in gigabytes at once, and what is hidden in zstd frames.

Each needle is known by its first eight bytes. All positions of a buffer are looked at as 64-bit
words, eight alignments one after the other; a table of hashed words lets next to nothing pass that
is not the beginning of a needle, and what passes is compared in full. Some 10 ns a byte in numpy,
whatever the number of needles.

This file knows bytes. It does not know what a needle stands for.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from typing import Final

import numpy as np
import zstandard
from numpy.typing import NDArray

Buffer = bytes | mmap.mmap

_WORD: Final = 8
_TABLE_BITS: Final = 22
_MULTIPLIER: Final = np.uint64(0x9E3779B97F4A7C15)
_MAGIC: Final = b"\x28\xb5\x2f\xfd"
_FEED_BYTES: Final = 1 << 16
_MOST_BYTES: Final = 64 << 20  # of one frame
_STEP: Final = 1 << 20  # words looked at together
_DEPTH: Final = 2


class Needles:
    """A set of byte strings of at least eight bytes, each with a number and a form."""

    def __init__(self) -> None:
        self._by_word: dict[int, list[tuple[bytes, int, str]]] = {}
        self._table: NDArray[np.bool_] = np.zeros(1 << _TABLE_BITS, np.bool_)

    def add(self, needle: bytes, number: int, form: str) -> None:
        if len(needle) < _WORD:
            raise ValueError("a needle has at least eight bytes")
        word = int.from_bytes(needle[:_WORD], "little")
        self._by_word.setdefault(word, []).append((needle, number, form))
        self._table[_hash(np.array([word], np.uint64))] = True

    def find(self, content: Buffer) -> set[tuple[int, str]]:
        """(number, form) of every needle that occurs."""
        found: set[tuple[int, str]] = set()
        octets = np.frombuffer(content, np.uint8)
        for shift in range(min(_WORD, max(0, len(octets) - _WORD + 1))):
            whole = (len(octets) - shift) // _WORD * _WORD
            words = octets[shift : shift + whole].view("<u8")
            for start in range(0, len(words), _STEP):
                part = words[start : start + _STEP]
                for at in np.flatnonzero(self._table[_hash(part)]).tolist():
                    offset = shift + (start + at) * _WORD
                    for needle, number, form in self._by_word.get(int(part[at]), ()):
                        if content[offset : offset + len(needle)] == needle:
                            found.add((number, form))
        return found


def _hash(words: NDArray[np.uint64]) -> NDArray[np.uint64]:
    hashed: NDArray[np.uint64] = (words * _MULTIPLIER) >> np.uint64(64 - _TABLE_BITS)
    return hashed


def decompressed(content: Buffer, depth: int = _DEPTH) -> Iterator[bytes]:
    """What every zstd frame in ``content`` holds, frames inside frames too.

    A frame that breaks off gives what can be had of it: free pages hold such.
    """
    at = content.find(_MAGIC)
    while at >= 0:
        inner = _open(content, at)
        if inner:
            yield inner
            if depth > 1:
                yield from decompressed(inner, depth - 1)
        at = content.find(_MAGIC, at + 1)


def _open(content: Buffer, at: int) -> bytes:
    stream = zstandard.ZstdDecompressor().decompressobj()
    parts: list[bytes] = []
    size = 0
    try:
        for start in range(at, len(content), _FEED_BYTES):
            part = stream.decompress(content[start : start + _FEED_BYTES])
            parts.append(part)
            size += len(part)
            if stream.eof or size > _MOST_BYTES:
                break
    except zstandard.ZstdError:
        pass  # not a frame after all, or one that was overwritten further on
    return b"".join(parts)
