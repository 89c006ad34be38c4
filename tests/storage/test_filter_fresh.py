"""Rows that are fresh answer as filed ones do, whatever happens to them before they are filed."""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyroaring import BitMap

from bench.filter_oracle import random_memory
from memdb.errors import StoreCorrupt
from memdb.storage import tables
from memdb.storage.environment import Environment, ReadTxn, WriteTxn
from memdb.storage.filters import FIELDS, FilterIndex, field_values, fresh, fresh_view
from memdb.storage.store import Store, Writer
from memdb.storage.values import SMALL_MAX_BYTES
from memdb.types import Memory, to_micros

INDEX = FilterIndex()
LIVE = "live"
FILED = (tables.BITMAPS, tables.NUMBERS, tables.TIMES, tables.NAMES)


@pytest.fixture
def txn(tmp_path: Path) -> Iterator[WriteTxn]:
    with Environment(tmp_path, map_size=1 << 28).write() as txn:
        yield txn


def paths(memories: dict[int, Memory]) -> set[str]:
    found = {name for name in FIELDS if name != "space"}
    for memory in memories.values():
        found |= {f"metadata.{key}" for key in memory.metadata}
    return found


def answers(txn: ReadTxn, memories: dict[int, Memory]) -> dict[str, Any]:
    """What the index says to many questions about these memories."""
    found: dict[str, Any] = {"live": list(INDEX.get_set(txn, LIVE))}
    everything = BitMap(memories)
    for field in sorted(paths(memories)):
        is_time = field in FIELDS and FIELDS[field].type == "time"
        values = {v for memory in memories.values() for v in field_values(memory, field) or ()}
        found[f"{field} present"] = list(INDEX.present(txn, field))
        found[f"{field} undecided"] = list(INDEX.undecided(txn, field, ordered=True))
        found[f"{field} several"] = list(INDEX.several(txn, field))
        numbers = sorted(v for v in values if type(v) in (int, float))
        texts = sorted(v for v in values if isinstance(v, str))
        if is_time:
            found[f"{field} order"] = [
                list(INDEX.times_in_order(txn, field, None, None, reverse=reverse))
                for reverse in (False, True)
            ]
        else:
            found[f"{field} values"] = INDEX.values(txn, field, everything)
            found[f"{field} equals"] = [
                (repr(v), list(INDEX.equals(txn, field, v))) for v in sorted(values, key=repr)
            ]
            found[f"{field} any"] = list(INDEX.any_of(txn, field, sorted(values, key=repr)))
        for low, high in ((numbers[:1], numbers[-1:]), (texts[:1], texts[-1:])):
            if low:
                found[f"{field} from {low}"] = [
                    list(INDEX.range(txn, field, low[0], None, include_low=False)),
                    list(INDEX.range(txn, field, low[0], high[0])),
                    list(INDEX.range(txn, field, None, high[0], include_high=True)),
                ]
        for text in texts:
            found[f"{field} prefix {text}"] = [
                list(INDEX.prefix(txn, field, text[:size])) for size in (1, len(text) // 2 or 1)
            ]
    return found


MOVES = st.lists(
    st.tuples(
        st.sampled_from(["fresh", "fresh", "fresh", "add", "fold", "change", "remove", "hide"]),
        st.integers(0, 1 << 16),
    ),
    min_size=1,
    max_size=25,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(seed=st.integers(0, 1 << 16), moves=MOVES)
def test_fresh_rows_answer_as_filed_ones(
    seed: int, moves: list[tuple[str, int]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """The same life in two indexes, of which one never keeps a row fresh."""
    rng = random.Random(seed)
    memories: dict[int, Memory] = {}
    one, other = (Environment(tmp_path_factory.mktemp("kv"), map_size=1 << 26) for _ in range(2))
    with one.write() as txn, other.write() as plain:
        for move, number in moves:
            row = sorted(memories)[number % len(memories)] if memories else None
            if move in ("fresh", "add"):
                row = number * 8 + len(memories)
                if row in memories:
                    continue
                memories[row] = random_memory(rng, row)
                INDEX.add(plain, [(row, memories[row])])
                INDEX.set_add(plain, LIVE, [row])
                if move == "fresh":
                    INDEX.add_fresh(txn, [(row, memories[row])], [LIVE])
                else:
                    INDEX.add(txn, [(row, memories[row])])
                    INDEX.set_add(txn, LIVE, [row])
            elif move == "fold":
                INDEX.fold(txn, number % 5)
            elif row is None:
                continue
            elif move == "change":
                after = random_memory(rng, row)
                for where in (txn, plain):
                    INDEX.change(where, row, memories[row], after)
                memories[row] = after
            elif move == "remove":
                gone = memories.pop(row)
                for where in (txn, plain):
                    INDEX.remove(where, [(row, gone)])
            else:
                for where in (txn, plain):
                    INDEX.set_discard(where, LIVE, [row])
        assert answers(txn, memories) == answers(plain, memories)
        while INDEX.fold(txn, 7):
            pass
        assert answers(txn, memories) == answers(plain, memories)
        assert [txn.count(table) for table in FILED] == [plain.count(table) for table in FILED]
    one.close()
    other.close()


def note(number: int, **fields: Any) -> Memory:
    return Memory(id=str(number), source="app:test", **fields)


def test_a_fresh_row_is_one_small_value_and_nothing_in_the_other_tables(txn: WriteTxn) -> None:
    INDEX.add_fresh(txn, [(7, note(7, tags=("a", "b"), metadata={"n": 1}))], [LIVE])
    assert [txn.count(table) for table in FILED] == [0, 0, 0, 0]
    assert INDEX.fresh_count(txn) == 1
    ((_, value),) = txn.raw(tables.FRESH_FILTERS)
    assert len(value) < 400
    assert INDEX.fold(txn, 10) == 1
    assert INDEX.fresh_count(txn) == 0 == txn.count(tables.FRESH_FILTERS)
    assert txn.count(tables.BITMAPS) > 0


def test_a_row_with_much_to_file_is_filed_at_once(txn: WriteTxn) -> None:
    large = note(1, tags=tuple(f"tag {n} {'x' * 100}" for n in range(50)))
    INDEX.add_fresh(txn, [(1, large), (2, note(2, tags=("small",)))], [LIVE])
    assert fresh.lowest(txn, 10) == [2]
    assert list(INDEX.get_set(txn, LIVE)) == [1, 2]
    assert list(INDEX.equals(txn, "tags", large.tags[49])) == [1]
    INDEX.change(txn, 2, note(2, tags=("small",)), large)
    assert INDEX.fresh_count(txn) == 0, "a change may make a row too large to stay fresh"
    assert list(INDEX.equals(txn, "tags", large.tags[49])) == [1, 2]
    assert list(INDEX.get_set(txn, LIVE)) == [1, 2]
    for _, value in txn.raw(tables.FRESH_FILTERS):
        assert len(value) <= SMALL_MAX_BYTES


def test_rows_are_folded_lowest_first_and_no_more_than_asked_for(txn: WriteTxn) -> None:
    INDEX.add_fresh(txn, [(row, note(row)) for row in (70_000, 5, 90, 6)])
    assert INDEX.fold(txn, 2) == 2
    assert fresh.lowest(txn, 10) == [90, 70_000]
    assert INDEX.fold(txn, 10) == 2
    assert INDEX.fold(txn, 10) == 0
    assert list(INDEX.equals(txn, "kind", "note")) == [5, 6, 90, 70_000]


def test_what_has_no_known_form_is_damage(txn: WriteTxn) -> None:
    for payload in (b"\1", bytes(5), b"\1\0\2\0\0\0" + bytes(10), b"\1\0\1\0\0\0" + bytes(10)):
        txn.put(tables.FRESH_FILTERS, bytes(4), payload)
        with pytest.raises(StoreCorrupt):
            INDEX.equals(txn, "kind", "note")
        txn.delete(tables.FRESH_FILTERS, bytes(4))


def test_every_snapshot_sees_the_fresh_rows_of_its_own_time(tmp_path: Path) -> None:
    """The decoded rows are shared between threads and snapshots: each must get its own."""
    store = Store.open(tmp_path / "db")

    def add(row: int, tag: str) -> None:
        def run(txn: Writer) -> None:
            INDEX.add_fresh(txn, [(row, note(row, tags=(tag,)))], [LIVE])
            txn.changed(added=[row])
            assert row in INDEX.equals(txn, "tags", tag), "the writer sees what it wrote"

        store.write(run)

    def change(row: int, before: str, after: str) -> None:
        def run(txn: Writer) -> None:
            assert list(INDEX.equals(txn, "tags", before))
            INDEX.change(txn, row, note(row, tags=(before,)), note(row, tags=(after,)))
            txn.changed(added=[row])
            assert row not in INDEX.equals(txn, "tags", before)

        store.write(run)

    def tagged(tag: str) -> list[int]:
        with store.read() as txn:
            return list(INDEX.equals(txn, "tags", tag))

    add(1, "a")
    with store.read() as old:
        assert list(INDEX.equals(old, "tags", "a")) == [1]
        add(2, "a")
        assert tagged("a") == [1, 2]
        change(1, "a", "b")
        assert (tagged("a"), tagged("b")) == ([2], [1])
        assert store.write(lambda txn: INDEX.fold(txn, 1)) == 1
        assert (tagged("a"), tagged("b")) == ([2], [1])
        assert list(INDEX.equals(old, "tags", "a")) == [1]
        assert not INDEX.equals(old, "tags", "b")
    with pytest.raises(ZeroDivisionError):
        store.write(lambda txn: (INDEX.fold(txn, 5), add_and_fail(txn)))
    assert (tagged("a"), tagged("c")) == ([2], [])
    store.close()


def add_and_fail(txn: Writer) -> None:
    INDEX.add_fresh(txn, [(3, note(3, tags=("c",)))])
    assert list(INDEX.equals(txn, "tags", "c")) == [3]
    raise ZeroDivisionError


def test_times_of_fresh_and_filed_rows_are_one_order(txn: WriteTxn) -> None:
    rng = random.Random(4)
    start = datetime(2024, 1, 1, tzinfo=UTC)
    memories = {
        row: note(row, event_time=start + timedelta(minutes=rng.randrange(40)))
        for row in range(200)
    }
    for row, memory in memories.items():
        (INDEX.add if row % 3 else INDEX.add_fresh)(txn, [(row, memory)])
    expected = sorted((to_micros(m.event_time), row) for row, m in memories.items())
    assert list(INDEX.times_in_order(txn, "event_time", None, None)) == expected
    backwards = INDEX.times_in_order(txn, "event_time", None, None, reverse=True)
    assert list(backwards) == expected[::-1]
    low, high = expected[50][0], expected[150][0]
    inside = [row for micros, row in expected if low <= micros < high]
    assert [row for _, row in INDEX.times_in_order(txn, "event_time", low, high)] == inside
    assert list(INDEX.range(txn, "event_time", low, high)) == sorted(inside)
    assert INDEX.bounds(txn, "event_time") is not None


def test_strings_filed_between_two_reads_are_found_by_the_second(tmp_path: Path) -> None:
    """Whatever a reader remembers of a field's many blocks, filing moves rows into them."""
    store = Store.open(tmp_path / "db")
    expected: set[int] = set()

    def write(rows: range, fresh_rows: bool) -> None:
        pairs = [(row, note(row, metadata={"code": f"c{row * 7919 % 30_011:05}"})) for row in rows]

        def run(txn: Writer) -> None:
            (INDEX.add_fresh if fresh_rows else INDEX.add)(txn, pairs)
            txn.changed(added=rows)

        store.write(run)
        expected.update(row for row in rows if row * 7919 % 30_011 >= 10_000)

    def from_ten_thousand_on() -> set[int]:
        with store.read() as txn:
            return set(INDEX.range(txn, "metadata.code", "c10000", None))

    write(range(20_000), False)
    assert from_ten_thousand_on() == expected
    write(range(20_000, 20_040), True)
    assert from_ten_thousand_on() == expected
    while store.write(lambda txn: INDEX.fold(txn, 16)):
        assert from_ten_thousand_on() == expected
    write(range(20_040, 21_040), False)
    assert from_ten_thousand_on() == expected
    store.close()


SNAPSHOT_MOVES = st.lists(
    st.tuples(
        st.sampled_from(
            [
                "add",
                "add",
                "batch",
                "fold",
                "change",
                "hide",
                "show",
                "abort",
                "read",
                "read",
                "old",
            ]
        ),
        st.integers(0, 1 << 16),
    ),
    min_size=5,
    max_size=40,
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(moves=SNAPSHOT_MOVES, patience=st.sampled_from([1, 3, 256]))
def test_readers_that_catch_up_see_what_those_see_that_read_everything(
    moves: list[tuple[str, int]], patience: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """One store's readers share what they decoded; to a second one's nothing is ever shared."""
    path = tmp_path_factory.mktemp("db")
    store = Store.open(path / "db", map_size=1 << 26)
    tags: dict[int, str] = {}
    live: set[int] = set()
    snapshots = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fresh_view, "_CHANGES_MAX", patience)
        for move, number in moves:
            if move in ("add", "batch", "abort"):
                rows = [(number + at) * 97 % 100_000 for at in range(1 if move == "add" else 80)]
                rows = [row for row in dict.fromkeys(rows) if row not in tags]
                made = {row: f"t{row % 5}" for row in rows}
                write = partial(_enter_fresh, made=made, fail=move == "abort")
                if move == "abort":
                    with pytest.raises(ZeroDivisionError):
                        store.write(write)
                else:
                    store.write(write)
                    tags |= made
                    live |= made.keys()
            elif move == "fold":
                store.write(lambda txn, most=number % 7: INDEX.fold(txn, most))
            elif move == "read":
                with store.read() as txn:
                    _agree(txn, tags, live)
            elif move == "old":
                snapshot = store.read()
                snapshots.append((snapshot, snapshot.__enter__(), dict(tags), set(live)))
            elif tags:
                row = sorted(tags)[number % len(tags)]
                if move == "change":
                    store.write(partial(_retag, row=row, before=tags[row], after=f"u{number % 5}"))
                    tags[row] = f"u{number % 5}"
                elif move == "hide":
                    store.write(partial(_hide, row=row))
                    live.discard(row)
                else:
                    store.write(partial(_show, row=row))
                    live.add(row)
        for snapshot, txn, its_tags, its_live in reversed(snapshots):
            _agree(txn, its_tags, its_live)
            snapshot.__exit__(None, None, None)
        with store.read() as txn:
            _agree(txn, tags, live)
    store.close()


def _enter_fresh(txn: Writer, *, made: dict[int, str], fail: bool) -> None:
    half = list(made)[: len(made) // 2]
    pairs = {row: (row, note(row, tags=(tag,))) for row, tag in made.items()}
    INDEX.add_fresh(txn, [pairs[row] for row in half], [LIVE])
    assert BitMap(half) <= INDEX.get_set(txn, LIVE), "the writer sees what it wrote"
    INDEX.add_fresh(txn, [pair for row, pair in pairs.items() if row not in half], [LIVE])
    txn.changed(added=made)
    assert BitMap(made) <= INDEX.get_set(txn, LIVE)
    if fail:
        raise ZeroDivisionError


def _retag(txn: Writer, *, row: int, before: str, after: str) -> None:
    INDEX.change(txn, row, note(row, tags=(before,)), note(row, tags=(after,)))
    txn.changed(added=[row])
    assert row in INDEX.equals(txn, "tags", after)


def _hide(txn: Writer, *, row: int) -> None:
    INDEX.set_discard(txn, LIVE, [row])
    txn.changed(removed=[row])
    assert row not in INDEX.get_set(txn, LIVE)


def _show(txn: Writer, *, row: int) -> None:
    INDEX.set_add(txn, LIVE, [row])
    txn.changed(added=[row])
    assert row in INDEX.get_set(txn, LIVE)


def _agree(txn: ReadTxn, tags: dict[int, str], live: set[int]) -> None:
    assert set(INDEX.get_set(txn, LIVE)) == live
    assert INDEX.logged_set(txn, LIVE) == INDEX.get_set(txn, LIVE), "what readers share"
    assert set(INDEX.present(txn, "tags")) == tags.keys()
    for tag in {*tags.values(), "t0", "u0"}:
        expected = {row for row, its in tags.items() if its == tag}
        assert set(INDEX.equals(txn, "tags", tag)) == expected
    assert set(INDEX.prefix(txn, "tags", "u")) == {
        row for row, its in tags.items() if its.startswith("u")
    }
    view = fresh_view.Fresh.of(txn)
    assert view.rows == fresh.all_rows(txn)
    assert view.strings(16) == [(b"note", row) for row in view.rows]


def test_a_view_catches_up_by_the_log_without_reading_what_it_knows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store.open(tmp_path / "db")
    store.write(partial(_enter_fresh, made={row: "a" for row in range(100)}, fail=False))
    with store.read() as txn:
        assert len(INDEX.equals(txn, "tags", "a")) == 100
    read: list[int] = []
    decode = fresh.decode
    monkeypatch.setattr(fresh, "decode", lambda value: read.append(1) or decode(value))
    store.write(partial(_enter_fresh, made={500: "a"}, fail=False))
    store.write(lambda txn: INDEX.fold(txn, 10))
    read.clear()
    with store.read() as txn:
        assert len(INDEX.equals(txn, "tags", "a")) == 101
        assert len(fresh_view.Fresh.of(txn).rows) == 91
    assert len(read) == 1, "the one new row"
    store.close()


def test_a_row_that_nobody_logged_is_found_all_the_same(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "db")
    store.write(partial(_enter_fresh, made={1: "a", 2: "a"}, fail=False))
    with store.read() as txn:
        assert list(INDEX.equals(txn, "tags", "a")) == [1, 2]
    store.write(lambda txn: INDEX.add_fresh(txn, [(3, note(3, tags=("b",)))]))
    with store.read() as txn:
        assert list(INDEX.equals(txn, "tags", "b")) == [3]
    store.close()
