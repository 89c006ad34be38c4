"""Opening: what is wrong with the arguments is said before anything is made on disk."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

import memdb
from memdb.types import Hits


class Toy:
    """An embedder object: a vector of letter counts."""

    name = "toy"
    revision = "1"
    dim = 8
    max_tokens = 64

    def count_tokens(self, text: str) -> int:
        return len(text.split())

    def embed(self, texts: Sequence[str], role: str = "document") -> NDArray[np.float32]:
        return np.array(
            [[1 + text.count(letter) for letter in "aeioumnt"] for text in texts], np.float32
        )


class OtherToy(Toy):
    name = "other toy"


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ({"embedder": "magic"}, "embedder"),
        ({"embedder": ""}, "embedder"),
        ({"embedder": "st:"}, "embedder"),
        ({"embedder": "openai:not a url"}, "embedder"),
        ({"embedder": 7}, "embedder"),
        ({"embedder": object()}, "embedder"),
        ({"memory_budget": "much"}, "memory_budget"),
        ({"memory_budget": -1}, "memory_budget"),
        ({"memory_budget": 0}, "memory_budget"),
        ({"memory_budget": None}, "memory_budget"),
        ({"memory_budget": True}, "memory_budget"),
        ({"namespace": "a//b"}, "namespace"),
        ({"namespace": None}, "namespace"),
        ({"namespace": "n" * 600}, "namespace"),
        ({"source": "s" * 600}, "source"),
        ({"source": ""}, "source"),
        ({"source": 7}, "source"),
    ],
)
def test_a_bad_argument_is_named_and_nothing_is_made(
    tmp_path: Path, arguments: dict[str, object], field: str
) -> None:
    path = tmp_path / "db"
    with pytest.raises(memdb.InvalidArgument) as caught:
        memdb.open(path, **arguments)  # type: ignore[arg-type]
    assert caught.value.field == field
    assert caught.value.hint
    assert not path.exists()


def test_an_embedder_object_that_fails_makes_nothing(tmp_path: Path) -> None:
    class Broken(Toy):
        def embed(self, texts: Sequence[str], role: str = "document") -> NDArray[np.float32]:
            raise RuntimeError("no weights")

    with pytest.raises(memdb.EmbedderUnavailable):
        memdb.open(tmp_path / "db", embedder=Broken())
    assert not (tmp_path / "db").exists()


def test_an_absent_database_is_not_found_unless_it_may_be_made(tmp_path: Path) -> None:
    with pytest.raises(memdb.NotFound):
        memdb.open(tmp_path / "db", create=False)
    assert not (tmp_path / "db").exists()


def test_a_further_handle_may_not_bring_another_embedder(tmp_path: Path) -> None:
    with memdb.open(tmp_path / "db", embedder=Toy()) as db:
        db.remember("Ana likes tea")
        with pytest.raises(memdb.EmbedderMismatch):
            memdb.open(tmp_path / "db", embedder=OtherToy())
        with memdb.open(tmp_path / "db", embedder=Toy()) as same:
            assert same.recall("Ana likes tea", mode="vector")[0].text == "Ana likes tea"
    with pytest.raises(memdb.EmbedderMismatch):
        memdb.open(tmp_path / "db", embedder=OtherToy())
    with memdb.open(tmp_path / "db", embedder=Toy()) as db:
        assert db.count() == 1


@pytest.fixture
def without_object(tmp_path: Path) -> Path:
    """A database of an embedder object that the next ``open`` does not bring."""
    with memdb.open(tmp_path / "db", embedder=Toy()) as db:
        db.remember("Ana is allergic to peanuts")
    return tmp_path / "db"


def test_without_the_recorded_object_words_still_find(without_object: Path) -> None:
    with memdb.open(without_object) as db:
        hits = db.recall("what is Ana allergic to?")
        assert [hit.text for hit in hits] == ["Ana is allergic to peanuts"]
        assert hits.degraded is not None
        assert "embedder object" in hits.degraded
        assert db.recall("Ana", mode="lexical").degraded is None
        with pytest.raises(memdb.EmbedderUnavailable):
            db.recall("Ana", mode="vector")
        assert db.context("Ana").counter == "estimate"


def test_without_the_recorded_object_texts_need_a_vector(without_object: Path) -> None:
    with memdb.open(without_object) as db:
        with pytest.raises(memdb.EmbedderUnavailable) as caught:
            db.remember("Ben likes tea")
        assert "embedder=" in caught.value.hint
        assert db.count() == 1
        vector = Toy().embed(["Ben likes tea"])[0]
        db.remember("Ben likes tea", vector=vector)
        assert db.recall(vector=vector, mode="vector", k=1)[0].text == "Ben likes tea"
        with pytest.raises(memdb.DimensionMismatch):
            db.remember("Cy", vector=[1.0])


# --- results as tables ------------------------------------------------------------------


def full(db: memdb.Database) -> None:
    db.remember("tea with Ana", about=["Ana"], tags=["t"], metadata={"n": 1}, event_time="2024")
    db.remember("tea", data={"deep": [1, {"x": None}]})
    db.remember("more tea", metadata={"n": "one"}, data=7)


def test_hits_and_pages_are_tables(db: memdb.Database) -> None:
    pytest.importorskip("pyarrow")
    full(db)
    hits, page = db.recall("tea", mode="lexical"), db.list()
    for table, first in ((hits, hits[0].to_dict()), (page, page.items[0].to_dict())):
        rows = table.to_dicts()
        assert rows[0] == first
        assert len(rows) == 3
        arrow = table.to_arrow()
        assert arrow.num_rows == 3
        assert arrow.column("id").to_pylist() == [row["id"] for row in rows]
        assert arrow.column("event_time").to_pylist() == [row["event_time"] for row in rows]
        assert set(arrow.column("data").to_pylist()) == {None, '{"deep":[1,{"x":null}]}', "7"}
    assert hits.to_arrow().column("score").to_pylist() == [hit.score for hit in hits]


def test_an_empty_result_has_the_columns_and_types_of_a_full_one(db: memdb.Database) -> None:
    pytest.importorskip("pyarrow")
    full(db)
    for found, empty in (
        (db.recall("tea", mode="lexical"), db.recall("xyzzy", mode="lexical")),
        (db.list(), db.list({"kind": "none"})),
        (db.list(), db.list({"tags": "t"})),
    ):
        assert found.to_arrow().schema == empty.to_arrow().schema
    assert Hits((), "").to_dicts() == []


def test_results_become_data_frames(db: memdb.Database) -> None:
    pytest.importorskip("pandas")
    full(db)
    frame = db.recall("tea", mode="lexical").to_pandas()
    assert len(frame) == 3
    assert frame["metadata"].iloc[0] is not None
    empty = db.recall("xyzzy", mode="lexical").to_pandas()
    assert list(empty.columns) == list(frame.columns)
    assert list(db.list({"kind": "none"}).to_pandas().columns) == list(
        db.list().to_pandas().columns
    )


# --- values -----------------------------------------------------------------------------


def test_true_and_one_are_two_values(db: memdb.Database) -> None:
    for value in (True, 1, 1, False, 0, "1", None):
        db.remember(f"x {value!r}", metadata={"v": value}, dedup="off")
    found = db.values("metadata.v")
    assert (type(found[0][0]), found[0]) == (int, (1, 2))
    expected = [(True, 1), (False, 1), (0, 1), ("1", 1), (None, 1), (1, 2)]
    key = lambda pair: (type(pair[0]).__name__, str(pair[0]), pair[1])
    assert sorted(map(key, found)) == sorted(map(key, expected))


def test_ids_are_no_field_and_the_hint_says_where_they_go(db: memdb.Database) -> None:
    with pytest.raises(memdb.FilterError) as caught:
        db.count({"id": "01ARZ3NDEKTSV4RRFFQ69G5FAV"})
    assert "forget(ids=)" in caught.value.hint
