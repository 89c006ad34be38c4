"""Distances to given rows, and a sample of rows, are those of the vectors that are stored."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from pyroaring import BitMap

import memdb
from memdb.index import exact
from memdb.index.protocol import Metric
from memdb.space_vectors import SpaceVectors
from memdb.space_views import unit, unit_of
from tests.memdb.space_conversion import DIM, fill, make_small


@contextmanager
def photos(
    path: Path, patch: pytest.MonkeyPatch, metric: Metric = "cosine", profile: str = "standard"
) -> Iterator[tuple[memdb.Database, SpaceVectors]]:
    """A database with sixty vectors in a space, whose background work waits to be told."""
    make_small(patch)
    with memdb.open(path / "db", embedder="none") as db:
        db.spaces.create("photos", dim=DIM, metric=metric, profile=profile)
        fill(db, 60, 1)
        engine = db._engine
        db._maintenance.stop()
        with engine.store.read() as txn:
            space = engine.vectors(engine.require_space(txn, "photos"))
        yield db, space


@pytest.mark.parametrize("profile", ["exact", "standard", "compact", "nano"])
@pytest.mark.parametrize("metric", ["cosine", "ip", "l2"])
def test_measured_distances_are_those_to_the_stored_vectors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, profile: str, metric: Metric
) -> None:
    rng = np.random.default_rng(6)
    with photos(tmp_path, monkeypatch, metric, profile) as (db, space):
        engine = db._engine
        while space.encode_step():
            pass
        monkeypatch.undo()
        fill(db, 9, 2)
        db.remember("no vector")
        with engine.store.read() as txn:
            live = list(engine.live(txn))
            fetched = space.fetch(txn, live)
            assert len(live) == 70 and len(fetched) == 69
            assert len(space.layout_view(txn).encoded) == 60
            query = rng.standard_normal(DIM).astype(np.float32)
            near = space.search(txn, query, 69, BitMap(live), exact_search=True)
            right = dict(zip(near.rows.tolist(), near.distances.tolist(), strict=True))
            assert right.keys() == fetched.keys()
            for rows in (rng.permutation(live), live[:1], live[-1:], live[55:65], []):
                asked = np.asarray(rows, np.uint32)
                found = space.measure(txn, query, asked)
                assert found.shape == asked.shape
                for row, distance in zip(asked.tolist(), found.tolist(), strict=True):
                    if row not in fetched:
                        assert np.isnan(distance)
                        continue
                    assert distance == pytest.approx(right[row], rel=1e-6, abs=1e-6)
                    if profile in ("exact", "standard"):  # others keep too few bits to compare
                        plain = exact.distances(query[None], fetched[row][None], metric)[0, 0]
                        assert distance == pytest.approx(plain, rel=2e-3, abs=2e-3)


def test_a_sample_is_spread_over_the_allowed_rows_that_have_a_vector(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_small(monkeypatch)
    with memdb.open(tmp_path / "db", embedder="none") as db:
        db.spaces.create("photos", dim=DIM)
        fill(db, 50, 1)
        db.remember("no vector")
        engine = db._engine
        with engine.store.read() as txn:
            space = engine.vectors(engine.require_space(txn, "photos"))
            live = BitMap(engine.live(txn))
            every = space.sample(txn, live, 100)
            assert len(every) == 50 and set(every.tolist()) < set(live)
            assert space.sample(txn, live, 10).tolist() == every[2::5].tolist()
            some = BitMap(every[:7].tolist())
            assert BitMap(space.sample(txn, some, 10).tolist()) == some
            assert len(space.sample(txn, BitMap(), 10)) == 0
        fill(db, 1, 2)
        with engine.store.read() as txn:
            live = BitMap(engine.live(txn))
            assert len(space.sample(txn, live, 100)) == 51, "a write is in the next sample"


@pytest.mark.parametrize("metric", ["cosine", "ip", "l2"])
def test_a_sample_measures_as_a_search_does_whatever_is_written_between(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, metric: Metric
) -> None:
    """Its vectors are kept from question to question."""
    make_small(monkeypatch)
    rng = np.random.default_rng(3)
    with memdb.open(tmp_path / "db", embedder="none") as db:
        db.spaces.create("photos", dim=DIM, metric=metric)
        engine = db._engine
        sizes = []
        for step in range(6):
            fill(db, 17, step)
            if step % 2:
                db.forget(ids=[memory.id for memory in db.list(limit=3).items])
            with engine.store.read() as txn:
                space = engine.vectors(engine.require_space(txn, "photos"))
                live = BitMap(engine.live(txn))
                for allowed in (live, live, BitMap(list(live)[::2])):
                    sample = space.sample(txn, allowed, 1_000)
                    query = rng.standard_normal(DIM).astype(np.float32)
                    found = space.measure(txn, query, sample)
                    right = space.measure(txn, query, sample.copy())
                    np.testing.assert_allclose(found, right, rtol=2e-3, atol=2e-3)
                    sizes.append(len(sample))
        assert len(set(sizes)) > 6, "what is allowed changed all the time"


def test_one_vector_is_brought_to_unit_length_as_many_are() -> None:
    rng = np.random.default_rng(1)
    for dim in (1, 7, 16, 384, 768):
        matrix = rng.standard_normal((20, dim)).astype(np.float32) * np.float32(
            1e3
        ) ** rng.integers(-3, 4, (20, 1))
        matrix = np.vstack((matrix.astype(np.float32), np.zeros((1, dim), np.float32)))
        for one, whole in zip(matrix, unit(matrix), strict=True):
            np.testing.assert_array_equal(unit_of(one), whole)


def test_a_filter_is_compiled_again_only_when_its_encoded_rows_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A write is fresh at first, and most questions ask all there is."""
    with photos(tmp_path, monkeypatch) as (db, space):
        while space.encode_step():
            pass
        query = np.ones(DIM, np.float32)

        def compiled() -> object:
            db.recall(vector=query, space="photos", mode="vector", k=100)
            return space._compiled[-1].slots

        first = compiled()
        assert compiled() is first
        (written,) = fill(db, 1, 2)
        assert compiled() is first
        hits = db.recall(vector=query, space="photos", mode="vector", k=100)
        assert written in {hit.id for hit in hits} and len(hits) == 61
        db.forget(ids=[next(hit.id for hit in hits if hit.id != written)])
        assert compiled() is not first
        assert len(db.recall(vector=query, space="photos", mode="vector", k=100)) == 60


