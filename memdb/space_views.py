"""What a space shows one snapshot: fresh vectors, the layout of encoded ones, and answers.

Values only, and arrays of rows as bitmaps and back. Who makes and keeps them is
``space_vectors``; this file knows no transaction.
"""

from __future__ import annotations

import array
from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pyroaring import BitMap

from memdb.index.flat import FlatIndex
from memdb.index.slots import SlotSet
from memdb.storage import spaces


def rows_bitmap(rows: NDArray[np.uint32] | Sequence[int]) -> BitMap:
    """The bitmap of an array of rows, by the fastest way pyroaring has."""
    return BitMap(array.array("I", np.asarray(rows, dtype=np.uint32).tobytes()))


def rows_array(rows: BitMap) -> NDArray[np.uint32]:
    """The rows of a bitmap, ascending."""
    return np.frombuffer(rows.to_array(), dtype=np.uint32)


class Neighbours(NamedTuple):
    """Rows (n,) uint32 and their distances (n,) float32, closest first."""

    rows: NDArray[np.uint32]
    distances: NDArray[np.float32]


NO_NEIGHBOURS: Final = Neighbours(np.empty(0, np.uint32), np.empty(0, np.float32))


def unit(matrix: NDArray[np.float32]) -> NDArray[np.float32]:
    """(n, dim) rows scaled to length one; zero rows stay zero."""
    lengths = np.linalg.norm(matrix, axis=1, keepdims=True)
    scaled: NDArray[np.float32] = np.divide(
        matrix, lengths, out=np.zeros_like(matrix), where=lengths > 0
    )
    return scaled


def unit_of(vector: NDArray[np.float32]) -> NDArray[np.float32]:
    """``unit`` of one vector (dim,), to the bit, in fewer steps: each search takes it."""
    length = np.sqrt(np.add.reduce(vector * vector))
    return vector / length if length > 0 else np.zeros_like(vector)


def evenly_spaced(rows: NDArray[np.uint32], size: int) -> NDArray[np.uint32]:
    """At most ``size`` of ascending rows."""
    step = -(-len(rows) // size)
    return rows[step // 2 :: step].copy() if step > 1 else rows


class Fresh(NamedTuple):
    """Fresh vectors as of one snapshot. Immutable: a later view shares the buffers behind it."""

    content_seq: int
    layout_seq: int
    rows: NDArray[np.uint32]
    matrix: NDArray[np.float32]
    bitmap: BitMap

    def among(self, present: BitMap, layout_seq: int) -> Fresh:
        """The view of a later layout, in which of its rows only those of ``present`` are fresh."""
        if self.bitmap <= present:
            return self._replace(layout_seq=layout_seq)
        left = self.bitmap & present
        kept = np.isin(self.rows, rows_array(left))
        return Fresh(self.content_seq, layout_seq, self.rows[kept], self.matrix[kept], left)

    def within(self, allowed: BitMap) -> tuple[NDArray[np.uint32], NDArray[np.float32]]:
        """Rows and vectors of those of ``allowed``, a subset of them."""
        if len(allowed) == len(self.rows):
            return self.rows, self.matrix
        keep = np.isin(self.rows, rows_array(allowed))
        return self.rows[keep], self.matrix[keep]

    def extended(
        self, content_seq: int, rows: NDArray[np.uint32], matrix: NDArray[np.float32]
    ) -> Fresh:
        """The view with more vectors; copies only when the buffers behind are full."""
        used, needed = len(self.rows), len(self.rows) + len(rows)
        row_buffer, matrix_buffer = self.rows.base, self.matrix.base
        if row_buffer is None or matrix_buffer is None or needed > len(row_buffer):
            row_buffer = np.empty(max(256, 2 * needed), np.uint32)
            matrix_buffer = np.empty((len(row_buffer), self.matrix.shape[1]), np.float32)
            row_buffer[:used], matrix_buffer[:used] = self.rows, self.matrix
        row_buffer[used:needed], matrix_buffer[used:needed] = rows, matrix
        bitmap = self.bitmap | rows_bitmap(rows) if len(rows) else self.bitmap
        return Fresh(
            content_seq, self.layout_seq, row_buffer[:needed], matrix_buffer[:needed], bitmap
        )


class Layout(NamedTuple):
    """Where the encoded vectors of a space lie, as of one ``layout_seq``, and the files that hold
    them: those of a snapshot or, since rows keep their slots, of a later profile."""

    layout_seq: int
    encoded: BitMap
    allocation: spaces.Allocation
    files: FlatIndex | None


class Compiled(NamedTuple):
    """The slots of those of ``allowed`` that are encoded in a layout."""

    layout: Layout
    allowed: BitMap
    encoded: BitMap
    slots: SlotSet


class Sample(NamedTuple):
    """Rows drawn from allowed ones, and their vectors once somebody measured them."""

    of: tuple[int, int, BitMap, int]
    rows: NDArray[np.uint32]
    matrix: NDArray[np.float32] | None = None


def merge(parts: list[Neighbours], k: int | None) -> Neighbours:
    """The closest ``k`` of several answers; equal distances by row. None: all of them."""
    if not parts:
        return NO_NEIGHBOURS
    rows = np.concatenate([part.rows for part in parts])
    distances = np.concatenate([part.distances for part in parts])
    order = np.lexsort((rows, distances))[:k]
    return Neighbours(rows[order], distances[order])


def same_vectors(
    before: Sequence[Sample], of: tuple[int, int, BitMap, int], rows: NDArray[np.uint32]
) -> NDArray[np.float32] | None:
    """What is already known of a new sample: the vector of a row never changes in its layout."""
    best: NDArray[np.float32] | None = None
    for one in before:
        if one.matrix is None or one.of[1] != of[1]:
            continue
        common = min(len(one.rows), len(rows), len(one.matrix))
        other = np.flatnonzero(one.rows[:common] != rows[:common])
        same = int(other[0]) if len(other) else common
        if best is None or same > len(best):
            best = one.matrix[:same]
    return best
