"""Brute force over vectors that are in no file yet, and the union of ranked lists.

Fresh vectors come as a matrix; their distances are on the scale of the engines, so that lists of
both can be merged. Arrays only: positions are places in the caller's matrix.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from memdb.errors import DimensionMismatch, InvalidArgument
from memdb.index import layout
from memdb.index.kernels import default_kernels
from memdb.index.protocol import Metric, as_vectors

NOWHERE = -1
"""Pads positions; the distance beside it is +inf."""


def distances(
    queries: ArrayLike, matrix: NDArray[np.float16 | np.float32], metric: Metric
) -> NDArray[np.float32]:
    """(q, n) float32 distances of (q, dim) queries to the rows of (n, dim); float32 sums."""
    if matrix.ndim != 2:
        raise InvalidArgument("a matrix of vectors has two axes", field="matrix")
    given = as_vectors(queries, matrix.shape[1], field="queries")
    if metric not in layout.METRICS:
        raise InvalidArgument("metric must be cosine, ip or l2", field="metric")
    rows = np.ascontiguousarray(matrix, dtype=np.float32)
    return default_kernels().score(layout.METRICS[metric], given, rows)


def scan(
    queries: ArrayLike,
    matrix: NDArray[np.float16 | np.float32],
    k: int,
    metric: Metric,
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The min(k, n) nearest rows of ``matrix`` (n, dim) to each of (q, dim) queries.

    Returns (q, k) positions padded with -1 and (q, k) distances, ascending, padded with +inf;
    equal distances are in order of position.
    """
    if k < 1:
        raise InvalidArgument("k must be at least 1", field="k")
    all_distances = distances(queries, matrix, metric)
    count, rows = all_distances.shape
    found = min(k, rows)
    positions = np.full((count, k), NOWHERE, np.int64)
    best = np.full((count, k), np.inf, np.float32)
    for at in range(count if found else 0):
        nearest = _nearest(all_distances[at], found)
        positions[at, :found] = nearest
        best[at, :found] = all_distances[at, nearest]
    return positions, best


def _nearest(row: NDArray[np.float32], count: int) -> NDArray[np.int64]:
    """Places of the ``count`` smallest of a row, ascending, ties by place; faster than a sort."""
    last = np.partition(row, count - 1)[count - 1]
    close = np.flatnonzero(row <= last)
    return close[np.argsort(row[close], kind="stable")][:count].astype(np.int64)


def merge(
    lists: Sequence[tuple[NDArray[np.int64 | np.uint32 | np.uint64], NDArray[np.float32]]],
    k: int,
    *,
    padding: int,
) -> tuple[NDArray[np.uint64], NDArray[np.float32]]:
    """One ranking of several: (q, any) ids and distances each, disjoint ids.

    Returns (q, k) uint64 ids padded with ``padding`` and distances padded with +inf. An entry whose
    distance is +inf is padding already.
    """
    if not lists or k < 1:
        raise InvalidArgument("merge takes at least one list and k >= 1", field="k")
    ids = np.concatenate([part.astype(np.uint64) for part, _ in lists], axis=1)
    keys = np.concatenate([part for _, part in lists], axis=1)
    if ids.shape != keys.shape:
        raise DimensionMismatch("ids and distances differ in shape", field="lists")
    order = np.lexsort((ids, keys), axis=1)[:, :k]
    out_ids = np.full((len(ids), k), padding, np.uint64)
    out_keys = np.full((len(ids), k), np.inf, np.float32)
    chosen = np.take_along_axis(keys, order, axis=1)
    out_keys[:, : order.shape[1]] = chosen
    sound = np.isfinite(chosen)
    out_ids[:, : order.shape[1]][sound] = np.take_along_axis(ids, order, axis=1)[sound]
    return out_ids, out_keys
