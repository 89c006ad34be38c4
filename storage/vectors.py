"""Fresh vectors: those that are durable in LMDB and not yet in their space's files.

Key (space u16 | row u32) -> the vector as the space's precision gives it: float16 or float32
little-endian, told apart by length. At most some thousands at a time; the holder of the
maintenance lease moves them into the files and deletes them here. Bytes only.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from memdb.errors import StoreCorrupt
from memdb.storage import tables
from memdb.storage.environment import ReadTxn, WriteTxn


def _key(space: int, row: int) -> bytes:
    return space.to_bytes(2, "big") + row.to_bytes(4, "big")


def put_fresh(
    txn: WriteTxn, space: int, rows: Sequence[int], vectors: NDArray[np.float16 | np.float32]
) -> None:
    """Keep ``vectors`` (n, dim) of ``rows``, ascending."""
    txn.put_rising(
        tables.VECTORS,
        [(_key(space, row), vector.tobytes()) for row, vector in zip(rows, vectors, strict=True)],
    )


def fresh_rows(txn: ReadTxn, space: int, at_most: int | None = None) -> list[int]:
    """The fresh rows of a space, ascending; the first ``at_most`` of them."""
    keys = txn.scan_keys(tables.VECTORS, _key(space, 0), _key(space + 1, 0))
    return [int.from_bytes(key[2:], "big") for key in islice(keys, at_most)]


def load_fresh(
    txn: ReadTxn, space: int, dim: int, rows: Sequence[int] | None = None
) -> tuple[NDArray[np.uint32], NDArray[np.float32]]:
    """(rows (n,), vectors (n, dim)) of those given that are fresh, or of all; rows ascend."""
    if rows is None:
        start, stop = _key(space, 0), _key(space + 1, 0)
        found = list(txn.scan(tables.VECTORS, start, stop))
    else:
        found = sorted(txn.get_many(tables.VECTORS, [_key(space, row) for row in rows]).items())
    ids = np.array([int.from_bytes(key[2:], "big") for key, _ in found], dtype=np.uint32)
    matrix = np.empty((len(found), dim), dtype=np.float32)
    for place, (_, payload) in enumerate(found):
        if len(payload) not in (2 * dim, 4 * dim):
            raise StoreCorrupt("a fresh vector has the wrong length", path="kv")
        matrix[place] = np.frombuffer(payload, "<f2" if len(payload) == 2 * dim else "<f4")
    return ids, matrix


def drop_all_fresh(txn: WriteTxn, space: int) -> None:
    """Delete every fresh vector of a space."""
    txn.delete_range(tables.VECTORS, _key(space, 0), _key(space + 1, 0))


def drop_fresh(txn: WriteTxn, space: int, rows: Sequence[int]) -> None:
    for row in rows:
        txn.delete(tables.VECTORS, _key(space, row))
