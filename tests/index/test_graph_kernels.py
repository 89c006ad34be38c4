"""The graph's native routines give what their numpy twins give."""

from __future__ import annotations

import importlib

import numpy as np
import pytest

from memdb.index import layout
from memdb.index.kernels import Kernels, NativeKernels, available
from memdb.index.reference import NumpyKernels

TWIN = NumpyKernels()
NATIVE = [kernels for kernels in available() if isinstance(kernels, NativeKernels)]
each = pytest.mark.parametrize("kernels", NATIVE, ids=lambda kernels: kernels.name)
DIMS = [1, 7, 63, 64, 65, 128, 200, 256, 384, 768, 2100, 8192]


def random_rows(dim: int, count: int, seed: int) -> np.ndarray:
    """(bytes,) whole rows of random codes whose bits beyond dim are 0, and awkward factors."""
    rng = np.random.default_rng(seed)
    rows = np.zeros((count, layout.row_bytes(dim)), np.uint8)
    rows[:, :-4] = TWIN.sign_codes(rng.standard_normal((count, dim)).astype("f4")).view(np.uint8)
    factors = layout.pack_factors(*rng.standard_normal((2, count)).astype("f4"))
    factors[:2] = 0, 0x7FC07FC0  # nothing, and not a number
    rows[:, -4:] = factors.astype("<u4").view(np.uint8).reshape(-1, 4)
    return rows.reshape(-1)


@each
@pytest.mark.parametrize("dim", DIMS)
def test_estimates_of_rows_agree_to_the_bit(kernels: Kernels, dim: int) -> None:
    rng = np.random.default_rng(dim)
    queries = rng.standard_normal((4, dim)).astype("f4")
    queries[1], queries[2, 0] = 0, 1e6
    planes, steps = kernels.query_planes(queries)
    wanted, right = TWIN.query_planes(queries)
    np.testing.assert_array_equal(planes, wanted)
    np.testing.assert_array_equal(steps, right)
    groups = random_rows(dim, 50, dim)
    slots = rng.permutation(50).astype(np.uint32)
    for query in queries:
        np.testing.assert_array_equal(
            kernels.estimate_rows(groups, query, slots), TWIN.estimate_rows(groups, query, slots)
        )


@pytest.mark.parametrize("dim", [64, 384])
def test_estimates_are_products_with_signs_to_the_step(dim: int) -> None:
    rng = np.random.default_rng(1)
    query = rng.standard_normal(dim).astype("f4")
    query[np.abs(query) > 2] = 1  # nothing is cut off
    signs = rng.standard_normal((30, dim)).astype("f4")
    rows = np.zeros((30, layout.row_bytes(dim)), np.uint8)
    rows[:, :-4] = TWIN.sign_codes(signs).view(np.uint8)
    ones = layout.pack_factors(np.zeros(30, np.float32), np.ones(30, np.float32))
    rows[:, -4:] = ones.astype("<u4").view(np.uint8).reshape(-1, 4)
    found = TWIN.estimate_rows(rows.reshape(-1), query, np.arange(30, dtype=np.uint32))
    wanted = np.where(signs >= 0, 1, -1) @ query.astype(np.float64)
    step = TWIN.query_planes(query[None])[1][0]
    assert np.abs(found - wanted).max() <= dim * step
    assert np.abs(found - wanted).std() <= np.sqrt(dim / 3) * step * 1.5


@each
@pytest.mark.parametrize("dim", [1, 15, 16, 31, 32, 33, 384, 8192])
def test_products_of_bytes_are_exact(kernels: NativeKernels, dim: int) -> None:
    native = importlib.import_module("memdb.index._native")
    rng = np.random.default_rng(dim)
    a, b = rng.integers(-127, 128, (2, dim)).astype(np.int8)
    for x, y in ((a, b), (np.full(dim, -127, np.int8), np.full(dim, 127, np.int8))):
        assert native.dot88(kernels._level, x, y) == int(x.astype(int) @ y.astype(int))


@each
def test_orders_and_what_is_reached_agree(kernels: Kernels) -> None:
    rng = np.random.default_rng(3)
    lists = rng.integers(0, 90, (80, 6)).astype(np.uint32)  # some lead outside
    lists[:, 0] = rng.integers(0, 6, 80)
    lists[40:, 1:] %= 40  # so that not all are reached
    entries = np.array([3, 9], np.uint32)
    reached = kernels.graph_reached(lists, entries)
    np.testing.assert_array_equal(reached, TWIN.graph_reached(lists, entries))
    for together in (1, 5, 200):
        for slots in (np.arange(80), np.flatnonzero(reached), np.arange(0)):
            asked = lists, slots.astype(np.uint32), entries, together
            order = kernels.graph_order(*asked)
            np.testing.assert_array_equal(order, TWIN.graph_order(*asked))
            np.testing.assert_array_equal(np.sort(order), slots)


@each
def test_an_order_keeps_what_is_near_together(kernels: Kernels) -> None:
    rng = np.random.default_rng(4)
    of = rng.permutation(300) // 10  # 30 clusters of ten: lists name their own, then one outside
    lists = np.zeros((300, 6), np.uint32)
    for slot in range(300):
        mine = np.flatnonzero((of == of[slot]) & (np.arange(300) != slot))
        lists[slot] = [5, *rng.permutation(mine)[:4], rng.integers(300)]
    slots = np.arange(300, dtype=np.uint32)
    order = kernels.graph_order(lists, slots, slots[:1], 10)
    pages = [len(set(of[group])) for group in order.reshape(30, 10)]
    assert np.mean(pages) < 2
