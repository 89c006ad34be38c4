"""sqlite-vec: a virtual table of vectors beside a plain table of texts, in one SQLite file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import apsw
import sqlite_vec


class Store:
    """``tidy`` is VACUUM; ``secure_delete`` stays at SQLite's default, as most users have it."""

    def __init__(self, folder: Path, dim: int, *, new: bool) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        # Python's own sqlite3 is often built without extensions.
        self._connection = apsw.Connection(str(folder / "bench.sqlite"))
        self._connection.enable_load_extension(True)
        self._connection.load_extension(sqlite_vec.loadable_path())
        if new:
            self._connection.execute("CREATE TABLE memories (id INTEGER PRIMARY KEY, text TEXT)")
            self._connection.execute(
                f"CREATE VIRTUAL TABLE vectors USING vec0(embedding float[{dim}])"
            )

    def add(self, ids: list[str], texts: list[str], vectors: list[Any]) -> None:
        with self._connection:
            for one, text, vector in zip(ids, texts, vectors, strict=True):
                self._connection.execute("INSERT INTO memories VALUES (?, ?)", (int(one), text))
                self._connection.execute(
                    "INSERT INTO vectors (rowid, embedding) VALUES (?, ?)",
                    (int(one), sqlite_vec.serialize_float32(vector)),
                )

    def delete(self, ids: list[str]) -> None:
        with self._connection:
            for one in ids:
                self._connection.execute("DELETE FROM memories WHERE id = ?", (int(one),))
                self._connection.execute("DELETE FROM vectors WHERE rowid = ?", (int(one),))

    def tidy(self) -> None:
        self._connection.execute("VACUUM")

    def present(self, ids: list[str]) -> list[str]:
        there = {str(one) for (one,) in self._connection.execute("SELECT id FROM memories")}
        return [one for one in ids if one in there]

    def close(self) -> None:
        self._connection.close()
