"""LanceDB: one table of Lance files, every version of which is kept until it is cleaned up."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import lancedb
import pyarrow as pa


class Store:
    """``tidy`` compacts and removes every version but the last, as its documentation advises."""

    def __init__(self, folder: Path, dim: int, *, new: bool) -> None:
        schema = pa.schema(
            [
                pa.field("id", pa.string()),
                pa.field("text", pa.string()),
                pa.field("source", pa.string()),
                pa.field("vector", pa.list_(pa.float32(), dim)),
            ]
        )
        database = lancedb.connect(str(folder))
        self._table = (
            database.create_table("bench", schema=schema) if new else database.open_table("bench")
        )

    def add(self, ids: list[str], texts: list[str], vectors: list[Any]) -> None:
        rows = zip(ids, texts, vectors, strict=True)
        self._table.add(
            [{"id": i, "text": t, "source": f"app:{t.split()[1]}", "vector": v} for i, t, v in rows]
        )

    def delete(self, ids: list[str]) -> None:
        named = ", ".join(f"'{one}'" for one in ids)
        self._table.delete(f"id IN ({named})")

    def tidy(self) -> None:
        self._table.optimize(cleanup_older_than=timedelta(0), delete_unverified=True)

    def present(self, ids: list[str]) -> list[str]:
        there = set(self._table.to_arrow()["id"].to_pylist())
        return [one for one in ids if one in there]

    def close(self) -> None:
        self._table = None
