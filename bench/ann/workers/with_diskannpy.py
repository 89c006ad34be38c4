"""diskannpy: DiskANN's graph on disk with product-quantised codes in memory (NeurIPS 2019)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import diskannpy
import numpy as np

_METRICS = {"cosine": "l2", "ip": "mips", "l2": "l2"}


class Engine:
    """build: graph_degree, complexity, pq_bytes. asked: complexity, beam_width.

    Unit vectors rank by l2 as they do by cosine, which it does not offer on disk.
    """

    def __init__(self, folder: Path, metric: str, dim: int, build: dict[str, Any]) -> None:
        self._folder, self._metric, self._build = folder, _METRICS[metric], build
        self._index: Any = None

    def build(self, base: Any, threads: int) -> None:
        gigabytes = self._build["pq_bytes"] * len(base) / 2**30
        diskannpy.build_disk_index(
            data=np.ascontiguousarray(base, np.float32),
            distance_metric=self._metric,
            index_directory=str(self._folder),
            complexity=self._build["complexity"],
            graph_degree=self._build["graph_degree"],
            search_memory_maximum=gigabytes,
            build_memory_maximum=8,
            num_threads=threads,
            pq_disk_bytes=0,
        )

    def open(self) -> None:
        self._index = diskannpy.StaticDiskIndex(
            index_directory=str(self._folder),
            num_threads=2,  # with 1 this version never returns from opening
            num_nodes_to_cache=0,
            distance_metric=self._metric,
        )

    def searcher(self, k: int, asked: dict[str, Any]) -> Callable[[Any], Any]:
        search, complexity = self._index.search, max(k, asked["complexity"])
        beam = asked["beam_width"]
        return lambda query: search(query, k, complexity, beam).identifiers

    def close(self) -> None:
        self._index = None
