"""Confidence: it ascends with the margin, is the same however candidates come, and adds nothing."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from memdb.query import fusion
from memdb.query.pipeline import Candidates
from memdb.query.stages import confidence

TOTALS = st.lists(st.floats(-6, 12), min_size=1, max_size=40)


def candidates(parts: list[float]) -> Candidates:
    made = Candidates(np.arange(len(parts), dtype=np.uint32), -3.0)
    made.parts["lexical"] = np.array(parts)
    return made


@given(TOTALS)
def test_the_margin_is_what_sorting_says(parts: list[float]) -> None:
    best_first = sorted(parts, reverse=True)
    found = confidence.margin(candidates(parts), "hybrid")
    behind = best_first[9] if len(parts) > 9 else fusion.unrelated("hybrid")
    assert found == pytest.approx(best_first[0] - behind, abs=1e-9)


@given(TOTALS, st.floats(0, 5))
def test_confidence_ascends_with_how_far_the_best_stands_out(
    parts: list[float], more: float
) -> None:
    best = int(np.argmax(parts))
    farther = [part + more * (place == best) for place, part in enumerate(parts)]
    for legs in confidence.FITTED:
        lower, higher = (
            confidence.estimate(confidence.margin(candidates(some), legs), legs)
            for some in (parts, farther)
        )
        assert 0 <= lower <= higher <= 1


def test_nothing_found_has_the_least_margin_and_silent_parts_do_not_count() -> None:
    assert confidence.margin(candidates([]), "hybrid") == 0.0
    silent = Candidates(np.arange(12, dtype=np.uint32), 0.0, frozenset({"lexical"}))
    silent.parts["lexical"] = np.arange(12.0)
    assert confidence.margin(silent, "hybrid") == 0.0


def test_what_has_nothing_to_do_with_a_question_gets_what_the_legs_give_it() -> None:
    usual = fusion.Background(0.2, 0.1, 256)
    for legs in ("lexical", "hybrid"):
        words = fusion.lexical_part(np.array([np.nan], np.float32), [2.0, 5.0], legs)
        meaning = fusion.vector_part(np.array([0.2], np.float32), usual, legs)
        both = words + (meaning if legs == "hybrid" else 0.0)
        assert fusion.unrelated(legs) == pytest.approx(float(both[0]), abs=1e-6)
    assert math.isclose(
        confidence.estimate(-1e-9, "hybrid"), 1 / (1 + math.exp(1.03)), rel_tol=1e-6
    )
