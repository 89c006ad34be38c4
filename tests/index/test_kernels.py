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
from memdb.index.layout import (
    BITS,
    FLOAT16,
    GROUP_ROWS,
    INT1,
    INT2,
    INT4,
    INT5,
    INT8,
    METRICS,
    PACKED,
)
from memdb.index.reference import NumpyKernels, numbers_of

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
    for found, wanted in zip(kernels.query_tables(x), TWIN.query_tables(x), strict=True):
        np.testing.assert_array_equal(found, wanted)
    for precision in PACKED:
        packed = kernels.quantise_packed(precision, x)
        for found, wanted in zip(packed, TWIN.quantise_packed(precision, x), strict=True):
            np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("dim", [1, 64, 100])
def test_tables_give_the_product_with_any_signs_to_half_a_step_an_entry(dim: int) -> None:
    x = adversarial(dim, seed=3)
    entries, bases, steps = TWIN.query_tables(x)
    signs = np.random.default_rng(1).standard_normal((20, dim)).astype(np.float32)
    codes = TWIN.sign_codes(signs).view(np.uint8)
    halves = np.stack((codes & 15, codes >> 4), axis=2).reshape(20, -1)
    sums = entries[:, np.arange(entries.shape[1]), halves].sum(axis=2, dtype=np.float64)
    found = bases[:, None] + steps[:, None].astype(np.float64) * sums
    wanted = x.astype(np.float64) @ np.where(signs >= 0, 1, -1).T
    allowance = steps[:, None] * (dim + 3) // 4 * 0.5 + 1e-4 * np.abs(x).sum(axis=1)[:, None]
    assert entries.max() <= layout.TABLE_MAX
    assert (np.abs(found - wanted) <= allowance + 1e-30).all()


@pytest.mark.parametrize(
    ("precision", "distortion"), [(INT5, 0.00349), (INT4, 0.01154), (INT2, 0.1188), (INT1, 0.3634)]
)
def test_packed_vectors_lose_what_the_theory_says_and_keep_their_products(
    precision: int, distortion: float
) -> None:
    """Mean squared errors of a unit normal: Max 1960, table II."""
    x = np.random.default_rng(0).standard_normal((200, 384)).astype(np.float32)
    payload, scales, norms = TWIN.quantise_packed(precision, x)
    numbers = numbers_of(payload, 384, precision)
    cosines = (numbers * x).sum(axis=1) / np.linalg.norm(numbers, axis=1) / norms
    np.testing.assert_allclose(cosines.mean(), np.sqrt(1 - distortion), atol=5e-4)
    np.testing.assert_allclose(norms, np.linalg.norm(x, axis=1), rtol=1e-5)
    np.testing.assert_allclose(scales * (numbers * x).sum(axis=1), norms**2, rtol=1e-4)


