"""A second look at the closest memories of a space that keeps two bits a coordinate.

Profile "nano" ranks by what little it keeps: the right memories are among the best fifty, not in
their order. Their texts are still there, so the owner may have those few embedded again for each
question (``db.settings.reembed_top``): vectors at full precision for the time of one model call,
in place of bytes on disk. LEANN does so at every hop of its graph; here once, after the scan.

This file knows memories, embedders and distances; it does not know ranking.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from memdb.embedded_text import embedded_text
from memdb.embedding import DEFAULT_SPACE
from memdb.engine import Engine
from memdb.space_vectors import Neighbours, SpaceVectors
from memdb.storage.store import Reader

SETTING: Final = "reembed_top"
MAX_TOP: Final = 1_000


def look_again(
    engine: Engine,
    txn: Reader,
    space: SpaceVectors,
    query: NDArray[np.float32],
    near: Neighbours,
    plan: dict[str, Any],
) -> Neighbours:
    """``near`` with the distances of its best made exact by their texts, in their new order.

    Unchanged where the owner did not ask for it, the space keeps more than nano, or its vectors
    are not of the database's embedder. Raises ``EmbedderUnavailable``, ``MissingDependency``.
    """
    record = space.record
    if record.profile != "nano" or record.name != DEFAULT_SPACE or record.embedder is None:
        return near
    top = int(engine.stored_settings(txn).get(SETTING, 0))
    rows = near.rows[:top]
    if not len(rows):
        return near
    memories = engine.records.get_many(txn, sorted(rows.tolist()))
    texts = [(place, embedded_text(memories[row])) for place, row in enumerate(rows.tolist())]
    known = [(place, text) for place, text in texts if text]
    vectors = engine.embedding.embed([text for _, text in known], "document")
    if vectors is None:  # no text, or a handle that embeds nothing
        return near
    plan["reembedded"] = len(known)
    distances = near.distances.copy()
    places = [place for place, _ in known]
    distances[places] = space.distances(query, vectors)
    # The estimates of the others are as often too good as those of the best were: they stay behind.
    rest = np.setdiff1d(np.arange(len(distances)), places)
    distances[rest] = np.maximum(distances[rest], distances[places].max())
    order = np.lexsort((near.rows, distances))
    return Neighbours(near.rows[order], distances[order])
