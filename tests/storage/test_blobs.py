"""Blobs are durable before they are referred to, counted, verified, and swept only when dead."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from memdb.errors import Conflict, PermissionDenied, StoreCorrupt
from memdb.storage import tables
from memdb.storage.blobs import BlobStore
from memdb.storage.store import Store

KEY = bytes(range(32))
TEXT = b"a long letter " * 6_000


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store.open(tmp_path / "db")
    yield store
    store.close()


@pytest.fixture
def blobs(store: Store) -> BlobStore:
    return BlobStore(store.path, KEY)


def age(path: Path, seconds: float) -> None:
    moment = time.time() - seconds
    os.utime(path, (moment, moment))


@settings(max_examples=30)
@given(content=st.binary(max_size=5_000), repeat=st.integers(1, 40))
def test_a_content_comes_back_byte_for_byte(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, repeat: int
) -> None:
    folder = tmp_path_factory.mktemp("db")
    for part in ("blob", "tmp"):
        (folder / part).mkdir()
    blobs = BlobStore(folder, KEY)
    name = blobs.put(content * repeat)
    assert blobs.get(name) == content * repeat
    assert not list((folder / "tmp").iterdir())


def test_equal_contents_are_one_file_and_the_name_depends_on_the_key(
    store: Store, blobs: BlobStore
) -> None:
    name = blobs.put(TEXT)
    assert blobs.put(TEXT) == name
    assert blobs.put(TEXT + b".") != name
    assert len(list((store.path / "blob").iterdir())) == 2
    assert BlobStore(store.path, b"other key" * 3).hash_of(TEXT) != name


def test_no_word_of_a_content_is_in_its_name(store: Store, blobs: BlobStore) -> None:
    blobs.put(TEXT)
    (path,) = (store.path / "blob").iterdir()
    assert path.name == blobs.hash_of(TEXT).hex()
    assert path.stat().st_mode & 0o077 == 0


def test_a_blob_is_synced_before_it_gets_its_name(
    blobs: BlobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda fd: (calls.append("fsync"), fsync(fd))[1])
    monkeypatch.setattr(os, "replace", lambda a, b: (calls.append("rename"), replace(a, b))[1])
    blobs.put(TEXT)
    assert calls[:2] == ["fsync", "rename"]
    assert calls[2:] == ([] if os.name == "nt" else ["fsync"])


def test_every_flipped_bit_is_found_and_the_error_names_the_file(blobs: BlobStore) -> None:
    name = blobs.put(b"a letter, rather short")
    path = blobs.path_of(name)
    sound = path.read_bytes()
    for place in range(len(sound)):
        for bit in (0, 5):
            damaged = bytearray(sound)
            damaged[place] ^= 1 << bit
            path.write_bytes(damaged)
            with pytest.raises(StoreCorrupt) as caught:
                blobs.get(name)
            assert caught.value.path == f"blob/{name.hex()}"


@pytest.mark.parametrize("size", [0, 1, 8, 19, 20, 40])
def test_a_truncated_blob_is_found(blobs: BlobStore, size: int) -> None:
    name = blobs.put(TEXT)
    path = blobs.path_of(name)
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(StoreCorrupt, match="checksum"):
        blobs.get(name)


def test_a_missing_blob_and_one_under_a_wrong_name_are_typed_errors(blobs: BlobStore) -> None:
    name, other = blobs.put(TEXT), blobs.put(b"other" * 50)
    os.replace(blobs.path_of(other), blobs.path_of(name))
    with pytest.raises(StoreCorrupt, match="name"):
        blobs.get(name)
    with pytest.raises(StoreCorrupt, match="missing"):
        blobs.get(other)


def test_putting_a_content_again_repairs_its_damaged_file(blobs: BlobStore) -> None:
    name = blobs.put(TEXT)
    blobs.path_of(name).write_bytes(b"rubbish")
    assert blobs.put(TEXT) == name
    assert blobs.get(name) == TEXT


def test_check_finds_damage_in_blobs_that_are_in_use(store: Store, blobs: BlobStore) -> None:
    used, lost, unused = (blobs.put(TEXT + bytes([i])) for i in range(3))
    store.write(lambda txn: [blobs.reference(txn, name) for name in (used, lost)])
    blobs.path_of(lost).unlink()
    blobs.path_of(unused).write_bytes(b"")
    with store.read() as txn:
        assert [error.path for error in blobs.check(txn)] == [f"blob/{lost.hex()}"]
        assert set(blobs.referenced(txn)) == {used, lost}


def test_a_file_in_use_or_just_written_is_never_swept(store: Store, blobs: BlobStore) -> None:
    used, fresh, orphan = (blobs.put(TEXT + bytes([i])) for i in range(3))
    store.write(lambda txn: blobs.reference(txn, used))
    age(blobs.path_of(used), 9_999)
    age(blobs.path_of(orphan), 9_999)
    assert blobs.sweep(store) == 1
    assert blobs.get(used) == blobs.get(used)
    assert blobs.get(fresh)
    assert not blobs.path_of(orphan).exists()


def test_a_file_goes_with_its_last_reference_and_its_row_with_it(
    store: Store, blobs: BlobStore
) -> None:
    name = blobs.put(TEXT)
    store.write(lambda txn: blobs.reference(txn, name, 2))
    store.write(lambda txn: blobs.release(txn, name))
    assert blobs.sweep(store, grace_s=0, only=[name]) == 0
    store.write(lambda txn: blobs.release(txn, name))
    assert blobs.sweep(store) == 0  # a reader may still be at it
    assert blobs.sweep(store, grace_s=0, only=[name]) == 1
    with store.read() as txn:
        assert txn.count(tables.BLOBS) == 0
        assert blobs.references(txn, name) == 0
    assert not list((store.path / "blob").iterdir())
    assert not list((store.path / "tmp").iterdir())


def test_a_file_that_is_written_again_survives_the_sweep(store: Store, blobs: BlobStore) -> None:
    name = blobs.put(TEXT)
    age(blobs.path_of(name), 9_999)
    blobs.put(TEXT)
    assert blobs.sweep(store) == 0
    store.write(lambda txn: blobs.reference(txn, name))
    assert blobs.get(name) == TEXT


def test_a_release_that_was_rolled_back_loses_nothing(store: Store, blobs: BlobStore) -> None:
    name = blobs.put(TEXT)
    store.write(lambda txn: blobs.reference(txn, name))

    def fail(txn: object) -> None:
        blobs.release(txn, name)  # type: ignore[arg-type]
        raise RuntimeError("power")

    with pytest.raises(RuntimeError):
        store.write(fail)
    age(blobs.path_of(name), 9_999)
    assert blobs.sweep(store, grace_s=0) == 0
    assert blobs.get(name) == TEXT


def test_a_reference_made_after_the_sweep_looked_keeps_the_file(
    store: Store, blobs: BlobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = blobs.put(TEXT)
    age(blobs.path_of(name), 9_999)
    write = store.write

    def late(function):  # type: ignore[no-untyped-def]
        monkeypatch.setattr(store, "write", write)
        write(lambda txn: blobs.reference(txn, name))
        return write(function)

    monkeypatch.setattr(store, "write", late)
    assert blobs.sweep(store) == 0
    assert blobs.get(name) == TEXT


def test_a_file_written_again_while_the_sweep_removes_it_is_put_back(
    store: Store, blobs: BlobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = blobs.put(TEXT)
    path = blobs.path_of(name)
    age(path, 9_999)
    replace = os.replace

    def touched_first(source: Path, target: Path) -> None:
        if source == path:
            os.utime(path)  # what put does in another process
        replace(source, target)

    monkeypatch.setattr(os, "replace", touched_first)
    assert blobs.sweep(store) == 0
    store.write(lambda txn: blobs.reference(txn, name))
    assert blobs.get(name) == TEXT


def test_a_writer_slower_than_the_grace_period_is_refused_not_lost(
    store: Store, blobs: BlobStore
) -> None:
    name = blobs.put(TEXT)
    age(blobs.path_of(name), 9_999)
    blobs.sweep(store)
    with pytest.raises(Conflict):
        store.write(lambda txn: blobs.reference(txn, name))
    with store.read() as txn:
        assert txn.count(tables.BLOBS) == 0


def test_more_releases_than_references_are_refused(store: Store, blobs: BlobStore) -> None:
    name = blobs.put(TEXT)
    with pytest.raises(StoreCorrupt):
        store.write(lambda txn: blobs.release(txn, name))


def test_leftovers_of_interrupted_writes_go_after_the_grace_period(
    store: Store, blobs: BlobStore
) -> None:
    old, new, strange = (store.path / "tmp" / n for n in ("blob-1", "blob-2", "export-1"))
    for path in (old, new, strange):
        path.write_bytes(b"half")
    age(old, 9_999)
    age(strange, 9_999)
    blobs.sweep(store)
    assert [path.exists() for path in (old, new, strange)] == [False, True, True]


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root writes everywhere")
def test_a_read_only_directory_is_permission_denied(store: Store, blobs: BlobStore) -> None:
    (store.path / "tmp").chmod(0o500)
    with pytest.raises(PermissionDenied):
        blobs.put(TEXT)


class Lifecycle(RuleBasedStateMachine):
    """Contents come and go in any order, sweeps between; those in use are always there."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.store = Store.open(Path(self.folder.name) / "db")
        self.blobs = BlobStore(self.store.path, KEY)
        self.counts: dict[int, int] = {}

    @rule(which=st.integers(0, 3), count=st.integers(1, 2))
    def use(self, which: int, count: int) -> None:
        name = self.blobs.put(TEXT + bytes([which]))
        self.store.write(lambda txn: self.blobs.reference(txn, name, count))
        self.counts[which] = self.counts.get(which, 0) + count

    @rule(which=st.integers(0, 3))
    def drop(self, which: int) -> None:
        if self.counts.get(which):
            name = self.blobs.hash_of(TEXT + bytes([which]))
            self.store.write(lambda txn: self.blobs.release(txn, name))
            self.counts[which] -= 1

    @rule(which=st.integers(0, 5))
    def leave(self, which: int) -> None:
        self.blobs.put(TEXT + bytes([which]))

    @rule()
    def sweep(self) -> None:
        time.sleep(0.01)  # the file system's clock is coarser than ours
        self.blobs.sweep(self.store, grace_s=0)
        left = {path.name for path in (self.store.path / "blob").iterdir()}
        used = {w for w, count in self.counts.items() if count}
        assert left == {self.blobs.hash_of(TEXT + bytes([w])).hex() for w in used}

    @invariant()
    def everything_in_use_is_readable(self) -> None:
        with self.store.read() as txn:
            for which, count in self.counts.items():
                name = self.blobs.hash_of(TEXT + bytes([which]))
                assert self.blobs.references(txn, name) == count
                if count:
                    assert self.blobs.get(name) == TEXT + bytes([which])

    def teardown(self) -> None:
        self.store.close()
        self.folder.cleanup()


TestLifecycle = Lifecycle.TestCase
TestLifecycle.settings = settings(max_examples=12, stateful_step_count=20, deadline=None)