def random_groups(dim: int, groups: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    body = np.zeros(groups * layout.group_bytes(dim), np.uint8)
    for number in range(groups):
        group = layout.group_at(body, dim, number)
        group.codes[:] = rng.integers(0, 256, group.codes.shape, dtype=np.uint8)
        factors = rng.standard_normal((2, GROUP_ROWS)).astype(np.float32)
        group.factors[:] = layout.pack_factors(*factors)
    return body


def test_factors_are_rounded_to_nearest() -> None:
    numbers = adversarial(50, seed=8).reshape(-1)
    offsets, slopes = layout.unpack_factors(layout.pack_factors(numbers, -numbers))
    np.testing.assert_array_equal(slopes, -offsets)
    assert (np.abs(offsets - numbers) <= np.abs(numbers) * 2**-8).all()
    halfway = np.array([1 + 2**-8, 1 + 3 * 2**-8], np.float32)  # between two: to the even one
    assert layout.unpack_factors(layout.pack_factors(halfway, halfway))[0].tolist() == [
        1,
        1 + 2**-6,
    ]


@each
@pytest.mark.parametrize("dim", [1, 64, 65, 384, 2100, 8192])
@pytest.mark.parametrize("density", [1.0, 0.3, 0.001])
def test_scans_find_the_same_slots_and_keys(kernels: Kernels, dim: int, density: float) -> None:
    rng = np.random.default_rng(5)
    body = random_groups(dim, 2, seed=dim)
    group = layout.group_at(body, dim, 0)
    offsets, slopes = (half.copy() for half in layout.unpack_factors(group.factors))
    offsets[:64], slopes[:64] = offsets[64], 0  # ties are settled by slot
    offsets[100], offsets[101], slopes[102] = np.inf, -np.inf, -np.inf
    group.factors[:] = layout.pack_factors(offsets, slopes)
    group.factors[103] = 0x7FC07FC0  # not a number, twice
    allowed = np.packbits(rng.random(GROUP_ROWS + 1000) < density, bitorder="little")
    entries, bases, steps = TWIN.query_tables(rng.standard_normal((1, dim)).astype(np.float32))
    for keep in (1, 50, 5000):
        tables = entries[0], float(bases[0]), float(steps[0])
        arguments = (body, dim, *tables, allowed, keep)
        slots, keys = kernels.scan(*arguments)
        wanted_slots, wanted_keys = TWIN.scan(*arguments)
        order = np.lexsort((slots, keys))
        np.testing.assert_array_equal(slots[order], wanted_slots)
        np.testing.assert_array_equal(keys[order], wanted_keys)


@each
@pytest.mark.parametrize("order", ["falling", "rising", "even", "two", "normal", "far", "tight"])
def test_a_shortlist_is_the_smallest_whatever_the_order(kernels: Kernels, order: str) -> None:
    """A slope of nothing makes an offset the key; halves of words make many of them equal."""
    dim, groups = 64, 3
    rng = np.random.default_rng(2)
    rows = groups * GROUP_ROWS
    keys = {
        "falling": np.linspace(9, -9, rows),
        "rising": np.linspace(-9, 9, rows),
        "even": np.full(rows, 0.5),
        "two": rng.integers(0, 2, rows) * 1e-3 - 7,
        "normal": rng.standard_normal(rows),
        "far": rng.standard_normal(rows) * 10.0 ** rng.integers(-30, 30, rows),
        "tight": 1e6 + rng.integers(0, 9, rows) * 1e4,
    }[order].astype(np.float32)
    body = random_groups(dim, groups, seed=1)
    for number in range(groups):
        part = keys[number * GROUP_ROWS : (number + 1) * GROUP_ROWS]
        factors = layout.pack_factors(part, np.zeros(GROUP_ROWS, np.float32))
        layout.group_at(body, dim, number).factors[:] = factors
    allowed = np.packbits(rng.random(rows) < 0.9, bitorder="little")
    entries, bases, steps = TWIN.query_tables(rng.standard_normal((1, dim)).astype(np.float32))
    for keep in (1, 10, 300, 2000):
        arguments = (body, dim, entries[0], float(bases[0]), float(steps[0]), allowed, keep)
        slots, found = kernels.scan(*arguments)
        wanted_slots, wanted = TWIN.scan(*arguments)
        by_key = np.lexsort((slots, found))
        np.testing.assert_array_equal(slots[by_key], wanted_slots)
        np.testing.assert_array_equal(found[by_key], wanted)


def random_records(dim: int, precision: int, count: int, seed: int) -> np.ndarray:
    """(count, record bytes) sealed, the awkward ones among them."""
    rng = np.random.default_rng(seed)
    records = np.zeros(count, layout.record_type(dim, precision))
    if precision == FLOAT16:
        records["payload"] = rng.standard_normal((count, dim)) * 2
        records["payload"][1], records["payload"][2] = 65504, 6e-8  # the largest, a subnormal
    else:
        records["payload"] = rng.integers(0, 256, records["payload"].shape).astype(np.uint8)
        records["payload"][0] = 0
        if precision == INT8:  # -128 is never written
            records["payload"] = np.maximum(records["payload"], -127)
        if dim * layout.PRECISION_BITS[precision] % 8:
            records["payload"][:, -1] &= (1 << dim * layout.PRECISION_BITS[precision] % 8) - 1
    records["scale"] = rng.random(count)
    numbers = numbers_of(records["payload"], dim, precision).astype(np.float64)
    records["norm"] = records["scale"] * np.sqrt((numbers**2).sum(axis=1))
    raw = records.view(np.uint8).reshape(count, -1)
    TWIN.seal(raw, np.arange(count, dtype=np.uint32))
    return raw


METRICS_OF = [
    *((precision, metric) for precision in (INT8, FLOAT16, *PACKED) for metric in (0, 1, 2)),
    (BITS, METRICS["hamming"]),
]


@each
@pytest.mark.parametrize(("precision", "metric"), METRICS_OF)
def test_distances_agree_to_rounding(kernels: Kernels, precision: int, metric: int) -> None:
    for dim in DIMS:
        rng = np.random.default_rng(dim)
        raw = random_records(dim, precision, 30, seed=dim)
        query = rng.standard_normal(dim).astype(np.float32)
        if precision == BITS:
            query = (query > 0).astype(np.float32)
        chosen = np.array([29, 0, 3, 3, 1, 2], np.uint32)
        arguments = (raw, dim, metric, precision, query, chosen)
        found, bad = kernels.rescore(*arguments)
        wanted, _ = TWIN.rescore(*arguments)
        assert bad == -1
        fields = raw.view(layout.record_type(dim, precision)).reshape(-1)[chosen]
        numbers = numbers_of(fields["payload"], dim, precision).astype(np.float64)
        size = np.abs(numbers) @ np.abs(query) + 1
        if metric == METRICS["l2"]:
            size = wanted + fields["norm"].astype(np.float64) ** 2 + query @ query + 1
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
            "hamming": np.add.outer(lengths[0] ** 2, lengths[1] ** 2) + 1,
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
            np.zeros((16, 16), np.uint8),
            0.0,
            1.0,
            np.full(layout.GROUP_ALLOWED + 1, 255, np.uint8),
            3,
        )
    with pytest.raises(ValueError):
        NATIVE[0].scan(
            np.zeros(layout.group_bytes(8), np.uint8),
            8,
            np.full((16, 16), 64, np.uint8),
            0.0,
            1.0,
            np.full(layout.GROUP_ALLOWED, 255, np.uint8),
            3,
        )
    with pytest.raises(TypeError):
        _native.sign_codes(rows.astype(np.float64), np.zeros((2, 1), np.uint64))


