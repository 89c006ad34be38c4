"""The walk over a folder: what is there now, at one ``stat`` a file, nothing opened.

Strategy: ``scandir`` tells files, folders and links apart without a system call of their own;
only files that the patterns take are asked for size, times and inode. Links are never followed:
inside the root their target is met under its own name, outside it is none of ours. A folder that
cannot be listed is reported, so that a sync does not take its files for deleted.

It knows names and numbers, not contents.
"""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from memdb.errors import InvalidArgument, NotFound
from memdb.ingest.globs import DEFAULT_EXCLUDE, Globs
from memdb.ingest.readers import MAX_FILE_BYTES, READERS, Unread, reader_for

NO_READER: Final = Unread("skipped", "no reader for this kind of file")

StatFunction = Callable[[str], os.stat_result]


@dataclass(frozen=True, slots=True)
class Stamp:
    """What tells a changed file from an unchanged one without reading it (times in ns)."""

    size: int = 0
    mtime_ns: int = 0
    ctime_ns: int = 0
    inode: int = 0
    device: int = 0


@dataclass(frozen=True, slots=True)
class Found:
    """One entry of the tree. ``path`` is relative to the root, with ``/``.

    ``unread``: known from the outside not to be for us, and why. ``named``: an include pattern
    asked for it.
    """

    path: str
    stamp: Stamp = Stamp()
    named: bool = False
    unread: Unread | None = None


@dataclass(frozen=True, slots=True)
class Scan:
    """The files of a tree, by path. ``closed``: folders that could not be listed, with ``/``."""

    files: tuple[Found, ...]
    closed: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Rules:
    """What a scan takes. ``include`` empty: every file there is a reader for. ``exclude`` is
    added to ``DEFAULT_EXCLUDE`` (``"!.plan"`` takes something back). ``avoid``: absolute real
    paths of folders never entered, such as the database itself."""

    include: Sequence[str] = ()
    exclude: Sequence[str] = ()
    avoid: Sequence[str] = ()
    max_bytes: int = MAX_FILE_BYTES
    included: Globs = field(init=False, repr=False, compare=False)
    excluded: Globs = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "included", Globs(self.include, "include"))
        excluded = Globs(self.exclude, "exclude")
        object.__setattr__(
            self, "excluded", Globs((*DEFAULT_EXCLUDE, *excluded.patterns), "exclude")
        )


def real_root(path: str | os.PathLike[str]) -> str:
    """The absolute real path of a folder. Raises ``NotFound`` or ``InvalidArgument``."""
    root = Path(path).expanduser()
    try:
        real = root.resolve(strict=True)
    except (OSError, RuntimeError) as error:
        raise NotFound(
            "the folder to sync does not exist or cannot be reached",
            hint="check the path; if it lies on a removable or network drive, mount it."
            " What was indexed from it is kept",
        ) from error
    if not real.is_dir():
        raise InvalidArgument(
            "the path to sync is not a folder",
            field="path",
            hint="name the folder and choose files with include",
        )
    return str(real)


def scan(root: str, rules: Rules, *, stat_file: StatFunction = os.lstat) -> Scan:
    """Everything the rules take below ``root`` (absolute, real), sorted by path.

    ``stat_file`` is called once for each regular file the rules take, and for nothing else.
    """
    files: list[Found] = []
    closed: list[tuple[str, str]] = []
    avoided = {os.path.normcase(path) for path in rules.avoid}
    folders = [""]
    while folders:
        prefix = folders.pop()
        try:
            with os.scandir(os.path.join(root, prefix)) as entries:
                listed = list(entries)
        except OSError as error:
            closed.append((printable(prefix), (error.strerror or "cannot be listed").lower()))
            continue
        for entry in listed:
            path = prefix + entry.name
            if entry.is_dir(follow_symlinks=False) and not _is_junction(entry):
                if not rules.excluded.match(path + "/") and (
                    not avoided or os.path.normcase(entry.path) not in avoided
                ):
                    folders.append(path + "/")
            else:
                files.extend(_file(entry, path, rules, stat_file))
    files.sort(key=lambda found: found.path)
    return Scan(tuple(files), tuple(sorted(closed)))


def _file(
    entry: os.DirEntry[str], path: str, rules: Rules, stat_file: StatFunction
) -> Iterator[Found]:
    """The entry as found, unless the rules leave it out."""
    if rules.excluded.match(path):
        return
    named = bool(rules.included) and rules.included.match(path)
    if rules.included and not named:
        return
    unread = _known_unfit(entry, path, named=named)
    if unread is not None:
        yield Found(printable(path), named=named, unread=unread)
        return
    try:
        status = stat_file(entry.path)
    except FileNotFoundError:
        return  # gone since it was listed
    except OSError as error:
        reason = (error.strerror or "cannot be examined").lower()
        yield Found(path, named=named, unread=Unread("failed", reason))
        return
    stamp = Stamp(
        status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino, status.st_dev
    )
    if not stat.S_ISREG(status.st_mode):
        unread = Unread("skipped", "not a regular file")
    elif status.st_size > rules.max_bytes:
        unread = Unread("skipped", f"larger than {rules.max_bytes} bytes")
    yield Found(path, stamp, named, unread)


def printable(path: str) -> str:
    """A path as valid Unicode; bytes of a name that are not UTF-8 as ``\\xNN``."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def _is_junction(entry: os.DirEntry[str]) -> bool:
    """A Windows junction leads elsewhere like a link (told apart since Python 3.12)."""
    return sys.version_info >= (3, 12) and entry.is_junction()


def _known_unfit(entry: os.DirEntry[str], path: str, *, named: bool) -> Unread | None:
    """Why an entry is not for us, as far as its name and type tell."""
    if entry.is_symlink() or _is_junction(entry):
        return Unread("skipped", "symbolic link")
    if not entry.is_file(follow_symlinks=False):
        return Unread("skipped", "not a regular file")
    if reader_for(path, named=named, readers=READERS) is None:
        return NO_READER
    try:
        path.encode()
    except UnicodeEncodeError:
        return Unread("skipped", "its name is not UTF-8")
    return None
