"""A run of a program with every write, name and sync of one folder written down, in order.

``recorder.c`` is compiled and preloaded into the program; this file knows how, and reads what it
wrote. What a disk makes of the events it does not know.
"""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Final

_SOURCE: Final = Path(__file__).with_name("recorder.c")
_HEAD: Final = struct.Struct("<IIQQI")
_DSYNC: Final = os.O_DSYNC


class Kind(IntEnum):
    """As ``recorder.c`` has them."""

    OPEN = 1
    WRITE = 2
    SIZE = 3
    HOLE = 4
    SYNC = 5
    RENAME = 6
    UNLINK = 7
    DIRECTORY = 8
    RESIZE = 9
    UNKNOWN = 10


@dataclass(frozen=True, slots=True)
class Event:
    """One call; ``data`` is what was written, or names under the root."""

    kind: Kind
    handle: int
    at: int
    size: int
    data: bytes

    @property
    def is_made(self) -> bool:
        """OPEN: whether the file was made by it."""
        return self.size == 1

    @property
    def syncs_itself(self) -> bool:
        """OPEN: whether each write to it is durable when it returns."""
        return bool(self.at & _DSYNC)


class CannotRecord(RuntimeError):
    """There is no compiler, the program failed, or it did what cannot be followed."""


def recorder(folder: Path) -> Path:
    """Compile the library that is preloaded."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None or not sys.platform.startswith("linux"):
        raise CannotRecord("recording needs Linux and a C compiler")
    made = folder / "recorder.so"
    command = [compiler, "-O1", "-shared", "-fPIC", "-o", str(made), str(_SOURCE), "-ldl"]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        raise CannotRecord(f"the recorder does not compile: {done.stderr[-300:]}")
    return made


def record(command: Sequence[str], root: Path, trace: Path, library: Path) -> None:
    """Run ``command``, and write what it does under ``root`` to ``trace``."""
    told = {
        "LD_PRELOAD": str(library),
        "MEMDB_RECORD_ROOT": str(root.resolve()),
        "MEMDB_RECORD": str(trace),
    }
    done = subprocess.run(
        list(command), check=False, env={**os.environ, **told}, capture_output=True, text=True
    )
    if done.returncode:
        raise CannotRecord(f"the recorded run failed: {done.stderr[-2000:]}")


def events(trace: Path, root: Path) -> Iterator[Event]:
    """All of them; names are relative to the root. ``CannotRecord`` for what was not followed."""
    prefix = str(root.resolve()).encode()
    with open(trace, "rb") as handle:
        while head := handle.read(_HEAD.size):
            kind, number, at, size, length = _HEAD.unpack(head)
            data = handle.read(length)
            if kind == Kind.UNKNOWN:
                raise CannotRecord(f"the run did what cannot be followed: {data.decode()}")
            if kind in (Kind.OPEN, Kind.RENAME, Kind.UNLINK, Kind.DIRECTORY, Kind.RESIZE):
                names = data.split(b"\0")
                data = b"\0".join(name.removeprefix(prefix).lstrip(b"/") for name in names)
            yield Event(Kind(kind), number, at, size, data)
