"""``db.reembed``: another model takes over while everything goes on, and never half."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

import memdb
from memdb import reembedding
from memdb import settings as limits
from tests.memdb.cli_runner import Runner
from tests.memdb.reembedding_words import Words, check_space, sentences, space_names, vectors_of


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    make_small(monkeypatch)


def make_small(patch: pytest.MonkeyPatch) -> None:
    """Vectors are trained on and encoded soon, and steps are many."""
    patch.setattr(limits, "FRESH_VECTORS_MAX", 32)
    patch.setattr(limits, "ENCODE_AT", 4)
    patch.setattr(reembedding, "_ROWS_FIRST", 7)
    patch.setattr(reembedding, "_ROWS_MOST", 20)


@pytest.fixture
def old() -> Words:
    return Words("old")


@pytest.fixture
def new() -> Words:
    return Words("new", dim=24)


@pytest.fixture
def db(tmp_path: Path, old: Words) -> Iterator[memdb.Database]:
    with memdb.open(tmp_path / "db", embedder=old) as opened:
        yield opened


def paused(db: memdb.Database) -> reembedding.Reembedder:
    """The steps of a database whose background thread takes none of them any more."""
    db._maintenance.stop()
    assert db._engine.store.lease.try_acquire()
    return db._maintenance.reembedder


def keep_house(db: memdb.Database) -> bool:
    """What the background thread does beside."""
    maintenance = db._maintenance
    return sum(step() for step in (maintenance._scrub, *maintenance._encoders())) > 0


# --- what is found ---------------------------------------------------------------------------


def test_afterwards_everything_is_found_as_if_it_had_been_written_with_the_new_model(
    db: memdb.Database, tmp_path: Path, new: Words, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "FRESH_VECTORS_MAX", 4096)  # nothing is rounded
    texts = sentences(200)
    db.remember_many(texts)
    done = db.reembed(new, wait=True)
    assert (done.state, done.embedder, done.done, done.total) == ("done", "new", 200, 200)
    check_space(db, new)
    assert space_names(db) == ["default"]
    assert not list((db.path / "space").glob("1"))
    more = sentences(20, 1)
    db.remember_many(more)
    with memdb.open(tmp_path / "fresh", embedder=new) as fresh:
        fresh.remember_many(texts)
        fresh.remember_many(more)
        for question in sentences(10, 2):
            for mode in ("vector", "hybrid"):
                one = db.recall(question, k=8, mode=mode, exact=True)  # type: ignore[arg-type]
                other = fresh.recall(question, k=8, mode=mode, exact=True)  # type: ignore[arg-type]
                assert [hit.text for hit in one] == [hit.text for hit in other]
                assert [h.score for h in one] == pytest.approx([h.score for h in other], abs=1e-3)
    assert db.check()["problems"] == []


def test_the_old_model_answers_until_the_new_one_does_and_both_can_be_asked(
    db: memdb.Database, old: Words, new: Words
) -> None:
    db.remember_many(sentences(60))
    steps = paused(db)
    state = db.reembed(new)
    assert (state.state, state.done, state.total) == ("running", 0, 60)
    seen = [0]
    while db.stats()["reembedding"]["state"] == "running":
        check_space(db, old)
        assert db.recall(sentences(1)[0], mode="vector")[0].text == sentences(1)[0]
        listed = {space.name: space for space in db.spaces.list()}
        assert listed["default"].embedder == "old" and listed["default"].vectors == 60
        assert (listed["default:next"].embedder, listed["default:next"].replaces) == (
            "new",
            "default",
        )
        assert listed["default:next"].vectors == db.stats()["reembedding"]["done"]
        if listed["default:next"].vectors:
            hits = db.recall(sentences(1)[0], mode="vector", space="default:next")
            assert hits[0].text == sentences(1)[0]
        seen.append(listed["default:next"].vectors)
        assert steps.step()
    assert seen == sorted(seen) and len(set(seen)) > 4
    check_space(db, new)
    assert db.recall(sentences(1)[0], mode="vector")[0].text == sentences(1)[0]


def test_a_question_embedded_just_before_is_embedded_again_just_after(
    db: memdb.Database, new: Words, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The two models have one dimension: nothing but their identity tells them apart."""
    same = Words("new", dim=16)
    db.remember_many(sentences(30))
    asked = db._recaller._query_vector
    raced = []

    def slow(*arguments):  # type: ignore[no-untyped-def]
        found = asked(*arguments)
        if not raced:
            raced.append(found)
            db.reembed(same, wait=True)
        return found

    monkeypatch.setattr(db._recaller, "_query_vector", slow)
    hits = db.recall(sentences(1)[0], mode="vector", k=1)
    assert hits[0].why.cosine == pytest.approx(1, abs=1e-3) and len(raced) == 1


