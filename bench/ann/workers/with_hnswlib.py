"""hnswlib: HNSW in memory over float32 vectors (Malkov and Yashunin, TPAMI 2020)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import hnswlib
import numpy as np


class Engine:
    """build: M, ef_construction. asked: ef."""

    def __init__(self, folder: Path, metric: str, dim: int, build: dict[str, Any]) -> None:
        self._path, self._build = folder / "index.bin", build
        self._index = hnswlib.Index(space=metric, dim=dim)

    def build(self, base: Any, threads: int) -> None:
        self._index.init_index(
            max_elements=len(base),
            M=self._build["M"],
            ef_construction=self._build["ef_construction"],
            random_seed=1,
        )
        self._index.add_items(base, np.arange(len(base)), num_threads=threads)
        self._index.save_index(str(self._path))

    def open(self) -> None:
        self._index.load_index(str(self._path))
        self._index.set_num_threads(1)

    def searcher(self, k: int, asked: dict[str, Any]) -> Callable[[Any], Any]:
        index, ef = self._index, max(k, asked["ef"])

        def search(query: Any) -> Any:
            index.set_ef(ef)
            return index.knn_query(query, k=k, num_threads=1)[0]

        return search

    def compile(self, ids: Any) -> Any:
        return frozenset(ids.tolist())

    def filtered(self, k: int, asked: dict[str, Any], allowed: Any) -> Callable[[Any], Any]:
        index, ef = self._index, max(k, asked["ef"])

        def search(query: Any) -> Any:
            index.set_ef(ef)
            found = min(k, len(allowed))
            try:
                return index.knn_query(query, k=found, num_threads=1, filter=allowed.__contains__)[
                    0
                ]
            except RuntimeError:  # it raises where the graph leads to fewer than k allowed
                return np.empty(0, np.int64)

        return search

    def close(self) -> None:
        """Nothing is held but memory."""
