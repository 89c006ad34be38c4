"""zvec: an embedded collection with a text field and an HNSW index."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import zvec

_BATCH = 1_000


class Store:
    """``tidy`` is ``optimize`` and ``flush``."""

    def __init__(self, folder: Path, dim: int, *, new: bool) -> None:
        path = str(folder / "collection")
        if new:
            schema = zvec.CollectionSchema(
                name="bench",
                fields=[zvec.FieldSchema("text", zvec.DataType.STRING)],
                vectors=[
                    zvec.VectorSchema(
                        "vector",
                        zvec.DataType.VECTOR_FP32,
                        dim,
                        index_param=zvec.HnswIndexParam(metric_type=zvec.MetricType.COSINE),
                    )
                ],
            )
            folder.mkdir(parents=True, exist_ok=True)
            self._collection: Any = zvec.create_and_open(path, schema)
        else:
            self._collection = zvec.open(path, zvec.CollectionOption())

    def add(self, ids: list[str], texts: list[str], vectors: list[Any]) -> None:
        docs = [
            zvec.Doc(id=one, fields={"text": text}, vectors={"vector": vector})
            for one, text, vector in zip(ids, texts, vectors, strict=True)
        ]
        for at in range(0, len(docs), _BATCH):
            _require(self._collection.insert(docs[at : at + _BATCH]))
        self._collection.flush()

    def delete(self, ids: list[str]) -> None:
        for at in range(0, len(ids), _BATCH):
            _require(self._collection.delete(ids[at : at + _BATCH]))

    def tidy(self) -> None:
        self._collection.optimize(zvec.OptimizeOption())
        self._collection.flush()

    def present(self, ids: list[str]) -> list[str]:
        return [one for one in ids if self._collection.fetch([one])]

    def close(self) -> None:
        self._collection = None


def _require(statuses: Any) -> None:
    for status in statuses:
        if not status.ok():
            raise RuntimeError(str(status))
