"""Every kernel set of this machine gives what its numpy twin gives."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from google_crc32c import value as crc32c
from hypothesis import given, settings
from hypothesis import strategies as st

from memdb.index import layout
from memdb.index.kernels import Kernels, NativeKernels, available
from memdb.index.layout import FLOAT16, GROUP_ROWS, INT8, METRICS
from memdb.index.reference import NumpyKernels

TWIN = NumpyKernels()
NATIVE = [kernels for kernels in available() if isinstance(kernels, NativeKernels)]
each = pytest.mark.parametrize("kernels", NATIVE, ids=lambda kernels: kernels.name)

DIMS = [1, 2, 3, 7, 16, 31, 63, 64, 65, 100, 128, 256, 384, 2100]


def adversarial(dim: int, seed: int = 0, n: int = 40) -> np.ndarray:
    """Random rows with the awkward ones among them."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, dim)).astype(np.float32)
    x[0] = 0
    x[1] = 1
    x[2] = -1e12
    x[3] = 1e-30
    x[4] = x[5]
    x[6] = 0
    x[6, -1] = 3
    x[7, ::2] = 0
    return x


def test_the_native_kernels_were_built() -> None:
    assert NATIVE, "the native module is missing: run `make test`, which builds it"


@each
@pytest.mark.parametrize("dim", DIMS)
def test_rotations_agree_are_orthogonal_and_turn_back(kernels: Kernels, dim: int) -> None:
    x = adversarial(dim)
    signs = layout.rotation_signs(dim, 7)
    turned = kernels.rotate(x, signs)
    np.testing.assert_array_equal(turned, TWIN.rotate(x, signs))
    scale = np.abs(x).max(axis=1, keepdims=True) + 1e-35
    back = kernels.rotate(turned, signs, back=True)
    np.testing.assert_array_equal(back, TWIN.rotate(turned, signs, back=True))
    np.testing.assert_allclose(back / scale, x / scale, atol=2e-6 * np.sqrt(dim))
    basis = kernels.rotate(np.eye(dim, dtype=np.float32), signs)
    np.testing.assert_allclose(basis @ basis.T, np.eye(dim), atol=1e-5)


def test_a_rotation_is_the_same_on_every_machine() -> None:
    # SplitMix64 from 1, as its authors' C code gives it.
    published = [0x910A2DEC89025CC1, 0xBEEB8DA1658EEC67, 0xF893A2EEFB32555E, 0x71C18690EE42C90B]
    signs = layout.rotation_signs(1, 1)
    assert signs[:, 0].tolist() == [1 if number & 1 else -1 for number in published]


@each
@pytest.mark.parametrize("dim", DIMS)
def test_quantisers_agree_to_the_bit(kernels: Kernels, dim: int) -> None:
    x = adversarial(dim, seed=dim)
    for found, wanted in zip(kernels.quantise8(x), TWIN.quantise8(x), strict=True):
        np.testing.assert_array_equal(found, wanted)
    np.testing.assert_array_equal(kernels.sign_codes(x), TWIN.sign_codes(x))
    for found, wanted in zip(kernels.quantise_queries(x), TWIN.quantise_queries(x), strict=True):
        np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("dim", [1, 64, 100])
def test_quantised_queries_are_within_one_delta_of_the_query(dim: int) -> None:
    x = adversarial(dim, seed=3)
    planes, deltas = TWIN.quantise_queries(x)
    bits = np.unpackbits(planes.view(np.uint8), axis=2, bitorder="little")[:, :, :dim]
    levels = np.einsum("njd,j->nd", bits.astype(np.int64), [1, 2, 4, 8])
    near = deltas[:, None].astype(np.float64) * (2 * levels - 15)
    assert (np.abs(near - x) <= deltas[:, None] * 1.0001).all()


