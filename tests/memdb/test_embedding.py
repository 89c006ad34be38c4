"""Whose vectors a database holds: recorded, checked on opening, never mixed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import memdb


class Words:
    """An embedder object: one random direction a word."""

    revision = "1"
    max_tokens = 100

    def __init__(self, name: str, dim: int = 16) -> None:
        self.name = name
        self.dim = dim

    def count_tokens(self, text: str) -> int:
        return len(text.split())

    def embed(self, texts: list[str], role: str = "document") -> np.ndarray:
        vectors = np.zeros((len(texts), self.dim), np.float32)
        for place, text in enumerate(texts):
            for word in text.lower().split():
                vectors[place] += np.random.default_rng(sum(word.encode())).standard_normal(
                    self.dim
                )
        return vectors


def test_the_recorded_embedder_is_used_when_none_is_named(tmp_path: Path) -> None:
    with memdb.open(tmp_path / "db", embedder="none") as db:
        db.remember("tea with Ana")
        assert db.spaces.list() == []
    with memdb.open(tmp_path / "db") as db:
        assert db.recall("tea").degraded is None
        assert db.spaces.list() == []


def test_an_object_must_be_given_again_and_lexical_recall_works_without(tmp_path: Path) -> None:
    with memdb.open(tmp_path / "db", embedder=Words("mine")) as db:
        db.remember("tea with Ana")
        assert db.recall("tea", mode="vector")[0].text == "tea with Ana"
    with memdb.open(tmp_path / "db") as db:
        hits = db.recall("tea")
        assert hits[0].text == "tea with Ana"
        assert "embedder object" in (hits.degraded or "")
        with pytest.raises(memdb.EmbedderUnavailable):
            db.recall("tea", mode="vector")
        with pytest.raises(memdb.EmbedderUnavailable):
            db.remember("coffee with Ana")
        assert db.count() == 1
    with memdb.open(tmp_path / "db", embedder=Words("mine")) as db:
        assert db.recall("tea", mode="vector")[0].text == "tea with Ana"


def test_another_embedder_is_a_mismatch_at_once(tmp_path: Path) -> None:
    with memdb.open(tmp_path / "db", embedder=Words("mine")) as db:
        db.remember("tea with Ana")
        with pytest.raises(memdb.EmbedderMismatch):
            memdb.open(tmp_path / "db", embedder=Words("other"))
    for other in (Words("other"), Words("mine", dim=8), "static"):
        with pytest.raises(memdb.EmbedderMismatch):
            memdb.open(tmp_path / "db", embedder=other)
    with memdb.open(tmp_path / "db", embedder=Words("mine")) as db:
        assert db.count() == 1


def test_texts_are_not_embedded_into_a_space_of_brought_vectors(tmp_path: Path) -> None:
    with memdb.open(tmp_path / "db", embedder="none") as db:
        db.remember("brought", vector=[1.0, 0.0, 0.0])
    with pytest.raises(memdb.EmbedderMismatch):
        memdb.open(tmp_path / "db", embedder="static")
    with memdb.open(tmp_path / "db") as db:
        assert db.recall(vector=[1.0, 0, 0], mode="vector")[0].text == "brought"


def test_a_database_without_vectors_may_be_given_an_embedder_later(tmp_path: Path) -> None:
    with memdb.open(tmp_path / "db", embedder="none") as db:
        db.remember("only words")
    with memdb.open(tmp_path / "db", embedder=Words("mine")) as db:
        db.remember("tea with Ana")
    with memdb.open(tmp_path / "db", embedder=Words("mine")) as db:
        assert [h.text for h in db.recall("tea", mode="vector")] == ["tea with Ana"]


def test_none_reads_any_database_and_changes_nothing(tmp_path: Path) -> None:
    with memdb.open(tmp_path / "db", embedder=Words("mine")) as db:
        db.remember("tea with Ana")
    with memdb.open(tmp_path / "db", embedder="none") as db:
        assert db.recall("tea")[0].text == "tea with Ana"
    with memdb.open(tmp_path / "db", embedder=Words("mine")) as db:
        assert db.recall("tea", mode="vector")[0].text == "tea with Ana"


@pytest.mark.parametrize("spec", ["stattic", "st:", "openai:nowhere", "", 7])
def test_a_spec_that_means_nothing_is_refused_before_anything_is_made(
    tmp_path: Path, spec: object
) -> None:
    with pytest.raises(memdb.InvalidArgument):
        memdb.open(tmp_path / "db", embedder=spec)
    assert not (tmp_path / "db").exists()


def test_a_model_that_cannot_be_found_leaves_a_typed_error(tmp_path: Path) -> None:
    pytest.importorskip("sentence_transformers")
    with memdb.open(tmp_path / "db", embedder="st:/nowhere/at/all") as db:
        with pytest.raises(memdb.EmbedderUnavailable):
            db.remember("x")
        assert db.count() == 0
