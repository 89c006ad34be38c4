"""Series against a list of samples: appended, sealed, read both ways, hidden, erased."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from memdb.errors import Conflict, InvalidArgument
from memdb.storage import series, series_layout, tables
from memdb.storage.environment import Environment
from memdb.storage.ids import parse_id as parse_ulid
from memdb.storage.series import Position, Sample, SeriesKey
from memdb.storage.values import obeys_size_rule
from memdb.types import from_micros

HEART = SeriesKey("home/watch", "heart_rate", "watch-3", "app:health")
START = 1_714_000_000_000_000
SECOND = 1_000_000


@pytest.fixture
def env(tmp_path: Path) -> Iterator[Environment]:
    env = Environment(tmp_path)
    yield env
    env.close()


def beat(second: float, bpm: Any = 70, **more: Any) -> Sample:
    moment = START + int(second * SECOND)
    return Sample(moment, moment + 5, {"bpm": bpm}, zone="UTC", **more)


def fill(env: Environment, count: int, key: SeriesKey = HEART, start: int = 0) -> list[str]:
    """A sample a second, batch by batch, sealed."""
    ids: list[str] = []
    for first in range(start, start + count, 4_096):
        batch = [beat(i, 60 + i % 7) for i in range(first, min(first + 4_096, start + count))]
        with env.write() as txn:
            ids += series.append(txn, key, batch)
    with env.write() as txn:
        while series.seal_step(txn):
            pass
    return ids


def read(env: Environment, *args: Any, key: SeriesKey = HEART, **kwargs: Any) -> list[Sample]:
    with env.read() as txn:
        name = series.name_of(txn, key)
        return [found.sample for found in series.read_range(txn, [name], *args, **kwargs)]


def test_a_sample_is_a_memory_with_every_field_it_was_given(env: Environment) -> None:
    sample = Sample(
        START, START + 7, {"bpm": 61, "at": [1.0, None]}, START + 60, "Asia/Tokyo", "minute"
    )
    with env.write() as txn:
        (ident,) = series.append(txn, HEART, [sample])
    fill(env, 2_000)
    with env.read() as txn:
        memory = series.get_many(txn, [ident])[ident]
    assert memory.id == ident
    assert (memory.namespace, memory.kind, memory.stream, memory.source) == HEART
    assert memory.event_time == from_micros(START)
    assert memory.event_end == from_micros(START + 60)
    assert memory.recorded_at == from_micros(START + 7)
    assert (memory.time_zone, memory.precision) == ("Asia/Tokyo", "minute")
    assert memory.data == {"bpm": 61, "at": [1.0, None]}
    assert memory.text is None
    assert series.from_memory(memory) == (HEART, sample)
    with pytest.raises(InvalidArgument):
        series.from_memory(memory.replace(recorded_at=None))


def test_ids_read_back_and_are_never_taken_for_ulids(env: Environment) -> None:
    ids = fill(env, 3_000)
    assert len(set(ids)) == 3_000
    for ident in ids:
        parsed = series.parse_id(ident)
        assert parsed is not None
        assert series.format_id(*parsed) == ident
        assert parse_ulid(ident) is None


@pytest.mark.parametrize(
    "text",
    ["", "s_", "s_0011223344556677_", "s_0011223344556677_-1", "s_0011223344556677_01",
     "s_0011223344556677_٣", "s_00112233445566GG_1", "S_0011223344556677_1",
     "s_0011223344556677_" + "9" * 5000, "s_0011223344556677_1_", "01HZY3V2J7Q8K6T5R4E3W2A1B0"],
)  # fmt: skip
def test_what_is_no_sample_id_is_refused(env: Environment, text: str) -> None:
    assert series.parse_id(text) is None
    with env.read() as txn:
        assert series.get_many(txn, [text]) == {}


def test_ids_come_in_the_order_of_the_samples_and_stay_when_sealed(env: Environment) -> None:
    batch = [beat(i, i) for i in (5, 1, 9, 1, 3)]
    with env.write() as txn:
        ids = series.append(txn, HEART, batch)
    for _ in range(2):
        with env.read() as txn:
            found = series.get_many(txn, ids)
        assert [found[ident].data for ident in ids] == [sample.data for sample in batch]
        fill(env, 1_024)


def test_a_late_sample_is_read_in_its_place(env: Environment) -> None:
    fill(env, 3_000)
    with env.write() as txn:
        series.append(txn, HEART, [beat(10.5, 99), beat(2_500.5, 98)])
    fill(env, 2_000, start=3_000)
    seconds = [(s.event_us - START) / SECOND for s in read(env)]
    assert seconds == sorted([*range(5_000), 10.5, 2_500.5])
    around = read(env, START + 10 * SECOND, START + 12 * SECOND)
    assert [sample.data["bpm"] for sample in around] == [63, 99, 64]


def test_reversed_is_the_reverse_whatever_overlaps(env: Environment) -> None:
    rng = random.Random(8)
    moments = [rng.randrange(0, 40_000) for _ in range(6_000)]
    for first in range(0, 6_000, 500):
        with env.write() as txn:
            series.append(txn, HEART, [beat(m) for m in moments[first : first + 500]])
    with env.write() as txn:
        assert series.seal_step(txn, budget_ms=1_000)
    with env.read() as txn:
        name = series.name_of(txn, HEART)
        forwards = [row.position for row in series.read_range(txn, [name])]
        backwards = [row.position for row in series.read_range(txn, [name], reverse=True)]
    assert forwards == sorted(forwards)
    assert len(forwards) == 6_000
    assert backwards == forwards[::-1]


def test_samples_of_one_moment_come_in_the_order_of_their_numbers(env: Environment) -> None:
    fill(env, 1_024, start=1_000)
    fill(env, 1_024)  # ends after the first block begins
    for reverse in (False, True):
        with env.read() as txn:
            name = series.name_of(txn, HEART)
            found = [row.position for row in series.read_range(txn, [name], reverse=reverse)]
        assert found == sorted(found, reverse=reverse)
        assert len(found) == 2_048


def test_a_read_resumes_after_a_position_in_both_directions(env: Environment) -> None:
    fill(env, 2_500)
    other = SeriesKey("home", "heart_rate", None, "app:other")
    fill(env, 2_500, other)
    with env.read() as txn:
        names = [series.name_of(txn, key) for key in (HEART, other)]
        for reverse in (False, True):
            whole = [r.position for r in series.read_range(txn, names, reverse=reverse)]
            pages: list[Position] = []
            while True:
                after = pages[-1] if pages else None
                page = series.read_range(txn, names, reverse=reverse, limit=777, after=after)
                found = [row.position for row in page]
                if not found:
                    break
                pages += found
            assert pages == whole
            assert len(whole) == 5_000


def test_blocks_outside_the_range_are_not_decompressed(
    env: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(env, 20_480)
    opened = []
    samples = series.Block.samples

    def spy(block: Any, *part: int) -> Any:
        opened.append(block.lo)
        return samples(block, *part)

    monkeypatch.setattr(series.Block, "samples", spy)
    assert len(read(env, START + 5_000 * SECOND, START + 5_100 * SECOND)) == 100
    assert len(opened) == 1
    opened.clear()
    assert len(read(env, limit=3, reverse=True)) == 3
    assert len(opened) <= 3
    opened.clear()
    with env.read() as txn:
        name = series.name_of(txn, HEART)
        assert series.count(txn, name, START, START + 20_000 * SECOND) == 20_000
    assert not opened


def test_a_block_with_a_wide_gap_is_cut_there(env: Environment) -> None:
    year = 365 * 86_400
    with env.write() as txn:
        series.append(txn, HEART, [beat(i) for i in range(500)])
        series.append(txn, HEART, [beat(i - year) for i in range(524)])
        assert series.seal_step(txn)
    with env.read() as txn:
        name = series.name_of(txn, HEART)
        header = series.read_header(txn, name)
        assert header is not None
        assert txn.count(tables.SERIES) == 2
        assert header.widest_us < 600 * SECOND
        assert len(list(series.read_range(txn, [name]))) == 1_024
        assert series.check(txn) == []


def test_one_append_is_one_row_until_a_block_is_full(env: Environment) -> None:
    with env.write() as txn:
        for i in range(1_024):
            assert not series.seal_step(txn)
            series.append(txn, HEART, [beat(i)])
    with env.read() as txn:
        assert (txn.count(tables.SAMPLES), txn.count(tables.SERIES)) == (1_024, 0)
    with env.write() as txn:
        assert series.seal_step(txn)
        assert not series.seal_step(txn)
    with env.read() as txn:
        assert (txn.count(tables.SAMPLES), txn.count(tables.SERIES)) == (1, 1)
    assert len(read(env)) == 1_024


def test_without_maintenance_fresh_samples_stay_bounded(env: Environment) -> None:
    for first in range(0, 12_000, 600):
        with env.write() as txn:
            series.append(txn, HEART, [beat(i) for i in range(first, first + 600)])
    with env.read() as txn:
        assert txn.count(tables.SAMPLES) < 6 * series.BLOCK
        assert series.check(txn) == []
    assert len(read(env)) == 12_000


def test_a_regular_heart_rate_takes_at_most_two_bytes_a_sample(env: Environment) -> None:
    rng, bpm, batch = random.Random(2), 70, []
    for i in range(16_384):
        bpm = max(45, min(180, bpm + rng.choice([-1, -1, 0, 0, 0, 0, 1, 1])))
        batch.append(beat(i, bpm))
    with env.write() as txn:
        series.append(txn, HEART, batch)
    with env.read() as txn:
        stored = sum(
            len(key) + len(value)
            for table in (tables.SERIES, tables.SAMPLES, tables.META)
            for key, value in txn.raw(table)
        )
    assert stored <= 2 * len(batch)


def test_no_key_holds_text_and_every_value_obeys_the_size_rule(env: Environment) -> None:
    rng = random.Random(3)
    batch = [beat(i, rng.random(), precision="minute") for i in range(3_000)]
    with env.write() as txn:
        series.append(txn, HEART, batch)
        series.hide(txn, series.append(txn, HEART, batch[:2_000])[::2])
    with env.read() as txn:
        for table in (tables.SERIES, tables.SAMPLES, tables.META):
            for key, value in txn.raw(table):
                assert obeys_size_rule(value)
                assert not any(name.encode() in key for name in HEART if name)


def test_series_are_found_by_namespace_kind_and_stream(env: Environment) -> None:
    keys = [
        SeriesKey("home", "steps", None, "a"),
        SeriesKey("home/watch", "steps", "left", "a"),
        SeriesKey("homely", "steps", "left", "a"),
        SeriesKey("home/watch", "pulse", "left", "b"),
    ]
    with env.write() as txn:
        for key in keys:
            series.append(txn, key, [beat(1)])

    def found(**wanted: Any) -> set[SeriesKey]:
        with env.read() as txn:
            return {header.key for header in series.matching(txn, **wanted).values()}

    assert found() == set(keys)
    assert found(namespace="home") == {keys[0], keys[1], keys[3]}
    assert found(namespace="home/watch", kind="steps") == {keys[1]}
    assert found(stream="left") == set(keys[1:])
    assert found(namespace="away") == set()


def test_two_series_of_one_hash_are_refused(
    env: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(series, "name_of", lambda txn, key: b"collides")
    with env.write() as txn:
        series.append(txn, HEART, [beat(1)])
    with pytest.raises(Conflict), env.write() as txn:
        series.append(txn, HEART._replace(stream="other"), [beat(1)])


def test_columns_are_arrays_in_order_of_time(env: Environment) -> None:
    fill(env, 2_000)
    with env.write() as txn:
        series.append(txn, HEART, [beat(100.5, 200)])
    with env.read() as txn:
        found = series.columns(
            txn, series.name_of(txn, HEART), START + 99 * SECOND, START + 102 * SECOND
        )
    assert found["data.bpm"].tolist() == [61, 62, 200, 63]
    assert found["data.bpm"].dtype == np.int64
    assert found["event_time"].tolist() == [START + int(s * SECOND) for s in (99, 100, 100.5, 101)]
    assert found["recorded_at"].tolist() == [t + 5 for t in found["event_time"].tolist()]
    assert found["number"].tolist() == [99, 100, 2_000, 101]


@pytest.mark.parametrize(
    ("values", "name", "expected"),
    [
        ([1, 2, 3], "data", np.array([1, 2, 3])),
        ([1, 2.5, None], "data", np.array([1.0, 2.5, np.nan])),
        ([True, False, True], "data", np.array([True, False, True])),
        ([True, None, 1], "data", np.array([True, None, 1], dtype=object)),
        (["a", "b", "a"], "data", np.array(["a", "b", "a"], dtype=object)),
        ([{"a": 1}, {}, {"a": 3}], "data.a", np.array([1, np.nan, 3])),
        ([{"a": {"b": [1.5, 2]}}] * 3, "data.a.b[1]", np.array([2, 2, 2])),
        ([{"a.b": 1, "a": {"b": 2}}] * 3, "data.a\\.b", np.array([1, 1, 1])),
        ([{"a": "x"}, 1, {"a": None}], "data.a", np.array(["x", None, None], dtype=object)),
    ],
)
def test_a_column_has_the_narrowest_type_that_holds_it(
    env: Environment, values: list[Any], name: str, expected: Any
) -> None:
    with env.write() as txn:
        series.append(txn, HEART, [Sample(i, i, value) for i, value in enumerate(values)])
        found = series.columns(txn, series.name_of(txn, HEART))[name]
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(found, expected)


def test_columns_of_nothing_are_empty(env: Environment) -> None:
    with env.read() as txn:
        found = series.columns(txn, b"nobody..")
    assert {name: len(column) for name, column in found.items()} == {
        "event_time": 0,
        "recorded_at": 0,
        "number": 0,
    }


def test_an_erased_word_is_in_no_value_and_a_series_loses_its_name_last(env: Environment) -> None:
    key = HEART._replace(stream="clinic")
    with env.write() as txn:
        ids = series.append(txn, key, [beat(i, f"canary{i}") for i in range(1_200)])
        assert series.erase(txn, ids[::2]) == sorted(ids[::2], key=ids.index)
        assert series.erase(txn, ids[::2]) == []

    def words() -> set[Any]:
        return {sample.data["bpm"] for sample in read(env, key=key)}

    assert words() == {f"canary{i}" for i in range(1, 1_200, 2)}
    with env.write() as txn:
        series.erase(txn, ids)
        assert series.matching(txn) == {}
        assert series.check(txn) == []
        assert txn.count(tables.SERIES) == 0
        for table in (tables.META, tables.SAMPLES):
            assert not any(b"clinic" in value or b"canary" in value for _, value in txn.raw(table))
        again = series.append(txn, key, [beat(0)])
    assert not set(again) & set(ids)
    assert words() == {70}


def test_samples_that_are_held_already_are_not_added_again(env: Environment) -> None:
    ids = fill(env, 1_500)
    with env.write() as txn:
        series.hide(txn, ids[3:5])
        again = [beat(i, 60 + i % 7) for i in range(1_600)]
        assert len(series.append_missing(txn, HEART, again)) == 100
        assert series.append_missing(txn, HEART, again) == []
        assert series.append_missing(txn, HEART, []) == []
        others = [beat(7, 7.0), beat(7, 7), beat(7, True), beat(7, 7, precision="day")]
        assert len(series.append_missing(txn, HEART, others)) == 4
        other = HEART._replace(stream="other")
        assert len(series.append_missing(txn, other, again + again)) == 1_600
        assert series.count(txn, series.name_of(txn, HEART)) == 1_602


def test_check_finds_what_contradicts_the_registry(env: Environment) -> None:
    fill(env, 2_100)
    with env.write() as txn:
        assert series.check(txn) == []
        key = next(iter(txn.scan_keys(tables.SERIES)))
        payload = txn.get(tables.SERIES, key)
        assert payload is not None
        txn.delete(tables.SERIES, key)
        assert ["missing" in str(error) for error in series.check(txn)] == [True]
        txn.put(tables.SERIES, key, payload)
        txn.put(tables.SERIES, b"nobody.." + bytes(12), payload)
        assert ["no series" in str(error) for error in series.check(txn)] == [True]
        txn.delete(tables.SERIES, b"nobody.." + bytes(12))
        number = series_layout.sample_key(key[:8], 2_099)
        txn.delete(tables.SAMPLES, number)
        assert ["number" in str(error) for error in series.check(txn)] == [True]


def test_a_count_of_a_span_leaves_out_what_is_hidden(env: Environment) -> None:
    ids = fill(env, 3_000)
    low, high = START + 500 * SECOND, START + 2_900 * SECOND
    with env.write() as txn:
        series.hide(txn, [ids[10], *ids[600:700], ids[2_800], ids[2_950]])
    with env.read() as txn:
        name = series.name_of(txn, HEART)
        assert series.count(txn, name, low, high) == 2_400 - 101
        assert series.count(txn, name, low, high) == len(
            list(series.read_range(txn, [name], low, high))
        )
        assert series.count(txn, name, high, low) == 0
