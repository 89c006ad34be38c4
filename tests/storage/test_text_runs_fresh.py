"""Strings that are kept fresh and filed later, by this process or another, over remembered runs."""

from __future__ import annotations

import multiprocessing
import random
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from multiprocessing.connection import Connection
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from memdb.storage import tables
from memdb.storage.changes import changes_since
from memdb.storage.filters import FilterIndex, text_ranges, text_runs
from memdb.storage.store import Reader, Store, Writer
from memdb.types import Memory

INDEX = FilterIndex()
FIELDS = ("metadata.s", "source")  # one that only some rows have, and one that all have
Texts = tuple[str, ...]
Model = dict[int, tuple[Texts, str]]  # row: its strings under metadata.s, and its source
Question = tuple[str, str, str | None]  # field, low, high; a prefix has no high


def memory(row: int, model: Model) -> Memory:
    texts, source = model[row]
    metadata = {"s": list(texts) if len(texts) > 1 else texts[0]} if texts else {}
    return Memory(id=str(row), source=source, metadata=metadata)


def pairs(rows: list[int], model: Model) -> list[tuple[int, Memory]]:
    return [(row, memory(row, model)) for row in rows]


def answers(store: Store | Reader, questions: list[Question]) -> list[list[int]]:
    with ExitStack() as stack:
        txn = stack.enter_context(store.read()) if isinstance(store, Store) else store
        found = []
        for field, low, high in questions:
            rows = (
                INDEX.prefix(txn, field, low)
                if high is None
                else INDEX.range(txn, field, low, high)
            )
            found.append(list(rows))
        return found


def right(model: Model, questions: list[Question]) -> list[list[int]]:
    """By looking at every row."""
    found = []
    for field, low, high in questions:
        rows = []
        for row, (texts, source) in sorted(model.items()):
            values = texts if field == "metadata.s" else (source,)
            if any(v.startswith(low) if high is None else low <= v < high for v in values):
                rows.append(row)
        found.append(rows)
    return found


def asked(model: Model, rng: random.Random) -> list[Question]:
    """Wide and narrow ranges, and prefixes from none of a text to nearly all of it."""
    found: list[Question] = []
    for field in FIELDS:
        rows = list(model.values())
        texts = sorted({t for s, source in rows for t in (s if field != "source" else (source,))})
        for _ in range(3):
            low, high = sorted(rng.choices(texts or ["a"], k=2))
            found.append((field, low, high))
            found.append((field, rng.choice(texts or ["a"])[: rng.randrange(5)], None))
        found.append((field, "", "\U0010ffff"))
    return found


def remembered(txn: Reader) -> dict[int, text_runs.Runs]:
    found: dict[int, text_runs.Runs] = txn.scratch.get(text_runs._SCRATCH, {})
    return dict(found)


# --- another process ------------------------------------------------------------------------


def _serve(path: str, pipe: Connection) -> None:
    text_ranges.MANY_BLOCKS = 2
    store = Store.open(path, map_size=1 << 28)
    while (order := pipe.recv()) is not None:
        if isinstance(order, int):
            pipe.send(store.write(lambda txn, rows=order: INDEX.fold(txn, rows)))
        else:
            pipe.send(answers(store, order))
    store.close()


