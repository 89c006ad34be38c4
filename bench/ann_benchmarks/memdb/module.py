"""memdb as an algorithm of ann-benchmarks: ``MemdbIndex``, driven by its runner.

Copy this folder to ``ann_benchmarks/algorithms/memdb`` of a checkout of ann-benchmarks; the README
of ``bench`` says how. The runner calls ``fit`` once, ``set_query_arguments`` for each set of
arguments and ``query`` for each vector. It uses public names of memdb and nothing else of it.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

import memdb

try:
    from ann_benchmarks.algorithms.base.module import BaseANN
except ModuleNotFoundError:  # outside its checkout, for tests: the methods below are all it needs
    BaseANN = object

METRICS = {"angular": "cosine", "euclidean": "l2", "dot": "ip"}
_BATCH = 65_536


class MemdbIndex(BaseANN):  # type: ignore[misc]
    """A ``memdb.VectorIndex`` in a folder that goes with ``done``.

    ``method``: kind, profile and, where given, params. Query argument: effort.
    """

    def __init__(self, metric: str, method: dict[str, Any]) -> None:
        if metric not in METRICS:
            raise ValueError(f"memdb has no metric for {metric!r}; it has {', '.join(METRICS)}")
        self._metric = METRICS[metric]
        self._method = method
        self._effort: int | None = None
        self._index: memdb.VectorIndex | None = None
        self._folder: Path | None = None
        self._batch_results: list[np.ndarray[Any, np.dtype[np.uint64]]] = []
        self.name = f"memdb ({method['kind']}, {method['profile']})"

    def fit(self, X: Any) -> None:
        """Enter every row of (n, dim) under its number, durably, and let background work end."""
        self.done()
        self._folder = Path(tempfile.mkdtemp(prefix="memdb-ann-"))
        self._index = memdb.VectorIndex(
            self._folder / "index",
            dim=X.shape[1],
            metric=self._metric,
            kind=self._method["kind"],
            profile=self._method["profile"],
            params=self._method.get("params"),
            memory_budget="64GiB",
        )
        for first in range(0, len(X), _BATCH):
            part = X[first : first + _BATCH]
            self._index.add(np.arange(first, first + len(part)), part)
        self._index.wait()

    def set_query_arguments(self, effort: int) -> None:
        """How many candidates a query examines; recall grows with it."""
        self._effort = effort
        self.name = f"memdb ({self._method['kind']}, {self._method['profile']}, effort {effort})"

    def _fitted(self) -> memdb.VectorIndex:
        if self._index is None:
            raise ValueError("fit comes before query")
        return self._index

    def query(self, q: Any, n: int) -> Any:
        """The numbers of the n nearest rows, nearest first; fewer where there are fewer."""
        ids, distances = self._fitted().search(q, n, effort=self._effort)
        return ids[0][np.isfinite(distances[0])]

    def batch_query(self, X: Any, n: int) -> None:
        """All queries in one call; ``get_batch_results`` has what was found."""
        ids, distances = self._fitted().search(X, n, effort=self._effort)
        self._batch_results = [
            row[np.isfinite(far)] for row, far in zip(ids, distances, strict=True)
        ]

    def get_batch_results(self) -> Any:
        return self._batch_results

    def get_additional(self) -> dict[str, Any]:
        """What the index says about itself, kept with the result."""
        stats = self._fitted().stats()
        return {name: value for name, value in stats.items() if isinstance(value, int)}

    def done(self) -> None:
        """Close the index and remove its folder; idempotent."""
        if self._index is not None:
            self._index.close()
            self._index = None
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None

    def __str__(self) -> str:
        return self.name
