"""Qdrant's local mode: the Python client on a folder, without a server."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from qdrant_client import QdrantClient, models

_BATCH = 1_000
_NAME = "bench"


class Store:
    """Local mode has no compaction of its own: ``tidy`` vacuums the SQLite file it keeps."""

    def __init__(self, folder: Path, dim: int, *, new: bool) -> None:
        self._folder = folder
        self._client = QdrantClient(path=str(folder))
        if new:
            self._client.create_collection(
                _NAME, models.VectorParams(size=dim, distance=models.Distance.COSINE)
            )

    def add(self, ids: list[str], texts: list[str], vectors: list[Any]) -> None:
        points = [
            models.PointStruct(
                id=int(one), vector=vector, payload={"text": text, "source": text.split()[1]}
            )
            for one, text, vector in zip(ids, texts, vectors, strict=True)
        ]
        for at in range(0, len(points), _BATCH):
            self._client.upsert(_NAME, points[at : at + _BATCH])

    def delete(self, ids: list[str]) -> None:
        self._client.delete(_NAME, models.PointIdsList(points=[int(one) for one in ids]))

    def tidy(self) -> None:
        import sqlite3

        self.close()
        for file in self._folder.rglob("*.sqlite"):
            connection = sqlite3.connect(file)
            connection.execute("VACUUM")
            connection.close()

    def present(self, ids: list[str]) -> list[str]:
        found = self._client.retrieve(_NAME, [int(one) for one in ids])
        return [str(one.id) for one in found]

    def close(self) -> None:
        self._client.close()
