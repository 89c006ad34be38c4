"""Series blocks give every JSON value back exactly, in few bytes."""

from __future__ import annotations

import random
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memdb.errors import StoreCorrupt
from memdb.storage.columns import decode_floats, decode_ints, encode_floats, encode_ints
from memdb.storage.series_codec import Block, Sample, encode_block

INT64 = st.integers(-(2**63), 2**63 - 1)
TEXT = st.text(st.characters(exclude_categories=("Cs",)), max_size=8)
SCALARS = st.none() | st.booleans() | INT64 | st.floats(allow_nan=False) | TEXT
JSON = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=8,
)
READINGS = st.fixed_dictionaries(
    {"bpm": st.integers(40, 200) | st.just(1) | st.just(1.0) | st.just(True)},
    optional={"ok": st.booleans(), "at": st.lists(st.floats(0, 1), max_size=3), "t": TEXT},
)
MICROS = st.integers(-62_135_596_800_000_000, 253_402_300_799_999_999)
SAMPLES = st.builds(
    Sample,
    event_us=MICROS,
    recorded_us=MICROS,
    data=JSON | READINGS,
    end_us=st.none() | MICROS,
    zone=st.sampled_from([None, "UTC", "Europe/Vienna"]),
    precision=st.sampled_from(["year", "month", "day", "minute", "exact"]),
)


def typed(value: Any) -> Any:
    """A value with the types of its parts and the order of its keys."""
    if isinstance(value, dict):
        return [(key, typed(inner)) for key, inner in value.items()]
    if isinstance(value, list | tuple):
        return [typed(inner) for inner in value]
    return (type(value), repr(value))


def exactly(samples: list[Sample]) -> Any:
    return [typed(msgspec.structs.astuple(sample)) for sample in samples]


@given(st.lists(INT64, max_size=50) | st.lists(st.integers(0, 300), max_size=50))
def test_integers_come_back(values: list[int]) -> None:
    column = np.array(values, dtype=np.int64)
    assert decode_ints(encode_ints(column), len(values)).tolist() == values


@given(
    st.lists(st.floats(), max_size=50)
    | st.lists(st.decimals(-500, 500, places=2).map(float), max_size=50)
)
def test_floats_come_back_bit_for_bit(values: list[float]) -> None:
    column = np.array(values, dtype=np.float64)
    back = decode_floats(encode_floats(column), len(values))
    assert back.view(np.int64).tolist() == column.view(np.int64).tolist()


def test_a_regular_clock_and_a_decimal_reading_take_no_byte_and_one_a_value() -> None:
    clock = np.arange(1024, dtype=np.int64) * 1_000_000 + 1_714_000_000_000_000
    assert encode_ints(clock)[-1] == b""
    decimals, integers = encode_floats(np.arange(1000) % 7 / 10 + 21.5)
    assert decimals == 1
    assert len(integers[-1]) <= 1000


@settings(max_examples=150)
@given(st.lists(SAMPLES, min_size=1, max_size=20))
def test_every_sample_comes_back_as_it_was(samples: list[Sample]) -> None:
    samples.sort(key=lambda sample: sample.event_us)
    offsets = random.Random(3).sample(range(1024), len(samples))
    block = Block(encode_block(offsets, samples))
    assert (block.count, block.lo, block.hi) == (
        len(samples),
        samples[0].event_us,
        samples[-1].event_us,
    )
    assert block.offsets.tolist() == offsets
    assert block.times.tolist() == [sample.event_us for sample in samples]
    assert exactly(block.samples()) == exactly(samples)


def of_data(values: list[Any]) -> list[Sample]:
    return [Sample(i, i, value) for i, value in enumerate(values)]


@pytest.mark.parametrize(
    "values",
    [
        [1, 1.0, True, None, "1", [], {}, [1], {"a": 1}],
        [{"a": 1}, {"a": 1.0}, {"a": None}, {}, {"b": 1}, {"a": {"b": 1}}, {"a.b": 1}],
        [{"b": 1, "a": 2}, {"a": 2, "b": 1}],
        [0.0, -0.0, 5e-324, 1.7976931348623157e308, 0.1 + 0.2],
        [2**63 - 1, -(2**63), 0],
        [2**64 - 1, 1],
        ["", "\0", "ä" * 900, "x" * 5_000],
        [{"k" + str(i): i} for i in range(100)],
        [{str(k): k for k in range(200)}, list(range(500))],
        [{"0": 1}, [1]],
    ],
)
def test_values_that_are_easily_confused_stay_apart(values: list[Any]) -> None:
    samples = of_data(values)
    assert exactly(Block(encode_block(range(len(values)), samples)).samples()) == exactly(samples)


def test_deep_values_come_back() -> None:
    deep: Any = 7
    for _ in range(32):
        deep = {"d": [deep]}
    samples = of_data([deep, 1])
    assert exactly(Block(encode_block([0, 1], samples)).samples()) == exactly(samples)


def test_fields_give_the_leaves_of_each_path_and_who_has_them() -> None:
    values = [{"a": 1, "p": [0.5, 1.5]}, {"a": 2}, {"a": 3, "p": [2.5, 3.5]}]
    block = Block(encode_block(range(3), of_data(values)))
    found = {path: (at.tolist(), list(leaves)) for path, at, leaves in block.fields()}
    assert found == {
        ("a",): ([0, 1, 2], [1, 2, 3]),
        ("p", 0): ([0, 2], [0.5, 2.5]),
        ("p", 1): ([0, 2], [1.5, 3.5]),
    }


def test_a_damaged_block_is_a_typed_error() -> None:
    rng = random.Random(5)
    samples = of_data([{"bpm": rng.randrange(60, 70), "s": str(i)} for i in range(40)])
    sound = encode_block(range(40), samples)
    seen = 0
    for _ in range(400):
        damaged = bytearray(sound)
        damaged[rng.randrange(8, len(sound))] ^= 1 << rng.randrange(8)
        try:
            Block(bytes(damaged)).samples()
        except StoreCorrupt:
            seen += 1
    assert seen > 100
    with pytest.raises(StoreCorrupt):
        Block(sound[:6])


@settings(max_examples=40)
@given(st.lists(SAMPLES, min_size=1, max_size=12), st.integers(0, 12), st.integers(0, 12))
def test_a_part_of_a_block_is_a_part_of_its_samples(
    samples: list[Sample], start: int, stop: int
) -> None:
    samples.sort(key=lambda sample: sample.event_us)
    block = Block(encode_block(range(len(samples)), samples))
    assert exactly(block.samples(start, stop)) == exactly(samples[start:stop])
