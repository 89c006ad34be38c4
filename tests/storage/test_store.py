"""The store: transactions, group commit, generations, the lease and the format gate."""

from __future__ import annotations

import multiprocessing
import multiprocessing.synchronize
import os
import threading
from pathlib import Path

import pytest

from memdb.errors import (
    FormatTooNew,
    InvalidArgument,
    LockHeld,
    MemdbError,
    NotFound,
    PermissionDenied,
    StoreCorrupt,
    StoreFull,
)
from memdb.storage import generations, tables
from memdb.storage.environment import Environment
from memdb.storage.lease import Lease
from memdb.storage.store import Store, Writer


def put(store: Store, number: int, payload: bytes = b"x") -> None:
    def run(txn: Writer) -> None:
        txn.put(tables.RECORDS, number.to_bytes(4, "big"), payload)
        txn.changed(added=[number])

    store.write(run)


def get(store: Store, number: int) -> bytes | None:
    with store.read() as txn:
        return txn.get(tables.RECORDS, number.to_bytes(4, "big"))


@pytest.fixture
def store(tmp_path: Path):
    opened = Store.open(tmp_path / "db")
    yield opened
    opened.close()


def test_a_committed_write_is_read_back_and_counted(store: Store) -> None:
    put(store, 1, b"one")
    assert get(store, 1) == b"one"
    with store.read() as txn:
        assert txn.state.content_seq == 1


def test_a_failed_write_leaves_nothing_and_raises_its_own_error(store: Store) -> None:
    def fail(txn: Writer) -> None:
        txn.put(tables.RECORDS, b"half", b"half")
        raise ValueError("mine")

    with pytest.raises(ValueError, match="mine"):
        store.write(fail)
    with store.read() as txn:
        assert txn.count(tables.RECORDS) == 0
        assert txn.state.content_seq == 0


def test_writes_of_many_threads_all_commit_and_one_failure_hurts_only_itself(store: Store) -> None:
    failures: list[int] = []

    def work(base: int) -> None:
        for i in range(50):
            if i % 10 == 3:
                try:
                    store.write(lambda txn: (_ for _ in ()).throw(ValueError(str(base))))
                except ValueError as error:
                    assert str(error) == str(base)
                    failures.append(base)
            else:
                put(store, base * 1000 + i)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(failures) == 6 * 5
    with store.read() as txn:
        assert txn.count(tables.RECORDS) == 6 * 45
        assert txn.state.content_seq == 6 * 45


def test_a_write_inside_a_write_is_refused_instead_of_deadlocking(store: Store) -> None:
    with pytest.raises(MemdbError, match="write inside a write"):
        store.write(lambda txn: put(store, 1))


def test_a_reader_keeps_its_snapshot_while_others_write(store: Store) -> None:
    put(store, 1)
    with store.read() as txn:
        done = threading.Thread(target=put, args=(store, 2))
        done.start()
        done.join()
        assert txn.get(tables.RECORDS, (2).to_bytes(4, "big")) is None
    assert get(store, 2) == b"x"


def test_a_full_map_is_store_full_and_the_store_stays_readable(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "db", map_size=1 << 20)
    put(store, 1, b"kept")
    with pytest.raises(StoreFull):
        for number in range(2, 2000):
            put(store, number, os.urandom(1500))
    assert get(store, 1) == b"kept"
    store.close()


def _in_child(path: str, number: int, ready: object, go: object) -> None:
    store = Store.open(path)
    assert get(store, 1) == b"before"
    with store.read() as txn:
        txn.scratch["derived"] = "from what a copy holds as well"
    ready.set()  # type: ignore[attr-defined]
    assert go.wait(20)  # type: ignore[attr-defined]
    os.fsync = _refused  # who moves on waits neither for the disk nor for a walk over all pages
    Environment.verify_pages = _refused  # type: ignore[method-assign, assignment]
    assert get(store, 1) == b"before"
    with store.read() as txn:
        assert txn.scratch["derived"]
    put(store, number, b"from the child")
    store.close()


def _refused(*_: object, **__: object) -> None:
    raise AssertionError("a reader was made to wait")


def test_a_process_on_a_superseded_generation_moves_on_without_losing_a_write(
    tmp_path: Path,
) -> None:
    context = multiprocessing.get_context("spawn")
    store = Store.open(tmp_path / "db")
    put(store, 1, b"before")
    ready, go = context.Event(), context.Event()
    child = context.Process(target=_in_child, args=(str(store.path), 7, ready, go))
    child.start()
    assert ready.wait(20)
    store.lease.acquire()
    store.compact()
    assert store.generation == 2
    put(store, 2, b"after the swap")
    old = store.path / "kv" / generations.name_of(1)
    assert old.exists(), "the child still holds the old generation"
    go.set()
    child.join(20)
    assert child.exitcode == 0
    assert (get(store, 2), get(store, 7)) == (b"after the swap", b"from the child")
    assert store.reap() == 1
    assert not old.exists()
    store.close()


