"""Filters, plans, range search, Hamming and the small profiles of ``VectorIndex``."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyroaring import BitMap

import memdb
from memdb import DimensionMismatch, InvalidArgument, VectorIndex
from memdb.index import exact

DIM = 32
COUNT = 6000
NO_ID = 2**64 - 1


def clustered(count: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    centres = 2 * np.random.default_rng(5).standard_normal((30, DIM))
    return (rng.standard_normal((count, DIM)) + centres[rng.integers(0, 30, count)]).astype("f4")


VECTORS = clustered(COUNT + 50)


@pytest.fixture(scope="module", params=["exact", "standard", "compact", "nano"])
def index(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> VectorIndex:
    """6,000 encoded vectors of ids 0, 3, 6 ... and 50 fresh ones."""
    path = tmp_path_factory.mktemp(request.param)
    made = VectorIndex(path, dim=DIM, metric="l2", profile=request.param)
    made.add(3 * np.arange(COUNT), VECTORS[:COUNT])
    made.add(3 * np.arange(COUNT, COUNT + 50), VECTORS[COUNT:])
    assert made.stats()["fresh"] == 50
    return made


def test_every_profile_finds_what_it_kept(index: VectorIndex) -> None:
    queries = clustered(50, seed=1)
    found, distances = index.search(queries, 10)
    places, _ = exact.scan(queries, VECTORS, 10, "l2")
    hits = [
        len(set(a) & set(b)) for a, b in zip(found.tolist(), (3 * places).tolist(), strict=True)
    ]
    least = {"exact": 0.98, "standard": 0.96, "compact": 0.85, "nano": 0.3}
    assert sum(hits) / 500 >= least[index.stats()["profile"]]
    assert (np.diff(distances, axis=1) >= 0).all()
    kept = index.get(found[0])
    wanted = exact.distances(queries[:1], kept, "l2")[0]
    if index.stats()["profile"] in ("exact", "standard"):
        np.testing.assert_allclose(distances[0], wanted, rtol=1e-3)


@settings(max_examples=60)
@given(data=st.data())
def test_a_filter_is_its_ids_and_results_are_exactly_as_many(
    index: VectorIndex, data: st.DataObject
) -> None:
    seed = data.draw(st.integers(0, 999))
    share = data.draw(st.sampled_from([0.0, 0.0005, 0.01, 0.2, 0.9]))
    k = data.draw(st.sampled_from([1, 10, 300]))
    rng = np.random.default_rng(seed)
    ids = np.flatnonzero(rng.random(3 * (COUNT + 60)) < share)  # two of three are not in the index
    inside = ids[(ids % 3 == 0) & (ids < 3 * (COUNT + 50))]
    form = data.draw(st.sampled_from(["array", "bitmap", "filter"]))
    allowed = {"array": ids, "bitmap": BitMap(ids.tolist()), "filter": index.filter(ids)}[form]
    found, distances = index.search(clustered(2, seed), k, allowed=allowed)
    for row, keys in zip(found, distances, strict=True):
        real = row[row != NO_ID]
        assert len(real) == min(k, len(inside)) == np.isfinite(keys).sum()
        assert len(set(real.tolist())) == len(real) and np.isin(real, inside).all()
    plan = index.plan(k, allowed)
    assert plan.allowed + plan.fresh == len(inside)
    if not plan.estimates and index.stats()["profile"] == "exact" and len(inside):
        kept = min(k, len(inside))
        _, wanted = exact.scan(clustered(2, seed), VECTORS[inside // 3], kept, "l2")
        np.testing.assert_allclose(distances[:, :kept], wanted, rtol=3e-3)


def test_a_filter_follows_the_index(tmp_path: Path) -> None:
    with VectorIndex(tmp_path, dim=DIM, metric="l2") as index:
        index.add(np.arange(5000), VECTORS[:5000])
        chosen = index.filter([7, 9, 6000])
        assert len(chosen) == 3 and repr(chosen) == "VectorFilter(3 ids)"
        assert sorted(index.search(VECTORS[7], 5, allowed=chosen)[0][0].tolist())[:2] == [7, 9]
        index.remove([7])
        index.wait()
        index.add([6000], VECTORS[:1])  # fresh, and in the slot that 7 had
        index.add([9], VECTORS[100:101])
        found = index.search(VECTORS[7], 5, allowed=chosen)[0][0]
        assert sorted(found[found != NO_ID].tolist()) == [9, 6000]
        assert index.search(VECTORS[7], 5, allowed=[])[0][0].tolist() == [NO_ID] * 5


def test_plans_say_what_is_done_and_why(index: VectorIndex) -> None:
    codes = index.stats()["profile"] != "nano"
    whole = index.plan()
    assert whole.name == ("scan" if codes else "records")
    assert whole.allowed == COUNT and whole.fresh == 50 and whole.blocks == -(-COUNT // 32)
    assert whole.rescored < COUNT and whole.estimates and whole.estimated_us > 0
    few = index.plan(allowed=np.arange(0, 300, 3))
    assert few.name == "refine" and few.rescored == few.allowed == 100 and not few.blocks
    assert index.plan(exact=True).name == "exact"
    spread = index.plan(allowed=np.arange(0, 3 * COUNT, 60))
    if codes and spread.name == "gather":
        assert spread.blocks < whole.blocks and spread.bytes_touched < whole.bytes_touched
    assert set(whole.to_dict()) >= {"name", "reason", "bytes_touched"}
    with pytest.raises(InvalidArgument):
        index.plan(0)


def test_range_search_gives_everything_within_and_nothing_else(index: VectorIndex) -> None:
    query = clustered(1, seed=3)[0]
    distances = exact.distances(query, index.get(3 * np.arange(COUNT + 50)), "l2")[0]
    radius = float(np.sort(distances)[200])
    ids, found = index.within(query, radius)
    assert (found <= radius).all() and (np.diff(found) >= 0).all()
    if index.stats()["profile"] in ("exact", "standard"):
        clear = np.abs(distances - radius) > 1e-3 * radius
        wanted = 3 * np.flatnonzero((distances <= radius) & clear)
        assert set(wanted.tolist()) <= set(ids.tolist())
        assert not set(3 * np.flatnonzero((distances > radius) & clear)) & set(ids.tolist())
    some, _ = index.within(query, radius, allowed=ids[::2])
    assert set(some.tolist()) == set(ids[::2].tolist())
    assert len(index.within(query, -1)[0]) == 0


def popcounts(queries: np.ndarray, rows: np.ndarray) -> np.ndarray:
    return np.unpackbits(queries[:, None] ^ rows[None], axis=2).sum(axis=2)


@pytest.mark.parametrize("bits", [8, 64, 200, 256])
def test_hamming_distances_are_exact(tmp_path: Path, bits: int) -> None:
    rng = np.random.default_rng(bits)
    rows = rng.integers(0, 256, (5000, bits // 8), np.uint8)
    queries = rng.integers(0, 256, (5, bits // 8), np.uint8)
    with VectorIndex(tmp_path, dim=bits, metric="hamming") as index:
        index.add(np.arange(4500), rows[:4500])
        index.add(np.arange(4500, 5000), rows[4500:])
        assert index.stats()["encoded"] == 4500
        distances = popcounts(queries, rows)
        found, keys = index.search(queries, 20)
        np.testing.assert_array_equal(keys, np.sort(distances, axis=1)[:, :20])
        np.testing.assert_array_equal(keys, np.take_along_axis(distances, found.astype(int), 1))
        ids, near = index.within(queries[0], bits // 3)
        assert set(ids.tolist()) == set(np.flatnonzero(distances[0] <= bits // 3).tolist())
        np.testing.assert_array_equal(near, np.sort(distances[0])[: len(ids)])
        chosen = np.arange(0, 5000, 7)
        found, keys = index.search(queries, 9, allowed=chosen)
        np.testing.assert_array_equal(keys, np.sort(distances[:, chosen], axis=1)[:, :9])
        np.testing.assert_array_equal(index.get([3, 4999]), rows[[3, 4999]])
        size = index.stats()["record_bytes"]
        assert size == 16 + bits // 8
    with VectorIndex(tmp_path) as index:
        np.testing.assert_array_equal(index.search(queries, 20)[1], np.sort(distances)[:, :20])


def test_vectors_of_a_hamming_index_are_checked(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="multiple of 8"):
        VectorIndex(tmp_path / "odd", dim=12, metric="hamming")
    with pytest.raises(InvalidArgument, match="flat"):
        VectorIndex(tmp_path / "graph", dim=16, metric="hamming", kind="hnsw")
    with VectorIndex(tmp_path / "bits", dim=16, metric="hamming") as index:
        for wrong in (np.zeros((1, 16), np.float32), [[1, 0]], np.zeros((1, 1, 2), np.uint8)):
            with pytest.raises(InvalidArgument, match="uint8"):
                index.add([1], wrong)
        with pytest.raises(DimensionMismatch, match="24 bits"):
            index.search(np.zeros(3, np.uint8))
        assert len(index) == 0


@pytest.mark.parametrize(
    "arguments",
    [{"metric": "dot"}, {"profile": "tiny"}, {"kind": "tree"}, {"kind": "ssd", "profile": "nano"}],
)
def test_what_an_index_may_be_is_said(tmp_path: Path, arguments: dict[str, str]) -> None:
    with pytest.raises(InvalidArgument) as caught:
        memdb.VectorIndex(tmp_path / "index", dim=4, **arguments)  # type: ignore[arg-type]
    assert caught.value.field == next(iter(arguments))
    assert not (tmp_path / "index").exists()
