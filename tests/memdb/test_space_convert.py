"""``db.spaces.convert`` beside readers and writers, given up, and between steps."""

from __future__ import annotations

import tempfile
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

import memdb
from memdb import settings as limits
from memdb import space_convert
from memdb.index.convert import LADDER
from memdb.storage import spaces
from tests.memdb.cli_runner import Runner
from tests.memdb.space_conversion import (
    DIM,
    FILES,
    check_vectors,
    fill,
    job_of,
    make_small,
    records_of,
)


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    make_small(monkeypatch)


class WhileItIsConverted(RuleBasedStateMachine):
    """Writes, searches and reopenings between the steps of a conversion."""

    @initialize(metric=st.sampled_from(["cosine", "ip", "l2"]), count=st.sampled_from([3, 60, 300]))
    def make(self, metric: str, count: int) -> None:
        self.patch = pytest.MonkeyPatch()
        make_small(self.patch)
        self.directory = tempfile.TemporaryDirectory()
        self.profile, self.target, self.seed = "exact", None, 0
        self.model: dict[str, np.ndarray] = {}
        self._open()
        self.db.spaces.create("photos", dim=DIM, metric=metric, profile="exact")
        self.add(count)

    def _open(self) -> None:
        self.db = memdb.open(Path(self.directory.name) / "db", embedder="none")
        self.db._maintenance.stop()  # steps come when this test says so
        assert self.db._engine.store.lease.try_acquire()

    @rule(count=st.sampled_from([1, 5, 50]))
    def add(self, count: int) -> None:
        self.seed += 1
        self.model.update(fill(self.db, count, self.seed))

    @rule(most=st.integers(1, 30))
    def forget(self, most: int) -> None:
        for id in list(self.model)[:most:3]:
            self.db.forget(id)
            self.model.pop(id)

    @rule()
    def encode(self) -> None:
        self._vectors().encode_step()

    @rule(wanted=st.sampled_from(LADDER))
    def begin(self, wanted: str) -> None:
        engine = self.db._engine

        def aim(txn: spaces.Writer) -> None:
            record = engine.require_space(txn, "photos")
            space_convert.aim(txn, engine.filters, record, wanted)

        if LADDER.index(wanted) < LADDER.index(self.profile):
            with pytest.raises(memdb.Conflict):
                engine.store.write(aim)
            return
        engine.store.write(aim)
        self.target = None if wanted == self.profile else wanted

    @rule()
    def step(self) -> None:
        self._vectors().convert_step()
        self._look()

    @rule()
    def end(self) -> None:
        self.db.spaces.convert("photos", self.target or self.profile)
        self._look()
        assert self.target is None and records_of(self.db) <= {FILES[self.profile]}

    def _look(self) -> None:
        if self.target is not None and job_of(self.db) is None:
            self.profile, self.target = self.target, None

    @rule()
    def reopen(self) -> None:
        self.db.close()
        self._open()

    def _vectors(self):  # type: ignore[no-untyped-def]
        engine = self.db._engine
        with engine.store.read() as txn:
            return engine.vectors(engine.require_space(txn, "photos"))

    @invariant()
    def every_answer_is_right(self) -> None:
        db = self.db
        stats = db.stats()
        assert stats["profiles"] == {"photos": self.profile}
        assert (job_of(db) or {"profile": None})["profile"] == self.target
        check_vectors(db, self.model, self.profile)
        assert db.check()["problems"] == []
        query = np.random.default_rng(self.seed).standard_normal(DIM)
        for exactly in (True, False):
            hits = db.recall(vector=query, space="photos", mode="vector", k=7, exact=exactly)
            ids = [hit.id for hit in hits]
            assert len(set(ids)) == min(7, len(self.model)) and set(ids) <= self.model.keys()

    def teardown(self) -> None:
        if hasattr(self, "db"):
            self.db.spaces.convert("photos", LADDER[-1])
            check_vectors(self.db, self.model, LADDER[-1])
            assert self.db.check()["ok"]
            self.db.close()
            self.directory.cleanup()
            self.patch.undo()


