"""The filter index as a whole: what it files, finds, refiles and leaves nothing of."""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from pyroaring import BitMap

from memdb import settings
from memdb.errors import InvalidArgument
from memdb.storage import tables
from memdb.storage.environment import Environment, WriteTxn
from memdb.storage.filters import FIELDS, FilterIndex, field_values
from memdb.storage.filters.fields import parts
from memdb.storage.values import SMALL_PAYLOAD_MAX_BYTES, obeys_size_rule
from memdb.types import Memory, to_micros

T0 = datetime(2024, 5, 1, tzinfo=UTC)
FILTER_TABLES = (tables.BITMAPS, tables.NUMBERS, tables.TIMES, tables.NAMES)
INDEX = FilterIndex()


@pytest.fixture
def txn(tmp_path: Path) -> Iterator[WriteTxn]:
    with Environment(tmp_path, map_size=1 << 28).write() as txn:
        yield txn


def memory(number: int = 0, **fields: Any) -> Memory:
    return Memory(id=str(number), source=fields.pop("source", "app:test"), **fields)


def crowd(count: int, seed: int = 1) -> list[tuple[int, Memory]]:
    """Memories whose every text is a word that could be recognised in a key."""
    rng = random.Random(seed)
    return [
        (
            number * 37,
            memory(
                number,
                kind=f"kind-secret{number % 3}",
                source=f"file:///home/ana/secretpath/{number % 50}.md#L{number}",
                namespace=f"home/secretspace{number % 4}",
                stream=f"whatsapp/secretstream{number % 9}",
                tags=tuple(f"secrettag{rng.randrange(60)}" for _ in range(3)),
                about=(f"Secretperson {rng.randrange(30)}",),
                event_time=T0 + timedelta(minutes=rng.randrange(500_000)),
                recorded_at=T0 + timedelta(seconds=number),
                position=number,
                metadata={
                    "secretkey": f"secretvalue-{rng.randrange(10_000)}",
                    "n": rng.random(),
                    "nested": {"secretinner": [f"secretitem{rng.randrange(5)}", number, None]},
                    "long": "secretlong" * rng.choice([1, 90]),
                },
            ),
        )
        for number in range(count)
    ]


def test_no_key_holds_text_and_every_value_obeys_the_size_rule(txn: WriteTxn) -> None:
    rows = crowd(2_500)
    for start in range(0, 2_000, 500):
        INDEX.add(txn, rows[start : start + 500])
    for pair in rows[2_000:2_250]:
        INDEX.add(txn, [pair])
    for pair in rows[2_250:]:
        INDEX.add_fresh(txn, [pair], ["live"])
    seen = 0
    for table in (*FILTER_TABLES, tables.META, tables.FRESH_FILTERS):
        for key, value in txn.raw(table):
            seen += 1
            assert b"ecret" not in key and b"home" not in key and b"whatsapp" not in key
            assert obeys_size_rule(value)
            assert table == tables.META or len(value) <= SMALL_PAYLOAD_MAX_BYTES + 4
    assert seen > 5_000


def test_removing_what_was_added_leaves_no_byte_of_it(txn: WriteTxn) -> None:
    rows = crowd(1_200)
    INDEX.add(txn, rows)
    order = random.Random(2).sample(rows, len(rows))
    INDEX.remove(txn, order[:500])
    kept = dict(order[500:])
    for field in ("tags", "metadata.secretkey", "metadata.nested.secretinner"):
        expected: dict[Any, int] = {}
        for kept_memory in kept.values():
            for value in set(field_values(kept_memory, field) or ()):
                expected[value] = expected.get(value, 0) + 1
        assert dict(INDEX.values(txn, field, BitMap(kept))) == expected
    for pair in order[500:900]:
        INDEX.remove(txn, [pair])
    INDEX.remove(txn, order[900:])
    INDEX.remove(txn, order[:3])  # again: passed over
    assert [txn.count(table) for table in FILTER_TABLES] == [0, 0, 0, 0]
    assert not any(b"secret" in payload for _, payload in txn.scan(tables.META))


def test_one_by_one_and_in_one_batch_answer_alike(tmp_path: Path) -> None:
    rows = crowd(400)
    answers = []
    for batch, fresh in ((1, False), (7, False), (400, False), (1, True)):
        path = tmp_path / f"{batch} {fresh}"
        path.mkdir()
        with Environment(path, map_size=1 << 28).write() as txn:
            for start in range(0, len(rows), batch):
                (INDEX.add_fresh if fresh else INDEX.add)(txn, rows[start : start + batch])
            assert (INDEX.fresh_count(txn) > 300) is fresh
            INDEX.add(txn, rows[:9])  # again is the same as once
            everything = BitMap(row for row, _ in rows)
            answers.append(
                [
                    INDEX.equals(txn, "tags", "secrettag7"),
                    INDEX.prefix(txn, "metadata.secretkey", "secretvalue-1"),
                    INDEX.prefix(txn, "source", "file:///home/ana/secretpath/4"),
                    INDEX.prefix(txn, "source", "file:///home/"),
                    INDEX.range(txn, "metadata.n", 0.25, 0.5),
                    INDEX.range(txn, "position", 10, 90, include_low=False, include_high=True),
                    INDEX.subtree(txn, "home"),
                    INDEX.present(txn, "event_time"),
                    INDEX.undecided(txn, "metadata.long", ordered=True),
                    INDEX.several(txn, "metadata.nested.secretinner"),
                    INDEX.values(txn, "tags", everything),
                    list(INDEX.times_in_order(txn, "event_time", None, None, reverse=True)),
                ]
            )
    assert answers[0] == answers[1] == answers[2] == answers[3]
    assert all(answers[0])


