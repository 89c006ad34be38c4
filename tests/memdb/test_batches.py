"""Batches of ``remember_many``: read, checked ahead, and what an error leaves behind."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import memdb
from memdb import rows
from memdb.aside import Aside
from memdb.batches import batches_of
from memdb.errors import InvalidArgument, StoreFull
from memdb.types import Memory
from memdb.validate import Draft


def items(count: int) -> list[dict[str, Any]]:
    return [{"text": f"memory number {number}", "tags": ["t"]} for number in range(count)]


def draft(fields: Any) -> Draft:
    if fields["text"] == "wrong":
        raise InvalidArgument("wrong", field="text")
    return Draft(Memory(id="", text=fields["text"]))


def test_the_next_batch_of_a_list_is_checked_in_another_thread() -> None:
    checked: dict[str, int] = {}

    def check(fields: Any) -> Draft:
        checked[fields["text"]] = threading.get_ident()
        return draft(fields)

    found = []
    for batch in batches_of(["a", "b", "c", "d", "e"], 2, lambda: check):
        found += [one.memory.text for one in batch.drafts()]
        batch.begin_next()
        batch.begin_next()
    assert found == ["a", "b", "c", "d", "e"]
    here = threading.get_ident()
    assert checked["a"] == checked["b"] == here
    assert here not in (checked["c"], checked["d"], checked["e"])


def test_an_error_of_a_batch_is_raised_in_its_turn() -> None:
    batches = batches_of(["a", "wrong", "c"], 1, lambda: draft)
    first = next(batches)
    first.begin_next()
    assert [one.memory.text for one in first.drafts()] == ["a"]
    with pytest.raises(InvalidArgument):
        next(batches).drafts()


@pytest.mark.parametrize("as_list", [True, False])
def test_batches_before_a_wrong_one_are_written(tmp_path: Path, as_list: bool) -> None:
    given = items(10)
    given[7]["tags"] = 3
    with memdb.open(tmp_path / "db", embedder="none") as db:
        with pytest.raises(InvalidArgument):
            db.remember_many(given if as_list else iter(given), batch=3)
        assert db.count() == 6


def test_what_an_iterator_gives_may_depend_on_what_was_written(tmp_path: Path) -> None:
    with memdb.open(tmp_path / "db", embedder="none") as db:

        def counted() -> Iterator[dict[str, Any]]:
            for number in range(6):
                yield {"text": f"after {db.count()} came {number}"}

        written = db.remember_many(counted(), batch=2)
    assert [one.memory.text for one in written][::2] == [
        "after 0 came 0",
        "after 2 came 2",
        "after 4 came 4",
    ]


def test_an_error_aside_is_raised_where_the_result_is_asked_for() -> None:
    def fail() -> int:
        raise StoreFull("no room")

    aside = Aside(fail)
    aside.wait()
    with pytest.raises(StoreFull):
        aside.result()
    assert Aside(lambda: 7).result() == 7


def test_a_batch_that_fails_while_its_vectors_are_written_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(1)
    given = [
        {**one, "vector": vector}
        for one, vector in zip(items(1_600), rng.standard_normal((1_600, 8)), strict=True)
    ]
    with memdb.open(tmp_path / "db", embedder="none") as db:
        db.remember_many(given[:800], batch=400)
        db.check()
        before = threading.active_count()
        with monkeypatch.context() as broken:

            def full(*_: Any) -> None:
                raise StoreFull("no room")

            broken.setattr(rows.lookups, "set_rows", full)
            with pytest.raises(StoreFull):
                db.remember_many(given[800:], batch=400)
        assert threading.active_count() <= before
        assert db.count() == 800
        db.remember_many(given[800:], batch=400)
        assert db.count() == 1_600
        assert db.check()["ok"]
        hits = db.recall(vector=given[1_000]["vector"], mode="vector", k=1, exact=True)
        assert hits[0].text == given[1_000]["text"]
