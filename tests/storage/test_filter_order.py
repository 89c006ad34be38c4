"""Numbers, times and strings in order: sorted lists are the model."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memdb.storage import tables
from memdb.storage.environment import Environment, WriteTxn
from memdb.storage.filters import strings, text_ranges
from memdb.storage.filters.ordered import (
    KEY_END,
    NUMBERS,
    PLAIN_NUMBERS,
    TIMES,
    OrderedIndex,
    key_number,
    key_time,
    number_key,
    time_key,
)
from memdb.storage.values import SMALL_PAYLOAD_MAX_BYTES

FIELD = 300


@pytest.fixture
def txn(tmp_path: Path) -> Iterator[WriteTxn]:
    with Environment(tmp_path, map_size=1 << 28).write() as txn:
        yield txn


# --- keys ------------------------------------------------------------------------------------

numbers = st.one_of(
    st.integers(-(2**53) + 1, 2**53 - 1), st.floats(allow_nan=False, allow_infinity=False)
)


@given(numbers, numbers)
def test_number_keys_have_the_numbers_order(a: float, b: float) -> None:
    assert (number_key(a) < number_key(b)) is (a < b)
    assert (number_key(a) == number_key(b)) is (a == b)
    assert key_number(number_key(a)) == a


@given(st.integers(-(2**63), 2**63 - 1))
def test_time_keys_are_unsigned_and_turn_back(micros: int) -> None:
    assert 0 <= time_key(micros) < KEY_END
    assert key_time(time_key(micros)) == micros


# --- numbers and times -----------------------------------------------------------------------


def _values(rng: random.Random, kind: str, count: int) -> list[int]:
    if kind == "few":
        return [rng.randrange(3) for _ in range(count)]
    if kind == "ascending":
        return list(range(1_000_000, 1_000_000 + count))
    if kind == "negative":
        return [number_key(rng.uniform(-5, 5)) for _ in range(count)]
    return [time_key(rng.randrange(0, 10 * 365 * 86_400_000_000)) for _ in range(count)]


@pytest.mark.parametrize("index", [NUMBERS, PLAIN_NUMBERS, TIMES])
@pytest.mark.parametrize("kind", ["few", "ascending", "negative", "years"])
def test_ranges_and_scans_equal_a_sorted_list(
    index: OrderedIndex, kind: str, txn: WriteTxn
) -> None:
    rng = random.Random(kind)
    keys = _values(rng, kind, 4_000)
    rows = rng.sample(range(1 << 20), len(keys))
    entries = list(zip(keys, rows, strict=True))
    index.add(txn, FIELD - 1, entries[:50])  # neighbours that must not be touched or seen
    index.add(txn, FIELD + 1, entries[:50])
    for start in range(0, 3_000, 1_000):
        index.add(txn, FIELD, entries[start : start + 1_000])
    for entry in entries[3_000:]:
        index.add(txn, FIELD, [entry])
    model = sorted(entries)
    table = tables.TIMES if index is TIMES else tables.NUMBERS
    for _ in range(2):
        for _ in range(60):
            low, high = sorted(rng.choice(keys) + rng.choice([-1, 0, 1]) for _ in range(2))
            low, high = (max(low, 0), high) if rng.random() < 0.8 else (0, KEY_END)
            inside = [(k, r) for k, r in model if low <= k < high]
            assert set(index.rows(txn, FIELD, low, high)) == {r for _, r in inside}
            assert list(index.scan(txn, FIELD, low, high)) == inside
            assert list(index.scan(txn, FIELD, low, high, reverse=True)) == inside[::-1]
        gone = rng.sample(model, len(model) // 2)
        index.remove(txn, FIELD, [*gone, (12_345, 1)])
        model = sorted(set(model) - set(gone))
    payloads = [
        p for _, p in txn.scan(table, FIELD.to_bytes(2, "big"), (FIELD + 1).to_bytes(2, "big"))
    ]
    assert all(0 < len(p) <= SMALL_PAYLOAD_MAX_BYTES for p in payloads)
    index.remove(txn, FIELD, model)
    index.remove(txn, FIELD - 1, entries[:50])
    index.remove(txn, FIELD + 1, entries[:50])
    assert (txn.count(table), txn.count(tables.BITMAPS)) == (0, 0)


def test_ascending_entries_leave_full_blocks(txn: WriteTxn) -> None:
    for i in range(1_500):
        TIMES.add(txn, FIELD, [(time_key(i), i)])
    assert txn.count(tables.TIMES) == 10


def test_an_entry_added_again_is_there_once(txn: WriteTxn) -> None:
    for _ in range(3):
        NUMBERS.add(txn, FIELD, [(number_key(1.5), 7), (number_key(1.5), 7)])
    assert list(NUMBERS.scan(txn, FIELD, 0, KEY_END)) == [(number_key(1.5), 7)]


# --- strings ---------------------------------------------------------------------------------


def _agrees(
    txn: WriteTxn, model: set[strings.Entry], low: bytes, high: bytes | None, *, or_outside: bool
) -> bool:
    """Whether what is found is right; returns whether it is what lies outside."""
    found = text_ranges.find(txn, FIELD, low, high, or_outside=or_outside)
    wanted = {
        (text, row)
        for text, row in model
        if (low <= text and (high is None or text < high)) is not found.outside
    }
    assert set(found.rows) == {row for _, row in wanted if row != strings.MANY}
    assert set(found.many) == {text for text, row in wanted if row == strings.MANY}
    return found.outside


SOURCES = {
    "random": lambda rng, i: bytes(rng.choices(b"abc", k=rng.randrange(1, 12))),
    "ascending": lambda rng, i: b"2024-%06d" % i,
    "descending": lambda rng, i: b"2024-%06d" % (9_999 - i),
    "two ascending": lambda rng, i: b"%d/%05d" % (i % 2, i),
    "long": lambda rng, i: b"x" * rng.randrange(400, 500) + b"%d" % rng.randrange(50),
    "unicode": lambda rng, i: "".join(rng.choices("aß日🙂\x00", k=5)).encode(),
}


@pytest.mark.parametrize("kind", SOURCES)
def test_strings_in_order_equal_a_sorted_list(
    kind: str, txn: WriteTxn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(text_ranges, "MANY_BLOCKS", 2)
    rng = random.Random(kind)
    model: set[strings.Entry] = set()
    strings.insert(txn, FIELD - 1, [(b"before", 1)])
    strings.insert(txn, FIELD + 1, [(b"after", 1)])
    at = 0
    while at < 1_500:
        size = rng.choice([1, 1, 3, 200])
        batch = [
            (SOURCES[kind](rng, at + i), strings.MANY if rng.random() < 0.1 else at + i)
            for i in range(size)
        ]
        strings.insert(txn, FIELD, batch)
        model |= set(batch)
        at += size
        if rng.random() < 0.3:
            gone = rng.sample(sorted(model), len(model) // 10)
            strings.remove(txn, FIELD, [*gone, (b"never there", 4)])
            model -= set(gone)
    assert list(strings.scan(txn, FIELD)) == sorted(model)
    texts = sorted({text for text, _ in model})
    outside = 0
    for _ in range(150):
        low = rng.choice(texts)[: rng.randrange(8)]
        high = rng.choice([None, low + b"\xff", rng.choice(texts)])
        assert not _agrees(txn, model, low, high, or_outside=False)
        outside += _agrees(txn, model, low, high, or_outside=True)
    assert outside > 10
    assert all(len(p) <= SMALL_PAYLOAD_MAX_BYTES for _, p in txn.scan(tables.NAMES))
    assert not any(t in key for key in txn.scan_keys(tables.NAMES) for t in texts if len(t) > 3)
    strings.remove(txn, FIELD, list(model))
    assert list(strings.scan(txn, FIELD - 1)) == [(b"before", 1)]
    assert txn.count(tables.NAMES) == 2


def test_labels_that_run_out_are_made_anew(txn: WriteTxn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(strings, "_STEP", 4)
    make_room, made = strings._make_room, []
    monkeypatch.setattr(strings, "_make_room", lambda *a: (made.append(1), make_room(*a)))
    model = [(b"%06d" % (i if i % 2 else 1_000_000 - i) + b"x" * 60, i) for i in range(3_000)]
    for entry in model:
        strings.insert(txn, FIELD, [entry])
    assert made
    assert list(strings.scan(txn, FIELD)) == sorted(model)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.booleans(), st.lists(st.tuples(st.text(max_size=4), st.integers(0, 5))))),
    st.text(max_size=3),
)
def test_any_sequence_of_insertions_and_removals_equals_a_set(
    tmp_path_factory: pytest.TempPathFactory,
    steps: list[tuple[bool, list[tuple[str, int]]]],
    prefix: str,
) -> None:
    environment = Environment(tmp_path_factory.mktemp("kv"), map_size=1 << 26)
    model: set[strings.Entry] = set()
    with environment.write() as txn:
        for adds, items in steps:
            entries = [(text.encode("utf-8", "replace"), row) for text, row in items]
            (strings.insert if adds else strings.remove)(txn, FIELD, entries)
            model = model | set(entries) if adds else model - set(entries)
        start = prefix.encode("utf-8", "replace")
        assert list(strings.scan(txn, FIELD)) == sorted(model)
        assert not _agrees(txn, model, start, start + b"\xff", or_outside=True)
    environment.close()
