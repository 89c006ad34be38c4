"""Near duplicates: what says the same is stored once, what is merely alike is kept and linked."""

from __future__ import annotations

from pathlib import Path

import pytest

import memdb
from memdb.near import said
from tests.memdb.clock import unit


def test_what_says_the_same_words_is_a_duplicate_and_what_is_alike_is_linked(
    tmp_path: Path,
) -> None:
    with memdb.open(tmp_path / "db") as db:
        first = db.remember("Ana is allergic to peanuts and to shellfish", dedup="near")
        again = db.remember("ana is allergic to peanuts, and to shellfish!", dedup="near")
        assert (first.status, again.status, again.id) == ("inserted", "duplicate", first.id)
        opposite = db.remember("Ana is not allergic to peanuts and to shellfish", dedup="near")
        assert opposite.status == "linked"
        assert db[opposite.id].links == (first.id,)
        other = db.remember("The boiler was serviced by Mr. Weber", dedup="near")
        assert (other.status, other.memory.links) == ("inserted", ())
        assert db.count() == 3
        db.forget(first.id)
        anew = db.remember("Ana is allergic to peanuts and to shellfish", dedup="near")
        assert anew.status == "linked" and anew.memory.links == (opposite.id,)


@pytest.mark.parametrize(
    "changed",
    [
        {"event_time": "2024-06-02"},
        {"tags": ["food"]},
        {"stream": "chat"},
        {"kind": "event"},
        {"metadata": {"cost": 12}},
    ],
)
def test_the_same_words_in_other_circumstances_are_another_memory(
    tmp_path: Path, changed: dict[str, object]
) -> None:
    with memdb.open(tmp_path / "db") as db:
        db.remember("took the pills in the morning", event_time="2024-06-01", dedup="near")
        fields = {"event_time": "2024-06-01", **changed}
        assert (
            db.remember("Took the pills in the morning", dedup="near", **fields).status == "linked"
        )
        elsewhere = db.remember("Took the pills in the morning", dedup="near", namespace="ben")
        assert elsewhere.status == "inserted"


def test_a_batch_is_looked_at_with_itself(tmp_path: Path) -> None:
    texts = [
        "We paid 140 euros to the plumber for the leaking kitchen sink",
        "we paid 140 euros to the plumber for the leaking kitchen sink.",
        "We paid 410 euros to the plumber for the leaking kitchen sink",
        "Something else entirely happened in the garden",
    ]
    with memdb.open(tmp_path / "db") as db:
        written = db.remember_many(texts, dedup="near")
        assert [one.status for one in written] == ["inserted", "duplicate", "linked", "inserted"]
        assert written[1].id == written[0].id == written[2].memory.links[0]
        assert db.count() == 3
        assert db.check()["ok"]


def test_without_a_vector_or_an_angle_only_the_same_is_found(tmp_path: Path) -> None:
    with memdb.open(tmp_path / "db", embedder="none") as db:
        db.remember("a note", dedup="near")
        assert db.remember("a note", dedup="near").status == "duplicate"
        assert db.remember("A note", dedup="near").status == "inserted"
        db.spaces.create("far", dim=8, metric="l2")
        db.spaces.create("angle", dim=8)
        for space, status in (("far", "inserted"), ("angle", "linked")):
            db.remember("x", vector=unit(1, 0), space=space, dedup="near")
            near = db.remember("y", vector=unit(1, 0.1), space=space, dedup="near")
            assert near.status == status


def test_links_are_exported_and_a_later_version_keeps_its_own(tmp_path: Path) -> None:
    with memdb.open(tmp_path / "db") as db:
        first = db.remember("the key is under the big stone")
        second = db.remember("the key is under the big stones", dedup="near")
        assert second.status == "linked"
        db.export(tmp_path / "all.jsonl")
        assert db.update(second.id, tags=["home"]).memory.links == (first.id,)
    with memdb.open(tmp_path / "copy") as copy:
        copy.import_(tmp_path / "all.jsonl")
        assert copy[second.id].links == (first.id,)


def test_words_numbers_and_telling_signs_are_what_is_said() -> None:
    assert said("He paid 12.50 €, twice!") == said("he paid 12.50 € twice")
    different = ["-5 degrees", "5 degrees", "5% degrees", "is it 5 degrees?", "1.5 degrees"]
    assert len({tuple(said(text)) for text in different}) == len(different)
