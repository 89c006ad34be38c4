"""One mapped file with a checksummed header: how the index reads and writes bytes.

The strategy: readers map the file shared and read-only; the one writer uses ``pwrite`` and
``fdatasync`` on the same pages, so no view is ever half remapped. A mapping covers what the file
held when it was made: growth is seen after ``refresh``. A file that is read otherwise (``reads``)
is mapped only while somebody holds its body. What the body means is decided above.

    header := magic 8 bytes | version u32 | header bytes u32 | length u32 | fields | crc32c u32

The checksum covers all before it; zeros fill the header up to a multiple of 4,096 bytes.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import struct
import sys
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING

import numpy as np
from google_crc32c import value as crc32c
from numpy.typing import NDArray

from memdb.errors import FormatTooNew, PermissionDenied, StoreCorrupt, StoreFull

if TYPE_CHECKING:
    from collections.abc import Iterator

PAGE_BYTES = 4096
VERSION = 1
_FIXED = struct.Struct("<8sIII")
_CRC = struct.Struct("<I")
_NO_ROOM = {errno.ENOSPC, errno.EFBIG, errno.EDQUOT}
_FORBIDDEN = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EISDIR}


@contextmanager
def typed_errors(path: Path) -> Iterator[None]:
    """Turn what the operating system raised into memdb's errors."""
    try:
        yield
    except OSError as error:
        if error.errno in _NO_ROOM:
            raise StoreFull(f"no room to write {path.name}") from error
        if error.errno in _FORBIDDEN:
            raise PermissionDenied(f"{path.name} cannot be opened or written") from error
        raise StoreCorrupt(f"{path.name} cannot be read or written", path=str(path)) from error