WhileItIsConverted.TestCase.settings = hypothesis_settings(
    max_examples=10,
    stateful_step_count=12,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
TestWhileItIsConverted = WhileItIsConverted.TestCase


def test_a_space_is_brought_down_and_everything_knows(db: memdb.Database, tmp_path: Path) -> None:
    db.spaces.create("photos", dim=DIM, profile="exact")
    model = fill(db, 300, 1)
    assert db._maintenance.drain()
    calls: list[tuple[int, int | None]] = []
    space = db.spaces.convert(
        "photos", "compact", progress=lambda done, total: calls.append((done, total))
    )
    assert (space.name, space.profile, space.vectors) == ("photos", "compact", 300)
    assert calls == sorted(calls) and calls[-1] == (300, 300) and len(calls) > 4
    assert records_of(db) == {"refine.5"}
    check_vectors(db, model, "compact")
    assert db.stats()["profiles"] == {"photos": "compact"}
    assert db.check()["ok"]
    model.update(fill(db, 50, 2))
    assert db._maintenance.drain()
    check_vectors(db, model, "compact")
    db.export(tmp_path / "all.jsonl")
    db.snapshot(tmp_path / "copy")
    with memdb.open(tmp_path / "copy", embedder="none") as copy:
        assert copy.spaces.list()[0].profile == "compact"
        check_vectors(copy, model, "compact")
    with memdb.open(tmp_path / "new", embedder="none") as new:
        assert new.import_(tmp_path / "all.jsonl") == 350
        assert new.spaces.list()[0].profile == "compact"


def test_a_snapshot_of_half_a_conversion_goes_on_with_it(
    db: memdb.Database, tmp_path: Path
) -> None:
    db.spaces.create("photos", dim=DIM)
    model = fill(db, 300, 1)
    assert db._maintenance.drain()
    db._maintenance.stop()
    engine = db._engine
    engine.store.write(
        lambda txn: space_convert.aim(
            txn, engine.filters, engine.require_space(txn, "photos"), "nano"
        )
    )
    with engine.store.read() as txn:
        vectors = engine.vectors(engine.require_space(txn, "photos"))
    assert vectors.convert_step()
    assert job_of(db) == {"profile": "nano", "done": 40, "total": 300}
    db._admin._copy(tmp_path / "copy", 0)
    with memdb.open(tmp_path / "copy", embedder="none") as copy:
        copy.spaces.convert("photos", "nano")
        check_vectors(copy, model, "nano")
        assert copy.check()["ok"] and records_of(copy) == {"refine.2"}
    db.spaces.convert("photos", "standard")  # given up here
    assert job_of(db) is None and records_of(db) == {"refine.8"}
    check_vectors(db, model, "standard")


def test_bad_arguments_are_refused_and_change_nothing(db: memdb.Database, tmp_path: Path) -> None:
    db.spaces.create("photos", dim=DIM, profile="compact")
    with pytest.raises(memdb.NotFound):
        db.spaces.convert("sounds", "nano")
    for profile in ("tiny", None, 5):
        with pytest.raises(memdb.InvalidArgument, match="profile"):
            db.spaces.convert("photos", profile)  # type: ignore[arg-type]
    for profile in ("exact", "standard"):
        with pytest.raises(memdb.Conflict, match="does not hold"):
            db.spaces.convert("photos", profile)
    assert db.spaces.convert("photos", "nano").profile == "nano"  # nothing is in files yet
    model = fill(db, 60, 1)
    assert db._maintenance.drain()
    check_vectors(db, model, "nano")
    with memdb.open(tmp_path / "x", embedder="none") as other:
        other.spaces.create("photos", dim=DIM)
    with (
        memdb.open(tmp_path / "x", readonly=True) as other,
        pytest.raises(memdb.PermissionDenied),
    ):
        other.spaces.convert("photos", "nano")


def test_a_dropped_space_takes_its_conversion_with_it(db: memdb.Database) -> None:
    db.spaces.create("photos", dim=DIM)
    fill(db, 100, 1)
    assert db._maintenance.drain()
    db._maintenance.stop()
    engine = db._engine
    engine.store.write(
        lambda txn: space_convert.aim(
            txn, engine.filters, engine.require_space(txn, "photos"), "nano"
        )
    )
    with engine.store.read() as txn:
        vectors = engine.vectors(engine.require_space(txn, "photos"))
    assert vectors.convert_step()
    db.spaces.drop("photos")
    assert not vectors.convert_step()
    assert db.check()["ok"] and list((db.path / "space").iterdir()) == []


def test_threads_write_and_search_all_the_while(
    db: memdb.Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(space_convert, "_BATCH_ROWS", 2000)
    monkeypatch.setattr(space_convert, "_LAST_ROWS", 500)
    db.spaces.create("photos", dim=DIM, profile="exact")
    model = fill(db, 300, 1)
    assert db._maintenance.drain()
    stop, errors, answers = threading.Event(), [], 0
    wanted = next(iter(model))

    def write() -> None:
        seed = 2
        while not stop.is_set():
            model.update(fill(db, 1 + 20 * (seed % 2), seed))
            seed += 1

    def ask() -> None:
        nonlocal answers
        while not stop.is_set():
            try:
                hits = db.recall(vector=model[wanted], space="photos", mode="vector", k=3)
                assert hits[0].id == wanted
                answers += 1
            except Exception as error:  # noqa: BLE001 - the test tells which
                errors.append(error)
                return

    threads = [threading.Thread(target=ask) for _ in range(2)] + [threading.Thread(target=write)]
    for thread in threads:
        thread.start()
    for profile in ("standard", "compact"):
        assert db.spaces.convert("photos", profile).profile == profile  # type: ignore[arg-type]
    stop.set()
    for thread in threads:
        thread.join()
    assert errors == [] and answers > 0
    check_vectors(db, model, "compact")
    assert db.check()["ok"]
    db.spaces.convert("photos", "compact")
    assert records_of(db) == {"refine.5"}


def test_what_was_written_for_the_old_profile_is_written_again(
    db: memdb.Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    db.spaces.create("photos", dim=DIM, profile="exact")
    model = fill(db, 100, 1)
    assert db._maintenance.drain()
    db._maintenance.stop()
    monkeypatch.setattr(limits, "ENCODE_DIRECTLY_AT", 1000)
    model.update(fill(db, 20, 2))
    engine = db._engine
    with engine.store.read() as txn:
        vectors = engine.vectors(engine.require_space(txn, "photos"))
    write_files = vectors._write_files

    def raced(*arguments: object) -> None:
        write_files(*arguments)  # type: ignore[arg-type]
        monkeypatch.undo()
        make_small(monkeypatch)
        db.spaces.convert("photos", "compact")

    monkeypatch.setattr(vectors, "_write_files", raced)
    assert vectors.encode_step()
    with engine.store.read() as txn:
        assert len(vectors.layout_view(txn).encoded) == 100
    check_vectors(db, model, "compact")
    assert vectors.encode_step()
    with engine.store.read() as txn:
        assert len(vectors.layout_view(txn).encoded) == 120
    check_vectors(db, model, "compact")
    assert db.check()["ok"]


def test_the_command_line_converts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with memdb.open(tmp_path / "db", embedder="none") as db:
        db.spaces.create("photos", dim=DIM)
        fill(db, 100, 1)
    cli = Runner(tmp_path / "db", capsys, monkeypatch)
    status, out, _ = cli.run("spaces", "convert", "photos", "compact")
    assert (status, out) == (0, "space photos keeps its 100 vectors at profile compact\n")
    assert cli.ask("spaces", "list")["spaces"][0]["profile"] == "compact"
    assert cli.run("spaces", "convert", "photos", "exact")[0] != 0
