"""A question's vector in one space, among the rows of one snapshot that may be answered with.

What ``query.stages`` is lent for its vector leg. A vector is compared with those of the space it
was embedded for and of no other, whatever has taken that one's place meanwhile. It does not know
who embeds, nor what a similarity is worth.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pyroaring import BitMap

from memdb import validate
from memdb.second_look import SecondLook
from memdb.space_vectors import SpaceVectors
from memdb.storage.spaces import SpaceRecord
from memdb.storage.store import Reader

_SAMPLE: Final = 256  # memories by which a similarity is judged


class Embedded(NamedTuple):
    """A question's vector, and the number of the space it was embedded for: 0 where there is none
    yet, None for a vector that was brought."""

    vector: NDArray[np.float32]
    space: int | None = None


class Replaced(Exception):
    """The space that the question was embedded for has been replaced: embed it again."""


def comparable(embedded: Embedded, record: SpaceRecord) -> NDArray[np.float32]:
    """A question's vector, if it may be compared with those of a space.

    Raises ``Replaced`` where it was embedded for the one before, ``DimensionMismatch``.
    """
    if embedded.space not in (None, record.number):
        raise Replaced
    if embedded.space is None:
        validate.one_vector(embedded.vector, record.dim)
    return embedded.vector


class Meaning:
    """The question's vector in one space, among the allowed rows of one snapshot."""

    def __init__(
        self,
        txn: Reader,
        space: SpaceVectors,
        vector: NDArray[np.float32],
        allowed: BitMap,
        look: SecondLook,
        *,
        exact: bool,
    ) -> None:
        self._txn, self._space, self._vector = txn, space, vector
        self._allowed, self._look, self._exact = allowed, look, exact

    def nearest(self, limit: int) -> tuple[NDArray[np.uint32], NDArray[np.float32]]:
        found = self._space.search(
            self._txn,
            self._vector,
            max(limit, self._look.top),
            self._allowed,
            exact_search=self._exact,
        )
        if self._look.top:
            found = self._look.again(found)
        return found.rows, similarity(found.distances, self._space.record.metric)

    def of(self, rows: NDArray[np.uint32]) -> NDArray[np.float32]:
        """Cosines, inner products, or of squared distances d: 1 / (1 + d)."""
        found: NDArray[np.float32] = similarity(
            self._space.measure(self._txn, self._vector, rows), self._space.record.metric
        )
        return found

    def sample(self) -> NDArray[np.float32]:
        """Of up to 256 allowed rows, evenly spaced among those that have a vector."""
        return self.of(self._space.sample(self._txn, self._allowed, _SAMPLE))

    def plan(self, limit: int) -> dict[str, Any]:
        """Which way ``nearest`` goes, why, and what it touches."""
        most = max(limit, self._look.top)
        return self._space.plan(self._txn, most, self._allowed, exact_search=self._exact)

    def matches(self) -> int:
        return self._space.rows_with_vectors(self._txn).intersection_cardinality(self._allowed)


def similarity(distances: Any, metric: str) -> Any:
    """Larger is closer: a cosine, an inner product, or 1 / (1 + squared distance)."""
    if metric == "l2":
        return 1 / (1 + distances)
    return 1 - distances if metric == "cosine" else -distances
