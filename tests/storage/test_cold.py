"""Cold blocks give back what went in, byte for byte, and keep nothing of what was taken out."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from memdb.errors import StoreCorrupt
from memdb.storage import cold
from memdb.storage.ids import IdMaker
from memdb.types import Memory

encode = msgspec.msgpack.Encoder().encode

TEXT = st.text(st.characters(exclude_categories=("Cs",)), max_size=40)
INTEGERS = st.integers(-(2**63), 2**63 - 1)
JSON = st.recursive(
    st.none() | st.booleans() | INTEGERS | st.floats(allow_nan=False) | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=8,
)
TIMES = st.none() | st.datetimes().map(lambda moment: moment.replace(tzinfo=UTC, fold=0))
NAMES = st.lists(TEXT, max_size=3).map(tuple)
IDS = st.integers(0, 2**128 - 1).map(lambda n: _ulid(n))


def _ulid(number: int) -> str:
    alphabet = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
    return "".join(alphabet[number >> shift & 31] for shift in range(125, -1, -5))


MEMORIES = st.builds(
    Memory,
    id=IDS | TEXT,
    kind=TEXT,
    text=st.none() | TEXT,
    source=TEXT,
    namespace=st.just("default") | TEXT,
    recorded_at=TIMES,
    event_time=TIMES,
    stream=st.none() | TEXT,
    position=st.none() | INTEGERS,
    tags=NAMES,
    metadata=st.dictionaries(TEXT, JSON, max_size=3),
    data=JSON,
    subject=st.none() | TEXT,
    key=st.none() | TEXT,
    about=NAMES,
    external_id=st.none() | TEXT,
    event_end=TIMES,
    time_zone=st.none() | TEXT,
    precision=st.sampled_from(["year", "month", "day", "minute", "exact"]),
    valid_from=TIMES,
    valid_to=TIMES,
    retired_at=TIMES,
    importance=st.none() | st.floats(0, 1),
    pinned=st.booleans(),
    sensitivity=st.none() | TEXT,
    derived_from=NAMES,
    expires_at=TIMES,
    space=st.none() | TEXT,
    version=st.integers(1, 2**31),
    last_used=TIMES,
    use_count=st.integers(0, 2**31),
    strength=st.none() | st.floats(0, 1),
)


def typed(value: Any) -> Any:
    """A value with the types of its parts, so that 1, 1.0 and True differ."""
    if isinstance(value, dict):
        return [(key, typed(inner)) for key, inner in value.items()]
    if isinstance(value, list | tuple):
        return [typed(inner) for inner in value]
    return (type(value), repr(value))


@settings(max_examples=60)
@given(st.lists(st.none() | MEMORIES, max_size=12))
def test_every_memory_comes_back_as_it_was(memories: list[Memory | None]) -> None:
    records = [None if memory is None else encode(memory) for memory in memories]
    block = cold.encode(records)
    assert cold.decode_raw(block) == records
    decoded = cold.decode(block)
    assert [None if m is None else typed(m.to_dict()) for m in decoded] == [
        None if m is None else typed(m.to_dict()) for m in memories
    ]


@given(st.lists(st.none() | st.binary(max_size=60), max_size=64))
def test_bytes_that_are_no_records_come_back_too(records: list[bytes | None]) -> None:
    assert cold.decode_raw(cold.encode(records)) == records


@settings(max_examples=40)
@given(st.lists(MEMORIES, min_size=1, max_size=10), st.data())
def test_a_record_taken_out_is_gone_and_the_others_stay(
    memories: list[Memory], data: st.DataObject
) -> None:
    records: list[bytes | None] = [encode(memory) for memory in memories]
    gone = data.draw(st.sets(st.integers(0, len(records) - 1)))
    left = cold.without(cold.encode(records), gone)
    kept = [None if i in gone else record for i, record in enumerate(records)]
    assert cold.decode_raw(left) == kept
    assert left == cold.encode(kept)


def test_records_of_another_width_or_form_stand_beside_the_others() -> None:
    memory = Memory(id=_ulid(5), text="tea")
    short = encode(msgspec.to_builtins(memory)[:10])
    long_header = b"\xdd\x00\x00\x00\x01\x01"
    records: list[bytes | None] = [encode(memory), short, None, long_header, encode(memory)]
    assert cold.decode_raw(cold.encode(records)) == records


@pytest.mark.parametrize(
    "moment",
    [
        datetime(1, 1, 1, tzinfo=UTC),
        datetime(1969, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC),
        datetime(1970, 1, 1, tzinfo=UTC),
        datetime(2106, 2, 7, 6, 28, 16, tzinfo=UTC),
        datetime(2514, 5, 30, 1, 53, 3, 999_999, tzinfo=UTC),
        datetime(2514, 5, 30, 1, 53, 4, tzinfo=UTC),
        datetime(9999, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC),
    ],
)
def test_times_at_the_edges_of_their_encodings_come_back(moment: datetime) -> None:
    now = datetime(2024, 5, 1, tzinfo=UTC)
    memories = [Memory(id="a", event_time=moment), Memory(id="b", event_time=now), Memory(id="c")]
    assert cold.decode(cold.encode([encode(m) for m in memories])) == memories


@pytest.mark.parametrize(
    "raw",
    [
        b"\xd7\xff" + (1 << 34 | 7).to_bytes(8, "big"),  # a nanosecond
        b"\xd7\xff" + (7).to_bytes(8, "big"),  # longer than it need be
        b"\xd7\xff" + b"\xff" * 8,  # more nanoseconds than a second has
        b"\xd6\xfe" + bytes(4),  # another extension
        b"\xba0" + b"a" * 25,  # read as capitals
        b"\xba" + b"Z" * 26,  # more than 128 bits
    ],
)
def test_fields_that_only_look_like_times_or_ids_come_back(raw: bytes) -> None:
    usual = [b"\xd6\xff" + (1 << 30).to_bytes(4, "big"), b"\xba" + _ulid(3).encode()]
    records: list[bytes | None] = [b"\x91" + field for field in (raw, *usual, b"\xc0")]
    assert cold.decode_raw(cold.encode(records[:2])) == records[:2]
    assert cold.decode_raw(cold.encode([records[0], records[2]])) == [records[0], records[2]]
    assert cold.decode_raw(cold.encode(records)) == records


def test_some_records_are_decoded_without_the_rest() -> None:
    memories = [Memory(id=_ulid(i), text=f"note {i}") for i in range(64)]
    block = cold.encode([encode(memory) for memory in memories])
    assert cold.decode(block, [40, 3]) == [memories[40], memories[3]]


def test_a_damaged_block_is_a_typed_error() -> None:
    block = cold.encode([encode(Memory(id=_ulid(i), text="x" * i)) for i in range(30)])
    rng = random.Random(4)
    seen = 0
    for _ in range(300):
        damaged = bytearray(block)
        damaged[rng.randrange(len(block))] ^= 1 << rng.randrange(8)
        try:
            cold.decode(bytes(damaged))
        except StoreCorrupt as error:
            seen += 1
            assert error.path == "kv"
    assert seen > 100
    with pytest.raises(StoreCorrupt):
        cold.decode(block[:5])


def realistic(count: int) -> list[Memory]:
    rng = random.Random(7)
    words = "walk tea doctor Ana garden boiler bike meeting Friday rain lunch plan call"
    vocabulary = words.split()
    make_id, now = IdMaker(), datetime(2024, 3, 1, 8, tzinfo=UTC)
    memories = []
    for position in range(count):
        now += timedelta(seconds=rng.randrange(5, 900), microseconds=rng.randrange(10**6))
        memories.append(
            Memory(
                id=make_id(now),
                kind="message",
                text=" ".join(rng.choice(vocabulary) for _ in range(rng.randrange(5, 30))),
                source="app:whatsapp",
                recorded_at=now,
                event_time=now.replace(microsecond=0),
                stream="whatsapp/family",
                position=position,
                tags=("chat",),
                metadata={"chat": "family", "sender": rng.choice(["ana", "ben"])},
            )
        )
    return memories


def test_a_chat_takes_a_third_of_its_hot_bytes_at_most() -> None:
    records: list[bytes | None] = [encode(memory) for memory in realistic(64)]
    block = cold.encode(records)
    assert len(block) * 3 < sum(len(record or b"") for record in records)


def test_no_word_of_a_removed_record_is_in_the_new_block() -> None:
    memories = realistic(64)
    memories[9] = memories[9].replace(text="the passphrase is heliotrope", tags=("canary",))
    block = cold.without(cold.encode([encode(memory) for memory in memories]), [9])
    body = zstandard.ZstdDecompressor().decompress(block[10:])
    assert b"heliotrope" not in body
    assert b"canary" not in body
    assert b"walk" in body