def test_a_subtree_is_a_namespace_and_what_lies_under_it(txn: WriteTxn) -> None:
    names = ["home", "home/a", "home/a/b", "homely", "work", "home:x"]
    INDEX.add(txn, [(i, memory(i, namespace=name)) for i, name in enumerate(names)])
    assert list(INDEX.subtree(txn, "home")) == [0, 1, 2]
    assert list(INDEX.subtree(txn, "home/a")) == [1, 2]
    assert list(INDEX.subtree(txn, "")) == [0, 1, 2, 3, 4, 5]
    assert list(INDEX.subtree(txn, "nobody")) == []


def test_types_are_told_apart_and_equal_numbers_are_equal(txn: WriteTxn) -> None:
    values: list[Any] = [1, 1.0, True, "1", None, 0, -0.0, False, "", [1, "1"], [], {"a": 1}]
    INDEX.add(txn, [(i, memory(i, metadata={"v": v})) for i, v in enumerate(values)])
    found = {
        repr(value): list(INDEX.equals(txn, "metadata.v", value))
        for value in (1, True, "1", None, 0, False, "")
    }
    assert found == {
        "1": [0, 1, 9],
        "True": [2],
        "'1'": [3, 9],
        "None": [4],
        "0": [5, 6],
        "False": [7],
        "''": [8],
    }
    assert list(INDEX.present(txn, "metadata.v")) == list(range(12))
    assert list(INDEX.present(txn, "metadata.v.a")) == [11]
    counts = INDEX.values(txn, "metadata.v", BitMap(range(12)))
    assert counts[0] == (1, 3)
    assert sorted(map(repr, counts)) == sorted(
        map(repr, [(1, 3), ("1", 2), (0, 2), ("", 1), (True, 1), (False, 1), (None, 1)])
    )


def test_times_come_in_order_both_ways_and_from_both_sides_of_1970(txn: WriteTxn) -> None:
    moments = [datetime(year, 6, 1, tzinfo=UTC) for year in (2024, 1950, 1970, 2024, 9000, 1)]
    rows = [(row, memory(row, event_time=moment)) for row, moment in enumerate(moments)]
    INDEX.add(txn, [*rows, (9, memory(9))])
    low, high = to_micros(moments[1]), to_micros(moments[0])
    assert [row for _, row in INDEX.times_in_order(txn, "event_time", low, high)] == [1, 2]
    everything = INDEX.times_in_order(txn, "event_time", None, None, reverse=True)
    assert list(everything) == [(to_micros(moments[row]), row) for row in (4, 3, 0, 2, 1, 5)]
    assert list(INDEX.range(txn, "event_time", low, high, include_high=True)) == [0, 1, 2, 3]
    assert list(INDEX.present(txn, "event_time")) == [0, 1, 2, 3, 4, 5]


def test_a_change_refiles_a_row_as_if_it_had_been_added_so(tmp_path: Path) -> None:
    old = memory(1, tags=("a", "b"), metadata={"x": 1, "gone": "y"}, pinned=True)
    new = old.replace(tags=("b", "c"), metadata={"x": 2}, pinned=False, retired_at=T0)
    contents = []
    for changed in (True, False):
        path = tmp_path / str(changed)
        path.mkdir()
        with Environment(path, map_size=1 << 26).write() as txn:
            INDEX.add(txn, [(5, old if changed else new)])
            if changed:
                INDEX.change(txn, 5, old, new)
            contents.append([txn.count(table) for table in FILTER_TABLES])
            assert list(INDEX.equals(txn, "tags", "c")) == [5]
            assert not INDEX.equals(txn, "tags", "a")
            assert not INDEX.equals(txn, "pinned", True)
            assert list(INDEX.equals(txn, "pinned", False)) == [5]
            assert not INDEX.present(txn, "metadata.gone")
            assert not any(b"gone" in payload for _, payload in txn.scan(tables.META))
            assert list(INDEX.present(txn, "retired_at")) == [5]
    assert contents[0] == contents[1]


def test_named_sets_keep_their_members_apart(txn: WriteTxn) -> None:
    INDEX.set_add(txn, "live", range(100_000))
    INDEX.set_add(txn, "hidden", [7])
    INDEX.set_add(txn, "hidden", [])
    INDEX.set_discard(txn, "live", [7, 200_000])
    assert INDEX.get_set(txn, "live") == BitMap(range(100_000)) - BitMap([7])
    assert list(INDEX.get_set(txn, "hidden")) == [7]
    assert not INDEX.get_set(txn, "never")