@contextmanager
def other_process(path: Path) -> Iterator[Connection]:
    """It folds as many rows as it is sent, or answers the questions it is sent."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    child = context.Process(target=_serve, args=(str(path), there))
    child.start()
    there.close()
    try:
        yield here
        here.send(None)
        child.join(30)
        assert child.exitcode == 0
    finally:
        here.close()
        child.kill()
        child.join()


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    monkeypatch.setattr(text_ranges, "MANY_BLOCKS", 2)
    opened = Store.open(tmp_path / "db", map_size=1 << 28)
    yield opened
    opened.close()


class Writes:
    """Every way that strings come, change, move and go, with what should be found after it."""

    def __init__(self, store: Store, rng: random.Random, fold_there: Callable[[int], int]) -> None:
        self.store = store
        self.rng = rng
        self.model: Model = {}
        self._fold_there = fold_there
        self._next = 0

    def new(self, count: int) -> list[int]:
        rows = list(range(self._next, self._next + count))
        self._next += count
        for row in rows:
            texts = tuple({self._text() for _ in range(self.rng.choice([0, 1, 1, 1, 2]))})
            self.model[row] = texts, self._text()
        return rows

    def _text(self) -> str:
        rng = self.rng
        many = rng.random() < 0.2  # texts that many rows share have a set of rows
        return f"{rng.choice('abc')}{rng.randrange(6 if many else 100_000):06d}" + "x" * 40

    def filed(self, count: int) -> None:
        rows = self.new(count)

        def write(txn: Writer) -> None:
            INDEX.add(txn, pairs(rows, self.model))
            txn.changed(added=rows)

        self.store.write(write)

    def fresh(self, count: int) -> None:
        rows = self.new(count)

        def write(txn: Writer) -> None:
            INDEX.add_fresh(txn, pairs(rows, self.model), ["live"])
            txn.changed(added=rows)

        self.store.write(write)

    def change(self) -> None:
        if not self.model:
            return
        row = self.rng.choice(list(self.model))
        before = memory(row, self.model)
        self.model[row] = (self._text(),), self._text()

        def write(txn: Writer) -> None:
            INDEX.change(txn, row, before, memory(row, self.model))
            txn.changed(added=[row])

        self.store.write(write)

    def remove(self, count: int) -> None:
        rows = self.rng.sample(sorted(self.model), min(count, len(self.model)))

        def write(txn: Writer) -> None:
            INDEX.remove(txn, pairs(rows, self.model))
            txn.changed(removed=rows)

        self.store.write(write)
        self.model = {row: what for row, what in self.model.items() if row not in rows}

    def fold(self, count: int) -> int:
        return self.store.write(lambda txn: INDEX.fold(txn, count))

    def fold_there(self, count: int) -> int:
        return self._fold_there(count)

    def step(self) -> str:
        what = self.rng.choice(
            ["fresh", "fresh", "fresh", "fold", "fold", "there", "there", "filed", "change", "gone"]
        )
        if what == "fresh":
            self.fresh(self.rng.choice([1, 3, 40]))
        elif what == "filed":
            self.filed(self.rng.choice([1, 130]))
        elif what == "change":
            self.change()
        elif what == "gone":
            self.remove(self.rng.choice([1, 20]))
        else:
            (self.fold if what == "fold" else self.fold_there)(self.rng.choice([1, 16, 32]))
        return what


@pytest.mark.parametrize("seed", range(2))
def test_readers_of_two_processes_follow_what_both_write_and_fold(store: Store, seed: int) -> None:
    rng = random.Random(seed)
    with other_process(store.path) as other:

        def ask_there(questions: list[Question]) -> list[list[int]]:
            other.send(questions)
            return list(other.recv())

        def fold_there(rows: int) -> int:
            other.send(rows)
            return int(other.recv())

        writes = Writes(store, rng, fold_there)
        writes.filed(1_000)
        kept = 0
        for _ in range(50):
            with store.read() as older:
                before = dict(writes.model)
                questions = asked(before, rng)
                assert answers(older, questions) == right(before, questions)
                known = remembered(older)
                what = writes.step()
                questions = asked(writes.model, rng)
                expected = right(writes.model, questions)
                with store.read() as later:
                    assert answers(later, questions) == expected, what
                    for number, now in remembered(later).items():
                        then = known.get(number)
                        if then is not None and now.sequence > then.sequence:
                            kept += bool(set(map(id, now.runs)) & set(map(id, then.runs)))
                assert ask_there(questions) == expected, what
                questions = asked(before, rng)
                assert answers(older, questions) == right(before, questions)
        assert kept > 25, "most of what was remembered stayed in place from step to step"


@settings(
    deadline=None, max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.randoms(use_true_random=False))
def test_fresh_and_filed_strings_are_one_in_every_snapshot(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch, rng: random.Random
) -> None:
    monkeypatch.setattr(text_ranges, "MANY_BLOCKS", 2)
    store = Store.open(tmp_path_factory.mktemp("fresh") / "db", map_size=1 << 28)
    writes = Writes(store, rng, lambda rows: store.write(lambda txn: INDEX.fold(txn, rows)))
    writes.filed(rng.choice([0, 5, 400]))
    for _ in range(12):
        what = writes.step()
        questions = asked(writes.model, rng)
        assert answers(store, questions) == right(writes.model, questions), what
    store.close()


def test_folding_counts_as_a_change_that_names_the_blocks_it_wrote(store: Store) -> None:
    writes = Writes(store, random.Random(5), lambda rows: 0)
    writes.filed(2_000)
    writes.fresh(16)
    with store.read() as txn:
        before = txn.state
        blocks = dict(txn.scan(tables.NAMES))
    assert writes.fold(16) == 16
    with store.read() as txn:
        after = txn.state
        moved = {key for key, payload in txn.scan(tables.NAMES) if blocks.get(key) != payload}
        change = changes_since(txn, before.content_seq, after.content_seq)
    assert after.content_seq == before.content_seq + 1
    assert after.layout_seq == before.layout_seq
    assert change is not None and change.blocks_known
    assert moved and moved <= change.blocks
    assert not change.added and not change.removed


def test_fresh_strings_leave_what_is_remembered_as_it_is(store: Store) -> None:
    """Only filing them moves blocks, and then only the runs that get some are read again."""
    writes = Writes(store, random.Random(6), lambda rows: 0)
    writes.filed(4_000)
    question: list[Question] = [("metadata.s", "a", "c5")]

    def runs_after_asking() -> text_runs.Runs:
        with store.read() as txn:
            assert answers(txn, question) == right(writes.model, question)
            (found,) = remembered(txn).values()
            return found

    before = runs_after_asking()
    writes.fresh(40)
    kept = runs_after_asking()
    assert kept.sequence == before.sequence + 1
    assert all(one is other for one, other in zip(kept.runs, before.runs, strict=True))
    assert writes.fold(2) == 2
    folded = runs_after_asking()
    again = set(map(id, folded.runs)) - set(map(id, kept.runs))
    assert 0 < len(again) <= 5
