"""A store with every feature in use: what its bytes must obey, and what it does under pressure."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

import memdb
from memdb.storage import tables
from memdb.storage.values import obeys_size_rule, unseal
from tests.memdb import full_store
from tests.memdb.full_store import MARK

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("full")
    full_store.build(folder / "db", folder / f"{MARK}folder", full_store.Clock())
    return folder / "db"


@pytest.fixture
def path(made: Path, tmp_path: Path) -> Path:
    shutil.copytree(made, tmp_path / "db")
    return tmp_path / "db"


@pytest.fixture
def db(path: Path) -> Iterator[memdb.Database]:
    clock = full_store.Clock()
    clock.advance(days=41)
    with memdb.open(path, embedder="none", clock=clock) as opened:
        yield opened


# --- what the bytes obey ------------------------------------------------------------------------


def test_every_table_but_the_passing_ones_is_in_use(db: memdb.Database) -> None:
    with db._engine.store.read() as txn:
        empty = [name for name in tables.ALL if not txn.count(name)]
    assert not empty, "the rules below would not be tried on these"


def test_no_key_holds_a_users_words(db: memdb.Database) -> None:
    words, found = MARK.encode(), 0
    with db._engine.store.read() as txn:
        for name in tables.ALL:
            for key, value in txn.raw(name):
                assert words not in key.lower(), f"a key of {name} holds text"
                found += words in value.lower()
    assert found > 300, "the words are there to be found, in values"


def test_every_value_has_a_checksum_and_an_allowed_size(db: memdb.Database) -> None:
    with db._engine.store.read() as txn:
        for name in tables.ALL:
            for key, value in txn.raw(name):
                assert obeys_size_rule(value), name
                if value:
                    unseal(key, value)


def test_the_statistics_add_up(db: memdb.Database) -> None:
    stats = db.stats()
    store = db._engine.store
    with store.read() as txn:
        for name in tables.ALL:
            assert txn.count(name) == sum(1 for _ in txn.raw(name)), name
            assert stats["bytes"]["tables"][name] == txn.bytes_of(name)
        live = len(db._engine.live(txn))
    assert stats["memories"] == live == sum(stats["kinds"].values()) == db.count()
    assert stats["trash"] == 10
    files = stats["bytes"]["files"]
    assert sum(stats["bytes"]["tables"].values()) <= files["kv"]
    assert stats["bytes"]["total"] == sum(files.values())
    assert stats["vectors"]["default"] == len(list(db.iter({"kind": {"$prefix": MARK}}))) + 5 + 11
    assert db.check()["ok"]


def test_forgetting_leaves_a_store_that_checks(db: memdb.Database) -> None:
    gone = db.forget(where={"tags": f"{MARK}tag1"})
    assert len(gone.ids) == 78
    assert db.check()["ok"]
    db.compact()
    assert db.check()["ok"]
    assert sorted(db.restore(batch=gone.batch)) == sorted(gone.ids)
    assert db.check()["ok"]
    for name, ask, right in full_store.questions(db):
        assert ask() == right, name


def test_a_snapshot_answers_like_its_original_and_then_goes_its_own_way(
    db: memdb.Database, tmp_path: Path
) -> None:
    """Both have one hash key and one count of changes: nothing may be shared because of it."""
    db.snapshot(tmp_path / "copy")
    with memdb.open(tmp_path / "copy", embedder="none", clock=db._engine.clock) as copy:
        for name, ask, right in full_store.questions(copy):
            assert ask() == right, name
        assert copy.check()["ok"]
        db._engine.store.write(lambda txn: txn.changed(added=[0]))  # the copy lacks one change
        copy._engine.store.write(lambda txn: txn.changed(added=[0]))
        while db.stats()["content_seq"] > copy.stats()["content_seq"]:
            copy._engine.store.write(lambda txn: txn.changed(added=[0]))
        db.remember("apples in the cellar")
        copy.remember("pears in the garden")
        assert db.stats()["content_seq"] == copy.stats()["content_seq"]
        assert len(db.recall("apples", mode="lexical")) == 1
        assert len(copy.recall("apples", mode="lexical")) == 0
        assert len(copy.recall("pears", mode="lexical")) == 1


# --- threads and processes ----------------------------------------------------------------------


def test_writes_of_many_threads_are_each_seen_once_acknowledged(tmp_path: Path) -> None:
    with memdb.open(tmp_path / "db", embedder="none") as db:
        unseen: list[str] = []

        def work(name: int) -> None:
            for number in range(25):
                key = f"{name}-{number}"
                db.remember(f"thread {key}", external_id=key, vector=full_store.vector(number))
                if db.get(external_id=key) is None:
                    unseen.append(key)

        threads = [threading.Thread(target=work, args=(name,)) for name in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not unseen
        assert db.count() == 200
        assert db.check()["ok"]


def run_python(code: str, *arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def test_what_one_process_acknowledges_every_other_process_reads_next(tmp_path: Path) -> None:
    """Each of four processes writes in turn, and all others must see it at their next read."""
    code = """
        import sys, memdb
        from tests.memdb.full_store import small_steps, vector
        path, name = sys.argv[1:]
        with small_steps(), memdb.open(path, embedder="none") as db:
            for line in sys.stdin:
                verb, key = line.split()
                if verb == "write":
                    db.remember(f"word{key}", external_id=key, vector=vector(int(key)))
                    print("done", flush=True)
                else:
                    got = db.get(external_id=key)
                    near = db.recall(vector=vector(int(key)), mode="vector", k=1)
                    words = db.recall(f"word{key}", mode="lexical")
                    print(got is not None, [h.id for h in near] == [got.id],
                          [h.id for h in words] == [got.id], db.count(), flush=True)
    """
    memdb.open(tmp_path / "db", embedder="none").close()
    processes = [run_python(code, tmp_path / "db", name) for name in range(4)]

    def say(process: subprocess.Popen[str], line: str) -> None:
        assert process.stdin is not None
        process.stdin.write(line + "\n")
        process.stdin.flush()

    def hear(process: subprocess.Popen[str]) -> str:
        assert process.stdout is not None
        return process.stdout.readline().strip()

    for number in range(150):
        say(processes[number % 4], f"write {number}")
        assert hear(processes[number % 4]) == "done"
        if number % 3 == 0 or number > 140:
            for process in processes:
                say(process, f"read {number}")
            for process in processes:
                assert hear(process) == f"True True True {number + 1}"
    for process in processes:
        process.communicate()
        assert process.returncode == 0
    with memdb.open(tmp_path / "db", embedder="none") as db:
        assert db.check()["ok"]


def test_the_next_holder_of_the_lease_goes_on_with_the_codes_of_the_one_before(
    tmp_path: Path,
) -> None:
    """It opened the space before the other process trained it, and never searched since."""
    code = """
        import sys, memdb
        from tests.memdb.full_store import small_steps, vector
        with small_steps(), memdb.open(sys.argv[1], embedder="none") as db:
            db.remember("first", vector=vector(0))
            assert db._engine.store.lease.try_acquire()
            print("holding", flush=True)
            sys.stdin.readline()
            for n in range(1, 100):
                db.remember(f"n{n}", vector=vector(n))
            assert db._maintenance.drain()
            print("encoded", flush=True)
            sys.stdin.readline()
    """
    other = run_python(code, tmp_path / "db")
    assert other.stdout is not None and other.stdin is not None
    assert other.stdout.readline() == "holding\n"
    with full_store.small_steps(), memdb.open(tmp_path / "db", embedder="none") as db:
        db.remember("second", vector=full_store.vector(1_000))
        assert not db.stats()["lease"]["held"]
        other.stdin.write("\n")
        other.stdin.flush()
        assert other.stdout.readline() == "encoded\n"
        codes = (tmp_path / "db" / "space" / "1" / "codes.bin").stat().st_ino
        other.send_signal(signal.SIGKILL)
        other.wait()
        for number in range(100, 240):
            db.remember(f"n{number}", vector=full_store.vector(number))
        assert db._maintenance.drain()
        assert db.stats()["backlog"]["fresh_vectors"] < 64
        found = db.check()
        assert found["ok"], found["problems"]
        assert (tmp_path / "db" / "space" / "1" / "codes.bin").stat().st_ino == codes
        for number in range(1, 240, 13):
            (hit,) = db.recall(vector=full_store.vector(number), mode="vector", k=1)
            assert hit.text == f"n{number}"


def test_a_forked_child_does_not_keep_the_lease_of_its_parent(tmp_path: Path) -> None:
    with memdb.open(tmp_path / "db", embedder="none") as db:
        db.compact()
        assert db.stats()["lease"]["held"]
        reading, writing = os.pipe()
        child = os.fork()
        if not child:
            os.close(writing)
            os.read(reading, 1)  # until the parent says so, or is gone
            os._exit(0)
        os.close(reading)
    with memdb.open(tmp_path / "db", embedder="none") as db:
        try:
            assert db.compact()["after"] > 0
        finally:
            os.write(writing, b"x")
            os.close(writing)
            os.waitpid(child, 0)


# --- a full disk and a directory that cannot be written -------------------------------------------


def test_a_full_disk_is_store_full_and_writes_nothing(path: Path) -> None:
    """A limit on the size of files stands for the disk; it is lifted, and writing goes on."""
    code = """
        import resource, signal, sys, memdb
        from tests.memdb import full_store
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        clock = full_store.Clock()
        clock.advance(days=41)
        with memdb.open(sys.argv[1], embedder="none", clock=clock) as db:
            before, size = db.count(), int(sys.argv[2])
            resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
            done, full = 0, 0
            for number in range(300):
                try:
                    db.remember("filler %d " % number + "x" * 6000, external_id=f"f{number}")
                    done += 1
                except memdb.StoreFull:
                    full += 1
                    assert db.get(external_id=f"f{number}") is None
                    if full > 5:
                        break
            assert full, "the disk was never full"
            many = [f"{n} " + "z" * 9000 for n in range(90)]
            for verb, rows in ((lambda: db.remember_many(many), 90), (db.compact, 0)):
                try:
                    verb()
                except memdb.StoreFull:
                    full += 1
                else:
                    done += rows
            blob = " ".join(map(str, range(400_000)))[:1_000_000]  # more than is left, compressed
            resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
            try:
                db.remember(blob)
                raise AssertionError("a large content fitted")
            except memdb.StoreFull:
                resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
            assert db.count() == before + done
            for name, ask, right in full_store.questions(db):
                if name not in ("count",):
                    assert ask() == right, name
            resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
            db.remember("room again", external_id="again")
            assert db.count() == before + done + 1
            found = db.check()
            assert found["ok"], found["problems"]
            print("well", full)
    """
    size = max(file.stat().st_size for file in path.rglob("data.mdb")) + 200_000
    process = run_python(code, path, size)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert said.startswith("well")


def _as_nobody(path: Path, code: str) -> str:
    """Run ``code`` in a process that may read the database and not write it."""
    for folder, _, files in os.walk(path):
        os.chmod(folder, 0o555)
        for name in files:
            os.chmod(os.path.join(folder, name), 0o444)
    for parent in path.parents:
        if os.stat(parent).st_uid == os.getuid() and parent.is_relative_to(tempfile.gettempdir()):
            os.chmod(parent, os.stat(parent).st_mode | 0o055)
    drop = """
        import os, sys, memdb
        from tests.memdb import full_store
        # Everything is imported by the time that this process may no longer read the interpreter.
        with memdb.open(sys.argv[1], embedder="none", readonly=True) as db:
            for _, ask, _ in full_store.questions(db):
                ask()
            db.check()
        if os.getuid() == 0:
            os.setgroups([]); os.setgid(65534); os.setuid(65534)
    """
    process = run_python(textwrap.dedent(drop) + textwrap.dedent(code), path)
    said, _ = process.communicate(timeout=60)
    for folder, _, _ in os.walk(path):
        os.chmod(folder, 0o755)
    return said


def test_a_directory_that_cannot_be_written_is_read_with_readonly(path: Path) -> None:
    said = _as_nobody(
        path,
        """
        clock = full_store.Clock()
        clock.advance(days=41)
        try:
            memdb.open(sys.argv[1], embedder="none")
        except memdb.PermissionDenied:
            print("denied")
        with memdb.open(sys.argv[1], embedder="none", readonly=True, clock=clock) as db:
            for name, ask, right in full_store.questions(db):
                assert ask() == right, name
            print("read")
            try:
                db.remember("not here")
            except memdb.PermissionDenied:
                print("refused")
            assert db.check()["ok"]
            print("checked")
        """,
    )
    assert said.split() == ["denied", "read", "refused", "checked"]
