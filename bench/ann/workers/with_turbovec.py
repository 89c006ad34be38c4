"""turbovec: a flat scan of 4-bit codes (TurboQuant), bare or with exact re-ranking from memory.

The vectors for re-ranking are held as an array in this process, so they count as its memory. The
codes are calibrated on a random sample before they are made, as its documentation advises.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import turbovec

_SAMPLE = 4096


class Engine:
    """build: bits, vectors ("none", "float16" or "float32"). asked: rerank, 0 for none."""

    def __init__(self, folder: Path, metric: str, dim: int, build: dict[str, Any]) -> None:
        if metric == "l2":
            raise ValueError("turbovec ranks by inner product only; the metric is l2")
        self._folder, self._dim, self._build = folder, dim, build
        self._index: Any = None
        self._vectors: Any = None

    def build(self, base: Any, threads: int) -> None:
        self._index = turbovec.TurboQuantIndex(dim=self._dim, bit_width=self._build["bits"])
        chosen = np.random.default_rng(1).permutation(len(base))[:_SAMPLE]
        self._index.calibrate(np.ascontiguousarray(base[np.sort(chosen)]))
        self._index.add(np.ascontiguousarray(base))
        self._index.write(str(self._folder / "index.tv"))
        if self._build["vectors"] != "none":
            np.save(self._folder / "vectors.npy", np.asarray(base, self._build["vectors"]))

    def open(self) -> None:
        self._index = turbovec.TurboQuantIndex.load(str(self._folder / "index.tv"))
        self._index.prepare()
        if self._build["vectors"] != "none":
            self._vectors = np.load(self._folder / "vectors.npy")

    def searcher(self, k: int, asked: dict[str, Any]) -> Callable[[Any], Any]:
        index, vectors, rerank = self._index, self._vectors, asked["rerank"]
        if not rerank:
            return lambda query: index.search(query[None], k)[1][0]

        def search(query: Any) -> Any:
            ids = index.search(query[None], rerank)[1][0]
            scores = vectors[ids].astype(np.float32, copy=False) @ query
            return ids[np.argsort(-scores)[:k]]

        return search

    def compile(self, ids: Any) -> Any:
        mask = np.zeros(len(self._index), bool)
        mask[ids] = True
        return mask

    def filtered(self, k: int, asked: dict[str, Any], allowed: Any) -> Callable[[Any], Any]:
        index, vectors, rerank = self._index, self._vectors, asked["rerank"]

        def search(query: Any) -> Any:
            ids = index.search(query[None], max(k, rerank), mask=allowed)[1][0]
            if not rerank:
                return ids
            scores = vectors[ids].astype(np.float32, copy=False) @ query
            return ids[np.argsort(-scores)[:k]]

        return search

    def close(self) -> None:
        """Nothing is held but memory."""
