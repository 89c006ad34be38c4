"""What is right: exact neighbours, and recall against them in which ties count by distance.

Everything is computed from the vectors themselves in double precision, after a float32 pass has
chosen the candidates. Truth that took long is kept under the cache folder, by the sha256 of the
vectors. This file knows no engine and no file format of data sets.
"""

from __future__ import annotations

import os
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench import report

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
Ids = NDArray[np.int64]

RELATIVE_EPSILON = 1e-6
_BLOCK = 16_384
_SPARE = 32  # candidates of the float32 pass beyond those asked for


def distances_to(base: Floats, query: Floats, metric: str) -> Doubles:
    """(n,) float64 distances: cosine is 1 - cos, ip is -<x, y>, l2 is squared."""
    x, y = base.astype(np.float64), query.astype(np.float64)
    if metric == "l2":
        return np.asarray(((x - y) ** 2).sum(axis=1))
    products = x @ y
    if metric == "ip":
        return np.asarray(-products)
    lengths = np.sqrt((x**2).sum(axis=1) * (y**2).sum())
    return np.asarray(1 - products / np.maximum(lengths, 1e-300))


def _keys(block: Floats, queries: Floats, metric: str) -> Floats:
    """(q, n) float32 numbers that rank like the distances, up to rounding."""
    products = queries @ block.T
    if metric == "l2":
        return np.asarray((block**2).sum(axis=1) - 2 * products)
    if metric == "cosine":
        products /= np.maximum(np.linalg.norm(block, axis=1), 1e-30)
    return np.asarray(-products)


def exact(base: Floats, queries: Floats, metric: str, k: int) -> tuple[Ids, Doubles]:
    """(q, k) ids and distances of the min(k, n) nearest; padded with -1 and +inf.

    A float32 pass over blocks keeps k + 32 candidates a query; they are ordered by their float64
    distances, equal ones by id.
    """
    keep = min(k + _SPARE, len(base))
    best_keys = np.full((len(queries), keep), np.inf, np.float32)
    best_ids = np.full((len(queries), keep), -1, np.int64)
    for first in range(0, len(base), _BLOCK):
        report.progress(f"exact neighbours: {first:,}/{len(base):,}")
        keys = _keys(np.asarray(base[first : first + _BLOCK], np.float32), queries, metric)
        ids = np.broadcast_to(np.arange(first, first + keys.shape[1]), keys.shape)
        if keys.shape[1] > keep:
            chosen = np.argpartition(keys, keep - 1, axis=1)[:, :keep]
            keys, ids = np.take_along_axis(keys, chosen, 1), np.take_along_axis(ids, chosen, 1)
        all_keys = np.concatenate([best_keys, keys], axis=1)
        chosen = np.argpartition(all_keys, keep - 1, axis=1)[:, :keep]
        best_keys = np.take_along_axis(all_keys, chosen, 1)
        best_ids = np.take_along_axis(np.concatenate([best_ids, ids], axis=1), chosen, 1)
    found = np.full((len(queries), k), -1, np.int64)
    distances = np.full((len(queries), k), np.inf)
    for number, query in enumerate(queries):
        ids = best_ids[number]
        exactly = distances_to(np.asarray(base[ids]), query, metric)
        order = np.lexsort((ids, exactly))[: min(k, len(base))]
        found[number, : len(order)] = ids[order]
        distances[number, : len(order)] = exactly[order]
    report.progress("")
    return found, distances


def recall(
    found: NDArray[Any], base: Floats, queries: Floats, metric: str, true_distances: Doubles, k: int
) -> float:
    """The share of the true k that was found; a tie with the true k-th counts as found.

    ``found`` (q, any) ids, padded with what is no row of base; an id given twice counts once.
    ``true_distances`` (q, at least k), ascending, padded with +inf where there are fewer than k.
    """
    hits = wanted = 0
    for number, query in enumerate(queries):
        true = true_distances[number, :k]
        true = true[np.isfinite(true)]
        wanted += len(true)
        ids = np.unique(found[number, :k])
        ids = ids[(ids >= 0) & (ids < len(base))]
        if not len(true) or not len(ids):
            continue
        limit = true[-1] + RELATIVE_EPSILON * abs(true[-1])
        near = distances_to(np.asarray(base[ids]), query, metric) <= limit
        hits += min(int(near.sum()), len(true))
    return hits / max(1, wanted)


def kept(
    path: Path, make: Callable[[], tuple[Ids, Doubles]], shape: tuple[int, int]
) -> tuple[Ids, Doubles]:
    """What ``path`` holds, or what ``make`` gives, which is then kept there."""
    if path.exists():
        try:
            with np.load(path) as stored:
                ids, distances = stored["ids"], stored["distances"]
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            print(f"{path} is damaged ({error}); it is made again")
        else:
            if ids.shape == distances.shape == shape:
                return ids, distances
    ids, distances = make()
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, suffix=".npz")
    with os.fdopen(handle, "wb") as file:
        np.savez(file, ids=ids, distances=distances)
    Path(name).replace(path)
    return ids, distances
