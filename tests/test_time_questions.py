"""Questions about time, made from records with computed truth: the right memory is the first."""

from __future__ import annotations

from collections import Counter

import pytest

from bench.time import TARGET, answers
from bench.time_worlds import worlds


@pytest.mark.parametrize(("embedder", "number"), [("none", 2), ("static", 3)])
def test_the_right_memory_is_first_in_nineteen_of_twenty(embedder: str, number: int) -> None:
    given = answers(worlds(number + 1)[number], embedder)
    wrong = [(one.asked.query, one.text) for one in given if not one.right]
    assert len(given) > 60
    assert len(wrong) <= (1 - TARGET) * len(given), wrong


def test_what_was_superseded_is_never_first_and_as_of_gets_it() -> None:
    given = answers(worlds(1)[0], "none")
    facts = [one for one in given if one.asked.kind in ("superseded", "as_of")]
    assert len(facts) == 30
    assert [one.asked.query for one in facts if not one.right] == []


def test_the_questions_cover_what_they_promise() -> None:
    asked = [one for world in worlds(4) for one in world.asked]
    kinds = Counter(one.kind for one in asked)
    assert len(asked) >= 200
    assert set(kinds) == {"relative", "order", "event", "superseded", "as_of", "zone"}
    assert min(kinds.values()) >= 12
    assert worlds(1)[0] == worlds(1)[0]
    rights = [one.right for one in worlds(1)[0].asked]
    known = {record["external_id"] for record in worlds(1)[0].records}
    assert set(rights) <= known
