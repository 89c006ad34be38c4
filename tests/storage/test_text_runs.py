"""Ranges of strings over remembered runs: the same as brute force in every snapshot."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyroaring import BitMap

from memdb.storage.changes import Change, changes_since
from memdb.storage.filters import FilterIndex, strings, text_ranges, text_runs
from memdb.storage.store import Reader, Store, Writer
from memdb.types import Memory

INDEX = FilterIndex()
FIELD = "metadata.s"
Model = dict[int, tuple[str, ...]]


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    monkeypatch.setattr(text_ranges, "MANY_BLOCKS", 2)
    opened = Store.open(tmp_path / "db", map_size=1 << 28)
    yield opened
    opened.close()


def memory(row: int, texts: tuple[str, ...]) -> Memory:
    return Memory(id=str(row), metadata={"s": list(texts) if len(texts) > 1 else texts[0]})


def add(store: Store, rows: Model) -> None:
    def write(txn: Writer) -> None:
        INDEX.add(txn, [(row, memory(row, texts)) for row, texts in rows.items()])
        txn.changed(added=rows)

    store.write(write)


def remove(store: Store, rows: Model) -> None:
    store.write(lambda txn: INDEX.remove(txn, [(r, memory(r, texts)) for r, texts in rows.items()]))


def change(store: Store, row: int, old: tuple[str, ...], new: tuple[str, ...]) -> None:
    def write(txn: Writer) -> None:
        INDEX.change(txn, row, memory(row, old), memory(row, new))
        txn.changed(added=[row])

    store.write(write)


def assert_right(txn: Reader, model: Model, rng: random.Random, times: int = 4) -> None:
    texts = sorted({text for row in model.values() for text in row}) or ["a"]
    for _ in range(times):
        low, high = sorted(rng.choices(texts, k=2))
        wanted = [r for r, row in model.items() if any(low <= text < high for text in row)]
        assert sorted(INDEX.range(txn, FIELD, low, high)) == sorted(wanted)
        prefix = rng.choice(texts)[: rng.randrange(4)]
        wanted = [r for r, row in model.items() if any(text.startswith(prefix) for text in row)]
        assert sorted(INDEX.prefix(txn, FIELD, prefix)) == sorted(wanted)


def runs_of(txn: Reader) -> text_runs.Runs | None:
    shared = txn.scratch.get(text_runs._SCRATCH, {})
    return next(iter(shared.values()), None)


def text_of(rng: random.Random, *, repeats: bool) -> str:
    return f"{rng.choice('abc')}{rng.randrange(40 if repeats else 100_000):06d}" + "x" * 40


@pytest.mark.parametrize("several", [False, True])
@pytest.mark.parametrize("repeats", [False, True])
def test_every_snapshot_sees_its_own_strings(store: Store, several: bool, repeats: bool) -> None:
    rng = random.Random(f"{several}{repeats}")

    def texts() -> tuple[str, ...]:
        count = rng.choice([1, 1, 2]) if several else 1
        return tuple({text_of(rng, repeats=repeats and rng.random() < 0.7) for _ in range(count)})

    model: Model = {row: texts() for row in range(1_000)}
    add(store, model)
    shared = 0
    for step in range(60):
        with store.read() as older:
            assert_right(older, model, rng)
            runs, before = runs_of(older), dict(model)
            action = rng.choice(
                ["add", "add", "change", "remove", "batch"] if step % 9 else ["add"]
            )
            if action == "add":
                fresh = {10_000 + step: texts()}
            elif action == "batch":
                fresh = {20_000 + 500 * step + i: texts() for i in range(rng.choice([5, 300]))}
            else:
                fresh = {}
                row = rng.choice(list(model))
                if action == "change":
                    new = texts()
                    change(store, row, model[row], new)
                    model = {**model, row: new}
                else:
                    gone = {row: model[row]}
                    remove(store, gone)
                    model = {r: t for r, t in model.items() if r != row}
            if fresh:
                add(store, fresh)
                model = {**model, **fresh}
            with store.read() as later:
                assert_right(later, model, rng)
                now = runs_of(later)
                if runs is not None and now is not None and now is not runs:
                    shared += bool(set(map(id, now.runs)) & set(map(id, runs.runs)))
            assert_right(older, before, rng, times=1)
    assert shared > 30  # most steps left most of what was remembered in place


def test_one_write_makes_one_run_be_read_again(store: Store) -> None:
    add(store, {row: (f"{row * 7919 % 6_000:06d}" + "x" * 40,) for row in range(6_000)})
    rng = random.Random(1)
    for number in range(30):
        with store.read() as txn:
            INDEX.range(txn, FIELD, "000100", "005000")
            before = runs_of(txn)
        add(store, {10_000 + number: (f"{rng.randrange(6_000):06d}y",)})
        with store.read() as txn:
            INDEX.range(txn, FIELD, "000100", "005000")
            after = runs_of(txn)
        assert before is not None and after is not None
        assert 0 < len(set(map(id, after.runs)) - set(map(id, before.runs))) <= 2


def test_blocks_that_are_relabelled_are_read_again(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(strings, "_STEP", 4)
    rng = random.Random(2)
    model: Model = {}
    for number in range(150):
        fresh = {number * 10 + i: (f"{(150 - number) * 10 + i:06d}" + "x" * 60,) for i in range(9)}
        add(store, fresh)
        model |= fresh
        with store.read() as txn:
            assert_right(txn, model, rng, times=1)


def test_what_all_strings_leave_and_come_back_to_is_found(store: Store) -> None:
    rows: Model = {row: (f"{row:06d}" + "x" * 40,) for row in range(900)}
    steps = [range(start, start + 60) for start in range(0, 780, 60)]
    steps += [range(row, row + 1) for row in range(780, 900)]  # a block's last string goes alone
    for _ in range(2):
        add(store, rows)
        for gone in steps:
            with store.read() as txn:
                assert len(INDEX.prefix(txn, FIELD, "")) == 900 - gone.start
            remove(store, {row: rows[row] for row in gone})
        with store.read() as txn:
            assert not INDEX.prefix(txn, FIELD, "")


def test_a_write_of_more_blocks_than_the_log_names_is_seen(store: Store) -> None:
    texts = [(f"{number * 7919 % 8_000:06d}" + "x" * 40,) for number in range(8_000)]
    model: Model = dict(enumerate(texts[:7_000]))
    add(store, model)
    rng = random.Random(4)
    with store.read() as txn:
        assert_right(txn, model, rng)
        first = txn.state.content_seq
    add(store, dict(enumerate(texts)))  # seven in eight are there already and written again
    model = dict(enumerate(texts))
    with store.read() as txn:
        logged = changes_since(txn, first, first + 1)
        assert logged is not None and not logged.blocks_known
        assert_right(txn, model, rng, times=20)


def test_a_field_too_large_to_remember_is_read_each_time(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(text_runs, "_BLOCKS_MAX", 4)
    model: Model = {row: (f"{row * 7919 % 2_000:06d}" + "x" * 40,) for row in range(2_000)}
    add(store, model)
    rng = random.Random(3)
    for row in range(3):
        with store.read() as txn:
            assert_right(txn, model, rng, times=20)
            assert runs_of(txn) is None
        add(store, {9_000 + row: ("000000",)})
        model[9_000 + row] = ("000000",)


def test_what_is_remembered_of_several_fields_has_a_limit(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(text_runs, "_BYTES_MAX", 300_000)
    names = [f"f{i}" for i in range(6)]
    made = [
        (row, Memory(id=str(row), metadata={n: f"{row:06d}" + "x" * 40 for n in names}))
        for row in range(1_500)
    ]
    store.write(lambda txn: (INDEX.add(txn, made), txn.changed(added=range(1_500)))[0])
    for name in names * 2:
        with store.read() as txn:
            assert len(INDEX.prefix(txn, f"metadata.{name}", "000")) == 1_000
            kept = txn.scratch[text_runs._SCRATCH]
            assert 1 <= len(kept) < len(names)
            assert sum(runs.size for runs in kept.values()) <= 300_000


# --- the log it catches up by ---------------------------------------------------------------

rows_sets = st.sets(st.integers(0, 2**32 - 1), max_size=40)


@settings(deadline=None)
@given(rows_sets, rows_sets, st.sets(st.binary(min_size=10, max_size=10), max_size=250))
def test_a_change_turns_back_or_says_that_it_lost_the_blocks(
    added: set[int], removed: set[int], blocks: set[bytes]
) -> None:
    change = Change()
    change.note(added, removed - added)
    change.blocks |= blocks
    back = Change.unpack(change.pack())
    assert back is not None
    assert (set(back.added), set(back.removed)) == (added, removed - added)
    assert back.blocks == blocks if back.blocks_known else len(blocks) > 100


def test_a_change_of_an_earlier_version_does_not_know_its_blocks() -> None:
    added, removed = BitMap([1, 2]).serialize(), BitMap([3]).serialize()
    back = Change.unpack(len(added).to_bytes(4, "little") + added + removed)
    assert back is not None
    assert (list(back.added), list(back.removed)) == ([1, 2], [3])
    assert not back.blocks_known


def test_the_log_of_several_writes_names_the_blocks_of_all(store: Store) -> None:
    for row in range(3):
        add(store, {row: (f"text {row}",)})
    with store.read() as txn:
        last = txn.state.content_seq
        merged = changes_since(txn, last - 3, last)
    assert merged is not None and merged.blocks_known
    assert len(merged.blocks) == 4  # of kind, source, namespace and metadata.s, one each
