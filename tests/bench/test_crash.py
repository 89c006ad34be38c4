"""The replay of recorded writes and syncs: it sees what is done, and finds what is lost."""

from __future__ import annotations

import random
import sys
from pathlib import Path

import pytest

from bench.crash import command, of_index
from bench.crash.disk import PAGE_BYTES, Disk, lay_out
from bench.crash.recording import CannotRecord, Event, Kind, events, record, recorder
from memdb import settings

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="a preloaded library records"
)

_BUSY = """
import os, random, shutil, sys
root, seed = sys.argv[1], int(sys.argv[2])
rng = random.Random(seed)
open_files = {}
for turn in range(300):
    name = os.path.join(root, rng.choice("abc"), rng.choice("xyz"))
    choice = rng.random()
    os.makedirs(os.path.dirname(name), exist_ok=True)
    if choice < 0.4 or not os.path.exists(name):
        with open(name, rng.choice(["ab", "r+b", "wb"]) if os.path.exists(name) else "wb") as out:
            out.seek(rng.randrange(20_000)) if rng.random() < 0.5 else None
            out.write(rng.randbytes(rng.randrange(9000)))
    elif choice < 0.6:
        handle = os.open(name, os.O_RDWR | (os.O_DSYNC if rng.random() < 0.3 else 0))
        os.pwrite(handle, rng.randbytes(rng.randrange(1, 5000)), rng.randrange(20_000))
        os.pwritev(handle, [b"ab" * 700, b"c" * 3000], 4000)
        os.fdatasync(handle) if rng.random() < 0.5 else os.ftruncate(handle, rng.randrange(9000))
        os.close(handle)
    elif choice < 0.7:
        os.replace(name, os.path.join(root, rng.choice("abc"), "w"))  if os.path.isdir(
            os.path.join(root, "a")) and os.path.isdir(os.path.join(root, "b")) and os.path.isdir(
            os.path.join(root, "c")) else None
    elif choice < 0.8:
        os.remove(name)
    elif choice < 0.9:
        shutil.copyfile(name, name + "-copy")
        os.truncate(name + "-copy", 5000)
    elif choice < 0.93:
        shutil.rmtree(os.path.dirname(name))
    else:
        handle = os.open(os.path.dirname(name), os.O_RDONLY)
        os.fsync(handle)
        os.close(handle)
"""


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return recorder(tmp_path_factory.mktemp("recorder"))


def everything(folder: Path) -> dict[str, bytes | None]:
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in folder.rglob("*")
    }


def recorded(library: Path, tmp_path: Path, program: str, *words: str) -> tuple[Path, Path]:
    root, trace = tmp_path / "root", tmp_path / "trace"
    root.mkdir()
    record([sys.executable, "-c", program, str(root), *words], root, trace, library)
    return root, trace


@pytest.mark.parametrize("seed", range(3))
def test_what_is_recorded_is_what_was_done(library: Path, tmp_path: Path, seed: int) -> None:
    root, trace = recorded(library, tmp_path, _BUSY, str(seed))
    disk = Disk()
    for event in events(trace, root):
        disk.apply(event)
    again = tmp_path / "again"
    again.mkdir()
    lay_out(disk.seen(), again)
    assert everything(again) == everything(root)
    assert len(everything(root)) > 3


def test_what_cannot_be_followed_fails_the_replay(library: Path, tmp_path: Path) -> None:
    program = "import os, sys; os.link(sys.argv[0] or sys.executable, sys.argv[1] + '/linked')"
    mapping = """
import mmap, sys
with open(sys.argv[1] + "/file", "w+b") as out:
    out.truncate(4096)
    mmap.mmap(out.fileno(), 4096)[0] = 1
"""
    for number, text in enumerate((mapping, program)):
        folder = tmp_path / str(number)
        folder.mkdir()
        try:
            root, trace = recorded(library, folder, text)
        except CannotRecord:
            continue  # a link across file systems fails by itself
        with pytest.raises(CannotRecord, match="cannot be followed"):
            list(events(trace, root))


def _opened(disk: Disk, name: str, *, handle: int, made: bool = True) -> None:
    disk.apply(Event(Kind.OPEN, handle, 0, int(made), name.encode()))