def test_a_space_that_takes_the_place_of_another_is_known_at_once(tmp_path: Path) -> None:
    with memdb.open(tmp_path / "db", embedder="none") as db:
        query = np.ones(4, np.float32)
        with pytest.raises(memdb.NotFound):
            db.recall(vector=query, space="photos", mode="vector")
        db.spaces.create("photos", dim=4)
        assert len(db.recall(vector=query, space="photos", mode="vector")) == 0
        db.spaces.drop("photos")
        with pytest.raises(memdb.NotFound):
            db.recall(vector=query, space="photos", mode="vector")
        db.spaces.create("photos", dim=5)
        with pytest.raises(memdb.DimensionMismatch):
            db.recall(vector=query, space="photos", mode="vector")


def test_samples_of_several_filters_are_kept_side_by_side(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with photos(tmp_path, monkeypatch) as (db, space):
        engine = db._engine
        with engine.store.read() as txn:
            live = list(engine.live(txn))
            sets = [BitMap(live), BitMap(live[::2]), BitMap(live[1::3])]
            query = np.random.default_rng(4).standard_normal(DIM).astype(np.float32)
            first = [space.measure(txn, query, space.sample(txn, one, 20)) for one in sets]
            fetched = []
            monkeypatch.setattr(space, "fetch", lambda *given: fetched.append(given))
            for _ in range(2):
                for one, right in zip(sets, first, strict=True):
                    found = space.measure(txn, query, space.sample(txn, BitMap(one), 20))
                    np.testing.assert_array_equal(found, right)
            assert not fetched
            assert len(space._sampled) == 3
            for step in range(2, 12):
                space.sample(txn, BitMap(live[::step]), 20)
            assert len(space._sampled) == 4
