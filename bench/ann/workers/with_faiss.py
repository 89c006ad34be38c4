"""faiss: whatever its index factory makes, with the parameters its own ParameterSpace names."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import faiss
import numpy as np

_TRAINING = 100_000


class Engine:
    """build: factory; ``{nlist}``, ``{half}`` stand for 4 sqrt(n), dim / 2. asked: parameters."""

    def __init__(self, folder: Path, metric: str, dim: int, build: dict[str, Any]) -> None:
        self._path, self._dim, self._factory = folder / "index.faiss", dim, build["factory"]
        self._metric = faiss.METRIC_L2 if metric == "l2" else faiss.METRIC_INNER_PRODUCT
        self._index: Any = None
        self._asked = ""

    def build(self, base: Any, threads: int) -> None:
        faiss.omp_set_num_threads(threads)
        nlist = max(1, min(int(4 * len(base) ** 0.5), len(base) // 39))
        factory = self._factory.format(nlist=nlist, half=self._dim // 2, dim=self._dim)
        self._index = faiss.index_factory(self._dim, factory, self._metric)
        chosen = np.random.default_rng(1).permutation(len(base))[:_TRAINING]
        self._index.train(np.ascontiguousarray(base[np.sort(chosen)]))
        self._index.add(np.ascontiguousarray(base))
        faiss.write_index(self._index, str(self._path))

    def open(self) -> None:
        faiss.omp_set_num_threads(1)
        self._index = faiss.read_index(str(self._path))

    def searcher(self, k: int, asked: dict[str, Any]) -> Callable[[Any], Any]:
        settings = ",".join(f"{name}={value}" for name, value in asked.items())

        def search(query: Any) -> Any:
            if self._asked != settings:  # they belong to the index, and turns alternate
                faiss.ParameterSpace().set_index_parameters(self._index, settings)
                self._asked = settings
            return self._index.search(query[None], k)[1][0]

        return search

    def close(self) -> None:
        """Nothing is held but memory."""
