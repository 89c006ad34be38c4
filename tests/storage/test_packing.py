"""What a copy packs reads as it did: postings, ways to rows and records, against dictionaries, with
writes, removals and further copies in between."""

from __future__ import annotations

import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from memdb.errors import StoreCorrupt
from memdb.storage import cold, dense, postings, tables
from memdb.storage.blobs import BlobStore
from memdb.storage.copying import copy_dense
from memdb.storage.environment import Environment, ReadTxn, WriteTxn
from memdb.storage.filters import packed_blocks
from memdb.storage.filters.ordered import KEY_END, NUMBERS, TIMES, OrderedIndex
from memdb.storage.postings import layout, packed
from memdb.storage.records import Records
from memdb.storage.values import obeys_size_rule
from memdb.types import Memory
from tests.storage.test_postings import TERMS, Model, analysed, assert_entries_read_as


class Folder:
    """An environment that is copied into the next one, packed, again and again."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._number = 0
        (path / "0").mkdir()
        self.env = Environment(path / "0")

    def pack(self, *, packed: bool = True) -> None:
        self._number += 1
        target = self._path / str(self._number)
        target.mkdir()
        copy_dense(self.env, target, packed=packed)
        self.env.close()
        self.env = Environment(target)


def assert_sizes_are_allowed(txn: ReadTxn) -> None:
    for name in tables.ALL:
        assert all(obeys_size_rule(value) for _, value in txn.raw(name)), name


# --- postings -------------------------------------------------------------------------------


def assert_postings_read_as(txn: ReadTxn, model: Model) -> None:
    reader = postings.PostingsReader(txn)
    assert_entries_read_as(reader, model)
    assert sorted(reader.every_row()["row"].tolist()) == sorted(model)
    assert postings.stats(txn).docs == postings.row_count(txn) == len(model)
    assert model or not postings.stats(txn).total_length
    forwards = postings.forward_rows(txn, [*model, 7])
    assert {row: layout.decode_forward(one)[:2] for row, one in forwards.items()} == {
        row: analysed(words)[:2] for row, words in model.items()
    }


word_counts = st.dictionaries(st.sampled_from(TERMS), st.integers(1, 300), max_size=5).map(Counter)
postings_steps = st.one_of(
    st.tuples(st.just("add"), word_counts),
    st.tuples(st.just("segment"), st.lists(word_counts, min_size=1, max_size=5)),
    st.tuples(st.just("fold"), st.none()),
    st.tuples(st.just("merge"), st.none()),
    st.tuples(st.just("again"), word_counts),
    st.tuples(st.just("remove"), st.lists(st.integers(0, 60), min_size=1, max_size=4)),
    st.tuples(st.just("pack"), st.none()),
)


@settings(max_examples=10, deadline=None)
@given(st.lists(postings_steps, max_size=25), st.permutations(range(60)))
def test_packed_postings_read_as_the_model(
    sequence: list[tuple[str, object]], order: list[int]
) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder, model = Folder(Path(name)), dict[int, Counter[bytes]]()
        unused = [row * 70_000 for row in order]
        for step, argument in [*sequence, ("pack", None)]:
            if step == "pack":
                folder.pack()
            else:
                with folder.env.write() as txn:
                    _change_postings(txn, step, argument, model, unused)
                    assert_postings_read_as(txn, model)
            with folder.env.read() as txn:
                assert_postings_read_as(txn, model)
                assert not (step == "pack" and postings.has_gone(txn))
        folder.env.close()


def _change_postings(  # type: ignore[no-untyped-def]
    txn: WriteTxn, step: str, argument, model: Model, unused: list[int]
) -> None:
    if step == "add" and unused:
        row = unused.pop()
        postings.add(txn, row, analysed(argument))
        model[row] = argument
    elif step == "segment" and len(unused) >= len(argument):
        rows = [unused.pop() for _ in argument]
        postings.add_segment(txn, rows, [analysed(one) for one in argument])
        model.update(zip(rows, argument, strict=True))
    elif step == "fold":
        postings.fold(txn, at_least=1)
    elif step == "merge":
        postings.merge_step(txn, 0.0, fan_in=2)
    elif step == "again" and model:  # as a chunk whose words changed
        row = min(model)
        assert postings.remove(txn, [row]) == 1
        postings.add(txn, row, analysed(argument))
        model[row] = argument
    elif step == "remove":
        rows = [number * 70_000 for number in argument]
        assert postings.remove(txn, rows) == len(model.keys() & rows)
        for row in rows:
            model.pop(row, None)


def test_frequent_words_are_cut_into_pieces_and_nothing_is_left_of_what_was_removed(
    tmp_path: Path,
) -> None:
    rng = np.random.default_rng(5)
    secret = b"secret-term!"
    texts = [
        Counter({TERMS[0]: 1 + row % 3, bytes(rng.integers(1, 255, 12, np.uint8)): 1})
        for row in range(4_000)
    ]
    texts[77][secret] = 2
    folder = Folder(tmp_path)
    with folder.env.write() as txn:
        postings.add_segment(txn, range(4_000), [analysed(one) for one in texts])
        before = txn.bytes_of(tables.POSTINGS) + txn.bytes_of(tables.FORWARD)
    folder.pack()
    with folder.env.write() as txn:
        kinds = {payload[:1] for _, payload in txn.scan(tables.POSTINGS)}
        assert kinds == {b"\1", b"\2", b"\3"}
        assert txn.count(tables.FORWARD) == 0
        assert txn.bytes_of(tables.POSTINGS) * 5 < before
        reader = postings.PostingsReader(txn)
        assert reader.entries(TERMS[0])["tf"].tolist() == [1 + row % 3 for row in range(4_000)]
        assert reader.entries(secret)["row"].tolist() == [77]
        assert not len(reader.entries(b"never-there!"))
        assert postings.remove(txn, [77, 78, 77]) == 2
        assert not len(postings.PostingsReader(txn).entries(secret))
        dense_before = [*txn.raw(tables.DENSE)]
    folder.pack(packed=False)  # as an erasure does
    with folder.env.read() as txn:
        assert len(postings.PostingsReader(txn).entries(TERMS[0])) == 3_998
        assert not any(secret in key + value for key, value in txn.raw(tables.POSTINGS))
        assert not postings.has_gone(txn) and dense_before == [*txn.raw(tables.DENSE)]
        assert_sizes_are_allowed(txn)
    folder.env.close()


@given(st.lists(st.tuples(st.integers(0, 2**32 - 1), st.integers(1, 255)), max_size=50))
def test_a_list_comes_back_whatever_its_steps(entries: list[tuple[int, int]]) -> None:
    steps = np.array([step for step, _ in entries], np.int64)
    tfs = np.array([tf for _, tf in entries], np.int64)
    octets, sizes = packed.encode_list(steps, tfs)
    assert len(octets) == sizes.sum() and len(sizes) == len(steps)
    rows, back, counts = packed.decode_lists(
        np.frombuffer(octets, np.uint8), np.array([len(octets)])
    )
    assert np.array_equal(rows, np.cumsum(steps))
    assert np.array_equal(back, tfs) and counts.tolist() == [len(steps)]


@pytest.mark.parametrize("octets", [b"\x80", b"\x03", b"\xff" * 6 + b"\1"])
def test_a_list_that_does_not_end_is_a_typed_error(octets: bytes) -> None:
    with pytest.raises(StoreCorrupt):
        packed.decode_lists(np.frombuffer(octets, np.uint8), np.array([len(octets)]))


# --- ways to rows ---------------------------------------------------------------------------

_KEYS = [bytes([n]) * 16 for n in (0, 1, 2, 127, 128, 255)] + [
    n.to_bytes(8, "big") + m.to_bytes(8, "big") for n in (1, 2**63) for m in (0, 5, 6, 2**63 + 9)
]
way_steps = st.one_of(
    st.tuples(st.just("put"), st.sampled_from(_KEYS), st.integers(0, 2**32 - 1)),
    st.tuples(st.just("delete"), st.sampled_from(_KEYS), st.none()),
    st.tuples(st.just("drop"), st.none(), st.sets(st.sampled_from(_KEYS))),
    st.tuples(st.just("pack"), st.none(), st.none()),
)


@settings(max_examples=10, deadline=None)
@given(st.sampled_from(sorted(dense.KINDS)), st.lists(way_steps, max_size=30))
def test_ways_to_rows_read_as_the_model(table: str, sequence: list[tuple[str, Any, Any]]) -> None:
    size, cut = dense.KINDS[table].value_bytes, dense.KINDS[table].key_bytes
    keys = {key[:cut]: key for key in _KEYS}.values()  # a hash has its first bytes for itself
    with tempfile.TemporaryDirectory() as name:
        folder, model = Folder(Path(name)), dict[bytes, bytes]()
        for step, key, number in [*sequence, ("pack", b"", 0)]:
            if step == "pack":
                folder.pack()
            elif step == "drop":
                with folder.env.write() as txn:
                    some = [key for key in number if key in keys]
                    held = [key for key in some if model.pop(key, None) is not None]
                    assert dense.delete_many(txn, table, some) == len(held)
            elif key in keys:
                with folder.env.write() as txn:
                    if step == "put":
                        model[key] = number.to_bytes(size, "little")
                        txn.put(table, key, model[key])
                    else:
                        known = model.pop(key, None) is not None
                        assert dense.delete(txn, table, key) == known
            with folder.env.read() as txn:
                assert dense.get_many(txn, table, list(keys)) == model
                assert {k: v for k in keys if (v := dense.get(txn, table, k))} == model
                wanted = sorted((key[:cut], value) for key, value in model.items())
                found = [(key[:cut], value) for key, value in dense.scan(txn, table)]
                assert found == wanted
                backwards = dense.scan(txn, table, reverse=True)
                assert [(key[:cut], value) for key, value in backwards] == wanted[::-1]
                if cut == 16:
                    for start in _KEYS:
                        below = max((k for k in model if k <= start), default=None)
                        assert dense.floor(txn, table, start) == (
                            None if below is None else (below, model[below])
                        )
                        some = [one for one in wanted if start <= one[0] < b"\x80" * 16]
                        assert list(dense.scan(txn, table, start, b"\x80" * 16)) == some
        folder.env.close()


def test_thousands_of_ways_take_a_few_bytes_each_in_full_values(tmp_path: Path) -> None:
    rng = np.random.default_rng(6)
    entries = sorted((bytes(rng.integers(0, 255, 16, np.uint8)), n) for n in range(5_000))
    folder = Folder(tmp_path)
    with folder.env.write() as txn:
        for table, kind in dense.KINDS.items():
            txn.put_many(table, [(k, n.to_bytes(kind.value_bytes, "little")) for k, n in entries])
        before = sum(txn.bytes_of(table) for table in dense.KINDS)
    folder.pack()
    with folder.env.read() as txn:
        assert txn.bytes_of(tables.DENSE) * 2 < before  # keys at random do not get smaller
        assert not any(txn.count(table) for table in dense.KINDS)
        for table, kind in dense.KINDS.items():
            found = dense.get_many(txn, table, [key for key, _ in entries])
            assert found == {k: n.to_bytes(kind.value_bytes, "little") for k, n in entries}
        assert_sizes_are_allowed(txn)
    folder.env.close()


# --- records --------------------------------------------------------------------------------

_ROWS = [*range(60, 70), 500, 511, 512, 513, 1_700]
record_steps = st.one_of(
    st.tuples(st.just("put"), st.sampled_from(_ROWS), st.text("ab", max_size=3)),
    st.tuples(st.just("freeze"), st.integers(0, 27), st.none()),
    st.tuples(st.just("delete"), st.sampled_from(_ROWS), st.none()),
    st.tuples(st.just("pack"), st.none(), st.none()),
)


@settings(max_examples=10, deadline=None)
@given(st.lists(record_steps, max_size=30))
def test_records_read_as_the_model_wherever_they_lie(sequence: list[tuple[str, int, str]]) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder, model = Folder(Path(name)), dict[int, Memory]()
        held = Records(BlobStore(Path(name) / "blob", bytes(32)))
        for step, row, text in [*sequence, ("pack", 0, "")]:
            if step == "pack":
                folder.pack()
            else:
                with folder.env.write() as txn:
                    _change_records(txn, held, step, row, text, model)
            with folder.env.read() as txn:
                assert held.get_many(txn, _ROWS) == model
                assert held.outlines(txn, _ROWS) == model
                assert {r: m for r in _ROWS if (m := held.get(txn, r))} == model
                assert dict(held.iterate(txn, _ROWS, chunk=4)) == model
                assert set(held.stored(txn)) == set(model)
                cold_rows = held.cold_rows(txn, _ROWS)
                assert cold_rows <= set(model) and set(held.grouped(txn)) <= cold_rows
        with folder.env.read() as txn:
            assert not any(value[4:6] == b"\xc1\1" for _, value in txn.raw(tables.RECORDS))
            assert_sizes_are_allowed(txn)
        folder.env.close()


def _change_records(
    txn: WriteTxn, held: Records, step: str, row: int, text: str, model: dict[int, Memory]
) -> None:
    if step == "put":
        model[row] = Memory(id=f"{row:026}", kind="note", text=text, source="x")
        held.put(txn, row, model[row])
    elif step == "freeze":
        held.freeze(txn, [one for one in _ROWS if one >> 6 == row])
    elif step == "delete":
        held.delete(txn, [row])
        model.pop(row, None)


def test_a_group_keeps_nothing_of_what_was_taken_out_or_written_again(tmp_path: Path) -> None:
    folder, held = Folder(tmp_path), Records(BlobStore(tmp_path / "blob", bytes(32)))
    texts = {row: f"unlikely word {row * 7919:06x}!" for row in range(128)}
    with folder.env.write() as txn:
        for row, text in texts.items():
            held.put(txn, row, Memory(id=f"{row:026}", kind="note", text=text, source="x"))
        assert held.freeze(txn, range(64)) == held.freeze(txn, range(64, 128)) == 64
    folder.pack()
    with folder.env.write() as txn:
        held.delete(txn, [3])
        held.put(txn, 5, Memory(id=f"{5:026}", kind="note", text="other", source="x"))
        (one,) = [payload for _, payload in txn.scan(tables.COLD)]
        assert cold.is_hasty(one) and texts[3].encode() not in b"".join(
            raw for raw in cold.decode_raw(one) if raw is not None
        )
    folder.pack()
    with folder.env.read() as txn:
        (one,) = [payload for _, payload in txn.scan(tables.COLD)]
        assert not cold.is_hasty(one) and cold.held(one) == set(range(128)) - {3, 5}
        found = held.get_many(txn, range(128))
        assert {row: m.text for row, m in found.items()} == {
            **{row: text for row, text in texts.items() if row != 3},
            5: "other",
        }
    folder.env.close()


# --- numbers and times ----------------------------------------------------------------------

FIELDS = (26, 27)
keys_near = st.integers(0, 40).map(lambda hour: (1 << 63) + 3_600_000_000 * hour)
keys_far = st.sampled_from([0, 1, KEY_END - 1, 1 << 63])
ordered_entries = st.tuples(keys_near | keys_far, st.integers(0, 2**32 - 1))
ordered_steps = st.one_of(
    st.tuples(st.just("add"), st.lists(ordered_entries, min_size=1, max_size=400)),
    st.tuples(st.just("remove"), st.lists(st.integers(0, 10_000), min_size=1, max_size=30)),
    st.tuples(st.just("pack"), st.none()),
)


@pytest.mark.parametrize("index", [NUMBERS, TIMES])
@settings(max_examples=15, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(FIELDS), ordered_steps), max_size=12), st.data())
def test_packed_numbers_and_times_read_as_sorted_lists(
    index: OrderedIndex, sequence: list[tuple[int, tuple[str, object]]], data: st.DataObject
) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Folder(Path(name))
        model: dict[int, set[tuple[int, int]]] = {field: set() for field in FIELDS}
        for field, (step, argument) in [*sequence, (FIELDS[0], ("pack", None))]:
            if step == "pack":
                folder.pack()
            else:
                with folder.env.write() as txn:
                    _change_ordered(txn, index, field, argument, model[field])
        low = data.draw(keys_near)
        with folder.env.read() as txn:
            for field, entries in model.items():
                _assert_ordered_reads_as(txn, index, field, sorted(entries), low)
            assert_sizes_are_allowed(txn)
        with folder.env.write() as txn:
            for field, entries in model.items():
                index.remove(txn, field, sorted(entries))
            assert not txn.count(tables.NUMBERS) + txn.count(tables.TIMES)
        folder.env.close()


def _change_ordered(  # type: ignore[no-untyped-def]
    txn: WriteTxn, index: OrderedIndex, field: int, argument, model: set[tuple[int, int]]
) -> None:
    if isinstance(argument[0], tuple):
        index.add(txn, field, argument)
        model.update(argument)
    elif model:
        known = sorted(model)
        gone = {known[number % len(known)] for number in argument}
        index.remove(txn, field, sorted(gone))
        model -= gone


def _assert_ordered_reads_as(
    txn: ReadTxn, index: OrderedIndex, field: int, entries: list[tuple[int, int]], low: int
) -> None:
    for start, stop in ((0, KEY_END), (low, low + 9 * 3_600_000_000), (low, KEY_END)):
        inside = [entry for entry in entries if start <= entry[0] < stop]
        assert list(index.scan(txn, field, start, stop)) == inside
        assert list(index.scan(txn, field, start, stop, reverse=True)) == inside[::-1]
        assert set(index.rows(txn, field, start, stop)) == {row for _, row in inside}
        blocks = index.blocks(txn, field, start, stop)
        assert [
            entry
            for keys, rows in blocks
            for entry in zip(keys.tolist(), rows.tolist(), strict=True)
        ] == inside
    ends = (entries[0][0], entries[-1][0]) if entries else None
    assert index.extent(txn, field) == ends


def test_times_of_an_import_take_a_sixth_when_packed(tmp_path: Path) -> None:
    folder, count = Folder(tmp_path), 5_000
    with folder.env.write() as txn:
        TIMES.add(txn, 26, [((1 << 63) + 40_000_000 * (n // 3), n) for n in range(count)])
    folder.pack()
    with folder.env.read() as txn:
        payloads = [payload for _, payload in txn.scan(tables.TIMES)]
        assert sum(map(len, payloads)) < 2 * count
    folder.env.close()


def test_a_packed_block_stays_packed_when_entries_leave_it_and_not_when_they_come(
    tmp_path: Path,
) -> None:
    folder = Folder(tmp_path)
    entries = [((1 << 63) + n, n) for n in range(200)]
    with folder.env.write() as txn:
        TIMES.add(txn, 26, entries)
    folder.pack()
    with folder.env.write() as txn:
        TIMES.remove(txn, 26, entries[::2])
        [(_, payload)] = txn.scan(tables.TIMES)
        assert packed_blocks.is_packed(payload)
        assert list(TIMES.scan(txn, 26, 0, KEY_END)) == entries[1::2]
        TIMES.add(txn, 26, entries[:1])
        assert not any(packed_blocks.is_packed(one) for _, one in txn.scan(tables.TIMES))
    folder.env.close()


@pytest.mark.parametrize("damaged", [b"\1nothing", b"\2", b"\1"])
def test_a_damaged_block_of_numbers_is_told(damaged: bytes) -> None:
    with pytest.raises(StoreCorrupt):
        packed_blocks.columns(damaged)


def test_no_packed_block_is_taken_for_a_plain_one() -> None:
    rng = np.random.default_rng(0)
    for count in range(1, 200):
        keys = np.sort(rng.integers(0, 1 << 40, count, dtype=np.uint64))
        rows = rng.integers(0, 1 << 20, count, dtype=np.uint32)
        payload = packed_blocks.encode(keys, rows)
        assert packed_blocks.is_packed(payload)
        again = packed_blocks.columns(payload)
        assert np.array_equal(again[0], keys) and np.array_equal(again[1], rows)