def test_a_text_embedded_just_before_is_embedded_again_just_after(
    db: memdb.Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    same = Words("new", dim=16)
    db.remember_many(sentences(30))
    prepare = db._writer.prepare
    raced = []

    def slow(*arguments):  # type: ignore[no-untyped-def]
        found = prepare(*arguments)
        if not raced:
            raced.append(found)
            db.reembed(same, wait=True)
        return found

    monkeypatch.setattr(db._writer, "prepare", slow)
    written = db.remember("word1 word2 in between")
    db.update(written.id, text="word3 word4 in between")
    assert raced
    check_space(db, same)


def test_who_brings_a_vector_for_a_space_that_was_replaced_is_told(
    db: memdb.Database, new: Words, monkeypatch: pytest.MonkeyPatch
) -> None:
    db.remember("word1 word2")
    prepare = db._writer.prepare

    def slow(*arguments):  # type: ignore[no-untyped-def]
        found = prepare(*arguments)
        monkeypatch.undo()
        db.reembed(Words("new", dim=16), wait=True)
        return found

    monkeypatch.setattr(db._writer, "prepare", slow)
    with pytest.raises(memdb.Conflict, match="replaced"):
        db.remember("word3", vector=np.ones(16))
    assert db.count() == 1


# --- what goes on meanwhile --------------------------------------------------------------------


class WhileItIsEmbedded(RuleBasedStateMachine):
    """Writes, erasures, other aims and reopenings between the steps."""

    @initialize(count=st.sampled_from([0, 3, 60]))
    def make(self, count: int) -> None:
        self.patch = pytest.MonkeyPatch()
        make_small(self.patch)
        self.directory = tempfile.TemporaryDirectory()
        self.models = {name: Words(name, dim=dim) for name, dim in (("a", 16), ("b", 16), ("c", 8))}
        self.now, self.aim, self.seed = "a", "a", 0
        self._open()
        self.add(count)

    def _open(self) -> None:
        self.db = memdb.open(Path(self.directory.name) / "db", embedder=self.models[self.now])
        for name, model in self.models.items():
            self.db._engine.embedding.offer(f"object:{name}", model)
        self.steps = paused(self.db)

    @rule(count=st.sampled_from([1, 5, 40]))
    def add(self, count: int) -> None:
        self.seed += 1
        self.db.remember_many(sentences(count, self.seed))

    @rule(most=st.integers(1, 20), kind=st.sampled_from(["forget", "erase"]))
    def take_away(self, most: int, kind: str) -> None:
        ids = [one.id for one in self.db.iter()][:most:3]
        if ids:
            getattr(self.db, kind)(ids)

    @rule()
    def bring_back(self) -> None:
        for batch in self.db.trash()[:1]:
            self.db.restore(batch=batch.batch)

    @rule()
    def rewrite(self) -> None:
        for one in list(self.db.iter())[:3]:
            self.db.update(one.id, text=f"again {one.text}")

    @rule()
    def housekeeping(self) -> None:
        keep_house(self.db)
        self._look()

    @rule(name=st.sampled_from("abc"))
    def begin(self, name: str) -> None:
        self.db.reembed(self.models[name])
        self.aim = name

    @rule(times=st.integers(1, 4))
    def step(self, times: int) -> None:
        for _ in range(times):
            self.steps.step()
        self._look()

    @rule()
    def finish(self) -> None:
        if self.db.stats()["reembedding"] is not None:
            self.db.reembed(wait=True)
            self._look()
            assert self.now == self.aim
            check_space(self.db, self.models[self.now])

    @rule()
    def reopen(self) -> None:
        self.db.close()
        self._open()

    def _look(self) -> None:
        state = self.db.stats()["reembedding"]
        if state is not None and state["state"] != "running":
            self.now = self.aim

    @invariant()
    def every_vector_is_of_its_model(self) -> None:
        if not hasattr(self, "db"):
            return
        self._look()
        model = self.models[self.now]
        texts = {one.id: one.text for one in self.db.iter()}
        found = vectors_of(self.db) if "default" in space_names(self.db) else {}
        assert found.keys() == texts.keys()
        for id, vector in found.items():
            wanted = model.embed([texts[id]], "query")[0]
            assert vector @ wanted / np.linalg.norm(vector) / np.linalg.norm(wanted) > 0.999
        assert self.db.check()["problems"] == []

    def teardown(self) -> None:
        if hasattr(self, "db"):
            self.db.close()
            self.directory.cleanup()
            self.patch.undo()


WhileItIsEmbedded.TestCase.settings = hypothesis_settings(
    max_examples=12, stateful_step_count=12, deadline=None
)
TestWhileItIsEmbedded = WhileItIsEmbedded.TestCase


def test_what_is_erased_meanwhile_leaves_no_byte_of_either_vector(
    db: memdb.Database, old: Words, new: Words
) -> None:
    db.remember_many(sentences(100))
    secret = db.remember("the secret garden gate stands open")
    steps = paused(db)
    db.reembed(new)
    while secret.id not in (vectors_of(db, "default:next") if steps.step() else {}):
        keep_house(db)
    canaries = [
        memdb.Canary(text=str(secret.memory.text), vector=model.embed([str(secret.memory.text)])[0])
        for model in (old, new)
    ]
    assert memdb.scan_erased(db.path, canaries).found
    receipt = db.erase([secret.id])
    while receipt.state != "scrubbed":
        assert keep_house(db)
    assert memdb.scan_erased(db.path, canaries).clean
    assert db.reembed(wait=True).total == 100
    assert memdb.scan_erased(db.path, canaries).clean
    check_space(db, new)


def test_threads_write_and_ask_all_the_while(db: memdb.Database) -> None:
    """What is written is found by its meaning at once, before, during and after the change."""
    db.remember_many(sentences(300))
    stop, errors, written = threading.Event(), [], 0

    def write() -> None:
        nonlocal written
        seed = 1
        while not stop.is_set():
            try:
                text = sentences(1, seed)[0]
                id = db.remember(text).id
                hits = db.recall(text, mode="vector", k=3)
                assert id in [hit.id for hit in hits], text
                written, seed = written + 1, seed + 1
            except BaseException as error:  # noqa: BLE001 - the test tells which
                errors.append(error)
                return

    thread = threading.Thread(target=write)
    thread.start()
    for model in (Words("b", dim=16), Words("c", dim=24)):
        done = db.reembed(model, wait=True)
        assert done.state == "done"
    stop.set()
    thread.join()
    assert errors == [] and written > 5
    check_space(db, model)
    assert db.check()["ok"]


# --- what has no text, no vector, or no model --------------------------------------------------


def test_memories_without_text_keep_their_vectors_in_a_space_that_is_named(
    db: memdb.Database, tmp_path: Path, new: Words
) -> None:
    db.remember_many(sentences(40))
    brought = [db.remember(data={"n": n}, vector=np.eye(16)[n]).id for n in range(3)]
    hidden = db.remember(data={"n": 9}, vector=np.eye(16)[9]).id
    batch = db.forget(hidden).batch
    db.remember(data={"no": "vector"})
    done = db.reembed(new, wait=True)
    assert (done.kept, done.space, done.total) == (4, "brought", 40)
    check_space(db, new)
    listed = {one.name: one for one in db.spaces.list()}
    assert (listed["brought"].vectors, listed["brought"].embedder) == (4, None)
    assert db[brought[1]].space == "brought"
    assert db.recall(vector=np.eye(16)[1], space="brought", mode="vector")[0].id == brought[1]
    with pytest.raises(memdb.InvalidArgument, match="brought"):
        db.recall("word1", space="brought", mode="vector")
    assert "brought" in (db.recall("word1", space="brought").degraded or "")
    db.restore(batch=batch)
    assert db.recall(vector=np.eye(16)[9], space="brought", mode="vector")[0].id == hidden
    db.remember(data={"n": 10}, vector=np.eye(16)[10], space="brought")
    db.remember_many(sentences(10, 3))
    db.export(tmp_path / "all.jsonl")
    with memdb.open(tmp_path / "other", embedder=new) as other:
        other.import_(tmp_path / "all.jsonl")
        assert vectors_of(other, "brought").keys() == vectors_of(db, "brought").keys()
    check_space(db, new)
    assert db.check()["ok"]


def test_what_was_written_without_a_model_is_embedded_when_there_is_one(tmp_path: Path) -> None:
    with memdb.open(tmp_path / "db", embedder="none") as db:
        db.remember_many(sentences(30))
        db.remember(data={"a": 1})
        assert db.reembed(Words("one"), wait=True).total == 30
        check_space(db, Words("one"))
        db.remember("word1 word2")
        check_space(db, Words("one"))
    with memdb.open(tmp_path / "db", embedder="none") as db:
        db.remember("word3 word4")
    with memdb.open(tmp_path / "db", embedder=Words("one")) as db:
        assert db.reembed(wait=True).done == 32
        check_space(db, Words("one"))
        assert db.spaces.list()[0].vectors == 32
        assert db.check()["ok"]


def test_another_model_is_refused_with_the_way_to_it(tmp_path: Path, old: Words) -> None:
    with memdb.open(tmp_path / "db", embedder=old) as db:
        db.remember("word1 word2")
    with pytest.raises(memdb.EmbedderMismatch) as refused:
        memdb.open(tmp_path / "db", embedder="static")
    assert "memdb reembed static" in refused.value.hint
    with memdb.open(tmp_path / "db") as db:  # the model there was is lost
        with pytest.raises(memdb.EmbedderUnavailable):
            db.remember("word3")
        paused(db)
        db.reembed("static")
        db.remember("word3 while it is embedded")
        assert db.reembed(wait=True).done == 2
        db.remember("word4")
        assert db.recall("word4", mode="vector")[0].text == "word4"
    with memdb.open(tmp_path / "db", embedder="static") as db:
        assert db.spaces.list()[0].vectors == 3
    with pytest.raises(memdb.EmbedderMismatch):
        memdb.open(tmp_path / "db", embedder=old)


def test_bad_arguments_are_refused_and_change_nothing(db: memdb.Database, new: Words) -> None:
    db.remember("word1")
    for wrong in ("none", "stattic", 7):
        with pytest.raises(memdb.InvalidArgument):
            db.reembed(wrong)  # type: ignore[arg-type]
    db._maintenance.stop()
    assert db.reembed(new).state == "running"
    for act in (
        lambda: db.spaces.drop("default:next"),
        lambda: db.remember("x", vector=np.ones(24), space="default:next"),
    ):
        with pytest.raises(memdb.Conflict):
            act()
    assert space_names(db) == ["default", "default:next"]


def test_a_model_that_fails_is_told_and_tried_again(db: memdb.Database, old: Words) -> None:
    class Failing(Words):
        broken = False

        def embed(self, texts: list[str], role: str = "document") -> np.ndarray:
            if self.broken:
                raise OSError("the server is gone")
            return super().embed(texts, role)

    model = Failing("failing")
    db.remember_many(sentences(30))
    paused(db)
    db.reembed(model)
    model.broken = True
    with pytest.raises(memdb.EmbedderUnavailable, match="the server is gone"):
        db.reembed(wait=True)
    assert "the server is gone" in db.stats()["reembedding"]["waiting"]
    check_space(db, old)
    model.broken = False
    assert db.reembed(wait=True).waiting is None
    check_space(db, model)


def test_the_command_line_embeds_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with memdb.open(tmp_path / "db", embedder="none") as db:
        db.remember_many(sentences(30))
    cli = Runner(tmp_path / "db", capsys, monkeypatch)
    assert cli.run("reembed", "static", "--no-wait")[0] == 0
    with memdb.open(tmp_path / "db", embedder="none") as db:
        assert db.stats()["reembedding"]["total"] == 30
    status, out, _ = cli.run("reembed", "static")
    assert status == 0 and out.endswith("embeds 30 texts\n")
    assert cli.ask("spaces", "list")["spaces"][0]["vectors"] == 30
    assert cli.ask("reembed")["state"] == "done"
