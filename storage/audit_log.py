"""The files of the audit: what one process appends, and how any process reads and checks them.

A process that has something to tell appends to files of its own, ``audit/<writer>-<n>.log``, where
the writer is 16 random hexadecimal digits and n goes up from 1; a file past 16 MiB is followed by
the next, whose chain goes on from it. Integers are little-endian::

    file   := "MDBAUDIT" | version u32 = 1 | writer 8 | n u32 | rows before it u64
              | last link before it 32 | crc32c u32 of all before it | row*

Rows are those of ``audit``. A row is written, with one call, before its request is answered: the
process may be killed at any instruction. It is synced within a second: a power cut may take the
last second of rows. With the first row, every minute, every 1,000 rows and at the end the chain's
head goes to LMDB, so that a chain that was cut off before it is seen to be. A row that cannot be
appended raises, and whoever asked gets nothing. A last row that is not whole was cut off by a crash
and is left alone.
"""

from __future__ import annotations

import errno
import os
import struct
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, NamedTuple

from google_crc32c import value as crc32c

from memdb.errors import MemdbError, PermissionDenied, StoreCorrupt, StoreFull
from memdb.storage import audit
from memdb.storage.audit import Head
from memdb.storage.generations import fsync_directory

FOLDER: Final = "audit"
ROTATE_BYTES: Final = 16 << 20
SYNC_S: Final = 1.0
ANCHOR_S: Final = 60.0
ANCHOR_ROWS: Final = 1_000

_HEADER: Final = struct.Struct("<8sI8sIQ32s")
_CRC: Final = struct.Struct("<I")
HEADER_BYTES: Final = _HEADER.size + _CRC.size
_MAGIC: Final = b"MDBAUDIT"
_VERSION: Final = 1


class AuditLog:
    """What one process appends. Made at its first row; thread-safe.

    ``anchor`` is called with the writer's name and head, outside of any lock of this class but one
    that only anchoring takes; it commits them.
    """

    def __init__(self, folder: Path, anchor: Callable[[str, Head], None]) -> None:
        self.writer = os.urandom(8).hex()
        self._folder = folder
        self._anchor = anchor
        self._guard = threading.Lock()
        self._anchoring = threading.Lock()
        self._wake = threading.Event()
        self._stopping = False
        self._file: int | None = None
        self._number = 0
        self._size = 0
        self._seq = 0
        self._link = audit.NO_LINK
        self._at_us = 0
        self._anchored = 0
        self._dirty = False
        self._broken: MemdbError | None = None
        self._thread: threading.Thread | None = None
        _logs.add(self)

    def append(self, at_us: int, who: bytes, body: bytes) -> None:
        """Add a row; it is in the file when this returns. Raises ``StoreFull``,
        ``PermissionDenied``."""
        with self._guard:
            if self._broken is not None:
                raise self._broken
            if self._file is None or self._size >= ROTATE_BYTES:
                self._begin_file()
            row, link = audit.pack(self._link, self._seq + 1, at_us, who, body)
            self._put(row)
            self._seq += 1
            self._link = link
            self._at_us = at_us
            if not self._dirty:
                self._dirty = True
                self._wake.set()
            elif self._seq - self._anchored >= ANCHOR_ROWS:
                self._wake.set()

    def _put(self, row: bytes) -> None:
        """One call for the whole row; what came of a row that did not fit is taken back."""
        assert self._file is not None
        try:
            written = os.write(self._file, row)
            if written == len(row):
                self._size += written
                return
            problem: OSError = OSError(errno.ENOSPC, "a short write")
        except OSError as error:
            problem = error
        try:
            os.ftruncate(self._file, self._size)
        except OSError as error:
            self._broken = StoreFull("the audit cannot be written; nothing is answered")
            raise self._broken from error
        raise StoreFull("no room for a row of the audit; nothing is answered") from problem

    def _begin_file(self) -> None:
        if self._file is not None:
            os.fdatasync(self._file)
            os.close(self._file)
            self._file = None
        number = self._number + 1
        content = _HEADER.pack(
            _MAGIC, _VERSION, bytes.fromhex(self.writer), number, self._seq, self._link
        )
        content += _CRC.pack(crc32c(content))
        path = self._folder / f"{self.writer}-{number}.log"
        try:
            self._folder.mkdir(mode=0o700, exist_ok=True)
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | getattr(os, "O_CLOEXEC", 0)
            self._file = os.open(path, flags, 0o600)
            self._size = 0
            self._put(content)
            fsync_directory(self._folder)
        except (OSError, StoreFull) as error:
            self._give_up(path)
            if isinstance(error, PermissionError):
                refused = "the audit cannot be written; nothing is answered"
                raise PermissionDenied(refused) from error
            raise StoreFull("the audit cannot be written; nothing is answered") from error
        self._number = number
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="memdb-audit", daemon=True)
            self._thread.start()

    def _give_up(self, path: Path) -> None:
        """Take back a file that could not be begun, so that the next row tries again."""
        if self._file is not None:
            os.close(self._file)
            self._file = None
            path.unlink(missing_ok=True)

    # --- making it last -----------------------------------------------------------------

    def _run(self) -> None:
        """Sync within a second of a row, anchor within a minute of one; the first at once."""
        anchored_at = time.monotonic() - ANCHOR_S
        while not self._stopping:
            waiting = self._seq > self._anchored
            left = ANCHOR_S - (time.monotonic() - anchored_at)
            self._wake.wait(max(0.0, left) if waiting else None)
            self._wake.clear()
            if self._dirty and not self._stopping:
                time_of_row = time.monotonic()
                while not self._stopping and time.monotonic() - time_of_row < SYNC_S / 2:
                    self._wake.wait(SYNC_S / 2)
                    self._wake.clear()
                    if self._seq - self._anchored >= ANCHOR_ROWS:
                        break
                self.sync()
            if self._seq - self._anchored >= ANCHOR_ROWS or (
                self._seq > self._anchored and time.monotonic() - anchored_at >= ANCHOR_S
            ):
                anchored_at = time.monotonic()
                self._try_anchor()

    def sync(self) -> None:
        """Make every row so far last through a power cut. Where that fails no more are taken."""
        with self._guard:
            self._dirty = False
            file = None if self._file is None else os.dup(self._file)
        if file is None:
            return
        try:
            os.fdatasync(file)
        except OSError:
            self._broken = StoreFull("the audit cannot be synced; nothing is answered")
        finally:
            os.close(file)

    def anchor(self) -> None:
        """Commit the head of the chain."""
        with self._anchoring:
            with self._guard:
                head = Head(self._seq, self._link, self._number, self._at_us)
            if head.seq > self._anchored:
                self._anchor(self.writer, head)
                self._anchored = head.seq

    def _try_anchor(self) -> None:
        try:
            self.anchor()
        except MemdbError:
            # The rows are there and chained; they are anchored with the next ones. A store that
            # takes no writes says so to whoever writes.
            self._wake.set()
            time.sleep(SYNC_S)

    @property
    def seq(self) -> int:
        """Rows so far."""
        return self._seq

    def close(self) -> None:
        """Sync, anchor, and stop. Idempotent."""
        self._stopping = True
        self._wake.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        if self._file is None:
            return
        self.sync()
        self._try_anchor_once()
        with self._guard:
            os.close(self._file)
            self._file = None

    def _try_anchor_once(self) -> None:
        try:
            self.anchor()
        except MemdbError as error:  # the store is full or gone: the files are there all the same
            self._broken = error

    def let_go(self) -> None:
        """After a fork: the file is the parent's."""
        self._stopping = True
        if self._file is not None:
            os.close(self._file)
            self._file = None
        self._broken = MemdbError(
            "the database was opened before this process forked",
            hint="open it again in the child process",
        )


