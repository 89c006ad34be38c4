"""Which LMDB environment is the database, and how it is replaced under other processes.

    kv/CURRENT              the name of the current generation, one line
    kv/<generation>/        one LMDB environment
    kv/<generation>/users   every process using it holds a shared lock on this file

Replacing generation G by H (a compacting copy):

1. a write transaction on G is held: writers wait, readers do not;
2. the copy is made in ``kv/H.tmp``, fsynced, renamed to ``kv/H``;
3. ``state.superseded_by = H`` is committed to G. **This is the commit point.** Whoever begins a
   transaction on G reads it first, finds H there, and moves on;
4. CURRENT is replaced. A crash between 3 and 4 leaves CURRENT naming G; the next opener finds
   ``superseded_by`` in G, completes step 4 and opens H.

Committing before replacing CURRENT is deliberate: the other order has a window in which new
openers write to H while others still write to G. A crash before 3 leaves an orphan that
``reap`` removes. G's bytes go when nobody holds its ``users`` file.

This file knows directories and locks; it does not know tables.
"""

from __future__ import annotations

import os
import re
import shutil
import threading
from contextlib import suppress
from pathlib import Path
from typing import IO

from memdb.errors import StoreCorrupt
from memdb.storage.environment import Environment
from memdb.storage.lease import try_lock

_NAME = re.compile(r"g[0-9]{10}")


def name_of(number: int) -> str:
    return f"g{number:010d}"


def fsync_directory(path: Path) -> None:
    """Make a rename or creation in ``path`` durable (a no-op where directories cannot be)."""
    if os.name == "nt":
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def make_folder(path: Path) -> None:
    """Make a private folder, and those above it, whose names last; one that is there stays."""
    made = [folder for folder in (path, *path.parents) if not folder.exists()]
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not made and not any(path.iterdir()):
        made = [path]  # perhaps by a process that was killed before it could sync the name
    for folder in made:
        with suppress(PermissionError):  # who may write in a folder need not be able to read it
            fsync_directory(folder.parent)


def write_atomically(path: Path, content: bytes) -> None:
    """Replace ``path`` by ``content`` so that a crash leaves the old or the new, never less."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}.{threading.get_ident()}.tmp")
    with open(temporary, "wb") as handle:
        handle.write(content)
        handle.flush()
        os.fsync(handle.fileno())
    os.replace(temporary, path)
    fsync_directory(path.parent)


def read_current(kv: Path) -> int:
    """The number in kv/CURRENT."""
    try:
        name = (kv / "CURRENT").read_text("ascii").strip()
    except FileNotFoundError:
        raise StoreCorrupt("kv/CURRENT is missing", path="kv/CURRENT") from None
    except UnicodeDecodeError:
        name = ""
    if not _NAME.fullmatch(name):
        raise StoreCorrupt("kv/CURRENT does not name a generation", path="kv/CURRENT")
    return int(name[1:])


def write_current(kv: Path, number: int) -> None:
    write_atomically(kv / "CURRENT", name_of(number).encode() + b"\n")


class Generation:
    """An open generation: its environment and this process's shared claim on its directory.

    ``enter``/``leave`` count transactions, so that a superseded generation is closed by the last
    thread that leaves it and not before.
    """

    def __init__(
        self,
        kv: Path,
        number: int,
        *,
        readonly: bool,
        map_size: int,
        create: bool = False,
        walk: bool = True,
    ) -> None:
        self.number = number
        directory = kv / name_of(number)
        if not directory.is_dir():
            raise FileNotFoundError(directory)
        users = directory / "users"
        writable = not readonly or os.access(users, os.W_OK)
        self._users: IO[bytes] = open(users, "ab" if writable else "rb")  # noqa: SIM115 - kept open
        try:
            if not try_lock(self._users, exclusive=False) or not directory.is_dir():
                raise FileNotFoundError(directory)  # being reaped: read CURRENT again
            self.env = Environment(
                directory, readonly=readonly, create=create, map_size=map_size, walk=walk
            )
        except BaseException:
            self._users.close()
            raise
        self._guard = threading.Lock()
        self._active = 0
        self._retired = False

    def enter(self) -> bool:
        """Count a transaction in; False when this generation is closed already."""
        with self._guard:
            if self._retired:
                return False
            self._active += 1
            return True

    def leave(self) -> None:
        with self._guard:
            self._active -= 1
            last = self._retired and self._active == 0
        if last:
            self._close()

    def retire(self) -> None:
        """No new transactions; closed now or by the last one that leaves."""
        with self._guard:
            if self._retired:
                return
            self._retired = True
            idle = self._active == 0
        if idle:
            self._close()

    def let_go(self) -> None:
        """In a forked child: drop the inherited claim, which would outlive the parent's."""
        self._users.close()

    def _close(self) -> None:
        self.env.close()
        self._users.close()


def reap(kv: Path, current: int) -> int:
    """Remove generations nobody uses and interrupted copies; returns how many went.

    Only the lease holder calls this, and never while it makes a copy. CURRENT may name one of them
    still, where the process that made the copy died.
    """
    if read_current(kv) < current:
        write_current(kv, current)
    removed = 0
    for entry in kv.iterdir():
        if not entry.is_dir() or entry.name == name_of(current):
            continue
        if _NAME.fullmatch(entry.name) and not _unused(entry):
            continue
        shutil.rmtree(entry)
        removed += 1
    return removed


def others(kv: Path, current: int) -> list[Path]:
    """What is there besides the current generation: superseded ones, and unfinished copies."""
    return [entry for entry in kv.iterdir() if entry.is_dir() and entry.name != name_of(current)]


def users(directory: Path) -> list[int]:
    """Process ids of those who hold the generation open, as far as the system tells (Linux)."""
    try:
        inode = (directory / "users").stat().st_ino
        lines = Path("/proc/locks").read_text("ascii", "replace").splitlines()
    except OSError:
        return []
    found = [line.split() for line in lines]
    return sorted(
        {
            int(words[4])
            for words in found
            if len(words) > 5 and words[1] == "FLOCK" and words[5].endswith(f":{inode}")
        }
    )


def _unused(directory: Path) -> bool:
    try:
        with open(directory / "users", "ab") as users:
            return try_lock(users)
    except FileNotFoundError:
        return True
