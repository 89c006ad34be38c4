"""Postings against a dictionary: any sequence of writes, folds, merges and removals, with any
transaction aborted and the store reopened anywhere, reads as the model does."""

from __future__ import annotations

import tempfile
from collections import Counter
from pathlib import Path

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings
from pyroaring import BitMap

from memdb.storage import postings, tables
from memdb.storage.environment import Environment, ReadTxn
from memdb.storage.postings import layout, manifest
from memdb.storage.postings.layout import Analysed
from memdb.storage.store import Store, Writer
from memdb.storage.values import obeys_size_rule

TERMS = [bytes([n]) * 12 for n in (1, 2, 3, 7, 128, 255)] + [b"\x01" * 11 + b"\x02"]
Model = dict[int, Counter[bytes]]


class _Aborted(Exception):
    """Stands for a process that dies before its commit."""


def analysed(counts: Counter[bytes]) -> Analysed:
    terms = sorted(counts)
    return Analysed(
        b"".join(terms), bytes(min(counts[t], 255) for t in terms), sum(counts.values())
    )


def assert_entries_read_as(reader: postings.PostingsReader, model: Model) -> None:
    lengths = {
        row: int(postings.encode_lengths(np.array([sum(c.values())]))[0])
        for row, c in model.items()
    }
    for term in TERMS:
        entries = reader.entries(term)
        found = {int(row): (int(tf), int(code)) for row, tf, code in entries}
        assert len(found) == len(entries)
        assert found == {
            row: (min(counts[term], 255), lengths[row])
            for row, counts in model.items()
            if counts[term]
        }


def assert_reads_as(txn: ReadTxn, model: Model) -> None:
    reader = postings.PostingsReader(txn)
    assert_entries_read_as(reader, model)
    every = reader.every_row()
    assert sorted(every["row"].tolist()) == sorted(model)
    assert postings.stats(txn) == (len(model), sum(sum(c.values()) for c in model.values()))
    assert {int.from_bytes(k, "big") for k in txn.scan_keys(tables.FORWARD)} == set(model)


def assert_nothing_left_behind(txn: ReadTxn) -> None:
    state = manifest.load(txn)
    known = {one.id for one in state.segments} | set(state.dropping)
    if state.merge is not None:
        known.add(state.merge.target)
    for key in txn.scan_keys(tables.POSTINGS):
        assert int.from_bytes(key[:4], "big") in known


counters = st.dictionaries(st.sampled_from(TERMS), st.integers(1, 300), max_size=5).map(Counter)
steps = st.one_of(
    st.tuples(st.just("add"), counters),
    st.tuples(st.just("segment"), st.lists(counters, min_size=1, max_size=5)),
    st.tuples(st.just("fold"), st.none()),
    st.tuples(st.just("merge"), st.integers(0, 3)),
    st.tuples(st.just("remove"), st.lists(st.integers(0, 200), min_size=1, max_size=4)),
    st.tuples(st.just("reopen"), st.none()),
)


