"""Surprise: what a match is worth must follow what is known of chance, and nothing else."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from memdb.query import fusion

WEIGHTS = st.lists(st.floats(0.05, 9), min_size=1, max_size=12)


def lexical(bm25: list[float], idfs: list[float]) -> NDArray[np.float64]:
    slope = fusion.CALIBRATION["hybrid"][1]
    return fusion.lexical_part(np.array(bm25, np.float32), idfs, "hybrid") / slope


def vector(similarities: list[float], among: fusion.Background) -> NDArray[np.float64]:
    scale = fusion.CALIBRATION["hybrid"][1] * fusion.VECTOR_WEIGHT
    return fusion.vector_part(np.array(similarities, np.float32), among, "hybrid") / scale


@given(WEIGHTS, st.floats(0, 40), st.floats(0, 40))
def test_words_never_speak_against_and_more_of_them_never_say_less(
    idfs: list[float], one: float, other: float
) -> None:
    low, high = lexical([min(one, other), max(one, other)], idfs)
    assert 0 <= low <= high + 1e-9
    assert low <= min(one, other) + 1e-4  # the bound: no more than its words weigh


@given(WEIGHTS, st.integers(0, 2**32 - 1))
def test_the_surprise_of_words_bounds_how_often_chance_does_as_well(
    idfs: list[float], seed: int
) -> None:
    """Draw unrelated memories as the model says: none is above the bound more often than that."""
    weights = np.array(idfs)
    drawn = np.random.default_rng(seed).random((4000, len(weights))) < np.exp(-weights)
    sums = drawn @ weights
    expected = np.log1p(np.exp(-weights) * np.expm1(0.25 * weights)).sum()
    for level in np.unique(np.round(sums, 6))[-3:]:
        seen = float((sums >= level - 1e-6).mean())
        bound = math.exp(expected - float(lexical([float(level)], idfs)[0]))
        assert seen <= bound + 5 * math.sqrt(bound / 4000) + 5 / 4000


def test_a_long_questions_chance_matches_weigh_less_than_a_short_ones() -> None:
    assert lexical([4.0], [2.0] * 12)[0] < 0.6 * lexical([4.0], [2.0] * 2)[0]


def test_what_the_words_do_not_know_adds_nothing() -> None:
    assert lexical([math.nan, 0.0], [3.0]).tolist() == [0.0, 0.0]
    assert lexical([1.0], []).tolist() == [1.0]  # no word is expected: all of it surprises


@pytest.mark.parametrize("z", [0.0, 0.5, 1.0, 2.0, 4.0, 7.0])
def test_the_surprise_of_a_similarity_is_that_of_the_normal_tail(z: float) -> None:
    among = fusion.Background(0.2, 0.1, 10**9)
    exact = -math.log(0.5 * math.erfc(z / math.sqrt(2)))
    assert vector([0.2 + 0.1 * z], among)[0] == pytest.approx(exact, rel=0.05)


@given(st.lists(st.floats(-1, 1, width=32), min_size=2, max_size=30, unique=True))
def test_similarities_keep_their_order_in_any_background(similarities: list[float]) -> None:
    among = fusion.background(np.array(similarities, np.float32))
    parts = vector(similarities, among)
    order = np.argsort(similarities, kind="stable")
    assert (np.diff(parts[order]) >= 0).all()


def test_a_model_that_stretches_its_similarities_changes_nothing() -> None:
    values = np.random.default_rng(1).normal(size=200)
    narrow, wide = values * 0.02 + 0.7, values * 0.2
    for scaled in (narrow, wide):
        among = fusion.background(scaled.astype(np.float32))
        assert vector(list(scaled), among) == pytest.approx(
            vector(list(values), fusion.background(values.astype(np.float32))), abs=1e-3
        )


def test_a_few_memories_cannot_make_one_of_them_surprising() -> None:
    few, many = fusion.Background(0.2, 0.1, 5), fusion.Background(0.2, 0.1, 256)
    assert vector([0.5], few)[0] < 0.7 * vector([0.5], many)[0]
    assert vector([0.5], fusion.Background(0.5, 0.0, 1)).tolist() == [0.0]


def test_a_memory_without_a_vector_gets_nothing_for_it() -> None:
    assert vector([math.nan], fusion.Background(0.2, 0.1, 50)).tolist() == [0.0]


def test_more_memories_make_the_same_match_less_likely_to_mean_something() -> None:
    assert fusion.base("hybrid", 10) > fusion.base("hybrid", 10_000)
    assert fusion.base("hybrid", 0) == fusion.base("hybrid", 1)
