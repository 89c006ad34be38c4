"""Exact neighbours and recall by distance, against brute force on random and adversarial input."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.ann import truth
from bench.ann.truth import distances_to, exact, recall

METRICS = ("cosine", "ip", "l2")


def brute(base: np.ndarray, query: np.ndarray, metric: str) -> np.ndarray:
    """Distances one pair at a time, in Python's own arithmetic."""
    found = []
    for row in base.tolist():
        pairs = list(zip(row, query.tolist(), strict=True))
        product = sum(a * b for a, b in pairs)
        if metric == "l2":
            found.append(sum((a - b) ** 2 for a, b in pairs))
        elif metric == "ip":
            found.append(-product)
        else:
            lengths = sum(a * a for a, _ in pairs) * sum(b * b for _, b in pairs)
            found.append(1 - product / lengths**0.5)
    return np.array(found)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("block", [7, 64, 4096])
def test_exact_neighbours_are_those_of_a_brute_force(
    metric: str, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(truth, "_BLOCK", block)
    rng = np.random.default_rng(4)
    base = rng.standard_normal((150, 9)).astype(np.float32)
    queries = rng.standard_normal((6, 9)).astype(np.float32)
    ids, distances = exact(base, queries, metric, 12)
    for number, query in enumerate(queries):
        wanted = brute(base, query, metric)
        order = np.argsort(wanted)[:12]
        assert ids[number].tolist() == order.tolist()
        assert np.allclose(distances[number], wanted[order], rtol=1e-9)


@pytest.mark.parametrize("metric", METRICS)
def test_fewer_vectors_than_k_leave_padding(metric: str) -> None:
    base = np.eye(3, dtype=np.float32)
    ids, distances = exact(base, base[:1], metric, 5)
    assert (ids[0, 3:] == -1).all() and np.isinf(distances[0, 3:]).all()
    assert set(ids[0, :3].tolist()) == {0, 1, 2}


@given(
    values=st.lists(st.integers(-3, 3), min_size=12, max_size=60),
    k=st.integers(1, 6),
    metric=st.sampled_from(("ip", "l2")),
    chosen=st.lists(st.integers(-2, 40), min_size=1, max_size=8),
)
def test_recall_is_what_a_count_by_hand_says_ties_included(
    values: list[int], k: int, metric: str, chosen: list[int]
) -> None:
    base = np.array(values[: len(values) // 3 * 3], np.float32).reshape(-1, 3)
    queries = np.array([[1, 2, -1]], np.float32)
    _, distances = exact(base, queries, metric, len(base))
    given_ids = np.array([chosen])
    by_hand = brute(base, queries[0], metric)
    due = min(k, len(base))
    kth = np.sort(by_hand)[due - 1]
    answered = {number for number in chosen[:k] if 0 <= number < len(base)}
    hits = min(due, sum(bool(by_hand[number] <= kth + 1e-6 * abs(kth)) for number in answered))
    assert recall(given_ids, base, queries, metric, distances, k) == pytest.approx(hits / due)


def test_any_of_equally_distant_vectors_is_as_good_as_another() -> None:
    base = np.repeat(np.eye(4, dtype=np.float32), 5, axis=0)
    queries = np.array([[1, 0, 0, 0]], np.float32)
    _, distances = exact(base, queries, "cosine", 10)
    assert recall(np.array([[4, 3, 2]]), base, queries, "cosine", distances, 3) == 1
    assert recall(np.array([[4, 4, 4]]), base, queries, "cosine", distances, 3) == 1 / 3
    assert recall(np.array([[4, 3, 19]]), base, queries, "cosine", distances, 3) == 2 / 3


def test_a_vector_that_is_clearly_farther_is_no_tie() -> None:
    base = np.array([[0.0], [1.0], [1.001]], np.float32)
    queries = np.zeros((1, 1), np.float32)
    _, distances = exact(base, queries, "l2", 3)
    assert recall(np.array([[0, 2]]), base, queries, "l2", distances, 2) == 0.5


def test_the_cosine_of_vectors_of_any_length_is_their_angle() -> None:
    base = np.array([[3, 0], [0.001, 0.001], [0, -7]], np.float32)
    found = distances_to(base, np.array([5, 0], np.float32), "cosine")
    assert np.allclose(found, [0, 1 - 0.5**0.5, 1])


def test_kept_truth_is_read_again_and_a_damaged_file_is_made_anew(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "truth" / "a.npz"
    made: list[int] = []

    def make() -> tuple[np.ndarray, np.ndarray]:
        made.append(1)
        return np.arange(6).reshape(2, 3), np.ones((2, 3))

    for _ in range(2):
        ids, _ = truth.kept(path, make, (2, 3))
        assert ids.tolist() == [[0, 1, 2], [3, 4, 5]]
    assert len(made) == 1
    path.write_bytes(path.read_bytes()[:40])
    truth.kept(path, make, (2, 3))
    assert len(made) == 2
    assert "damaged" in capsys.readouterr().out
    truth.kept(path, make, (2, 3))
    assert len(made) == 2