@pytest.mark.parametrize("crash_at", ["copy", "rename", "commit", "current", "current, reaped"])
def test_a_crash_at_any_point_of_a_compaction_loses_nothing(
    tmp_path: Path, crash_at: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each point is a place where the process may die: the state on disk is what it leaves."""
    store = Store.open(tmp_path / "db")
    for number in range(50):
        put(store, number, bytes(200))

    class Died(BaseException):
        pass

    def die(*_: object, **__: object) -> None:
        raise Died

    if crash_at == "copy":
        monkeypatch.setattr("memdb.storage.store.os.fsync", die)
    elif crash_at == "rename":
        monkeypatch.setattr("memdb.storage.store.os.rename", die)
    elif crash_at == "commit":
        monkeypatch.setattr(Writer, "put", die)
    else:
        monkeypatch.setattr("memdb.storage.store.generations.write_current", die)
    store.lease.acquire()
    with pytest.raises(Died):
        store.compact()
    monkeypatch.undo()
    put(store, 99, b"later")
    if crash_at == "current, reaped":
        assert store.reap() == 1
    store.close()
    again = Store.open(tmp_path / "db")
    assert get(again, 99) == b"later"
    with again.read() as txn:
        assert txn.count(tables.RECORDS) == 51
    again.lease.acquire()
    again.compact()
    assert [p.name for p in (tmp_path / "db" / "kv").iterdir() if p.is_dir()] == [
        generations.name_of(again.generation)
    ]
    again.close()


def test_compacting_removes_deleted_bytes(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "db")
    secret = b"the-secret-word"
    for number in range(300):
        put(store, number, secret + number.to_bytes(4, "big") + bytes(100))

    def delete(txn: Writer) -> None:
        for number in range(0, 300, 2):
            txn.delete(tables.RECORDS, number.to_bytes(4, "big"))

    store.write(delete)
    store.lease.acquire()
    store.compact()
    files = [f for f in (store.path / "kv").rglob("data.mdb")]
    content = b"".join(f.read_bytes() for f in files)
    left = sum(content.count(secret + n.to_bytes(4, "big")) for n in range(0, 300, 2))
    kept = sum(secret + n.to_bytes(4, "big") in content for n in range(1, 300, 2))
    assert (left, kept) == (0, 150)
    store.close()


def test_only_one_process_holds_the_lease_and_death_frees_it(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    path = tmp_path / "lease"
    ready = context.Event()
    child = context.Process(target=_hold, args=(str(path), ready))
    child.start()
    assert ready.wait(20)
    lease = Lease(path)
    with pytest.raises(LockHeld) as caught:
        lease.acquire()
    assert caught.value.pid == child.pid
    child.kill()
    child.join(20)
    assert lease.try_acquire()
    lease.release()


def _hold(path: str, ready: object) -> None:
    lease = Lease(Path(path))
    assert lease.try_acquire()
    ready.set()  # type: ignore[attr-defined]
    threading.Event().wait(30)


def test_a_forked_child_cannot_use_its_parents_store(store: Store) -> None:
    put(store, 1)
    child = os.fork()
    if child == 0:
        try:
            get(store, 1)
        except MemdbError:
            os._exit(0)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert get(store, 1) == b"x"


def test_opening_twice_in_a_process_gives_one_store(tmp_path: Path) -> None:
    first, second = Store.open(tmp_path / "db"), Store.open(tmp_path / "db")
    assert first is second
    first.close()
    put(second, 1)
    second.close()
    with pytest.raises(MemdbError, match="closed"):
        get(second, 1)


def test_a_later_format_is_refused_and_nonsense_is_corrupt(tmp_path: Path) -> None:
    Store.open(tmp_path / "db").close()
    (tmp_path / "db" / "FORMAT").write_text("memdb 999\n")
    with pytest.raises(FormatTooNew):
        Store.open(tmp_path / "db")
    (tmp_path / "db" / "FORMAT").write_bytes(b"\x00\xffsomething")
    with pytest.raises(StoreCorrupt):
        Store.open(tmp_path / "db")


def test_a_file_a_strangers_directory_and_a_missing_path_are_typed_errors(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("hello")
    with pytest.raises(InvalidArgument):
        Store.open(tmp_path / "file")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    with pytest.raises(InvalidArgument):
        Store.open(tmp_path / "mine")
    with pytest.raises(NotFound):
        Store.open(tmp_path / "absent", create=False)
    assert not (tmp_path / "absent").exists()


def test_a_half_made_database_is_made_again(tmp_path: Path) -> None:
    path = tmp_path / "db"
    (path / "kv" / generations.name_of(1)).mkdir(parents=True)
    (path / "kv" / generations.name_of(1) / "data.mdb").write_bytes(b"torn")
    store = Store.open(path)
    put(store, 1)
    assert get(store, 1) == b"x"
    store.close()


def test_reading_only_refuses_writes_and_makes_nothing(tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        Store.open(tmp_path / "db", readonly=True)
    Store.open(tmp_path / "db").close()
    store = Store.open(tmp_path / "db", readonly=True)
    with pytest.raises(PermissionDenied):
        put(store, 1)
    store.close()


@pytest.mark.parametrize("damage", ["truncated", "overwritten", "current"])
def test_damaged_files_are_typed_errors_and_never_crash(tmp_path: Path, damage: str) -> None:
    store = Store.open(tmp_path / "db")
    for number in range(200):
        put(store, number, bytes([number % 251]) * 300)
    store.close()
    kv = tmp_path / "db" / "kv"
    data = kv / generations.name_of(1) / "data.mdb"
    if damage == "truncated":
        data.write_bytes(data.read_bytes()[:4096])
    elif damage == "overwritten":
        content = bytearray(data.read_bytes())
        content[:8192] = b"\xaa" * 8192
        data.write_bytes(content)
    else:
        (kv / "CURRENT").write_text("nothing sensible")
    with pytest.raises(MemdbError) as caught:
        reopened = Store.open(tmp_path / "db")
        try:
            get(reopened, 150)
        finally:
            reopened.close()
    assert caught.value.hint


def test_rising_keys_are_appended_where_they_come_last_and_entered_elsewhere(
    tmp_path: Path,
) -> None:
    env = Environment(tmp_path)
    pairs = [(n.to_bytes(4, "big"), bytes(400)) for n in range(2000)]
    with env.write() as txn:
        txn.put_rising(tables.RECORDS, [])
        txn.put_rising(tables.RECORDS, pairs[500:1000])
        txn.put_rising(tables.RECORDS, pairs[1000:1500])  # after the last: appended
        filled = txn.bytes_of(tables.RECORDS)
        txn.put_rising(tables.RECORDS, pairs[:500])  # before the first
        txn.put_rising(tables.RECORDS, pairs[1400:])  # over the last
    with env.read() as txn:
        assert list(txn.scan(tables.RECORDS)) == pairs
    assert filled < 1.2 * sum(len(key) + len(payload) for key, payload in pairs[500:1500])
    env.close()


def _read_for_ever(path: Path, told: multiprocessing.synchronize.Event) -> None:
    reading = Store.open(path)
    with reading.read():
        told.set()
        threading.Event().wait(60)


def test_a_reader_that_was_killed_holds_nothing_up(store: Store) -> None:
    """LMDB keeps the entry of its snapshot."""
    processes = multiprocessing.get_context("spawn")
    told = processes.Event()
    reader = processes.Process(target=_read_for_ever, args=(store.path, told), daemon=True)
    reader.start()
    assert told.wait(60)
    put(store, 1)
    assert not store.wait_for_readers(0.05), "it reads an older snapshot"
    reader.kill()
    reader.join()
    assert store.wait_for_readers(5.0)


def test_who_writes_is_told_when_only_the_disk_is_waited_for(store: Store) -> None:
    told: list[bytes | None] = []

    def run(txn: Writer) -> int:
        txn.put(tables.RECORDS, b"\0\0\0\7", b"x")
        txn.changed(added=[7])
        assert not told
        return 7

    assert store.write(run, committing=lambda: told.append(get(store, 7))) == 7
    assert told == [None]  # after the function, and nobody else sees it yet
    assert get(store, 7) == b"x"

    def fail(txn: Writer) -> None:
        raise NotFound("no")

    with pytest.raises(NotFound):
        store.write(fail, committing=lambda: told.append(b"never"))
    assert told == [None]


def hold_the_lock(
    path: Path,
    held: multiprocessing.synchronize.Event,
    let_go: multiprocessing.synchronize.Event,
) -> None:
    def wait(_: Writer) -> None:
        held.set()
        let_go.wait()

    store = Store.open(path)
    store.write(wait)
    store.close()


def test_opening_beside_another_process_s_write_keeps_no_other_thread_waiting(
    tmp_path: Path,
) -> None:
    Store.open(tmp_path / "db").close()
    context = multiprocessing.get_context("spawn")
    held, let_go = context.Event(), context.Event()
    holder = context.Process(target=hold_the_lock, args=(tmp_path / "db", held, let_go))
    holder.start()
    assert held.wait(60)
    opened: list[Store] = []
    opening = threading.Thread(target=lambda: opened.append(Store.open(tmp_path / "db")))
    opening.start()
    opening.join(0.5)  # comes back though that thread waits for the lock, or nothing here would
    assert opening.is_alive()
    let_go.set()
    opening.join(60)
    holder.join(60)
    assert holder.exitcode == 0
    opened[0].close()