@settings(max_examples=60, deadline=None)
@given(
    dim=st.integers(1, 200),
    seed=st.integers(0, 2**32),
    kind=st.sampled_from(METRICS_OF),
    way=st.sampled_from(["codes", "rough", "all"]),
)
def test_whole_searches_agree_on_random_spaces(
    dim: int, seed: int, kind: tuple[int, int], way: str
) -> None:
    precision, metric = kind
    rng = np.random.default_rng(seed)
    queries = rng.standard_normal((3, dim)).astype(np.float32)
    if precision == BITS:
        queries = (queries > 0).astype(np.float32)
    arguments = {
        "groups": random_groups(dim, 1, seed) if way == "codes" else None,
        "records": random_records(dim, precision, 500, seed),
        "metric": metric,
        "precision": precision,
        "queries": queries,
        "signs": layout.rotation_signs(dim, seed),
        "centre": rng.standard_normal(dim).astype(np.float32),
        "allowed": np.packbits(np.arange(500) % 3 > 0, bitorder="little"),
        "k": 5,
        "keep": 40,
        "threads": 2,
        "rough": way == "rough",
    }
    _, wanted, _ = TWIN.search(**arguments)
    size = np.abs(wanted).max() + 1
    for kernels in NATIVE:
        slots, distances, bad = kernels.search(**arguments)
        assert bad == -1 and (slots % 3 > 0).all()
        np.testing.assert_allclose(distances / size, wanted / size, atol=1e-3)


@each
@pytest.mark.parametrize("precision", [INT1, INT2])
def test_products_of_few_levels_are_whole_numbers(kernels: Kernels, precision: int) -> None:
    for dim in DIMS:
        raw = random_records(dim, precision, 60, seed=dim)
        query = np.random.default_rng(dim).standard_normal((1, dim)).astype(np.float32)
        common = {
            "groups": None,
            "records": raw,
            "metric": METRICS["ip"],
            "precision": precision,
            "queries": query,
            "signs": layout.rotation_signs(dim, 3),
            "centre": np.zeros(0, np.float32),
            "allowed": np.full(7, 255, np.uint8),
            "k": 3,
            "keep": 3,
            "threads": 1,
            "rough": True,
        }
        for found, wanted in zip(kernels.search(**common), TWIN.search(**common), strict=True):
            np.testing.assert_allclose(found, wanted, rtol=1e-3, atol=1e-3)


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
