"""LanceDB: IVF over RaBitQ or product-quantised codes in a table on disk, re-ranked from there."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import lancedb
import numpy as np
import pyarrow as pa

_BATCH = 50_000
_METRICS = {"cosine": "cosine", "ip": "dot", "l2": "l2"}


class Engine:
    """build: as ``create_index``; num_partitions may be "sqrt". asked: nprobes, refine_factor."""

    def __init__(self, folder: Path, metric: str, dim: int, build: dict[str, Any]) -> None:
        self._folder, self._dim, self._build = str(folder), dim, build
        self._metric = _METRICS[metric]
        self._table: Any = None

    def build(self, base: Any, threads: int) -> None:
        schema = pa.schema(
            [pa.field("id", pa.int64()), pa.field("vector", pa.list_(pa.float32(), self._dim))]
        )

        def batches() -> Iterator[pa.RecordBatch]:
            for first in range(0, len(base), _BATCH):
                part = np.ascontiguousarray(base[first : first + _BATCH], np.float32)
                flat = pa.array(part.reshape(-1))
                vectors = pa.FixedSizeListArray.from_arrays(flat, self._dim)
                ids = pa.array(np.arange(first, first + len(part)))
                yield pa.RecordBatch.from_arrays([ids, vectors], schema=schema)

        table = lancedb.connect(self._folder).create_table("bench", batches(), schema=schema)
        asked = dict(self._build)
        if asked.get("num_partitions") == "sqrt":
            asked["num_partitions"] = max(1, int(len(base) ** 0.5))
        table.create_index(metric=self._metric, **asked)
        table.wait_for_index(["vector_idx"], timeout=timedelta(hours=1))

    def open(self) -> None:
        self._table = lancedb.connect(self._folder).open_table("bench")

    def searcher(self, k: int, asked: dict[str, Any]) -> Callable[[Any], Any]:
        table, metric = self._table, self._metric

        def search(query: Any) -> Any:
            one = table.search(query).distance_type(metric).nprobes(asked["nprobes"])
            if asked.get("refine_factor"):
                one = one.refine_factor(asked["refine_factor"])
            return one.limit(k).select(["id", "_distance"]).to_arrow()["id"].to_numpy()

        return search

    def close(self) -> None:
        """A table needs no closing."""
