"""Ranking through ``recall``: neighbours in a stream, and scores that add up to the last digit."""

from __future__ import annotations

import math
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

import memdb
from memdb.errors import InvalidArgument
from memdb.query.stages import NAMES
from memdb.query.stages.confidence import FITTED

NOON = datetime(2024, 5, 17, 12, tzinfo=UTC)
SAID = [
    "Has anybody seen the spare key of the cabin?",
    "Grace hung it behind the blue door.",
    "Lovely weather, by the way.",
    "The ferry was late again.",
    "We should paint the fence in June.",
    "My sister moved to Lyon.",
    "The soup needs more salt.",
    "He runs ten miles a day.",
]
QUESTION = "where is the spare key of the cabin?"


@pytest.fixture
def chat(tmp_path: Path) -> Iterator[memdb.Database]:
    with memdb.open(tmp_path / "db") as db:
        db.remember_many(
            [
                {
                    "text": text,
                    "stream": "chat/family",
                    "position": place,
                    "event_time": NOON + timedelta(minutes=place),
                    "external_id": str(place),
                }
                for place, text in enumerate(SAID)
            ]
        )
        yield db


def ids(hits: memdb.Hits) -> list[str | None]:
    return [hit.memory.external_id for hit in hits]


def test_the_answer_to_a_question_in_a_chat_is_found_by_what_was_asked(
    chat: memdb.Database,
) -> None:
    hits = chat.recall(QUESTION, k=2, explain=True)
    assert ids(hits) == ["0", "1"]
    assert hits[1].why.stages["neighbours"] > 0
    assert "before and after" in hits[1].why.words["neighbours"]
    assert ids(chat.recall(QUESTION, k=1, where={"external_id": "1"})) == ["1"]


def test_neighbours_are_of_one_stream_close_in_time_and_visible(chat: memdb.Database) -> None:
    key = {"text": "Grace hung it behind the red door.", "position": 1}
    chat.remember(**key, stream="chat/work", external_id="other stream")
    chat.remember("The spare key of the cabin?", stream="chat/old", position=0, event_time=NOON)
    chat.remember(
        **key, stream="chat/old", event_time=NOON + timedelta(hours=2), external_id="late"
    )
    parts = {
        hit.memory.external_id: hit.why.stages.get("neighbours", 0.0)
        for hit in chat.recall(QUESTION, k=20)
    }
    assert parts["1"] > 0
    assert parts["other stream"] == parts["late"] == 0
    alone = chat.recall(QUESTION, k=20, where={"external_id": {"$in": ["1", "3", "5"]}})
    assert all(hit.why.stages.get("neighbours", 0.0) == 0 for hit in alone)


def test_one_leg_alone_is_ordered_by_that_leg(chat: memdb.Database) -> None:
    by_vector = chat.recall(QUESTION, k=8, mode="vector")
    cosines = [hit.why.cosine or 0.0 for hit in by_vector]
    assert cosines == sorted(cosines, reverse=True)
    by_words = chat.recall(QUESTION, k=8, mode="lexical")
    bm25 = [hit.why.bm25 or 0.0 for hit in by_words]
    assert bm25 == sorted(bm25, reverse=True)
    assert all("neighbours" not in hit.why.stages for hit in (*by_vector, *by_words))


def test_what_says_the_same_as_a_better_hit_steps_back(tmp_path: Path) -> None:
    with memdb.open(tmp_path / "db", embedder="none") as db:
        key = "The spare key hangs behind the door"
        first = db.remember(key, event_time=NOON, source="app:mail").id
        copy = db.remember(f"  {key.upper()} ", event_time=NOON, source="app:chat").id
        other_day = db.remember(key, event_time=NOON + timedelta(days=30)).id
        weaker = db.remember("The spare room is painted blue", event_time=NOON).id
        hits = db.recall("spare key", explain=True)
        assert [hit.id for hit in hits] == [first, other_day, weaker, copy]
        assert first in hits[3].why.words["duplicates"]
        without = db.recall("spare key", stages={"duplicates": False})
        assert {hit.id for hit in without[:3]} == {first, copy, other_day}


