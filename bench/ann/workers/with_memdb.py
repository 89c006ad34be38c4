"""memdb itself, through ``memdb.VectorIndex`` as a caller has it; effort None is the default.

It is built within a budget of 1 GiB, and opened with one that holds everything unless told.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import memdb
from memdb.index import layout

_BATCH = 65_536
_BUILDING, _ASKING = "1GiB", "16GiB"
_COUNTED = ("walked", "hops", "estimated", "scored")


class Engine:
    """build: kind, profile and, where given, params; opening: memory_budget, io. asked: effort."""

    def __init__(self, folder: Path, metric: str, dim: int, build: dict[str, Any]) -> None:
        self._folder, self._metric, self._dim, self._build = folder / "index", metric, dim, build
        self._opening = build.get("opening", {})
        self._index: Any = None
        self._before: dict[str, int] = {}

    def _opened(self, threads: int, budget: str, io: str | None = None) -> Any:
        params = {**self._build.get("params", {}), **({"io": io} if io else {})}
        return memdb.VectorIndex(
            self._folder,
            dim=self._dim,
            metric=self._metric,
            kind=self._build["kind"],
            profile=self._build["profile"],
            params=params or None,
            memory_budget=budget,
            threads=threads,
        )

    def build(self, base: Any, threads: int) -> None:
        self._index = self._opened(threads, _BUILDING)
        for first in range(0, len(base), _BATCH):
            part = np.array(base[first : first + _BATCH])
            self._index.add(np.arange(first, first + len(part)), part)
        self._index.wait()

    def open(self) -> None:
        opening = self._opening
        self._index = self._opened(1, opening.get("memory_budget", _ASKING), opening.get("io"))

    def searcher(self, k: int, asked: dict[str, Any]) -> Callable[[Any], Any]:
        search, effort = self._index.search, asked.get("effort")
        return lambda query: search(query, k, effort=effort)[0]

    def touched(self, k: int, asked: dict[str, Any]) -> float:
        """Bytes of codes, graph and records that a query looks at: counted since the last call
        where a graph was walked, else as the plan has it, which is what a scan touches."""
        stats = self._index.stats()
        now = {name: stats.get(name, 0) for name in _COUNTED}
        did = {name: now[name] - self._before.get(name, 0) for name in _COUNTED}
        self._before = now
        if not did["walked"]:
            return float(self._index.plan(k, effort=asked.get("effort")).bytes_touched)
        node = layout.graph_record_bytes(stats["params"]["R"])
        row = layout.row_bytes(self._dim)
        total = did["hops"] * node + did["estimated"] * row + did["scored"] * stats["record_bytes"]
        return float(total / did["walked"])

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