def test_keys_past_a_namespaces_limit_are_left_undecided_there_only(
    txn: WriteTxn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settings, "MAX_INDEXED_METADATA_KEYS", 2)
    full = memory(0, namespace="full", metadata={"a": 1, "b": 2, "c": 3})
    other = memory(1, namespace="other", metadata={"c": 3})
    INDEX.add(txn, [(0, full), (1, other)])
    assert list(INDEX.equals(txn, "metadata.c", 3)) == [1]
    assert list(INDEX.undecided(txn, "metadata.c", ordered=False)) == [0]
    assert not INDEX.undecided(txn, "metadata.a", ordered=False)
    INDEX.remove(txn, [(0, full)])
    assert not INDEX.undecided(txn, "metadata.c", ordered=False)
    INDEX.add(txn, [(2, memory(2, namespace="full", metadata={"c": 3, "d": 4}))])
    assert list(INDEX.equals(txn, "metadata.c", 3)) == [1, 2]  # the places were freed


def test_a_row_left_undecided_is_indexed_by_its_next_change_once_there_is_room(
    txn: WriteTxn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settings, "MAX_INDEXED_METADATA_KEYS", 1)
    first, second = memory(0, metadata={"a": 1}), memory(1, metadata={"c": 3, "d": 4})
    elsewhere = memory(2, namespace="other", metadata={"c": 3})
    INDEX.add(txn, [(0, first), (1, second), (2, elsewhere)])
    INDEX.change(txn, 1, second, second.replace(pinned=True))
    assert list(INDEX.undecided(txn, "metadata.c", ordered=False)) == [1]
    INDEX.remove(txn, [(0, first)])
    INDEX.change(txn, 1, second.replace(pinned=True), second)
    assert list(INDEX.equals(txn, "metadata.c", 3)) == [1, 2]
    assert not INDEX.undecided(txn, "metadata.c", ordered=False)
    assert list(INDEX.undecided(txn, "metadata.d", ordered=False)) == [1]
    INDEX.remove(txn, [(1, second), (2, elsewhere)])
    assert [txn.count(table) for table in FILTER_TABLES] == [0, 0, 0, 0]


def test_strings_too_long_for_order_are_equal_but_undecided_in_ranges(txn: WriteTxn) -> None:
    long, edge = "é" * 257, "é" * 256
    INDEX.add(txn, [(0, memory(0, metadata={"s": long})), (1, memory(1, metadata={"s": edge}))])
    assert list(INDEX.equals(txn, "metadata.s", long)) == [0]
    assert list(INDEX.prefix(txn, "metadata.s", "é")) == [1]
    assert list(INDEX.undecided(txn, "metadata.s", ordered=True)) == [0]
    assert not INDEX.undecided(txn, "metadata.s", ordered=False)


@pytest.mark.parametrize("odd", [None, 5, True, [], {}, ["s-1", "s-2"], "x" * 600])
def test_most_of_many_strings_is_found_by_what_lies_outside(
    odd: Any, txn: WriteTxn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("memdb.storage.filters.text_ranges.MANY_BLOCKS", 2)
    texts = {row: f"{'s-' if row % 4 else 't-'}{row % 1_500}" for row in range(2_000)}
    INDEX.add(txn, [(row, memory(row, metadata={"s": text})) for row, text in texts.items()])
    for has_odd in (False, True):
        if has_odd:
            INDEX.add(txn, [(9_999, memory(9_999, metadata={"s": odd}))])
        also = [9_999] if has_odd and isinstance(odd, list) and odd else []
        expected = [row for row, text in texts.items() if text.startswith("s-")]
        assert list(INDEX.prefix(txn, "metadata.s", "s-")) == expected + also
        assert list(INDEX.range(txn, "metadata.s", "s-", None)) == list(texts) + also
        assert list(INDEX.range(txn, "metadata.s", None, "t")) == expected + also


def test_a_time_field_has_no_list_of_values(txn: WriteTxn) -> None:
    with pytest.raises(InvalidArgument) as caught:
        INDEX.values(txn, "event_time", BitMap())
    assert caught.value.field == "event_time"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("app:whatsapp", ("app:",)),
        ("file:///a/b.md#L1-L4", ("file:", "file:///a/", "file:///a/b.md#")),
        ("home/", ()),
        ("/etc/x", ("/etc/",)),
        ("", ()),
        ("a/" * 20 + "b", tuple("a/" * n for n in range(1, 9))),
    ],
)
def test_a_path_ends_its_components_at_the_first_separator(
    text: str, expected: tuple[str, ...]
) -> None:
    assert parts(text) == expected


def test_the_numbers_of_fields_are_unique_and_fixed() -> None:
    assert {name: field.number for name, field in FIELDS.items()} == {
        name: number
        for number, name in enumerate(
            [
                "kind",
                "source",
                "namespace",
                "stream",
                "position",
                "tags",
                "subject",
                "key",
                "about",
                "external_id",
                "event_time",
                "event_end",
                "recorded_at",
                "retired_at",
                "valid_from",
                "valid_to",
                "expires_at",
                "importance",
                "pinned",
                "sensitivity",
                "derived_from",
                "space",
            ],
            16,
        )
    }
