"""Places on the map: in the frame, the same every time, near each other where vectors are."""

from __future__ import annotations

import numpy as np
import pytest

from memdb.server.page import mapping

GAP = 1.1


def clusters(count: int, each: int, dim: int = 24) -> np.ndarray:
    """Vectors around ``count`` directions, one after another."""
    rng = np.random.default_rng(count)
    middle = rng.standard_normal((count, dim))
    spread = 0.25 * rng.standard_normal((count, each, dim))
    return (middle[:, None, :] + spread).reshape(count * each, dim).astype(np.float32)


@pytest.mark.parametrize("count", [0, 1, 2, 3, 7, 60])
def test_places_are_in_the_frame_and_the_same_every_time(count: int) -> None:
    vectors = np.random.default_rng(1).standard_normal((count, 12)).astype(np.float32)
    at = mapping.place(vectors, GAP)
    assert at.shape == (count, 2) or count == 0
    assert np.array_equal(at, mapping.place(vectors, GAP))
    assert all(0 <= x <= mapping.WIDTH and 0 <= y <= mapping.HEIGHT for x, y in at)


def test_what_means_nearly_the_same_lies_together() -> None:
    at = mapping.place(clusters(5, 24), GAP)
    label = np.repeat(np.arange(5), 24)
    away = ((at[:, None, :] - at[None, :, :]) ** 2).sum(axis=2)
    np.fill_diagonal(away, np.inf)
    nearest = np.argsort(away, axis=1)[:, :5]
    assert (label[nearest] == label[:, None]).mean() > 0.95


@pytest.mark.parametrize("dim", [1, 3, 1_200])
def test_equal_vectors_of_any_length_lie_beside_each_other_and_can_be_told_apart(dim: int) -> None:
    at = mapping.place(np.ones((30, dim), np.float32), GAP)
    assert np.isfinite(at).all()
    away = ((at[:, None, :] - at[None, :, :]) ** 2).sum(axis=2) ** 0.5
    np.fill_diagonal(away, np.inf)
    assert away.min() > GAP / 2


def test_a_region_is_named_by_words_that_are_more_frequent_there() -> None:
    at = np.array([[10, 10]] * 20 + [[90, 60]] * 20, np.float32)
    at += np.random.default_rng(0).standard_normal(at.shape).astype(np.float32)
    texts = [f"again Ana swims, {n}" for n in range(20)] + [
        f"again a boiler {n}" for n in range(20)
    ]
    named = {part.name: part.members for part in mapping.regions(at, texts)}
    assert sorted(named) == ["boiler", "swims"]
    assert sorted(named["swims"]) == list(range(20))


def test_every_point_is_in_one_region() -> None:
    rng = np.random.default_rng(5)
    at = (rng.random((300, 2)) * [mapping.WIDTH, mapping.HEIGHT]).astype(np.float32)
    parts = mapping.regions(at, [""] * 300)
    assert sorted(one for part in parts for one in part.members) == list(range(300))
    assert mapping.regions(at[:0], []) == []