def header_bytes(fields: bytes) -> int:
    """Size of the header that holds ``fields``."""
    return -(-(_FIXED.size + len(fields) + _CRC.size) // PAGE_BYTES) * PAGE_BYTES


def seal_header(magic: bytes, fields: bytes, version: int = VERSION) -> bytes:
    size = header_bytes(fields)
    head = _FIXED.pack(magic, version, size, len(fields)) + fields
    return (head + _CRC.pack(crc32c(head))).ljust(size, b"\0")


def create(path: Path, magic: bytes, fields: bytes) -> None:
    """Make the file with its header alone, durably, replacing any older one in one step."""
    with replacing(path) as handle:
        handle.write(seal_header(magic, fields))


@contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """A new file that takes ``path``'s place, synced, when the block ends well."""
    draft = path.with_name(path.name + ".new")
    with typed_errors(path):
        with open(draft, "wb") as handle:
            yield handle
            handle.flush()
            os.fsync(handle.fileno())
        os.replace(draft, path)
        _sync_directory(path.parent)


def move(source: Path, target: Path) -> None:
    """Put a synced file in another's place, durably."""
    with typed_errors(target):
        os.replace(source, target)
        _sync_directory(target.parent)


def remove(path: Path) -> None:
    """Remove the file where it is there; who has it mapped keeps what it holds."""
    with typed_errors(path):
        path.unlink(missing_ok=True)


def _sync_directory(directory: Path) -> None:
    if os.name == "nt":
        return  # a directory cannot be opened there; NTFS journals its names
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class MappedFile:
    """An open file: its header's fields, and its body as bytes.

    ``body`` is replaced as a whole by ``refresh``; hold on to one value of it during a search.
    """

    descriptor: int

    def __init__(self, path: Path, magic: bytes, *, writable: bool, version: int = VERSION) -> None:
        self.path = path
        self.version = 0
        self._magic = magic
        self._newest = version
        self._writable = writable
        self.descriptor = -1
        self._guard = threading.Lock()  # searches of several threads refresh as they need
        self._keeps = True
        self._body: NDArray[np.uint8] = np.zeros(0, np.uint8)
        self._open()

    def _open(self) -> None:
        flags = (os.O_RDWR if self._writable else os.O_RDONLY) | getattr(os, "O_BINARY", 0)
        with typed_errors(self.path):
            descriptor = os.open(self.path, flags)
        try:
            with typed_errors(self.path):
                status = os.fstat(descriptor)
                self.fields, self.header_bytes = self._read_header(descriptor)
        except BaseException:
            os.close(descriptor)
            raise
        if self.descriptor >= 0:
            os.close(self.descriptor)
        self.descriptor = descriptor
        self.identity = (status.st_dev, status.st_ino)
        self._seen_bytes = 0
        self._body = np.zeros(0, np.uint8)
        self._map()

    def _read_header(self, descriptor: int) -> tuple[bytes, int]:
        head = os.read(descriptor, PAGE_BYTES)
        if len(head) < _FIXED.size or head[:8] != self._magic:
            raise self.corrupt("has no header of its kind")
        _, version, size, length = _FIXED.unpack_from(head)
        if version > self._newest:
            raise FormatTooNew(f"{self.path.name} was written by a later memdb")
        if size > 1 << 20 or size != header_bytes(bytes(min(length, 1 << 20))):
            raise self.corrupt("has a damaged header")
        while len(head) < size:
            more = os.read(descriptor, size - len(head))
            if not more:
                raise self.corrupt("ends inside its header")
            head += more
        end = _FIXED.size + length
        if crc32c(head[:end]) != _CRC.unpack_from(head, end)[0]:
            raise self.corrupt("has a header that fails its checksum")
        self.version = version
        return head[_FIXED.size : end], size

    def _map(self) -> None:
        size = os.fstat(self.descriptor).st_size
        if size == self._seen_bytes or size <= self.header_bytes:
            return
        if self._keeps:
            self._body = self._mapping(size)
        self._seen_bytes = size

    def _mapping(self, size: int) -> NDArray[np.uint8]:
        if size <= self.header_bytes:
            return np.zeros(0, np.uint8)
        with typed_errors(self.path):
            mapping = mmap.mmap(self.descriptor, size, access=mmap.ACCESS_READ)
        return np.frombuffer(mapping, np.uint8)[self.header_bytes :]

    @property
    def body(self) -> NDArray[np.uint8]:
        """What follows the header; where no mapping is kept, one that goes with the array."""
        return self._body if self._keeps else self._mapping(self._seen_bytes)

    @property
    def stays_mapped(self) -> bool:
        """Whether ``body`` is there between calls."""
        return self._keeps

    @property
    def body_bytes(self) -> int:
        """The length of ``body``."""
        return max(0, self._seen_bytes - self.header_bytes)

    def keep_mapped(self, keeps: bool) -> None:
        """Whether the file stays mapped between calls, as it does unless told."""
        with self._guard:
            if keeps != self._keeps:
                self._body = self._mapping(self._seen_bytes) if keeps else np.zeros(0, np.uint8)
                self._keeps = keeps

    def refresh(self) -> bool:
        """See growth, or the file that took this one's place; whether it is another file."""
        with self._guard:
            with typed_errors(self.path):
                status = os.stat(self.path)
            if (status.st_dev, status.st_ino) != self.identity:
                self._open()
                return True
            self._map()
            return False

    def is_replaced(self) -> bool:
        """Whether another file, or none, has this one's name."""
        try:
            status = os.stat(self.path)
        except FileNotFoundError:
            return True
        return (status.st_dev, status.st_ino) != self.identity

    def write(self, offset: int, data: bytes | memoryview) -> None:
        """Write at ``offset`` of the body; durable after ``sync``."""
        with typed_errors(self.path):
            view = memoryview(data)
            at = self.header_bytes + offset
            while view:
                written = _pwrite(self.descriptor, view, at)
                view = view[written:]
                at += written

    def grow(self, body_bytes: int) -> None:
        """Make the body at least this long; what is new reads as zeros."""
        with typed_errors(self.path):
            size = self.header_bytes + body_bytes
            if os.fstat(self.descriptor).st_size < size:
                os.ftruncate(self.descriptor, size)

    def punch(self, offset: int, length: int) -> bool:
        """Give the disk back whole blocks of the body, which then reads as zeros; Linux only.

        Nobody reads there any more. False where the system or its file system cannot.
        """
        return _punch(self.descriptor, self.header_bytes + offset, length)

    def sync(self) -> None:
        with typed_errors(self.path):
            getattr(os, "fdatasync", os.fsync)(self.descriptor)

    def disk_bytes(self) -> int:
        """Bytes the file takes on disk; holes take none."""
        status = os.fstat(self.descriptor)
        return getattr(status, "st_blocks", -(-status.st_size // 512)) * 512

    def corrupt(self, what: str, hint: str | None = None) -> StoreCorrupt:
        return StoreCorrupt(f"{self.path.name} {what}", path=str(self.path), hint=hint)

    def close(self) -> None:
        """Idempotent. Views of the body stay valid until they are dropped."""
        with self._guard:
            if self.descriptor >= 0:
                os.close(self.descriptor)
                self.descriptor = -1
            self._body = np.zeros(0, np.uint8)
            self._seen_bytes = 0

    def __del__(self) -> None:
        # Whoever swaps one set of files for another lets the searches that use the old one end.
        if getattr(self, "descriptor", -1) >= 0:
            os.close(self.descriptor)


def _pwrite(descriptor: int, data: memoryview, offset: int) -> int:
    if hasattr(os, "pwrite"):
        return os.pwrite(descriptor, data, offset)
    os.lseek(descriptor, offset, os.SEEK_SET)  # Windows; the index has one writer
    return os.write(descriptor, data)


_KEEP_SIZE_PUNCH_HOLE = 0x01 | 0x02


def _punch(descriptor: int, offset: int, length: int) -> bool:
    """``fallocate(2)``, which the standard library has in its POSIX form alone."""
    if not sys.platform.startswith("linux"):
        return False
    call = ctypes.CDLL(None, use_errno=True).fallocate64
    call.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]
    return bool(call(descriptor, _KEEP_SIZE_PUNCH_HOLE, offset, length) == 0)