def random_groups(dim: int, groups: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    body = np.zeros(groups * layout.group_bytes(dim), np.uint8)
    for number in range(groups):
        group = layout.group_at(body, dim, number)
        group.codes[:] = rng.integers(0, 2**63, group.codes.shape, dtype=np.uint64)
        group.offsets[:] = rng.standard_normal(GROUP_ROWS)
        group.slopes[:] = rng.standard_normal(GROUP_ROWS)
    return body


@each
@pytest.mark.parametrize("dim", [1, 64, 65, 384, 2100])
@pytest.mark.parametrize("density", [1.0, 0.3, 0.001])
def test_scans_find_the_same_slots_and_keys(kernels: Kernels, dim: int, density: float) -> None:
    rng = np.random.default_rng(5)
    body = random_groups(dim, 2, seed=dim)
    group = layout.group_at(body, dim, 0)
    group.offsets[:64] = group.offsets[64]  # ties are settled by slot
    group.slopes[:64] = 0
    group.offsets[100], group.offsets[101], group.slopes[102] = np.nan, np.inf, -np.inf
    allowed = np.packbits(rng.random(GROUP_ROWS + 1000) < density, bitorder="little")
    planes, deltas = TWIN.quantise_queries(rng.standard_normal((1, dim)).astype(np.float32))
    for keep in (1, 50, 5000):
        arguments = (body, dim, planes[0], float(deltas[0]), allowed, keep)
        slots, keys = kernels.scan(*arguments)
        wanted_slots, wanted_keys = TWIN.scan(*arguments)
        order = np.lexsort((slots, keys))
        np.testing.assert_array_equal(slots[order], wanted_slots)
        np.testing.assert_array_equal(keys[order], wanted_keys)


@each
@pytest.mark.parametrize("precision", [INT8, FLOAT16])
@pytest.mark.parametrize("metric", list(METRICS))
def test_distances_agree_to_rounding(kernels: Kernels, precision: int, metric: str) -> None:
    for dim in DIMS:
        rng = np.random.default_rng(dim)
        records = np.zeros(30, layout.record_type(dim, precision))
        numbers = rng.integers(-127, 128, (30, dim))
        numbers[0] = 0
        payload = numbers.astype(np.int8) if precision == INT8 else (numbers / 60).astype("<f2")
        if precision == FLOAT16:
            payload[1], payload[2] = 65504, 6e-8  # the largest, and a subnormal
        records["payload"] = payload
        records["scale"] = rng.random(30)
        records["norm"] = records["scale"] * np.linalg.norm(payload.astype(np.float64), axis=1)
        raw = records.view(np.uint8).reshape(30, -1)
        slots = np.arange(30, dtype=np.uint32)
        kernels.seal(raw, slots)
        query = rng.standard_normal(dim).astype(np.float32)
        chosen = np.array([29, 0, 3, 3, 1, 2], np.uint32)
        arguments = (raw, dim, METRICS[metric], precision, query, chosen)
        found, bad = kernels.rescore(*arguments)
        wanted, _ = TWIN.rescore(*arguments)
        assert bad == -1
        size = np.abs(payload[chosen].astype(np.float64)) @ np.abs(query) + 1
        if metric == "l2":
            size = wanted + 1
        np.testing.assert_array_less(np.abs(found - wanted) / size, 1e-5)


@each
def test_seals_agree_with_the_library_and_every_flipped_bit_is_found(kernels: Kernels) -> None:
    rng = np.random.default_rng(0)
    for size in (17, 24, 29, 144, 400):
        records = rng.integers(0, 256, (3, size), dtype=np.uint8)
        slots = np.array([5, 0, 2**32 - 2], np.uint32)
        twin = records.copy()
        kernels.seal(records, slots)
        TWIN.seal(twin, slots)
        np.testing.assert_array_equal(records, twin)
        assert int.from_bytes(records[0, -4:].tobytes(), "little") == crc32c(
            records[0, :-4].tobytes()
        )
        assert kernels.check(records, slots) == TWIN.check(records, slots) == -1
        for bit in range(size * 8):
            records[1, bit // 8] ^= 1 << bit % 8
            assert kernels.check(records, slots) == 1
            records[1, bit // 8] ^= 1 << bit % 8
        assert kernels.check(records, slots[::-1].copy()) == TWIN.check(records, slots[::-1]) == 0


@each
@pytest.mark.parametrize("metric", list(METRICS))
def test_full_precision_distances_agree_to_rounding(kernels: Kernels, metric: str) -> None:
    for dim in DIMS:
        queries, rows = adversarial(dim, seed=1, n=9), adversarial(dim, seed=2)
        found = kernels.score(METRICS[metric], queries, rows)
        wanted = TWIN.score(METRICS[metric], queries, rows)
        lengths = [np.linalg.norm(x.astype(np.float64), axis=1) for x in (queries, rows)]
        size = {
            "cosine": np.ones((9, 40)),
            "ip": np.outer(*lengths) + 1,
            "l2": np.add.outer(lengths[0] ** 2, lengths[1] ** 2) + 1,
        }[metric]
        np.testing.assert_array_less(np.abs(found - wanted) / size, 1e-5)


@each
def test_a_slot_past_the_records_is_named(kernels: Kernels) -> None:
    raw = np.zeros((2, layout.record_bytes(4, INT8)), np.uint8)
    query, slots = np.zeros(4, np.float32), np.array([7], np.uint32)
    assert kernels.rescore(raw, 4, 0, INT8, query, slots)[1] == 7
    assert TWIN.rescore(raw, 4, 0, INT8, query, slots)[1] == 7


@pytest.mark.skipif(not NATIVE, reason="the native module is not built")
def test_a_call_with_wrong_shapes_is_an_error_and_no_crash() -> None:
    from memdb.index import _native

    rows = np.zeros((2, 8), np.float32)
    with pytest.raises(ValueError):
        _native.rotate(rows, np.ones((4, 7), np.float32), False)
    with pytest.raises(ValueError):
        _native.seal(99, np.zeros((1, 40), np.uint8), np.zeros(1, np.uint32))
    with pytest.raises(ValueError):
        NATIVE[0].scan(
            np.zeros(layout.group_bytes(8), np.uint8),
            8,
            np.zeros((4, 1), np.uint64),
            1.0,
            np.full(layout.GROUP_BLOCKS + 1, 255, np.uint8),
            3,
        )
    with pytest.raises(TypeError):
        _native.sign_codes(rows.astype(np.float64), np.zeros((2, 1), np.uint64))


@settings(max_examples=40, deadline=None)
@given(
    dim=st.integers(1, 200),
    seed=st.integers(0, 2**32),
    metric=st.sampled_from(sorted(METRICS.values())),
)
def test_whole_searches_agree_on_random_spaces(dim: int, seed: int, metric: int) -> None:
    rng = np.random.default_rng(seed)
    records = np.zeros(500, layout.record_type(dim, INT8))
    payload = rng.integers(-127, 128, (500, dim)).astype(np.int8)
    records["payload"], records["scale"] = payload, 0.01
    records["norm"] = np.linalg.norm(payload.astype(np.float32), axis=1) * np.float32(0.01)
    raw = records.view(np.uint8).reshape(500, -1)
    TWIN.seal(raw, np.arange(500, dtype=np.uint32))
    queries = rng.standard_normal((3, dim)).astype(np.float32)
    arguments = {
        "groups": random_groups(dim, 1, seed),
        "records": raw,
        "metric": metric,
        "precision": INT8,
        "queries": queries,
        "signs": layout.rotation_signs(dim, seed),
        "centre": rng.standard_normal(dim).astype(np.float32),
        "allowed": np.packbits(np.arange(500) % 3 > 0, bitorder="little"),
        "k": 5,
        "keep": 40,
        "threads": 2,
    }
    _, wanted, _ = TWIN.search(**arguments)
    for kernels in NATIVE:
        slots, distances, bad = kernels.search(**arguments)
        assert bad == -1 and (slots % 3 > 0).all()
        np.testing.assert_allclose(distances, wanted, rtol=1e-3, atol=1e-3)


def test_the_environment_variable_forces_the_kernels(tmp_path: Path) -> None:
    code = "from memdb.index.kernels import default_kernels; print(default_kernels().name)"

    def run(value: str) -> subprocess.CompletedProcess[str]:
        environment = {
            **os.environ,
            "MEMDB_KERNELS": value,
            "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        }
        return subprocess.run(
            [sys.executable, "-c", code],
            check=False,
            env=environment,
            capture_output=True,
            text=True,
        )

    for name in ("numpy", *(kernels.name for kernels in NATIVE)):
        found = run(name)
        assert found.stdout.strip() == name, found.stderr
    refused = run("abacus")
    assert refused.returncode and "MEMDB_KERNELS" in refused.stderr
