"""A database of each format version that was ever released: it opens, answers and can be written.

The archives are made by ``tests/golden/make.py``. Whoever changes the format adds an upgrade step
and a new archive; the old ones stay as they are.
"""

from __future__ import annotations

import tarfile
from pathlib import Path

import pytest

import memdb
from memdb import settings
from memdb.storage import format as disk_format
from memdb.storage import tables
from memdb.storage.lease import Lease
from tests.golden import make
from tests.memdb import full_store

VERSIONS = range(1, settings.FORMAT_VERSION + 1)


def unpacked(version: int, folder: Path) -> Path:
    with tarfile.open(make.archive(version)) as packed:
        if hasattr(tarfile, "data_filter"):  # from 3.11.4 on; the archive is our own either way
            packed.extractall(folder, filter="data")
        else:
            packed.extractall(folder)
    return folder / "db"


def opened(path: Path) -> memdb.Database:
    clock = full_store.Clock()
    clock.advance(days=41)
    return memdb.open(path, embedder="none", clock=clock)


@pytest.mark.parametrize("version", VERSIONS)
def test_a_database_of_every_format_answers_and_can_be_written(
    version: int, tmp_path: Path
) -> None:
    path = unpacked(version, tmp_path)
    assert disk_format.read_version(path) == version
    with opened(path) as db:
        for name, ask, right in full_store.questions(db):
            assert ask() == right, name
        assert db.check()["ok"], db.check()["problems"]
        written = db.remember("a later memory", tags=["later"], vector=full_store.vector(70_000))
        db.profile.set(
            f"{full_store.MARK}key", f"{full_store.MARK}home4", subject=f"{full_store.MARK}subject"
        )
        db.compact()
    assert disk_format.read_version(path) == settings.FORMAT_VERSION
    with opened(path) as db:
        assert [hit.id for hit in db.recall("later memory", mode="lexical")] == [written.id]
        fact = db.profile.get(f"{full_store.MARK}key", subject=f"{full_store.MARK}subject")
        assert fact == f"{full_store.MARK}home4"
        assert db.check()["ok"]


@pytest.mark.parametrize("version", VERSIONS)
def test_an_archive_is_small_and_names_nobody(version: int) -> None:
    archive = make.archive(version)
    assert archive.stat().st_size < 300_000
    with tarfile.open(archive) as packed:
        assert {(e.uid, e.gid, e.uname, e.gname) for e in packed} == {(0, 0, "", "")}


def test_an_upgrade_runs_once_under_the_lease(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = unpacked(1, tmp_path)
    next_version = settings.FORMAT_VERSION + 1
    seen: list[tuple[int, int]] = []

    def step(directory: Path) -> None:
        assert not Lease(directory / "lease").try_acquire(), "the lease is held meanwhile"
        seen.append((next_version - 1, disk_format.read_version(directory) or 0))

    monkeypatch.setattr(settings, "FORMAT_VERSION", next_version)
    monkeypatch.setitem(disk_format.UPGRADES, next_version - 1, step)
    for _ in range(2):
        with opened(path) as db:
            for name, ask, right in full_store.questions(db):
                assert ask() == right, name
    assert seen == [(next_version - 1, next_version - 1)]
    assert disk_format.read_version(path) == next_version
    monkeypatch.undo()
    with pytest.raises(memdb.FormatTooNew):
        opened(path)


def test_a_table_that_a_format_lacks_is_made_by_the_upgrade_and_by_nobody_else(
    tmp_path: Path,
) -> None:
    path = unpacked(1, tmp_path)
    with pytest.raises(memdb.PermissionDenied, match="upgraded first"):
        memdb.open(path, embedder="none", readonly=True)
    disk_format.upgrade(path, 1)
    with memdb.open(path, embedder="none", readonly=True) as db:
        assert db.count({"tags": f"{full_store.MARK}tag3"}) == (full_store.NOTES - 10) // 5
        assert db.stats()["bytes"]["tables"][tables.FRESH_FILTERS] == 0
        assert db.check()["ok"]


def test_a_failed_upgrade_leaves_the_version_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = unpacked(settings.FORMAT_VERSION, tmp_path)
    before = disk_format.read_version(path)

    def step(directory: Path) -> None:
        raise memdb.StoreFull("no room for the upgrade")

    monkeypatch.setattr(settings, "FORMAT_VERSION", settings.FORMAT_VERSION + 1)
    monkeypatch.setitem(disk_format.UPGRADES, settings.FORMAT_VERSION - 1, step)
    with pytest.raises(memdb.StoreFull):
        opened(path)
    with pytest.raises(memdb.PermissionDenied, match="upgraded first"):
        memdb.open(path, embedder="none", readonly=True)
    assert disk_format.read_version(path) == before
    monkeypatch.undo()
    with opened(path) as db:
        assert db.count() == full_store.NOTES - 10 + 32
        assert db.check()["ok"]


def test_an_upgrade_that_another_process_finished_first_is_not_done_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = unpacked(1, tmp_path)
    next_version = settings.FORMAT_VERSION + 1
    take = Lease.acquire

    def taken_late(lease: Lease) -> None:
        disk_format.write_version(path, next_version)  # what the other process did meanwhile
        take(lease)

    monkeypatch.setattr(settings, "FORMAT_VERSION", next_version)
    monkeypatch.setattr(Lease, "acquire", taken_late)
    monkeypatch.setitem(
        disk_format.UPGRADES, next_version - 1, lambda path: pytest.fail("upgraded twice")
    )
    with opened(path) as db:
        assert db.count() == full_store.NOTES - 10 + 32


def test_a_format_without_an_upgrade_step_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = unpacked(1, tmp_path)
    monkeypatch.setattr(settings, "FORMAT_VERSION", settings.FORMAT_VERSION + 7)
    with pytest.raises(memdb.StoreCorrupt, match="no upgrade"):
        opened(path)