def test_a_score_is_the_logistic_of_the_sum_of_its_parts(chat: memdb.Database) -> None:
    for mode in ("hybrid", "lexical", "vector"):
        for hit in chat.recall(QUESTION, k=8, mode=mode):  # type: ignore[arg-type]
            total = sum(hit.why.stages.values())
            assert hit.score == pytest.approx(1 / (1 + math.exp(-total)), rel=1e-12)


def test_a_stage_switched_off_takes_the_part_it_claimed(chat: memdb.Database) -> None:
    whole = {hit.id: hit for hit in chat.recall(QUESTION, k=8)}
    for name in NAMES:
        without = chat.recall(QUESTION, k=8, stages={name: False})
        assert len(without) == len(whole)
        for hit in without:
            assert name not in hit.why.stages
            kept = {key: part for key, part in whole[hit.id].why.stages.items() if key != name}
            assert hit.why.stages == kept


def test_explain_says_what_each_stage_did(chat: memdb.Database) -> None:
    plan = chat.recall(QUESTION, explain=True, stages={"neighbours": False}).plan
    assert plan["stages"]["neighbours"]["on"] is False
    words = plan["stages"]["lexical"]
    assert 1 <= words["found"] <= words["estimated"] <= 8
    assert plan["stages"]["vector"]["sample"] == plan["stages"]["vector"]["found"] == 8
    assert chat.recall(QUESTION).plan == {}


@pytest.mark.parametrize("stages", [{"nothing": True}, {"lexical": 1}])
def test_an_unknown_stage_or_switch_is_refused(chat: memdb.Database, stages: dict) -> None:
    with pytest.raises(InvalidArgument, match=r"stage") as caught:
        chat.recall("key", stages=stages)
    assert caught.value.field == "stages"


def test_confidence_is_the_logistic_of_the_margin_that_explain_tells(chat: memdb.Database) -> None:
    for mode in ("hybrid", "lexical"):
        hits = chat.recall(QUESTION, mode=mode, explain=True)  # type: ignore[arg-type]
        told = hits.plan["stages"]["confidence"]
        bias, slope = FITTED[mode]
        assert hits.confidence == told["confidence"]
        assert hits.confidence == pytest.approx(1 / (1 + math.exp(-bias - slope * told["margin"])))
    assert chat.recall(QUESTION, mode="vector").confidence is None
    assert chat.recall(QUESTION, stages={"confidence": False}).confidence is None


def test_confidence_changes_neither_order_nor_scores_and_not_with_k(chat: memdb.Database) -> None:
    hits, plain = (
        chat.recall(QUESTION, k=8),
        chat.recall(QUESTION, k=8, stages={"confidence": False}),
    )
    assert [(hit.id, hit.score) for hit in hits] == [(hit.id, hit.score) for hit in plain]
    assert chat.recall(QUESTION, k=1).confidence == hits.confidence


def test_below_min_confidence_nothing_is_returned(chat: memdb.Database) -> None:
    sure = chat.recall(QUESTION).confidence
    unsure = chat.recall("how many goats has the mayor of Lima?").confidence
    assert sure is not None and unsure is not None and unsure < sure
    assert len(chat.recall(QUESTION, k=3, min_confidence=sure)) == 3
    nothing = chat.recall(QUESTION, min_confidence=min(1.0, sure + 1e-6))
    assert len(nothing) == 0
    assert nothing.confidence == sure
    assert len(chat.recall("how many goats has the mayor of Lima?", min_confidence=sure)) == 0


def test_a_fact_that_is_named_is_answered_with_confidence(chat: memdb.Database) -> None:
    chat.profile.set("address", "12 Elm St")
    hits = chat.recall("where do I live?", k=1)
    assert hits[0].memory.key == "address"
    assert (hits.confidence or 0) > 0.95


@pytest.mark.parametrize("asked", [{"mode": "vector"}, {"query": None, "vector": [0.0] * 256}])
def test_nearness_of_vectors_alone_has_no_confidence(chat: memdb.Database, asked: dict) -> None:
    with pytest.raises(InvalidArgument) as caught:
        chat.recall(**{"query": "key", "min_confidence": 0.4, **asked})
    assert caught.value.field == "min_confidence"
