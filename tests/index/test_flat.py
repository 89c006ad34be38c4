"""The flat engine against brute force over the vectors it was given."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from memdb.errors import DimensionMismatch, InvalidArgument, NotFound, StoreCorrupt
from memdb.index import exact
from memdb.index.flat import FlatIndex
from memdb.index.kernels import available
from memdb.index.protocol import NO_SLOT, Metric, Profile, SpaceSpec
from memdb.index.slots import SlotSet

METRICS: list[Metric] = ["cosine", "ip", "l2"]
PROFILES: list[Profile] = ["standard", "exact"]
everywhere = pytest.mark.parametrize(
    ("metric", "profile"), list(itertools.product(METRICS, PROFILES))
)


def clustered(n: int, dim: int, seed: int = 0) -> np.ndarray:
    """Vectors with neighbours: points around a few dozen centres away from the origin."""
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((30, dim)) + 0.5
    chosen = centres[rng.integers(0, 30, n)]
    return (chosen + 0.4 * rng.standard_normal((n, dim))).astype(np.float32)


def embedded(n: int, dim: int, seed: int) -> np.ndarray:
    """What embeddings look like: a dozen latent directions, some noise, an offset."""
    latent = np.random.default_rng(99).standard_normal((12, dim))
    rng = np.random.default_rng(seed)
    mixed = rng.standard_normal((n, 12)) @ latent + 0.3 * rng.standard_normal((n, dim))
    return (mixed + 0.5).astype(np.float32)


def build(
    directory: Path,
    vectors: np.ndarray,
    metric: Metric = "cosine",
    profile: Profile = "standard",
    slots: np.ndarray | None = None,
    **options: object,
) -> FlatIndex:
    spec = SpaceSpec(dim=vectors.shape[1], metric=metric, profile=profile)
    index = FlatIndex(directory, spec, writable=True, **options)  # type: ignore[arg-type]
    index.train(vectors[:1000])
    places = np.arange(len(vectors)) if slots is None else slots
    index.publish(index.prepare(places, index.encode(vectors)))
    return index


@everywhere
def test_recall_at_ten_is_near_one_and_distances_are_true(
    tmp_path: Path, metric: Metric, profile: Profile
) -> None:
    vectors, queries = embedded(6000, 96, seed=0), embedded(40, 96, seed=1)
    index = build(tmp_path, vectors, metric, profile)
    slots, distances = index.search(queries, 10, allowed=SlotSet.all(6000))
    truth, true_distances = exact.scan(queries, vectors, 10, metric)
    hits = sum(len(set(a) & set(b)) for a, b in zip(slots.tolist(), truth.tolist(), strict=True))
    assert hits >= 0.97 * 400
    np.testing.assert_allclose(
        distances, true_distances, rtol=0.02, atol=0.02 * np.abs(true_distances).max()
    )
    assert (np.diff(distances, axis=1) >= 0).all()


@everywhere
def test_the_exact_mode_gives_the_order_of_the_stored_vectors(
    tmp_path: Path, metric: Metric, profile: Profile
) -> None:
    vectors, queries = clustered(2000, 33), clustered(5, 33, seed=1)
    index = build(tmp_path, vectors, metric, profile)
    stored = index.fetch(np.arange(2000))
    slots, distances = index.search(queries, 20, allowed=SlotSet.all(2000), exact=True)
    _, wanted = exact.scan(queries, stored, 20, metric)
    np.testing.assert_allclose(distances, wanted, rtol=1e-4, atol=1e-4)
    assert all(len(set(row)) == 20 for row in slots.tolist())


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    chosen=st.sets(st.integers(0, 699), max_size=700) | st.just(set(range(700))),
    k=st.integers(1, 30),
    effort=st.none() | st.integers(1, 60),
)
def test_a_search_returns_exactly_min_k_matches_of_the_allowed(
    shared_index: FlatIndex, chosen: set[int], k: int, effort: int | None
) -> None:
    allowed = SlotSet.from_slots(sorted(chosen))
    slots, distances = shared_index.search(np.ones((2, 20)), k, allowed=allowed, effort=effort)
    found = min(k, len(chosen))
    for row, keys in zip(slots.tolist(), distances, strict=True):
        assert len(set(row[:found])) == found and set(row[:found]) <= chosen
        assert row[found:] == [NO_SLOT] * (k - found)
        assert np.isfinite(keys[:found]).all() and np.isinf(keys[found:]).all()


@pytest.fixture(scope="module")
def shared_index(tmp_path_factory: pytest.TempPathFactory) -> FlatIndex:
    return build(tmp_path_factory.mktemp("shared"), clustered(700, 20))


def test_all_kernels_answer_alike(tmp_path: Path) -> None:
    vectors, queries = clustered(5000, 65), clustered(8, 65, seed=2)
    build(tmp_path, vectors).close()
    spec = SpaceSpec(dim=65, epoch=1)
    answers = [
        FlatIndex(tmp_path, spec, writable=False, kernels=kernels, threads=threads).search(
            queries, 10, allowed=SlotSet.all(5000)
        )
        for kernels in available()
        for threads in (1, 3)
    ]
    for slots, distances in answers[1:]:
        np.testing.assert_array_equal(slots, answers[0][0])
        np.testing.assert_allclose(distances, answers[0][1], atol=1e-5)


def test_float16_vectors_come_back_to_the_bit_in_the_exact_profile(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((50, 31)).astype(np.float16)
    vectors[0] = 0
    index = build(tmp_path, vectors.astype(np.float32), profile="exact")
    np.testing.assert_array_equal(index.fetch(np.arange(50)), vectors.astype(np.float32))


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("size", [1e-20, 1.0, 1e6, 1e14])
def test_vectors_of_any_length_come_back_nearly(
    tmp_path: Path, profile: Profile, size: float
) -> None:
    vectors = clustered(20, 16) * np.float32(size / 16)
    index = build(tmp_path, vectors, "l2", profile)
    lengths = np.linalg.norm(vectors.astype(np.float64), axis=1)
    errors = np.linalg.norm(index.fetch(np.arange(20)).astype(np.float64) - vectors, axis=1)
    assert (errors < (0.01 if profile == "standard" else 0.001) * lengths).all()


@everywhere
@pytest.mark.parametrize("dim", [1, 2, 3, 64])
def test_awkward_vectors_are_found(
    tmp_path: Path, metric: Metric, profile: Profile, dim: int
) -> None:
    vectors = clustered(600, dim)
    vectors[0] = 0
    vectors[1] = 1e14 / dim
    vectors[2] = -vectors[3]
    vectors[10:20] = vectors[20]
    index = build(tmp_path, vectors, metric, profile)
    for query in (np.zeros(dim), np.ones(dim), vectors[20], vectors[1]):
        slots, distances = index.search(query, 600, allowed=SlotSet.all(600), effort=600)
        assert sorted(slots[0].tolist()) == list(range(600))
        assert np.isfinite(distances).all()
    assert np.allclose(index.search(np.zeros(dim), 3, allowed=SlotSet.all(9))[1], 1) or (
        metric != "cosine"
    )


def test_within_gives_everything_inside_the_radius(tmp_path: Path) -> None:
    vectors, query = clustered(800, 24), clustered(1, 24, seed=4)
    index = build(tmp_path, vectors, "l2", "exact")
    allowed = SlotSet.from_slots(np.arange(0, 800, 2))
    everything = exact.distances(query, vectors, "l2")[0]
    radius = float(np.median(everything))
    slots, distances = index.within(query, radius, allowed=allowed)
    margin = 1e-2
    assert set(np.flatnonzero(everything < radius - margin)[::1]) & set(range(0, 800, 2)) <= set(
        slots.tolist()
    )
    assert (everything[slots] <= radius + margin).all() and (slots % 2 == 0).all()
    assert (np.diff(distances) >= 0).all()
    assert len(index.within(query, 1e9, allowed=SlotSet.empty())[0]) == 0


def test_sparse_slots_in_several_groups_are_kept_apart(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    slots = rng.choice(20_000, 900, replace=False)
    vectors = clustered(900, 40)
    index = build(tmp_path, vectors, "l2", "exact", slots=slots)
    allowed = SlotSet.from_slots(slots)
    found, _ = index.search(vectors[:50], 1, allowed=allowed)
    assert found[:, 0].tolist() == slots[:50].tolist()
    index.verify(slots)


def test_a_reader_sees_growth_and_a_new_training(tmp_path: Path) -> None:
    vectors = clustered(9000, 16)
    writer = build(tmp_path, vectors[:300])
    reader = FlatIndex(tmp_path, writer.spec, writable=False)
    assert reader.search(vectors[5], 1, allowed=SlotSet.all(300))[0][0, 0] == 5
    writer.publish(writer.prepare(np.arange(300, 9000), writer.encode(vectors[300:])))
    found = reader.search(vectors[8000:8020], 3, allowed=SlotSet.all(9000))[0]
    assert [8000 + at in row for at, row in enumerate(found.tolist())] == [True] * 20
    spec = writer.train(vectors, encoded=SlotSet.all(9000))
    assert spec.epoch == 2
    writer.verify(np.arange(9000))
    reader.refresh(spec)
    reader.verify(np.arange(9000))
    with pytest.raises(InvalidArgument):
        reader.prepare([1], writer.encode(vectors[:1]))


def test_vectors_encoded_before_a_training_are_stored_by_the_new_one(tmp_path: Path) -> None:
    vectors = clustered(500, 16)
    index = build(tmp_path, vectors)
    encoded = index.encode(vectors[:5] + 1)
    index.train(vectors + 1, encoded=SlotSet.all(500))
    index.publish(index.prepare(np.arange(500, 505), encoded))
    index.verify(np.arange(505))


def test_a_cleared_slot_leaves_no_byte_and_can_be_used_again(tmp_path: Path) -> None:
    vectors = clustered(500, 32)
    index = build(tmp_path, vectors)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    index.publish(index.prepare([500, 501], index.encode(vectors[:2] * 3)))
    assert index.search(vectors[0], 1, allowed=SlotSet.from_slots([500, 501]))[0][0, 0] == 500
    index.clear([500, 501, 10_000])
    for path in tmp_path.iterdir():
        assert path.read_bytes().rstrip(b"\0") == before[path.name].rstrip(b"\0")
    with pytest.raises(StoreCorrupt, match="slot 500"):
        index.fetch([500])
    index.publish(index.prepare([500], index.encode(vectors[7:8])))
    index.verify(np.arange(501))


def test_codes_can_be_made_again_from_the_records(tmp_path: Path) -> None:
    vectors = clustered(6000, 48)
    slots = np.arange(0, 12_000, 2)
    index = build(tmp_path, vectors, slots=slots)
    index.close()
    (tmp_path / "codes.bin").unlink()
    index = FlatIndex(tmp_path, SpaceSpec(dim=48, epoch=1), writable=True)
    allowed = SlotSet.from_slots(slots)
    assert index.codes_problem is not None and index.codes_problem.path.endswith("codes.bin")
    assert index.search(vectors[9], 1, allowed=allowed)[0][0, 0] == 18
    with pytest.raises(StoreCorrupt, match=r"codes\.bin"):
        index.verify(slots)
    assert index.rebuild_codes(allowed).epoch == 2
    assert index.codes_problem is None
    index.verify(slots)
    assert index.search(vectors[9], 1, allowed=allowed)[0][0, 0] == 18


def test_an_empty_index_answers_with_padding(tmp_path: Path) -> None:
    index = FlatIndex(tmp_path, SpaceSpec(dim=3), writable=True)
    slots, distances = index.search(np.ones((2, 3)), 4, allowed=SlotSet.empty())
    assert slots.tolist() == [[NO_SLOT] * 4] * 2 and np.isinf(distances).all()
    assert index.search(np.empty((0, 3)), 4, allowed=SlotSet.empty())[0].shape == (0, 4)
    assert not index.trained and index.fetch([]).shape == (0, 3)
    with pytest.raises(InvalidArgument, match="trained"):
        index.encode(np.ones((1, 3)))
    reader = FlatIndex(tmp_path / "elsewhere", SpaceSpec(dim=3), writable=False)
    with pytest.raises(NotFound):
        reader.fetch([0])
    index.train(np.zeros((0, 3)))
    index.publish(index.prepare([], index.encode(np.empty((0, 3)))))


def test_bad_input_is_refused_and_named(tmp_path: Path) -> None:
    index = build(tmp_path, clustered(10, 4))
    size = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    for wrong in (
        [[1, 2, np.nan, 4]],
        [[1, 2, np.inf, 4]],
        [[1e16, 0, 0, 0]],
        [["a"] * 4],
        [[[1]]],
    ):
        with pytest.raises(InvalidArgument):
            index.encode(wrong)
        with pytest.raises(InvalidArgument):
            index.search(wrong, 1, allowed=SlotSet.all(10))
    with pytest.raises(DimensionMismatch):
        index.encode(np.ones((1, 5)))
    for k in (0, 10_001):
        with pytest.raises(InvalidArgument):
            index.search(np.ones(4), k, allowed=SlotSet.all(10))
    with pytest.raises(InvalidArgument):
        index.search(np.ones(4), 1, allowed=SlotSet.all(10), effort=0)
    with pytest.raises(InvalidArgument):
        index.prepare([1, 1], index.encode(np.ones((2, 4))))
    with pytest.raises(InvalidArgument):
        index.prepare([1], index.encode(np.ones((2, 4))))
    with pytest.raises(InvalidArgument):
        index.prepare([-1], index.encode(np.ones((1, 4))))
    for wrong_spec in ({"dim": 0}, {"dim": 8193}, {"metric": "x"}, {"profile": "x"}):
        with pytest.raises(InvalidArgument):
            SpaceSpec(**{"dim": 4, **wrong_spec})
    assert size == {path.name: path.read_bytes() for path in tmp_path.iterdir()}


def test_a_spec_survives_its_dictionary() -> None:
    spec = SpaceSpec(dim=384, metric="l2", profile="exact", epoch=3, seed=2**64 - 1)
    assert SpaceSpec.from_dict(spec.to_dict()) == spec
    with pytest.raises(StoreCorrupt):
        SpaceSpec.from_dict({"metric": "l2"})
