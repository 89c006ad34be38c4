"""Sets of rows that readers share are those of each reader's own snapshot."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import pytest
from pyroaring import BitMap

from memdb.storage.environment import ReadTxn
from memdb.storage.filters import FilterIndex, bitmaps, shared_sets
from memdb.storage.filters.fresh_view import Fresh
from memdb.storage.store import Store, Writer
from memdb.types import Memory

INDEX = FilterIndex()
LIVE = "live"

# Another process: writes one thing for each line it is sent.
_WRITER = """
import sys
from memdb.storage.filters import FilterIndex
from memdb.storage.store import Store
from memdb.types import Memory
index = FilterIndex()
store = Store.open(sys.argv[1])
note = lambda row, tag: Memory(id=str(row), source="app:test", tags=(tag,))
def add(txn, row):
    index.add_fresh(txn, [(row, note(row, "t"))], ["live"])
    txn.changed(added=[row])
def hide(txn, row):
    index.set_discard(txn, "live", [row])
    txn.changed(removed=[row])
def show(txn, row):
    index.set_add(txn, "live", [row])
    txn.changed(added=[row])
def retag(txn, row):
    index.change(txn, row, note(row, "t"), note(row, "u"))
    txn.changed(added=[row])
def fold(txn, most):
    index.fold(txn, most)
for line in sys.stdin:
    name, number = line.split()
    store.write(lambda txn: globals()[name](txn, int(number)))
    print("done", flush=True)
store.close()
"""


def note(row: int, *tags: str) -> Memory:
    return Memory(id=str(row), source="app:test", tags=tags)


def add(txn: Writer, rows: Sequence[int], tag: str = "t") -> None:
    INDEX.add_fresh(txn, [(row, note(row, tag)) for row in rows], [LIVE])
    txn.changed(added=rows)


def file(txn: Writer, rows: Sequence[int], tag: str = "t") -> None:
    INDEX.add(txn, [(row, note(row, tag)) for row in rows])
    INDEX.set_add(txn, LIVE, rows)
    txn.changed(added=rows)


def tagged(txn: ReadTxn, tag: str = "t") -> list[int]:
    return list(INDEX.equals(txn, "tags", tag))


def test_another_process_s_writes_are_seen_by_the_next_read(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "db")
    store.write(partial(file, rows=range(0, 3000, 3)))
    live, having_t, having_u = set(range(0, 3000, 3)), set(range(0, 3000, 3)), set()
    steps = ["add 1", "hide 1", "add 4", "retag 4", "show 1", "fold 10", "hide 3", "add 70000"]
    steps += [f"add {row}" for row in range(100_000, 100_040)] + ["fold 7", "retag 100039"]
    with subprocess.Popen(
        [sys.executable, "-c", _WRITER, str(tmp_path / "db")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        bufsize=1,
    ) as writer:
        assert writer.stdin is not None and writer.stdout is not None
        for step in steps:
            name, number = step.split()[0], int(step.split()[1])
            with store.read() as txn:
                tagged(txn), INDEX.logged_set(txn, LIVE)
            writer.stdin.write(step + "\n")
            assert writer.stdout.readline() == "done\n"
            if name == "show":
                live.add(number)
            elif name == "add":
                live.add(number)
                having_t.add(number)
            elif name == "hide":
                live.discard(number)
            elif name == "retag":
                having_t.discard(number)
                having_u.add(number)
            with store.read() as txn:
                assert set(INDEX.logged_set(txn, LIVE)) == live, step
                assert set(tagged(txn)) == having_t, step
                assert set(tagged(txn, "u")) == having_u, step
        writer.stdin.close()
        assert writer.wait() == 0
    store.close()


def test_what_a_failed_write_saw_is_remembered_by_nobody(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "db")
    store.write(partial(file, rows=range(100)))

    def fail(txn: Writer) -> None:
        add(txn, [500])
        INDEX.set_discard(txn, LIVE, [7])
        assert 500 in tagged(txn) and 500 in INDEX.logged_set(txn, LIVE)
        assert 7 not in INDEX.logged_set(txn, LIVE)
        raise ZeroDivisionError

    for _ in range(2):
        with store.read() as txn:
            assert tagged(txn) == list(INDEX.logged_set(txn, LIVE)) == list(range(100))
        with pytest.raises(ZeroDivisionError):
            store.write(fail)
    store.write(partial(add, rows=[600]))
    with store.read() as txn:
        assert tagged(txn) == list(INDEX.logged_set(txn, LIVE)) == [*range(100), 600]
    store.close()


def test_an_older_snapshot_keeps_its_sets_and_takes_nobody_s(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "db")
    store.write(partial(file, rows=range(50)))
    with store.read() as old:
        store.write(partial(add, rows=[50]))
        with store.read() as new:
            assert tagged(new) == list(range(51))
            assert tagged(old) == list(range(50))
            assert tagged(new) == list(range(51))
    with store.read() as last:
        assert tagged(last) == list(range(51))
    store.close()


def test_catching_up_looks_at_the_rows_of_the_log_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store.open(tmp_path / "db")
    store.write(partial(file, rows=range(20_000)))
    with store.read() as txn:
        assert len(tagged(txn)) == 20_000
    read: list[bytes] = []
    load = bitmaps.load
    monkeypatch.setattr(
        bitmaps, "load", lambda txn, prefix: read.append(prefix) or load(txn, prefix)
    )
    for row in (20_000, 20_001):
        store.write(partial(add, rows=[row]))
        with store.read() as txn:
            assert tagged(txn)[-1] == row
    assert not read
    store.write(partial(add, rows=range(30_000, 30_100)))
    with store.read() as txn:
        assert len(tagged(txn)) == 20_102
    assert len(read) == 1, "after a batch the set is read"
    store.close()


@pytest.mark.parametrize("rows", [range(5), range(0, 9000, 7), range(0, 200_000, 3), range(9000)])
def test_a_row_is_in_a_filed_set_or_not(tmp_path: Path, rows: range) -> None:
    """Of each form of a block: listed, roaring, bits."""
    store = Store.open(tmp_path / "db")
    prefix = b"\0\1prefix.."
    store.write(lambda txn: bitmaps.add_rows(txn, prefix, rows))
    with store.read() as txn:
        asked = [*range(60), *range(8180, 8200), *range(65_530, 65_540), 150_000, 199_999, 1 << 31]
        found = [row for row in asked if bitmaps.contains(txn, prefix, row)]
        assert found == [row for row in asked if row in rows]
        assert not bitmaps.contains(txn, b"\0\1another.", 1)
    store.close()


def test_what_is_kept_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_sets, "_BYTES_MAX", 5_000)
    store = Store.open(tmp_path / "db")
    store.write(lambda txn: [file(txn, range(n, 9000, 7), f"t{n}") for n in range(7)] and None)
    with store.read() as txn:
        for _ in range(2):
            for n in range(7):
                assert tagged(txn, f"t{n}") == list(range(n, 9000, 7))
        kept = txn.scratch[shared_sets._SCRATCH]
        assert sum(one.size for one in kept.sets.values()) == kept._size <= 5_000
        assert len(kept.sets) < 7
        assert Fresh.of(txn).rows == BitMap()
    store.close()
