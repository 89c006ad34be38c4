"""Chroma: a persistent client, one collection; documents in SQLite, vectors in HNSW segments."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import chromadb

_BATCH = 1_000


class Store:
    """``tidy`` runs ``chroma vacuum``'s own statement, VACUUM of its SQLite file."""

    def __init__(self, folder: Path, dim: int, *, new: bool) -> None:
        self._folder = folder
        settings = chromadb.Settings(anonymized_telemetry=False)
        self._client = chromadb.PersistentClient(str(folder), settings)
        # No function that embeds: vectors are given.
        self._collection = self._client.get_or_create_collection("bench", embedding_function=None)

    def add(self, ids: list[str], texts: list[str], vectors: list[Any]) -> None:
        for at in range(0, len(ids), _BATCH):
            part = slice(at, at + _BATCH)
            self._collection.add(
                ids=ids[part],
                documents=texts[part],
                embeddings=vectors[part],
                metadatas=[{"source": f"app:{text.split()[1]}"} for text in texts[part]],
            )

    def delete(self, ids: list[str]) -> None:
        self._collection.delete(ids=ids)

    def tidy(self) -> None:
        import sqlite3

        self.close()
        with sqlite3.connect(self._folder / "chroma.sqlite3") as connection:
            connection.execute("VACUUM")
        connection.close()

    def present(self, ids: list[str]) -> list[str]:
        found: list[str] = self._collection.get(ids=ids)["ids"]
        return found

    def close(self) -> None:
        self._collection = self._client = None
