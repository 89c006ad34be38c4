"""``db.files`` when others interfere: another process, a kill, edits while a watcher runs."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import memdb
from memdb import files
from tests.memdb.file_tree import Counting, touch_up, write


@pytest.fixture
def db(tmp_path: Path) -> Iterator[memdb.Database]:
    with memdb.open(tmp_path / "db", embedder=Counting()) as opened:
        yield opened


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "notes"
    folder.mkdir()
    return folder.resolve()


def test_a_change_made_by_another_process_meanwhile_is_not_made_twice(
    db: memdb.Database, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(root / "a.md", "text")
    real = files._Sync.run
    entered = threading.Event()

    def late(self: files._Sync, *args: object, **named: object) -> memdb.SyncReport:
        if not entered.is_set():
            entered.set()
            db.files.sync(root)  # between the other's reading of the ledger and its writing
        return real(self, *args, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(files._Sync, "run", late)
    assert db.files.sync(root).added == ()
    assert db.count() == 1


KILLED = """
import sys, memdb
with memdb.open(sys.argv[1], embedder="none") as db:
    print("go", flush=True)
    db.files.sync(sys.argv[2])
"""


def test_a_killed_sync_leaves_every_file_old_or_new(tmp_path: Path, root: Path) -> None:
    for number in range(300):
        body = "\n\n".join(f"# P{n}\n\nold text {number} {n}" for n in range(4))
        write(root / f"{number}.md", body)
    with memdb.open(tmp_path / "db", embedder="none") as db:
        db.files.sync(root)
    for number in range(300):
        body = "\n\n".join(f"# P{n}\n\nnew text {number} {n}" for n in range(4))
        touch_up(root / f"{number}.md", body)
    seen = set()
    for delay in (0.02, 0.1, 0.2):
        child = subprocess.Popen(
            [sys.executable, "-c", KILLED, str(tmp_path / "db"), str(root)],
            stdout=subprocess.PIPE,
        )
        assert child.stdout is not None
        child.stdout.readline()
        time.sleep(delay)
        child.kill()
        child.wait()
        with memdb.open(tmp_path / "db", embedder="none", readonly=True) as db:
            by_file: dict[str | None, set[str]] = {}
            for memory in db.iter():
                assert memory.text is not None
                by_file.setdefault(memory.stream, set()).add(memory.text.split()[2])
            assert len(by_file) == 300
            assert all(len(words) == 1 for words in by_file.values())
            seen |= {word for words in by_file.values() for word in words}
    with memdb.open(tmp_path / "db", embedder="none") as db:
        db.files.sync(root)
        assert db.count() == 1200
        assert all(" text " in (m.text or "") and "new" in (m.text or "") for m in db.iter())
        assert db.check()["ok"]
    assert "old" in seen


def test_a_watcher_follows_edits_until_it_is_stopped(db: memdb.Database, root: Path) -> None:
    write(root / "a.md", "first")
    reports: list[memdb.SyncReport] = []
    arrived = threading.Semaphore(0)

    def note(report: memdb.SyncReport) -> None:
        if report.added or report.updated:
            reports.append(report)
            arrived.release()

    with db.files.watch(root, interval=0.02, on_sync=note) as watcher:
        assert arrived.acquire(timeout=20)
        write(root / "b.md", "second")
        assert arrived.acquire(timeout=20)
    write(root / "c.md", "third")
    assert [report.added for report in reports] == [("a.md",), ("b.md",)]
    assert watcher.last_error is None
    assert db.count() == 2
    with pytest.raises(memdb.InvalidArgument):
        db.files.watch(root, interval=0)
    with pytest.raises(memdb.NotFound):
        db.files.watch(root / "missing")


def test_a_watcher_survives_a_folder_that_goes_away(db: memdb.Database, root: Path) -> None:
    write(root / "a.md", "first")
    with db.files.watch(root, interval=0.02) as watcher:
        wait_for(lambda: watcher.last_report is not None)
        os.rename(root, root.with_name("elsewhere"))
        wait_for(lambda: isinstance(watcher.last_error, memdb.NotFound))
        os.rename(root.with_name("elsewhere"), root)
        wait_for(lambda: watcher.last_error is None)
    assert db.count() == 1


def wait_for(condition: object, timeout_s: float = 20) -> None:
    assert callable(condition)
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)
