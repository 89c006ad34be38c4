"""Some of a space's memories with their vectors: what a picture of a space is drawn from.

Which ones depends on their rows alone, so that the next memory changes the sample by one at most,
and two samples of one state are the same. It draws nothing and changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from memdb.reader import MemoryReader
from memdb.space_views import rows_array
from memdb.types import Memory

if TYPE_CHECKING:
    from memdb.engine import Engine

MOST: Final = 10_000
_SPREAD: Final = np.uint64(2_654_435_761)  # odd: rows, times it, are spread over 32 bits


@dataclass(frozen=True, slots=True)
class SpaceSample:
    """``memories`` in the order written, and (n, dim) float32 ``vectors`` in theirs.

    ``of``: how many memories it is a sample of. ``content_seq``: the state of the database; as long
    as that is the same, so is the sample.
    """

    space: str
    memories: tuple[Memory, ...]
    vectors: NDArray[np.float32]
    of: int
    content_seq: int


def sample(engine: Engine, name: str, where: Mapping[str, Any] | None, limit: int) -> SpaceSample:
    """Up to ``limit`` of the memories in space ``name`` that are visible and pass the filter.

    Raises ``NotFound``, ``FilterError``.
    """
    reader = MemoryReader(engine)
    with engine.store.read() as txn:
        record = engine.require_space(txn, name)
        space = engine.vectors(record)
        selected = reader.select(txn, "", reader.compile(where, txn))
        rows = rows_array(selected & space.rows_with_vectors(txn))
        chosen = spread(rows, limit).tolist()
        found = space.fetch(txn, chosen)
        memories = engine.records.get_many(txn, chosen)
        kept = [row for row in chosen if row in found and row in memories]
        vectors = np.array([found[row] for row in kept], np.float32)
        return SpaceSample(
            record.name,
            tuple(memories[row] for row in kept),
            vectors.reshape(len(kept), record.dim),
            len(rows),
            txn.state.content_seq,
        )


def spread(rows: NDArray[np.uint32], limit: int) -> NDArray[np.uint32]:
    """``limit`` of ``rows`` (n,), ascending: those whose scattered number is least."""
    if len(rows) <= limit:
        return rows
    scattered = (rows.astype(np.uint64) * _SPREAD) & np.uint64(0xFFFF_FFFF)
    return np.sort(rows[np.argpartition(scattered, limit)[:limit]])
