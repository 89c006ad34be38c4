"""usearch: HNSW in memory over float16 or int8 vectors."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from usearch.index import Index

_METRICS = {"cosine": "cos", "ip": "ip", "l2": "l2sq"}


class Engine:
    """build: dtype, M, ef_construction. asked: ef."""

    def __init__(self, folder: Path, metric: str, dim: int, build: dict[str, Any]) -> None:
        self._path = folder / "index.usearch"
        self._index = Index(
            ndim=dim,
            metric=_METRICS[metric],
            dtype=build["dtype"],
            connectivity=build["M"],
            expansion_add=build["ef_construction"],
            enable_key_lookups=False,
        )

    def build(self, base: Any, threads: int) -> None:
        self._index.add(np.arange(len(base)), np.asarray(base), threads=threads)
        self._index.save(str(self._path))

    def open(self) -> None:
        self._index.load(str(self._path))

    def searcher(self, k: int, asked: dict[str, Any]) -> Callable[[Any], Any]:
        index, ef = self._index, max(k, asked["ef"])

        def search(query: Any) -> Any:
            index.expansion_search = ef
            return index.search(query, k, threads=1).keys

        return search

    def close(self) -> None:
        self._index.reset()
