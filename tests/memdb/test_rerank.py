"""The stages that are off unless asked for: re-ranking by a cross-encoder, and the prior."""

from __future__ import annotations

import math
import sys
from datetime import timedelta

import numpy as np
import pytest

import memdb
from memdb.query.stages import prior, rerank
from tests.memdb.clock import Clock


class Longest:
    """Prefers long texts, as log-odds."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []

    def predict(self, pairs: list[tuple[str, str]]) -> list[float]:
        self.asked += pairs
        return [len(text) / 2 for _, text in pairs]


def accounts(hits: memdb.Hits) -> None:
    """The score is the logistic of the sum of the parts that are told."""
    for hit in hits:
        assert hit.score == pytest.approx(1 / (1 + math.exp(-sum(hit.why.stages.values()))))


def test_what_the_model_says_is_added_and_decides_among_the_best(db: memdb.Database) -> None:
    for count in range(1, 60):
        db.remember("tea " * count + f"number{count}")
    model = Longest()
    plain = db.recall("tea", k=50)
    hits = db.recall("tea", k=50, rerank=model, explain=True)
    assert len(model.asked) == rerank.READ == hits.plan["stages"]["rerank"]["read"]
    assert {question for question, _ in model.asked} == {"tea"}
    accounts(hits)
    read = [hit for hit in hits if "re-ranking" in hit.why.words.get("rerank", "")]
    assert hits.items[: rerank.READ] == tuple(read)  # who was not read comes behind
    assert {hit.id for hit in read} == {hit.id for hit in plain[: rerank.READ]}
    for hit in read:
        assert hit.why.stages["rerank"] == pytest.approx(len(hit.text or "") / 2)
    least = min(hit.why.stages["rerank"] for hit in read)
    assert all(hit.why.stages["rerank"] == least for hit in hits[rerank.READ :])
    assert [hit.id for hit in hits[rerank.READ :]] == [
        one.id for one in plain if one.id in {hit.id for hit in hits[rerank.READ :]}
    ]
    off = db.recall("tea", k=50, rerank=model, stages={"rerank": False})
    assert [(hit.id, hit.score) for hit in off] == [(hit.id, hit.score) for hit in plain]
    assert "rerank" not in plain[0].why.stages


def test_what_has_no_text_is_not_read(db: memdb.Database) -> None:
    db.remember(data={"tea": 1}, tags=["tea"])
    assert len(db.recall("tea", rerank=Longest())) == 1
    assert len(db.recall("coffee", rerank=Longest())) == 0


@pytest.mark.parametrize("wrong", ["nothing", "st:", 7, "openai:http://x/v1#m", object()])
def test_what_is_no_model_is_refused(db: memdb.Database, wrong: object) -> None:
    with pytest.raises(memdb.InvalidArgument, match="rerank"):
        db.recall("tea", rerank=wrong)


def test_a_model_that_fails_is_a_typed_error(db: memdb.Database) -> None:
    class Wrong:
        def __init__(self, answer: object) -> None:
            self.answer = answer

        def predict(self, pairs: list[tuple[str, str]]) -> object:
            if isinstance(self.answer, Exception):
                raise self.answer
            return self.answer

    db.remember("tea with Ana")
    for answer in (OSError("gone"), [1.0, 2.0], [[1.0, 2.0]], [math.nan], "x"):
        with pytest.raises(memdb.EmbedderUnavailable, match="re-ranking"):
            db.recall("tea", rerank=Wrong(answer))
    with pytest.raises(memdb.EmbedderUnavailable):
        db.recall("tea", rerank="st:/nowhere/at/all")


def test_the_extra_that_is_missing_is_named(
    db: memdb.Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(memdb.MissingDependency) as refused:
        db.recall("tea", rerank="st:anything")
    assert refused.value.extra == "text"


def test_the_plan_says_which_way_each_leg_goes_and_how_many_it_found(
    db: memdb.Database,
) -> None:
    """``estimated`` is said before, and bounds what is found."""
    rng = np.random.default_rng(1)
    db.remember_many(
        [
            {"text": f"tea {'ana' if n % 4 else 'theo'} number{n}", "tags": [str(n % 50)],
             "vector": rng.standard_normal(8)}
            for n in range(400)
        ]
    )  # fmt: skip
    vector = rng.standard_normal(8)
    for query, where, way, held in (
        ("theo", None, "postings", 100),
        ("tea theo", None, "allowed rows", 400),
        ("theo", {"tags": "4"}, "allowed rows", 4),
        ("number7", {"tags": "7"}, "postings", 1),
        ("nothing", None, "postings", 0),
    ):
        hits = db.recall(query, k=500, where=where, vector=vector, explain=True)
        words, meaning = hits.plan["stages"]["lexical"], hits.plan["stages"]["vector"]
        assert words["way"] == way
        assert words["found"] == held <= words["estimated"]
        assert words["postings"] >= held
        allowed = 400 if where is None else 8
        assert meaning["found"] == meaning["estimated"] == allowed == len(hits)
        assert (meaning["way"], meaning["fresh"]) == ("fresh", allowed)


# --- the prior -----------------------------------------------------------------------------


def test_the_prior_is_off_unless_asked_for(db: memdb.Database) -> None:
    db.remember("tea with Ana", importance=1.0)
    hits = db.recall("tea", explain=True)
    assert "prior" not in hits[0].why.stages
    assert hits.plan["stages"]["prior"]["on"] is False


def test_what_is_recent_and_important_comes_first_where_it_is_asked_for(
    db: memdb.Database, clock: Clock
) -> None:
    now = clock.now()
    for name, days, importance in (
        ("old", 365, None),
        ("month", prior.HALF_LIFE_DAYS, None),
        ("new", 0, None),
        ("weighty", 365, 1.0),
        ("coming", -30, None),
    ):
        db.remember(
            "tea",
            event_time=now - timedelta(days=days),
            importance=importance,
            external_id=name,
        )
    hits = db.recall("tea", stages={"prior": True}, explain=True, time="off")
    accounts(hits)
    parts = {hit.memory.external_id: hit.why.stages["prior"] for hit in hits}
    assert parts["new"] == pytest.approx(prior.RECENT)
    assert parts["month"] == pytest.approx(prior.RECENT / 2)
    assert parts["coming"] == 0
    assert parts["weighty"] == pytest.approx(prior.IMPORTANT + parts["old"])
    assert parts["old"] == pytest.approx(0, abs=1e-3)
    words = {hit.memory.external_id: hit.why.words.get("prior") for hit in hits}
    assert words["weighty"] == "is 365 days old and has importance 1"
    order = [hit.memory.external_id for hit in hits]
    assert order.index("new") < order.index("month") < order.index("old")
    assert np.allclose(
        sorted(parts.values()), sorted(parts[hit.memory.external_id] for hit in hits)
    )
    past = db.recall("tea", stages={"prior": True}, as_of=now - timedelta(days=365), time="off")
    of_then = {hit.memory.external_id: hit.why.stages["prior"] for hit in past}
    assert of_then["old"] == pytest.approx(prior.RECENT) and of_then["new"] == 0
