"""rabitqlib: HNSW and IVF over RaBitQ codes of several bits, by the authors of RaBitQ."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from rabitqlib import HnswIndex, IvfIndex, RaBitQKMeans

_CENTROIDS_OF_HNSW = 16


class Engine:
    """build: kind ("hnsw" or "ivf"), bits, and M, ef_construction. asked: ef, or nprobe."""

    def __init__(self, folder: Path, metric: str, dim: int, build: dict[str, Any]) -> None:
        self._path, self._dim, self._build = folder / "index.rabitq", dim, build
        self._metric = "l2" if metric == "l2" else "ip"
        self._index: Any = None

    def build(self, base: Any, threads: int) -> None:
        data = np.ascontiguousarray(base)
        hnsw = self._build["kind"] == "hnsw"
        clusters = min(_CENTROIDS_OF_HNSW if hnsw else int(4 * len(data) ** 0.5), len(data) // 8)
        means = RaBitQKMeans(self._dim, max(1, clusters), num_threads=threads)
        means.train(data)
        if hnsw:
            self._index = HnswIndex(
                self._dim,
                len(data),
                M=self._build["M"],
                ef_construction=self._build["ef_construction"],
                nbits=self._build["bits"],
                metric=self._metric,
            )
        else:
            self._index = IvfIndex(
                self._dim, len(data), max(1, clusters), self._build["bits"], metric=self._metric
            )
        self._index.build(data, means.centroids, means.assignments, num_threads=threads)
        self._index.save(str(self._path))

    def open(self) -> None:
        kind = HnswIndex if self._build["kind"] == "hnsw" else IvfIndex
        self._index = kind.load(str(self._path))

    def searcher(self, k: int, asked: dict[str, Any]) -> Callable[[Any], Any]:
        search = self._index.search
        if self._build["kind"] == "hnsw":
            ef = max(k, asked["ef"])
            return lambda query: search(query[None], k, ef=ef)[0][0]
        nprobe = asked["nprobe"]
        return lambda query: search(query[None], k, nprobe)[0][0]

    def close(self) -> None:
        """Nothing is held but memory."""
