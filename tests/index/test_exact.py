"""Brute force and merging, against plain Python."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from memdb.errors import DimensionMismatch, InvalidArgument
from memdb.index import exact
from memdb.index.protocol import NO_SLOT, Metric


def plain(metric: Metric, a: np.ndarray, b: np.ndarray) -> float:
    x, y = a.astype(np.float64), b.astype(np.float64)
    if metric == "ip":
        return -float(x @ y)
    if metric == "l2":
        return float((x - y) @ (x - y))
    lengths = math.sqrt(float(x @ x) * float(y @ y))
    return 1 - float(x @ y) / lengths if lengths else 1.0


@pytest.mark.parametrize("metric", ["cosine", "ip", "l2"])
@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_a_scan_gives_the_nearest_in_order(metric: Metric, dtype: type) -> None:
    rng = np.random.default_rng(1)
    matrix = rng.standard_normal((60, 5)).astype(dtype)
    matrix[3] = 0
    matrix[7] = matrix[8] = matrix[9]
    queries = np.vstack((rng.standard_normal((3, 5)), matrix[8:9], np.zeros((1, 5))))
    positions, distances = exact.scan(queries, matrix, 10, metric)
    for query, found, keys in zip(queries.astype(np.float32), positions, distances, strict=True):
        wanted = [plain(metric, query, row) for row in matrix]
        np.testing.assert_allclose(keys, sorted(wanted)[:10], rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(keys, [wanted[at] for at in found], rtol=1e-5, atol=1e-5)
        assert len(set(found.tolist())) == 10


def test_equal_distances_come_in_order_of_position() -> None:
    positions, _ = exact.scan(np.ones(2), np.ones((50, 2), np.float32), 7, "l2")
    assert positions[0].tolist() == list(range(7))


def test_fewer_rows_than_k_are_padded() -> None:
    positions, distances = exact.scan(np.ones(2), np.ones((1, 2), np.float32), 3, "ip")
    assert positions.tolist() == [[0, -1, -1]]
    assert distances.tolist() == [[-2, np.inf, np.inf]]
    positions, distances = exact.scan(np.ones(2), np.empty((0, 2), np.float32), 2, "cosine")
    assert positions.tolist() == [[-1, -1]] and np.isinf(distances).all()


lists = st.lists(
    st.lists(
        st.tuples(st.integers(0, 10**6), st.integers(0, 5)), max_size=6, unique_by=lambda e: e[0]
    ),
    min_size=1,
    max_size=4,
)


@given(lists, st.integers(1, 12))
def test_a_merge_is_the_sorted_union(parts: list[list[tuple[int, int]]], k: int) -> None:
    seen: set[int] = set()
    disjoint = []
    for part in parts:
        disjoint.append([entry for entry in part if entry[0] not in seen])
        seen |= {entry[0] for entry in part}
    arrays = []
    for part in disjoint:
        padded = [*part, (NO_SLOT, np.inf)]
        ids = np.array([[entry[0] for entry in padded]], np.uint32)
        arrays.append((ids, np.array([[entry[1] for entry in padded]], np.float32)))
    ids, keys = exact.merge(arrays, k, padding=2**64 - 1)
    wanted = sorted((key, number) for part in disjoint for number, key in part)[:k]
    assert ids[0, : len(wanted)].tolist() == [number for _, number in wanted]
    assert keys[0, : len(wanted)].tolist() == [key for key, _ in wanted]
    assert (ids[0, len(wanted) :] == 2**64 - 1).all() and np.isinf(keys[0, len(wanted) :]).all()


def test_bad_input_is_named() -> None:
    matrix = np.ones((3, 4), np.float32)
    with pytest.raises(DimensionMismatch):
        exact.scan(np.ones(3), matrix, 1, "l2")
    with pytest.raises(InvalidArgument, match="finite"):
        exact.scan([np.nan, 1, 1, 1], matrix, 1, "l2")
    with pytest.raises(InvalidArgument, match="metric"):
        exact.scan(np.ones(4), matrix, 1, "manhattan")  # type: ignore[arg-type]
    with pytest.raises(InvalidArgument):
        exact.scan(np.ones(4), matrix, 0, "l2")
