"""Sets of rows in blocks: a Python set is the model."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyroaring import BitMap

from memdb.errors import StoreCorrupt
from memdb.storage import tables
from memdb.storage.environment import Environment, WriteTxn
from memdb.storage.filters import bitmaps
from memdb.storage.values import SMALL_PAYLOAD_MAX_BYTES

PREFIX = b"\x01\x00" + b"\x80value!!"
OTHERS = (b"\x01\x00" + b"\x80value! ", b"\x01\x00" + b'\x80value!"')


@pytest.fixture
def txn(tmp_path: Path) -> Iterator[WriteTxn]:
    with Environment(tmp_path, map_size=1 << 28).write() as txn:
        for neighbour in OTHERS:
            bitmaps.add_rows(txn, neighbour, [3, 70_000])
        yield txn


def blocks(txn: WriteTxn) -> list[tuple[int, bytes]]:
    start, stop = PREFIX + bytes(4), PREFIX + b"\xff" * 4
    return [(int.from_bytes(k[-4:], "big"), p) for k, p in txn.scan(tables.BITMAPS, start, stop)]


SHAPES = {
    "dense": lambda rng: set(rng.sample(range(40_000), 20_000)),
    "a run": lambda rng: set(range(5, 150_000)),
    "sparse to 2^20": lambda rng: set(rng.sample(range(1 << 20), 3_000)),
    "past 2^16 and dense there": lambda rng: set(rng.sample(range(65_000, 90_000), 9_000)),
    "the last rows": lambda rng: {0, (1 << 32) - 2, (1 << 32) - 1},
    "every third": lambda rng: set(range(0, 200_000, 3)),
    "clustered": lambda rng: {c * 9_000 + i for c in range(40) for i in range(0, 900, 2)},
}


@pytest.mark.parametrize("shape", SHAPES)
def test_a_set_reads_back_whatever_its_shape_and_obeys_the_size_limit(
    shape: str, txn: WriteTxn
) -> None:
    rng = random.Random(shape)
    rows = SHAPES[shape](rng)
    shuffled = sorted(rows)
    rng.shuffle(shuffled)
    for start in range(0, len(shuffled), 2_500):
        bitmaps.add_rows(txn, PREFIX, shuffled[start : start + 2_500])
    assert set(bitmaps.load(txn, PREFIX)) == rows
    assert all(len(payload) <= SMALL_PAYLOAD_MAX_BYTES for _, payload in blocks(txn))
    gone = set(rng.sample(sorted(rows), len(rows) // 2))
    bitmaps.discard_rows(txn, PREFIX, gone)
    assert set(bitmaps.load(txn, PREFIX)) == rows - gone
    assert all(len(payload) <= SMALL_PAYLOAD_MAX_BYTES for _, payload in blocks(txn))
    assert bitmaps.discard_rows(txn, PREFIX, rows)[1]
    assert blocks(txn) == []
    assert [set(bitmaps.load(txn, p)) for p in OTHERS] == [{3, 70_000}, {3, 70_000}]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.booleans(),
            st.lists(
                st.one_of(
                    st.integers(0, 40),
                    st.integers(8_150, 8_250),
                    st.integers(65_500, 66_000),
                    st.integers(0, (1 << 32) - 1),
                ),
                min_size=1,
                max_size=30,
            ),
        ),
        max_size=12,
    )
)
def test_any_sequence_of_additions_and_removals_equals_a_set(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[bool, list[int]]]
) -> None:
    environment = Environment(tmp_path_factory.mktemp("kv"), map_size=1 << 26)
    model: set[int] = set()
    with environment.write() as txn:
        for adds, rows in steps:
            if adds:
                before = bitmaps.add_rows(txn, PREFIX, rows)
                assert before is None or set(before) == model
                model |= set(rows)
            else:
                _, empty = bitmaps.discard_rows(txn, PREFIX, rows)
                model -= set(rows)
                assert empty is (not model)
            assert set(bitmaps.load(txn, PREFIX)) == model
    environment.close()


def test_rows_added_one_by_one_fill_blocks_nearly_full(txn: WriteTxn) -> None:
    rng = random.Random(3)
    rows = sorted(rng.sample(range(300_000), 6_000))
    for row in rows:
        bitmaps.add_rows(txn, PREFIX, [row])
    assert list(bitmaps.load(txn, PREFIX)) == rows
    stored = [len(payload) for _, payload in blocks(txn)]
    assert sum(stored) < 3 * len(rows)
    assert len(stored) <= 12


def test_sets_of_one_chunk_from_several_values_are_united(txn: WriteTxn) -> None:
    even, odd = range(0, 8_000, 2), range(1, 8_000, 2)
    bitmaps.add_rows(txn, PREFIX, even)
    bitmaps.add_rows(txn, PREFIX[:-1] + b"?", odd)
    assert blocks(txn)[0][1][:1] == b"B"
    both = bitmaps.load_many(txn, [PREFIX, PREFIX[:-1] + b"?"] * 3)
    assert list(both) == list(range(8_000))


def test_many_sets_are_read_together(txn: WriteTxn) -> None:
    rng = random.Random(4)
    expected: set[int] = set()
    prefixes = []
    for number in range(30):
        rows = rng.sample(range(200_000), rng.choice([1, 5, 9, 4_000]))
        prefixes.append(b"\x02\x00" + number.to_bytes(8, "big"))
        bitmaps.add_rows(txn, prefixes[-1], rows)
        expected.update(rows)
    assert set(bitmaps.load_many(txn, [*prefixes, b"\x03\x00" + bytes(8)])) == expected
    assert not bitmaps.load_many(txn, [])


@pytest.mark.parametrize("count", [0, 10, 5_000, 70_000])
@pytest.mark.parametrize("spread", [100_000, 1 << 28])
def test_rows_in_any_order_become_their_bitmap(count: int, spread: int) -> None:
    rows = np.random.default_rng(count).integers(0, spread, count).astype(np.uint32)
    packed = rows.astype("<u4").tobytes()
    assert bitmaps.union_of_blocks([], [packed, packed[:40]]) == BitMap(rows.tolist())


def test_a_block_of_no_known_form_is_corruption(txn: WriteTxn) -> None:
    txn.put(tables.BITMAPS, PREFIX + bytes(4), b"?what")
    with pytest.raises(StoreCorrupt):
        bitmaps.load(txn, PREFIX)


@pytest.mark.parametrize("count", [4_095, 4_096, 4_097])
def test_a_container_of_as_many_rows_as_turn_an_array_into_bits(count: int, txn: WriteTxn) -> None:
    """At 4,096 rows, roaring's limit between its two forms, neither may be taken for the other."""
    rows = np.array(random.Random(3).sample(range(1 << 16), count), np.uint32)
    packed = rows.astype("<u4").tobytes()
    assert set(bitmaps.union_of_blocks([], [packed])) == set(rows.tolist())
    dense = [2 * row for row in range(count)]  # kept as bits, in one chunk of 8,192 rows or two
    bitmaps.add_rows(txn, PREFIX, dense)
    assert any(payload[:1] == b"B" for _, payload in blocks(txn))
    assert list(bitmaps.load(txn, PREFIX)) == dense
    bitmaps.discard_rows(txn, PREFIX, dense[:5])
    assert list(bitmaps.load(txn, PREFIX)) == dense[5:]
