"""The pipeline: what stages may rely on, and that every part of a score is accounted for."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from memdb.query.pipeline import BASE, Candidates, Parts, Pipeline, Rows, Stage, score_of, union


class Fixed(Stage):
    """Proposes rows and adds a known amount to each."""

    wide: ClassVar[bool] = True

    def __init__(self, amounts: dict[int, float]) -> None:
        self._amounts = amounts

    def expects(self) -> int | None:
        return 2 * len(self._amounts)

    def find(self, limit: int) -> Rows:
        return np.array(list(self._amounts), np.uint32)

    def weigh(self, candidates: Candidates) -> Parts | None:
        candidates.measures[self.name] = np.ones(len(candidates), np.float32)
        return np.array([self._amounts.get(int(row), 0.0) for row in candidates.rows])

    def say(self, candidates: Candidates, place: int) -> str:
        return f"row {candidates.rows[place]}"

    def report(self) -> dict[str, Any]:
        return {"known": len(self._amounts)}


class First(Fixed):
    name: ClassVar[str] = "first"
    needed: ClassVar[bool] = True


class Second(Fixed):
    name: ClassVar[str] = "second"


class Far(Stage):
    """Looks at the shortlist only, and says how long it was."""

    name: ClassVar[str] = "far"
    seen = 0

    def weigh(self, candidates: Candidates) -> Parts | None:
        self.seen = len(candidates)
        return candidates.rows / 64

    def report(self) -> dict[str, Any]:
        return {"seen": self.seen}


def stages() -> list[Stage]:
    return [First({3: 1.0, 1: 0.25, 9: 0.5}), Second({1: 1.0, 7: 0.125}), Far()]


def rank(switched: dict[str, bool], shortlist: int = 10) -> tuple[Candidates, Pipeline]:
    pipeline = Pipeline(stages(), switched, explain=True)
    return pipeline.rank(pipeline.find(10), -2.0, shortlist), pipeline


def test_candidates_are_the_union_best_first_and_ties_by_row() -> None:
    ranked, _ = rank({"far": False})
    assert ranked.rows.tolist() == [1, 3, 9, 7]
    assert list(ranked.parts) == [BASE, "first", "second"]
    assert (ranked.total() == sum(ranked.parts.values())).all()
    assert score_of(ranked.total())[1] == 1 / (1 + np.exp(1.0))


def test_a_stage_switched_off_takes_away_what_it_claimed_and_nothing_else() -> None:
    whole, _ = rank({})
    for name in ("first", "second", "far"):
        without, pipeline = rank({name: False})
        assert name not in without.counted()
        assert pipeline.log()[name]["on"] is False
        for row, total in zip(without.rows, without.total(), strict=True):
            place = whole.rows.tolist().index(row)
            assert total == whole.total()[place] - whole.parts[name][place]
    assert 7 not in rank({"second": False})[0].rows  # it alone proposed it
    assert 3 in rank({"first": False})[0].rows  # others need it: it still proposes
    assert "first" in rank({"first": False})[0].measures


def test_stages_that_look_far_see_the_shortlist_only() -> None:
    ranked, pipeline = rank({}, shortlist=2)
    assert ranked.rows.tolist() == [1, 3]
    assert ranked.parts["far"].tolist() == [1 / 64, 3 / 64]
    assert pipeline.log()["far"]["seen"] == 2


def test_the_log_says_what_each_stage_did_and_in_words() -> None:
    ranked, pipeline = rank({})
    log = pipeline.log()
    assert log["first"]["estimated"] == 6
    assert log["first"]["found"] == 3
    assert log["first"]["known"] == 3
    assert log["far"]["ms"] >= 0
    assert pipeline.said(ranked, 0) == {"first": "row 1", "second": "row 1"}


def test_a_question_that_no_stage_knows_rows_for_ranks_nothing() -> None:
    pipeline = Pipeline([Far()], {}, explain=False)
    assert len(pipeline.rank(pipeline.find(10), 0.0, 10)) == 0


@given(st.lists(st.lists(st.integers(0, 9), min_size=1, max_size=6), max_size=4))
def test_a_union_has_each_row_once_ascending(parts: list[list[int]]) -> None:
    found = union([np.array(part, np.uint32) for part in parts])
    assert found.dtype == np.uint32
    assert found.tolist() == sorted({row for part in parts for row in part})
