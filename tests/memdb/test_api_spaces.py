"""Dropping a space: vectors and files go, memories stay, whoever reads meanwhile goes on."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

import memdb
from memdb import settings as limits
from tests.memdb.cli_runner import Runner

DIM = 16


@pytest.fixture(autouse=True)
def low_thresholds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Vectors are trained on and encoded soon, so that a space has files."""
    monkeypatch.setattr(limits, "FRESH_VECTORS_MAX", 32)
    monkeypatch.setattr(limits, "ENCODE_AT", 4)


def fill(db: memdb.Database, space: str, count: int = 60, seed: int = 0) -> np.ndarray:
    vectors = np.random.default_rng(seed).standard_normal((count, DIM)).astype(np.float32)
    db.remember_many(
        [
            {"text": f"{space} {i} of {seed}", "vector": v, "space": space}
            for i, v in enumerate(vectors)
        ]
    )
    return vectors


def test_a_dropped_space_takes_its_vectors_and_files_and_nothing_else(db: memdb.Database) -> None:
    for name in ("photos", "sounds"):
        db.spaces.create(name, dim=DIM)
    vectors = fill(db, "photos")
    kept = fill(db, "sounds", seed=1)
    assert db._maintenance.drain()
    fill(db, "photos", count=2, seed=2)  # fresh beside encoded
    assert len(list((db.path / "space").iterdir())) == 2
    dropped = db.spaces.drop("photos")
    assert (dropped.name, dropped.dim, dropped.vectors) == ("photos", DIM, 62)
    assert [space.name for space in db.spaces.list()] == ["sounds"]
    assert len(list((db.path / "space").iterdir())) == 1
    assert db.count() == 122
    assert db.recall("photos 57", mode="lexical")[0].text == "photos 57 of 0"
    with pytest.raises(memdb.NotFound):
        db.recall(vector=vectors[0], space="photos", mode="vector")
    assert db.recall(vector=kept[5], space="sounds", mode="vector")[0].text == "sounds 5 of 1"
    assert db.check()["ok"]
    with pytest.raises(memdb.NotFound):
        db.spaces.drop("photos")


def test_a_space_of_the_same_name_starts_empty(db: memdb.Database) -> None:
    db.spaces.create("photos", dim=DIM)
    fill(db, "photos")
    assert db._maintenance.drain()
    db.spaces.drop("photos")
    db.spaces.create("photos", dim=3)
    assert db.spaces.list()[0].vectors == 0
    assert len(db.recall(vector=[1, 0, 0], space="photos", mode="vector")) == 0
    id = db.remember("new", vector=[1, 0, 0], space="photos").id
    assert [h.id for h in db.recall(vector=[1, 0, 0], space="photos", mode="vector")] == [id]
    assert db.check()["ok"]


def test_the_default_space_stays_while_texts_are_embedded_into_it(tmp_path: Path) -> None:
    with memdb.open(tmp_path / "db") as db:
        db.remember("Ana is allergic to peanuts")
        with pytest.raises(memdb.Conflict) as caught:
            db.spaces.drop(db.spaces.default)
        assert "embedder" in str(caught.value)
        assert db.recall("nuts", mode="vector")[0].why.cosine is not None


def test_a_default_space_of_given_vectors_can_go(db: memdb.Database) -> None:
    db.remember("x", vector=[1.0, 0.0])
    db.spaces.drop("default")
    assert len(db.recall(vector=[1.0, 0.0], mode="vector")) == 0
    db.remember("y", vector=[1.0, 0.0, 0.0])  # another dimension: a space of its own
    assert [h.text for h in db.recall(vector=[1.0, 0.0, 0.0], mode="vector")] == ["y"]


def test_readers_of_this_process_go_on_while_a_space_is_dropped(db: memdb.Database) -> None:
    errors: list[Exception] = []
    answers = 0
    stop = threading.Event()
    query = np.ones(DIM, np.float32)

    def ask() -> None:
        nonlocal answers
        while not stop.is_set():
            try:
                answers += len(db.recall(vector=query, space="photos", mode="vector", k=3))
            except memdb.NotFound:
                continue  # dropped, and not made again yet
            except Exception as error:  # noqa: BLE001 - the test tells which
                errors.append(error)
                return

    readers = [threading.Thread(target=ask) for _ in range(3)]
    for reader in readers:
        reader.start()
    for round in range(6):
        db.spaces.create("photos", dim=DIM)
        fill(db, "photos", seed=round)
        assert db._maintenance.drain()
        db.spaces.drop("photos")
    stop.set()
    for reader in readers:
        reader.join()
    assert errors == []
    assert answers > 0
    assert list((db.path / "space").iterdir()) == []


def test_another_process_sees_the_drop_at_its_next_read(db: memdb.Database) -> None:
    db.spaces.create("photos", dim=DIM)
    fill(db, "photos")
    assert db._maintenance.drain()
    program = (
        "import sys, memdb\n"
        "db = memdb.open(sys.argv[1])\n"
        f"ask = lambda: db.recall(vector=[1.0] * {DIM}, space='photos', mode='vector', k=3)\n"
        "print(len(ask()), flush=True)\n"
        "sys.stdin.readline()\n"
        "try: ask()\n"
        "except memdb.NotFound: print('gone')\n"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", program, str(db.path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert other.stdout is not None
    assert other.stdout.readline() == "3\n"
    db.spaces.drop("photos")
    out, _ = other.communicate("\n", timeout=30)
    assert out == "gone\n"


def test_a_readonly_handle_drops_nothing(tmp_path: Path) -> None:
    with memdb.open(tmp_path / "db", embedder="none") as db:
        db.spaces.create("photos", dim=2)
    with memdb.open(tmp_path / "db", readonly=True) as db, pytest.raises(memdb.PermissionDenied):
        db.spaces.drop("photos")


def test_the_command_line_drops_a_space(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with memdb.open(tmp_path / "db", embedder="none") as db:
        db.spaces.create("photos", dim=2)
        db.remember("sunset", vector=[1, 0], space="photos")
    cli = Runner(tmp_path / "db", capsys, monkeypatch)
    assert cli.ask("spaces", "drop", "photos")["vectors"] == 1
    assert cli.ask("spaces", "list") == {"spaces": []}
    status, _, err = cli.run("spaces", "drop", "photos")
    assert status == 1
    assert "no space of that name" in err


@pytest.mark.parametrize("profile", ["exact", "standard", "compact", "nano", "pico"])
@pytest.mark.parametrize("metric", ["cosine", "ip", "l2"])
def test_every_profile_answers_fresh_and_encoded_and_survives_a_reopen(
    db: memdb.Database, profile: str, metric: str
) -> None:
    db.spaces.create("one", dim=DIM, metric=metric, profile=profile)
    vectors = fill(db, "one")
    assert db._maintenance.drain()
    late = fill(db, "one", count=3, seed=2)
    path = db.path
    db.close()
    with memdb.open(path, embedder="none") as again:
        assert [space.profile for space in again.spaces.list()] == [profile]
        for vector, text in ((vectors[7], "one 7 of 0"), (late[1], "one 1 of 2")):
            hits = again.recall(vector=vector, space="one", mode="vector", k=63)
            assert len(hits) == 63
            # Products favour long vectors; 1 or 2 bits of 16 dimensions are a rough memory.
            wanted = 10 if profile in ("nano", "pico") or metric == "ip" else 1
            assert text in [hit.text for hit in hits[:wanted]]
        assert again.check()["ok"]
