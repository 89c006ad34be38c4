"""memdb itself, through ``memdb.VectorIndex`` as a caller has it; effort None is the default."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import memdb

_BATCH = 65_536


class Engine:
    """build: kind, profile and, where given, params. asked: effort."""

    def __init__(self, folder: Path, metric: str, dim: int, build: dict[str, Any]) -> None:
        self._folder, self._metric, self._dim, self._build = folder / "index", metric, dim, build
        self._index: Any = None

    def _opened(self, threads: int) -> Any:
        return memdb.VectorIndex(
            self._folder,
            dim=self._dim,
            metric=self._metric,
            kind=self._build["kind"],
            profile=self._build["profile"],
            params=self._build.get("params"),
            memory_budget="16GiB",
            threads=threads,
        )

    def build(self, base: Any, threads: int) -> None:
        self._index = self._opened(threads)
        for first in range(0, len(base), _BATCH):
            part = np.array(base[first : first + _BATCH])
            self._index.add(np.arange(first, first + len(part)), part)
        self._index.wait()

    def open(self) -> None:
        self._index = self._opened(1)

    def searcher(self, k: int, asked: dict[str, Any]) -> Callable[[Any], Any]:
        search, effort = self._index.search, asked.get("effort")
        return lambda query: search(query, k, effort=effort)[0]

    def compile(self, ids: Any) -> Any:
        """A compiled filter where the library has them, else the ids as they are."""
        return self._index.filter(ids) if hasattr(self._index, "filter") else ids

    def filtered(self, k: int, asked: dict[str, Any], allowed: Any) -> Callable[[Any], Any]:
        search, effort = self._index.search, asked.get("effort")
        return lambda query: search(query, k, allowed=allowed, effort=effort)[0]

    def about(self) -> dict[str, Any]:
        stats = self._index.stats()
        return {name: value for name, value in stats.items() if isinstance(value, str | int)}

    def close(self) -> None:
        if self._index is not None:
            self._index.close()
