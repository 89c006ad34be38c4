"""What an engine with a graph leaves to the flat engine below it, whose files hold the vectors.

A graph decides in which order candidates are looked at; training, encoding, publishing, fetching
and range search are those of ``FlatIndex``. This file knows no graph.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from memdb.errors import StoreCorrupt
from memdb.index.flat import FlatIndex
from memdb.index.kernels import Kernels
from memdb.index.protocol import Change, Encoded, SpaceSpec
from memdb.index.slots import SlotSet


class OverFlat:
    """The members that engines with a graph have in common; they make ``_flat``."""

    _flat: FlatIndex

    @property
    def flat(self) -> FlatIndex:
        """The engine whose files hold the vectors."""
        return self._flat

    @property
    def spec(self) -> SpaceSpec:
        return self._flat.spec

    @property
    def kernels(self) -> Kernels:
        return self._flat.kernels

    @property
    def codes_problem(self) -> StoreCorrupt | None:
        return self._flat.codes_problem

    @property
    def trained(self) -> bool:
        return self._flat.trained

    def train(self, sample: ArrayLike, *, encoded: SlotSet | None = None) -> SpaceSpec:
        return self._flat.train(sample, encoded=encoded)

    def rebuild_codes(self, encoded: SlotSet) -> SpaceSpec:
        return self._flat.rebuild_codes(encoded)

    def encode(self, vectors: ArrayLike) -> Encoded:
        return self._flat.encode(vectors)

    def publish(self, change: Change) -> None:
        self._flat.publish(change)

    def fetch(self, slots: ArrayLike) -> NDArray[np.float32]:
        return self._flat.fetch(slots)

    def within(
        self, query: ArrayLike, radius: float, *, allowed: SlotSet
    ) -> tuple[NDArray[np.uint32], NDArray[np.float32]]:
        return self._flat.within(query, radius, allowed=allowed)
