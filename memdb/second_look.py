"""A second look at the closest memories of a space that keeps one or two bits a coordinate.

Profiles "nano" and "pico" rank by what little they keep: the right memories are among the best
fifty, not in their order. Their texts are still there, so the owner may have those few embedded
again for each question (``db.settings.reembed_top``): vectors at full precision for the time of one
model call, in place of bytes on disk. LEANN does so at every hop of its graph; here once, after the
scan.

This file knows memories, embedders and distances; it does not know ranking.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from memdb.embedded_text import embedded_text
from memdb.embedding import DEFAULT_SPACE
from memdb.engine import Engine
from memdb.space_vectors import SpaceVectors
from memdb.space_views import Neighbours
from memdb.storage.store import Reader

SETTING: Final = "reembed_top"
MAX_TOP: Final = 1_000


class SecondLook:
    """One question's second look. ``top`` is 0 where there is none: the owner did not ask for it,
    the space keeps more than nano, or its vectors are not of the database's embedder."""

    def __init__(
        self, engine: Engine, txn: Reader, space: SpaceVectors, query: NDArray[np.float32]
    ) -> None:
        self._engine, self._txn, self._space, self._query = engine, txn, space, query
        record = space.record
        small = record.profile in ("nano", "pico")
        fits = small and record.name == DEFAULT_SPACE and record.embedder
        self.top = int(engine.stored_settings(txn).get(SETTING, 0)) if fits else 0

    def again(self, near: Neighbours) -> Neighbours:
        """``near`` with the distances of its best made exact by their texts, in their new order.

        Raises ``EmbedderUnavailable``, ``MissingDependency``.
        """
        rows = near.rows[: self.top].tolist()
        memories = self._engine.records.get_many(self._txn, sorted(rows))
        texts = [(place, embedded_text(memories[row])) for place, row in enumerate(rows)]
        known = [(place, text) for place, text in texts if text]
        texts_known = [text for _, text in known]
        vectors = self._engine.embedding.embed_for(self._space.record, texts_known, "document")
        if vectors is None:  # no text, or a handle that embeds nothing
            return near
        distances = near.distances.copy()
        places = [place for place, _ in known]
        distances[places] = self._space.distances(self._query, vectors)
        # The estimates of the others are as often too good as those of the best: they stay behind.
        rest = np.setdiff1d(np.arange(len(distances)), places)
        distances[rest] = np.maximum(distances[rest], distances[places].max())
        order = np.lexsort((near.rows, distances))
        return Neighbours(near.rows[order], distances[order])
