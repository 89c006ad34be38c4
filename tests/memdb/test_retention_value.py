"""The formulas of a memory's value, against plain definitions of the same."""

from __future__ import annotations

import math
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from memdb.retention import value

DAY = value.DAY_US


@given(st.lists(st.sets(st.integers(0, 12), max_size=8), min_size=1, max_size=20))
def test_information_is_the_sum_of_the_idf_of_distinct_terms(texts: list[set[int]]) -> None:
    flat = [term for text in texts for term in sorted(text)]
    offsets = np.cumsum([0, *(len(text) for text in texts)])
    counted = Counter(flat)
    n = len(texts)
    wanted = [
        sum(math.log(1 + (n - counted[t] + 0.5) / (counted[t] + 0.5)) for t in text)
        for text in texts
    ]
    assert np.allclose(value.information(np.array(flat, np.int64), offsets), wanted)


@given(st.lists(st.tuples(st.integers(0, 5), st.sampled_from("ab")), min_size=1, max_size=30))
def test_a_quantile_is_the_share_of_its_group_that_lies_below(pairs: list[tuple[int, str]]) -> None:
    numbers, groups = [n for n, _ in pairs], [g for _, g in pairs]
    found = value.quantiles(numbers, groups)
    for place, (number, group) in enumerate(pairs):
        mates = [n for n, g in pairs if g == group]
        below = sum(n < number for n in mates) + sum(n == number for n in mates) / 2
        assert found[place] == pytest.approx(below / len(mates))


def test_novelty_is_one_minus_the_greatest_cosine_to_an_earlier_vector() -> None:
    rng = np.random.default_rng(3)
    vectors = rng.standard_normal((700, 8)).astype(np.float32)
    vectors[650] = 3 * vectors[10]  # the same direction again
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    found = value.novelty(vectors)
    assert found[0] == 1.0
    assert found[650] == pytest.approx(0.0, abs=1e-5)
    for place in (1, 2, 511, 512, 513, 699):
        wanted = 1 - max(float(unit[place] @ unit[other]) for other in range(place))
        assert found[place] == pytest.approx(min(1.0, max(0.0, wanted)), abs=1e-5)


def test_importance_replaces_the_weight() -> None:
    said = np.array([np.nan, 0.0, 1.0])
    found = value.weight([1.0, 1.0, 0.0], [1.0, 1.0, 0.0], [10, 10, 0], said)
    assert found.tolist() == pytest.approx([1.0, 0.0, 1.0])
    assert value.weight([0.0], [0.0], [0]).tolist() == pytest.approx([0.2])


@pytest.mark.parametrize("curve", value.CURVES)
def test_retention_falls_from_one_to_its_floor(curve: value.Curve) -> None:
    found = value.retention([0, 1, 10, 30, 90, 1e7], 30.0, curve=curve)
    assert found[0] == pytest.approx(1.0)
    assert all(earlier >= later for earlier, later in pairwise(found))
    assert value.FLOOR <= found[-1] < value.FLOOR + 0.02
    assert value.retention(1e6, math.inf, curve=curve) == pytest.approx(1.0)
    assert value.retention(-5, 30.0, curve=curve) == pytest.approx(1.0)


def test_each_curve_is_the_published_one() -> None:
    kept = 0.7
    assert value.retention(30, 30.0) == pytest.approx(0.3 + kept * math.exp(-1))
    assert value.retention(30, 30.0, curve="fsrs", floor=0.0) == pytest.approx(0.9)
    assert value.retention(30, 30.0, curve="actr", floor=0.0) == pytest.approx(0.5)
    assert value.retention(30, 30.0, curve="actr", uses=3) > value.retention(30, 30.0, curve="actr")


def test_a_use_strengthens_most_what_was_nearly_forgotten_and_not_beyond_the_limit() -> None:
    assert value.reinforced(90, 1.0) == 90
    assert value.reinforced(90, 0.3) == pytest.approx(90 * 2.05)
    assert value.reinforced(3000, 0.3) == value.STRENGTH_MAX_DAYS
    quarter = 15 * 60 * 1_000_000
    assert value.may_reinforce(None, 0)
    assert value.may_reinforce(0, quarter)
    assert not value.may_reinforce(0, quarter - 1)


def test_the_class_of_a_memory_is_its_kind_unless_the_writer_says_another() -> None:
    assert value.class_of("event", None) == "event"
    assert value.class_of("event", "chat") == "stream"
    assert value.class_of("recipe", None) == "note"
    assert value.class_of("note", None, "profile") == "profile"
    assert value.first_strength("profile") == math.inf
    assert value.first_strength("stream") == 30.0


@given(
    st.lists(st.integers(0, 40), max_size=20),
    st.integers(0, 40 * 24),
    st.integers(0, 40 * 24),
)
def test_a_clock_of_active_days_stands_still_on_the_others(
    days: list[int], start_h: int, end_h: int
) -> None:
    hour = DAY // 24
    clock = value.ActiveDays(day * DAY for day in days)
    active = set(days)
    wanted = sum(h // 24 in active for h in range(start_h, end_h)) / 24
    assert clock.elapsed([start_h * hour], end_h * hour)[0] == pytest.approx(wanted)
