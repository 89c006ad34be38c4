"""A sample of a space: the memories a filter and a grant let through, each with its own vector."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import memdb
from memdb import Grant, Principal
from memdb import settings as limits
from memdb.space_sample import spread

DIM = 16
COUNT = 90


@pytest.fixture(scope="module")
def vectors() -> np.ndarray:
    return np.random.default_rng(3).standard_normal((COUNT, DIM)).astype(np.float32)


@pytest.fixture(scope="module")
def db(tmp_path_factory: pytest.TempPathFactory, vectors: np.ndarray) -> Iterator[memdb.Database]:
    """Vectors encoded and fresh, in two namespaces, one of them forgotten."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(limits, "FRESH_VECTORS_MAX", 32)
        patched.setattr(limits, "ENCODE_AT", 4)
        path = tmp_path_factory.mktemp("sample") / "db"
        with memdb.open(path, embedder="none", namespace="") as opened:
            opened.spaces.create("photos", dim=DIM)
            for part in (range(60), range(60, COUNT)):
                opened.remember_many(
                    [
                        {
                            "text": f"photo {n}",
                            "vector": vectors[n],
                            "space": "photos",
                            "kind": "even" if n % 2 == 0 else "odd",
                            "namespace": "home" if n % 3 else "work",
                        }
                        for n in part
                    ]
                )
                if part.start == 0:
                    assert opened._maintenance.drain()
            opened.remember("without a vector", namespace="home")
            opened.forget(where={"$and": [{"kind": "odd"}, {"namespace": "work"}]})
            yield opened


def numbers(sample: memdb.SpaceSample) -> list[int]:
    return [int(str(one.text).split()[1]) for one in sample.memories]


def test_a_sample_has_every_visible_memory_of_the_space_with_its_own_vector(
    db: memdb.Database, vectors: np.ndarray
) -> None:
    sample = db.spaces.sample("photos")
    expected = [n for n in range(COUNT) if n % 3 or n % 2 == 0]
    assert numbers(sample) == expected
    assert sample.of == len(expected) and sample.space == "photos"
    unit = vectors[expected] / np.linalg.norm(vectors[expected], axis=1, keepdims=True)
    given = sample.vectors / np.linalg.norm(sample.vectors, axis=1, keepdims=True)
    assert sample.vectors.shape == (len(expected), DIM)
    assert np.einsum("ij,ij->i", unit, given).min() > 0.999


def test_a_sample_is_what_a_filter_lets_through_and_at_most_as_many(db: memdb.Database) -> None:
    sample = db.spaces.sample("photos", where={"kind": "odd"}, limit=10)
    assert len(sample.memories) == len(sample.vectors) == 10
    assert sample.of == len([n for n in range(COUNT) if n % 2 and n % 3])
    assert all(one.kind == "odd" for one in sample.memories)
    again = db.spaces.sample("photos", where={"kind": "odd"}, limit=10)
    assert again.memories == sample.memories and again.content_seq == sample.content_seq
    assert np.array_equal(again.vectors, sample.vectors)


def test_a_grant_limits_a_sample_and_its_audit_names_what_was_given(db: memdb.Database) -> None:
    acting = db.acting(Principal("planner", Grant(["read"], where={"namespace": "work"})))
    sample = acting.spaces.sample("photos")
    assert {one.namespace for one in sample.memories} == {"work"}
    assert sample.of == len(sample.memories) == 15
    row = db.audit.rows(principal="planner").items[0]
    assert row.action == "read" and row.count == 15
    assert set(row.ids) == {one.id for one in sample.memories}


def test_an_empty_sample_has_the_shape_of_others_and_an_unknown_space_is_not_found(
    db: memdb.Database,
) -> None:
    assert db.spaces.sample("photos", where={"kind": "none"}).vectors.shape == (0, DIM)
    with pytest.raises(memdb.NotFound):
        db.spaces.sample("sounds")
    with pytest.raises(memdb.InvalidArgument):
        db.spaces.sample("photos", limit=0)


@given(st.sets(st.integers(0, 2**32 - 1), max_size=60), st.integers(1, 20))
def test_one_more_row_changes_a_sample_by_one_at_most(rows: set[int], limit: int) -> None:
    ordered = np.array(sorted(rows), np.uint32)
    kept = spread(ordered, limit)
    assert len(kept) == min(limit, len(rows)) and set(kept.tolist()) <= rows
    assert kept.tolist() == sorted(kept.tolist())
    if rows:
        fewer = spread(ordered[:-1], limit)
        assert len(set(kept.tolist()) ^ set(fewer.tolist())) <= 2