def test_a_crash_keeps_what_was_synced_and_any_of_the_rest(tmp_path: Path) -> None:
    disk = Disk()
    disk.apply(Event(Kind.OPEN, 1, 0, 2, b""))
    _opened(disk, "file", handle=2)
    disk.apply(Event(Kind.WRITE, 2, 0, 0, b"a" * 3 * PAGE_BYTES))
    disk.apply(Event(Kind.SYNC, 2, 0, 0, b""))
    assert list(disk.contents()) == [], "a file is synced, and not its name"
    disk.apply(Event(Kind.SYNC, 1, 0, 0, b""))
    disk.apply(Event(Kind.WRITE, 2, PAGE_BYTES, 0, b"b" * PAGE_BYTES))
    disk.apply(Event(Kind.WRITE, 2, PAGE_BYTES, 0, b"c" * PAGE_BYTES))
    disk.apply(Event(Kind.WRITE, 2, 3 * PAGE_BYTES, 0, b"d"))
    found = set()
    for seed in range(200):
        [(_, pages, size)] = disk.contents(random.Random(seed))
        assert pages is not None
        assert pages[0] == pages[2] == b"a" * PAGE_BYTES
        assert size in (3 * PAGE_BYTES, 3 * PAGE_BYTES + 1)
        found.add((pages[1][:1], pages[1][-1:], pages.get(3, b"\0")[:1], size))
    middles = {middle for middle, *_ in found}
    assert middles == {b"a", b"b", b"c"}
    assert any(first != last for first, last, *_ in found), "torn"
    assert {(third, size) for *_, third, size in found} == {
        (third, 3 * PAGE_BYTES + more) for third in (b"d", b"\0") for more in (0, 1)
    }
    [(_, pages, size)] = disk.contents()
    assert (pages, size) == ({n: b"a" * PAGE_BYTES for n in range(3)}, 3 * PAGE_BYTES)


def test_names_change_in_order_and_a_rename_is_whole() -> None:
    disk = Disk()
    disk.apply(Event(Kind.OPEN, 1, 0, 2, b""))
    _opened(disk, "old", handle=2)
    disk.apply(Event(Kind.SYNC, 1, 0, 0, b""))
    _opened(disk, "new", handle=3)
    disk.apply(Event(Kind.RENAME, 0, 0, 0, b"new\0old"))
    disk.apply(Event(Kind.DIRECTORY, 0, 0, 0, b"folder"))
    found = {
        tuple(sorted(path for path, _, _ in disk.contents(random.Random(seed))))
        for seed in range(100)
    }
    assert found == {("old",), ("new", "old"), ("folder", "old")}


def test_a_folder_that_is_made_lasts_with_those_above_it(library: Path, tmp_path: Path) -> None:
    program = """
import os, sys
from pathlib import Path
from memdb.storage.generations import make_folder
root = Path(sys.argv[1])
os.mkdir(root / "killed before it was synced")
make_folder(root / "killed before it was synced")
make_folder(root / "a" / "b")
os.mkdir(root / "c")
"""
    root, trace = recorded(library, tmp_path, program)
    disk = Disk()
    for event in events(trace, root):
        disk.apply(event)
    assert {path for path, _, _ in disk.contents()} == {
        "a", "a/b", "killed before it was synced",
    }  # fmt: skip


def test_nothing_is_lost_of_a_short_run_whenever_the_power_fails(tmp_path: Path) -> None:
    """Some of what ``python -m bench crash index`` does."""
    outcome = command.run(tmp_path, operations=8, subsets=8, seed=5)
    assert outcome.healthy, outcome.wrong
    assert outcome.syncs > 8 and outcome.subsets > 4


def test_the_judge_finds_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in vars(settings):  # the run works in small steps: what it sets is set back
        if name.isupper():
            monkeypatch.setattr(settings, name, getattr(settings, name))
    command.drive("index", tmp_path, 5, 12)
    judge = of_index.Judge(5, 12)
    assert judge.judge(tmp_path, 12, False, deep=False) == []
    kinds = [kind for kind, _ in of_index.script(5, 12)]
    last = max(number for number, kind in enumerate(kinds) if kind == "add")
    assert judge.judge(tmp_path, last, False, deep=False)