_logs: weakref.WeakSet[AuditLog] = weakref.WeakSet()


def _let_go_after_fork() -> None:
    for log in list(_logs):
        log.let_go()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_let_go_after_fork)


# --- reading --------------------------------------------------------------------------------


class LogFile(NamedTuple):
    """One file, by the name it has."""

    path: Path
    writer: str
    number: int


class LogHeader(NamedTuple):
    writer: str
    number: int
    before: int
    link: bytes


def files(directory: Path) -> list[LogFile]:
    """Every file of the audit of the database in ``directory``, by writer and number."""
    found = []
    for path in (directory / FOLDER).glob("*-*.log"):
        writer, _, number = path.stem.partition("-")
        if number.isdigit():
            found.append(LogFile(path, writer, int(number)))
    return sorted(found, key=lambda one: (one.writer, one.number))


def header_of(content: bytes, path: Path) -> LogHeader | None:
    """What the file says of itself; None where it ends inside its header. Raises
    ``StoreCorrupt``."""
    if len(content) < HEADER_BYTES:
        return None
    (crc,) = _CRC.unpack_from(content, _HEADER.size)
    magic, version, writer, number, before, link = _HEADER.unpack_from(content)
    if magic != _MAGIC or version != _VERSION or crc != crc32c(content[: _HEADER.size]):
        raise StoreCorrupt("a file of the audit is damaged", path=f"{FOLDER}/{path.name}")
    return LogHeader(writer.hex(), number, before, link)


def rows_in(content: bytes) -> Iterator[tuple[int, bytes]]:
    """(offset, row) of every whole row; ends before a last one that is not whole."""
    offset = HEADER_BYTES
    while True:
        size = audit.size_at(content, offset)
        if size is None or offset + size > len(content):
            return
        yield offset, content[offset : offset + size]
        offset += size


def is_unwritten(content: bytes, offset: int) -> bool:
    """Whether the file is zeros from there on: its length was synced, what was in it was not."""
    return not any(content[offset:])


def read(file: LogFile) -> bytes:
    try:
        return file.path.read_bytes()
    except FileNotFoundError:
        return b""
    except OSError as error:
        raise StoreCorrupt(
            "a file of the audit cannot be read", path=f"{FOLDER}/{file.path.name}"
        ) from error