@settings(max_examples=120, deadline=None)
@given(
    st.lists(st.tuples(steps, st.booleans()), max_size=40),
    st.permutations(range(200)),
    st.sampled_from([2, 3]),
)
def test_postings_read_as_the_model_through_any_sequence_of_steps(
    sequence: list[tuple[tuple[str, object], bool]], order: list[int], fan_in: int
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        env = Environment(Path(folder))
        model: Model = {}
        unused = [row * 700 for row in order]
        for (step, argument), aborted in sequence:
            if step == "reopen":
                env.close()
                env = Environment(Path(folder))
                continue
            after = dict(model)
            try:
                with env.write() as txn:
                    _apply(txn, step, argument, after, unused, order, fan_in)
                    assert_reads_as(txn, after)
                    if aborted:
                        raise _Aborted
                model = after
            except _Aborted:
                pass
            with env.read() as txn:
                assert_reads_as(txn, model)
                assert_nothing_left_behind(txn)
        env.close()


def _apply(  # type: ignore[no-untyped-def]
    txn, step, argument, model, unused, order, fan_in
) -> None:
    if step == "add":
        row = unused.pop()
        postings.add(txn, row, analysed(argument))
        model[row] = argument
    elif step == "segment":
        rows = [unused.pop() for _ in argument]
        postings.add_segment(txn, rows, [analysed(one) for one in argument])
        model.update(zip(rows, argument, strict=True))
    elif step == "fold":
        postings.fold(txn, at_least=1)
    elif step == "merge":
        # A budget of nothing still makes progress: the shortest slices there are.
        postings.merge_step(txn, 1000.0 if argument else 0.0, fan_in=fan_in)
    elif step == "remove":
        rows = [order[index % len(order)] * 700 for index in argument]
        expected = len({row for row in rows if row in model})
        assert postings.remove(txn, rows) == expected
        for row in rows:
            model.pop(row, None)


def _batch(rng: np.random.Generator, rows: int, vocabulary: int = 400) -> list[Counter[bytes]]:
    picks = rng.zipf(1.3, (rows, 12)) % vocabulary
    return [Counter(int(n).to_bytes(12, "big").replace(b"\0", b"\1") for n in row) for row in picks]


def _everything(txn: ReadTxn) -> dict[bytes, list[tuple[int, int, int]]]:
    """Every posting a reader sees, by term."""
    reader = postings.PostingsReader(txn)
    terms = {bytes(key[4:16]) for key in txn.scan_keys(tables.POSTINGS)}
    terms |= {bytes(h) for h in postings.fresh(txn).batch.hashes}
    return {term: sorted(map(tuple, reader.entries(term).tolist())) for term in terms}


def test_a_merge_in_slices_never_changes_what_is_read_and_ends_in_few_segments(
    tmp_path: Path,
) -> None:
    rng = np.random.default_rng(1)
    env = Environment(tmp_path)
    # Interleaved rows: every segment's rows lie between every other's.
    for part in range(17):
        batch = [analysed(one) for one in _batch(rng, 120)]
        with env.write() as txn:
            postings.add_segment(txn, range(part, part + 120 * 17, 17), batch)
    with env.read() as txn:
        before = _everything(txn)
    slices, more = 0, True
    while more:
        with env.write() as txn:
            more = postings.merge_step(txn, 0.5)
        slices += 1
        with env.read() as txn:
            assert _everything(txn) == before
            assert_nothing_left_behind(txn)
    with env.read() as txn:
        assert slices > 5
        assert len(manifest.load(txn).segments) == 2
        assert not manifest.load(txn).dropping


def test_removal_in_the_middle_of_a_merge_reaches_source_and_target(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    env = Environment(tmp_path)
    for part in range(16):
        batch = [analysed(one) for one in _batch(rng, 100)]
        with env.write() as txn:
            postings.add_segment(txn, range(part * 100, part * 100 + 100), batch)
    gone: set[int] = set()
    more = True
    while more:
        with env.write() as txn:
            more = postings.merge_step(txn, 0.3)
        victims = rng.integers(0, 1600, 5).tolist()
        with env.write() as txn:
            postings.remove(txn, victims)
        gone |= set(victims)
        with env.read() as txn:
            for _, payload in txn.scan(tables.POSTINGS):
                assert gone.isdisjoint(layout.entries_of(payload)["row"].tolist())
            rows = postings.PostingsReader(txn).every_row()["row"]
            assert sorted(rows.tolist()) == sorted(set(range(1600)) - gone)


def test_a_merge_leaves_out_rows_that_are_no_longer_stored(tmp_path: Path) -> None:
    env = Environment(tmp_path)
    for part in range(16):
        batch = [analysed(Counter({TERMS[0]: 1}))] * 10
        with env.write() as txn:
            postings.add_segment(txn, range(part * 10, part * 10 + 10), batch)
    stored = BitMap(range(0, 160, 2))
    more = True
    while more:
        with env.write() as txn:
            more = postings.merge_step(txn, 1.0, stored)
    with env.read() as txn:
        rows, tfs, _ = postings.postings(txn, TERMS[0])
    assert sorted(rows.tolist()) == list(stored)
    assert set(tfs.tolist()) == {1}


def test_values_obey_the_size_rule_and_keys_hold_no_text(tmp_path: Path) -> None:
    env = Environment(tmp_path)
    with env.read() as txn:
        secret = txn.digest(b"grandmother", 12)
    long_text = [analysed(Counter(int(n).to_bytes(12, "big") for n in range(1, 2000)))] * 3
    many = [analysed(Counter({secret: 2}))] * 2000
    with env.write() as txn:
        postings.add_segment(txn, range(3), long_text)
        postings.add_segment(txn, range(3, 2003), many)
        for row in range(5000, 5300):
            postings.add(txn, row, analysed(Counter({secret: 1})))
        assert postings.fold(txn) == 300
    with env.read() as txn:
        for table in (tables.FORWARD, tables.POSTINGS, tables.META):
            for key, value in txn.raw(table):
                assert b"grandmother" not in bytes(key) + bytes(value)
                assert not value or obeys_size_rule(value)
        for _, value in txn.raw(tables.POSTINGS):
            assert len(value) <= 1900
        assert len(postings.postings(txn, secret)[0]) == 2300


def test_fresh_rows_are_folded_only_when_they_are_worth_a_segment(tmp_path: Path) -> None:
    env = Environment(tmp_path)
    with env.write() as txn:
        for row in range(255):
            postings.add(txn, row, analysed(Counter({TERMS[0]: 1})))
        assert postings.fold(txn) == 0
        postings.add(txn, 255, analysed(Counter({TERMS[0]: 1})))
        assert postings.fold(txn) == 256
        assert postings.fresh_count(txn) == 0


def test_a_row_is_added_once(tmp_path: Path) -> None:
    env = Environment(tmp_path)
    with env.write() as txn:
        postings.add(txn, 4, analysed(Counter({TERMS[0]: 1})))
        with pytest.raises(ValueError, match="row 4"):
            postings.add(txn, 4, analysed(Counter({TERMS[0]: 1})))


def test_lengths_in_one_byte_are_exact_when_short_and_within_three_percent_when_long() -> None:
    lengths = np.concatenate((np.arange(2000), np.geomspace(2000, 1_305_772, 5000).astype(int)))
    kept = postings.decode_lengths(postings.encode_lengths(lengths.astype(np.uint32)))
    assert (kept[:41] == np.arange(41)).all()
    assert (np.abs(kept - lengths) <= 0.027 * lengths).all()
    assert (np.diff(postings.LENGTHS) > 0).all()
    assert postings.encode_lengths(np.array([2**32 - 1], np.uint32))[0] == 255


def test_fresh_rows_are_seen_by_the_next_read_however_often_they_were_read(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "db")
    expected: list[int] = []
    for row in range(12):

        def write(txn: Writer, row: int = row) -> None:
            postings.add(txn, row, analysed(Counter({TERMS[row % 2]: 1 + row})))
            txn.changed(added=[row])
            if row % 4 == 3:  # gone again, in a transaction that leaves as many rows as before
                postings.remove(txn, [row - 1])
                txn.changed(removed=[row - 1])

        store.write(write)
        expected = [*expected, row] if row % 4 != 3 else [*expected[:-1], row]
        for _ in range(2):
            with store.read() as txn:
                every = postings.PostingsReader(txn).every_row()
                assert sorted(every["row"].tolist()) == expected
    store.write(lambda txn: postings.fold(txn, at_least=1))
    with store.read() as txn:
        assert len(postings.fresh(txn).rows) == 0
        assert sorted(postings.PostingsReader(txn).every_row()["row"].tolist()) == expected
    store.close()


def test_fresh_rows_that_come_again_with_other_terms_are_known_by_those(tmp_path: Path) -> None:
    """Most often rows come and nothing else happens, and only those are read."""
    store = Store.open(tmp_path / "db")

    def rows_of(term: str) -> list[int]:
        with store.read() as txn:
            found = postings.PostingsReader(txn).entries(txn.digest(term.encode(), 12))
            return sorted(found["row"].tolist())

    def write(row: int, term: str, again: bool = False) -> None:
        def change(txn: Writer) -> None:
            if again:
                postings.remove(txn, [row])
            terms = Counter({txn.digest(term.encode(), 12): 1})
            postings.add(txn, row, analysed(terms))
            txn.changed(added=[row])

        store.write(change)

    for row in range(5):
        write(row, "one" if row % 2 else "two")
        assert rows_of("one") == list(range(1, row + 1, 2))
        assert rows_of("two") == list(range(0, row + 1, 2))
    write(4, "one", again=True)
    assert (rows_of("one"), rows_of("two")) == ([1, 3, 4], [0, 2])
    write(3, "two", again=True)
    write(5, "two")
    assert (rows_of("one"), rows_of("two")) == ([1, 4], [0, 2, 3, 5])
    store.close()
