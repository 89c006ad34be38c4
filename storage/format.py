"""The directory's outer form: FORMAT, the file-system check, creation and upgrade.

FORMAT is one line, ``memdb <version>``, written last when a database is made, so that its
presence means the rest is complete. A higher version refuses to open; a lower one is upgraded
step by step through ``UPGRADES`` under the maintenance lease. It knows no tables.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from memdb import settings
from memdb.errors import (
    FormatTooNew,
    InvalidArgument,
    NotFound,
    PermissionDenied,
    StoreCorrupt,
    StoreFull,
)
from memdb.storage.environment import Environment
from memdb.storage.generations import make_folder, write_atomically

PARTS = ("kv", "space", "blob", "audit", "tmp", "trash")
_OURS = {*PARTS, "FORMAT", "erased", "lease", "server.json", "policies.toml"}
_NETWORK = {"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "afs", "ceph", "fuse.sshfs", "glusterfs"}


def _add_tables(path: Path) -> None:
    """Format 2 has a table more: an environment makes what it lacks when it is opened for writing.

    The number keeps away code that would not look into that table.
    """
    for data in (path / "kv").glob("g*/data.mdb"):
        Environment(data.parent, create=False).close()


UPGRADES: dict[int, Callable[[Path], None]] = {1: _add_tables}
"""From version -> what brings a database of that version to the next one."""


def read_version(path: Path) -> int | None:
    """The version in FORMAT; None when there is no such file."""
    try:
        words = (path / "FORMAT").read_bytes()[:64].split()
    except FileNotFoundError:
        return None
    if len(words) != 2 or words[0] != settings.FORMAT_NAME.encode() or not words[1].isdigit():
        raise StoreCorrupt("FORMAT does not name a memdb format", path="FORMAT")
    return int(words[1])


def check_version(path: Path) -> int | None:
    """Like ``read_version``, refusing what this code cannot read."""
    version = read_version(path)
    if version is not None and version > settings.FORMAT_VERSION:
        raise FormatTooNew(
            f"the database has format {version}; this memdb reads up to {settings.FORMAT_VERSION}"
        )
    return version


def upgrade(path: Path, version: int) -> None:
    """Bring an older database to the current version; the caller holds the lease."""
    while version < settings.FORMAT_VERSION:
        step = UPGRADES.get(version)
        if step is None:
            raise StoreCorrupt(f"no upgrade from format {version} is known", path="FORMAT")
        step(path)
        version += 1
        write_version(path, version)


def write_version(path: Path, version: int = settings.FORMAT_VERSION) -> None:
    write_atomically(path / "FORMAT", f"{settings.FORMAT_NAME} {version}\n".encode())


def make_directories(path: Path) -> None:
    """The folders of a new database, private to their owner."""
    try:
        make_folder(path)
        for part in PARTS:
            (path / part).mkdir(mode=0o700, exist_ok=True)
    except (PermissionError, NotADirectoryError, FileExistsError) as error:
        raise PermissionDenied("the database directory cannot be made there") from error
    except OSError as error:
        if error.errno in (28, 122):  # ENOSPC, EDQUOT
            raise StoreFull("no room to make a database there") from error
        raise PermissionDenied("the database directory cannot be made there") from error


def inspect(path: Path, *, create: bool) -> int | None:
    """The version of the database at ``path``; None when one is to be made there.

    Raises ``NotFound`` (absent and not ``create``), ``InvalidArgument`` (a file, or a directory
    of something else), ``FormatTooNew``, ``StoreCorrupt``.
    """
    if path.exists() and not path.is_dir():
        raise InvalidArgument("the database path is a file, not a directory", field="path")
    try:
        version = check_version(path) if path.exists() else None
        entries = {entry.name for entry in path.iterdir()} if path.exists() else set()
    except PermissionError as error:
        raise PermissionDenied("the database directory cannot be read") from error
    if version is not None:
        return version
    if not create:
        if "kv" in entries and (path / "kv" / "CURRENT").exists():
            raise StoreCorrupt("FORMAT is missing beside a database", path="FORMAT")
        raise NotFound("there is no database at that path", hint="check --db, or create it")
    strangers = entries - _OURS - {n for n in entries if n.endswith(".tmp")}
    if strangers:
        raise InvalidArgument(
            "the directory holds other files and is not a memdb database",
            field="path",
            hint="name an empty directory, or one that memdb made",
        )
    return None


def refuse_network_file_system(path: Path) -> None:
    """LMDB's locks and maps are not sound over a network: refuse, unless MEMDB_ALLOW_NETWORK=1."""
    if os.environ.get("MEMDB_ALLOW_NETWORK") == "1":
        return
    kind = _file_system(path)
    if kind in _NETWORK:
        raise InvalidArgument(
            f"the database directory is on a network file system ({kind})",
            field="path",
            hint="use a local disk, or set MEMDB_ALLOW_NETWORK=1 if only one machine opens it",
        )


def _file_system(path: Path) -> str:
    """The type of the mount ``path`` is on; "" where the platform does not tell."""
    mounts = Path("/proc/self/mountinfo")
    if not mounts.exists():
        return ""
    target = str(path.resolve())
    best, kind = -1, ""
    for line in mounts.read_text(errors="replace").splitlines():
        left, _, right = line.partition(" - ")
        point = left.split()[4].replace("\\040", " ")
        inside = target == point or target.startswith(point.rstrip("/") + "/")
        if inside and len(point) > best:
            best, kind = len(point), right.split()[0]
    return kind
