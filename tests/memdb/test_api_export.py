"""A database that uses everything, exported and imported: all of it is there, and only once."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest

import memdb
from tests.memdb.clock import Clock, unit

Format = Literal["jsonl", "parquet"]
formats = pytest.mark.parametrize("format", ["jsonl", "parquet"])
START = datetime(2024, 5, 1, tzinfo=UTC)


@pytest.fixture
def full(db: memdb.Database, clock: Clock, tmp_path: Path) -> memdb.Database:
    """Every kind of thing there is, beside things that are not exported."""
    note = db.remember("a note", vector=unit(1, 2), tags=["t"], metadata={"n": 1, "b": True})
    db.update(note.id, tags=["u"])
    db.remember("mine", external_id="x-1", namespace="home/kitchen", vector=unit(0, 1))
    db.remember("derived", derived_from=[note.id], importance=0.5, pinned=True)
    db.remember("in a stream", stream="chat", event_time="2024-05", event_end="2024-06")
    db.profile.set("address", "Elm", valid_from="2020")
    db.profile.set("address", "a hotel", valid_from="2024-05-01", valid_to="2024-06-01")
    db.profile.set("address", "Oak", valid_from="2025")
    db.spaces.create("photos", dim=4, metric="l2", profile="exact")
    for i in range(5):
        db.remember(data={"file": i}, vector=[i, 0, 0, 30], space="photos")
    for i in range(3):
        db.history.append(
            "pulse", data={"bpm": 60 + i}, event_time=START + timedelta(minutes=i), stream="watch"
        )
    folder = tmp_path / "notes"
    folder.mkdir()
    (folder / "garden.md").write_text(
        "# Garden\n\nTomatoes behind the shed.\n\n## Tools\n\nA hoe.\n"
    )
    db.files.sync(folder)
    db.forget(db.remember("secret").id)
    db.remember("brief", expires_in="1h")
    clock.advance(hours=1)
    return db


@pytest.fixture
def copy(tmp_path: Path, clock: Clock) -> Iterator[memdb.Database]:
    with memdb.open(tmp_path / "copy", embedder="none", clock=clock) as opened:
        opened.settings.time_zone = "UTC"
        yield opened


def records(db: memdb.Database) -> dict[str, memdb.Memory]:
    return {m.id: m for m in everything_in(db)}


def everything_in(db: memdb.Database) -> list[memdb.Memory]:
    with memdb.open(db.path, namespace="") as handle:
        return list(handle.iter())


def samples(db: memdb.Database) -> list[tuple[Any, ...]]:
    found = db.history.range("pulse")
    return [(m.event_time, m.recorded_at, m.data, m.stream, m.source, m.precision) for m in found]


@formats
def test_everything_comes_back_and_a_second_import_adds_nothing(
    full: memdb.Database, copy: memdb.Database, tmp_path: Path, format: Format, clock: Clock
) -> None:
    file = tmp_path / "out"
    with memdb.open(full.path, namespace="", clock=clock) as everything:
        count = everything.export(file, format)
    assert count == len(everything_in(full)) + 3
    assert copy.import_(file) == count
    assert records(copy) == records(full)
    assert samples(copy) == samples(full)
    assert copy.import_(file) == 0
    assert records(copy) == records(full)
    assert samples(copy) == samples(full)
    for moment in ("2019", "2021", "2024-05-15", "2024-07", "2025-02"):
        assert copy.profile.get("address", as_of=moment) == full.profile.get(
            "address", as_of=moment
        )
    assert copy.get(external_id="x-1", namespace="home/kitchen") is not None
    assert copy.check()["ok"]


@formats
def test_vectors_and_their_spaces_come_back(
    full: memdb.Database, copy: memdb.Database, tmp_path: Path, format: Format
) -> None:
    file = tmp_path / "out"
    full.export(file, format)
    copy.import_(file)
    (photos,) = [space for space in copy.spaces.list() if space.name == "photos"]
    assert photos == next(space for space in full.spaces.list() if space.name == "photos")
    asked = {"vector": [2.2, 0, 0, 30], "space": "photos"}
    for db in (full, copy):
        hits = db.recall(mode="vector", k=2, **asked)
        assert [hit.memory.data["file"] for hit in hits] == [2, 3]
        assert len(db.recall_within(0.05, **asked)) == 1  # squared distances: 0.04, 0.64, ...
        assert db.recall(vector=unit(1, 2), mode="vector", k=1)[0].text == "a note"


@formats
def test_a_filter_selects_memories_and_samples(
    full: memdb.Database, copy: memdb.Database, tmp_path: Path, format: Format
) -> None:
    file = tmp_path / "out"
    assert full.export(file, format, where={"kind": "pulse"}) == 3
    assert full.export(file, format, where={"event_time": {"$gte": "2024-05-01T00:01:00Z"}}) == 2
    assert copy.import_(file) == 2
    assert copy.count() == 0
    assert full.export(file, format, where={"tags": "u"}) == 1
    assert copy.import_(file) == 1
    assert [m.text for m in copy.iter()] == ["a note"]


def test_a_database_that_embeds_makes_its_own_vectors_of_texts(
    full: memdb.Database, tmp_path: Path
) -> None:
    file = tmp_path / "out"
    full.export(file, where={"tags": "u"})
    with memdb.open(tmp_path / "embedding") as copy:
        assert copy.import_(file) == 1
        assert copy.recall("a note", mode="vector")[0].why.cosine == pytest.approx(1, abs=0.01)


def test_many_samples_are_exported_across_chunks(
    db: memdb.Database, copy: memdb.Database, tmp_path: Path
) -> None:
    db.history.append_many(
        "pulse", [(START + timedelta(seconds=i // 2), {"bpm": i}) for i in range(3000)]
    )
    file = tmp_path / "out.jsonl.zst"
    assert db.export(file) == 3000
    assert copy.import_(file) == 3000
    assert copy.import_(file) == 0
    assert samples(copy) == samples(db)


def test_an_id_that_stands_twice_in_a_file_is_taken_once(
    db: memdb.Database, copy: memdb.Database, tmp_path: Path
) -> None:
    db.remember("a")
    file = tmp_path / "out.jsonl"
    db.export(file)
    head, line, _ = file.read_text().splitlines()
    file.write_text(f'{head}\n{line}\n{line}\n{{"end":2}}\n')
    assert copy.import_(file) == 1
    assert copy.count() == 1
    assert copy.check()["ok"]


def test_a_space_that_has_another_dimension_here_is_a_typed_error(
    full: memdb.Database, copy: memdb.Database, tmp_path: Path
) -> None:
    full.export(tmp_path / "out")
    copy.spaces.create("photos", dim=3)
    with pytest.raises(memdb.DimensionMismatch):
        copy.import_(tmp_path / "out")
    assert copy.count() == 0


@formats
def test_an_empty_database_is_an_empty_export(
    db: memdb.Database, copy: memdb.Database, tmp_path: Path, format: Format
) -> None:
    assert db.export(tmp_path / "out", format) == 0
    assert copy.import_(tmp_path / "out") == 0


def test_vectors_are_exported_as_they_are_kept(db: memdb.Database, tmp_path: Path) -> None:
    vector = np.array([0.6, 0.8], np.float32)
    db.remember("x", vector=vector)
    db.export(tmp_path / "out")
    with memdb.open(tmp_path / "copy", embedder="none") as copy:
        copy.import_(tmp_path / "out")
        assert copy.recall(vector=vector, mode="vector")[0].why.cosine == pytest.approx(1, abs=1e-3)
