"""zvec: DiskANN, and HNSW over RaBitQ codes, in an embedded collection.

It is asked through ``query_internal_ids``, its path of least latency; internal ids are translated
to rows outside the time taken.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import zvec

_BATCH = 1000


class Engine:
    """build: kind ("diskann" or "hnsw-rabitq") and its parameters. asked: list_size, or ef."""

    def __init__(self, folder: Path, metric: str, dim: int, build: dict[str, Any]) -> None:
        self._path, self._dim, self._build = str(folder / "collection"), dim, build
        names = {"cosine": "COSINE", "ip": "IP", "l2": "L2"}
        self._metric = getattr(zvec.MetricType, names[metric])
        self._collection: Any = None

    def _index(self) -> Any:
        asked = {name: value for name, value in self._build.items() if name != "kind"}
        if self._build["kind"] == "diskann":
            return zvec.DiskAnnIndexParam(metric_type=self._metric, **asked)
        return zvec.HnswRabitqIndexParam(metric_type=self._metric, **asked)

    def build(self, base: Any, threads: int) -> None:
        zvec.init(optimize_threads=threads, query_threads=1)
        schema = zvec.CollectionSchema(
            name="bench",
            fields=[],
            vectors=[
                zvec.VectorSchema(
                    "vector", zvec.DataType.VECTOR_FP32, self._dim, index_param=self._index()
                )
            ],
        )
        self._collection = zvec.create_and_open(self._path, schema)
        for first in range(0, len(base), _BATCH):
            part = base[first : first + _BATCH].tolist()
            docs = [
                zvec.Doc(id=str(first + number), vectors={"vector": vector})
                for number, vector in enumerate(part)
            ]
            for status in self._collection.insert(docs):
                if not status.ok():
                    raise RuntimeError(str(status))
        self._collection.optimize(zvec.OptimizeOption(concurrency=threads))
        self._collection.flush()

    def open(self) -> None:
        zvec.init(query_threads=1, optimize_threads=1)
        self._collection = zvec.open(self._path, zvec.CollectionOption(read_only=True))

    def searcher(self, k: int, asked: dict[str, Any]) -> Callable[[Any], Any]:
        ask = self._collection.query_internal_ids
        if self._build["kind"] == "diskann":
            param: Any = zvec.DiskAnnQueryParam(list_size=max(k, asked["list_size"]))
        else:
            param = zvec.HnswRabitqQueryParam(
                ef=max(k, asked["ef"]), is_using_refiner=asked.get("refine", False)
            )
        return lambda query: ask(zvec.Query("vector", vector=query, param=param), topk=k)

    def rows(self, ids: Any) -> Any:
        """Internal ids as the numbers they were entered under."""
        known = np.unique(ids[ids >= 0])
        named = np.array([int(key) for key in self._collection.resolve_internal_ids(known)])
        translated = np.full(ids.shape, -1, np.int64)
        translated[ids >= 0] = named[np.searchsorted(known, ids[ids >= 0])]
        return translated

    def close(self) -> None:
        self._collection.close()
