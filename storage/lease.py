"""The maintenance lease: which process does the background work on a database.

An exclusive ``flock`` on ``<db>/lease``. The kernel frees it when its holder dies, so it is never
stolen and never stale; the file's text (pid and host) is for people and for ``LockHeld``. It
knows nothing of what the work is. Windows has no flock: there a byte-range lock does the same.
``CreationLock`` keeps processes that make the same database apart.
"""

from __future__ import annotations

import json
import os
import socket
import threading
from pathlib import Path
from typing import IO

from memdb.errors import LockHeld, PermissionDenied

if os.name == "nt":  # pragma: no cover - exercised by the Windows wheels
    import msvcrt

    def try_lock(handle: IO[bytes], *, exclusive: bool = True) -> bool:
        """Whether the lock was free. Byte 2**30 is locked, so that the text stays readable."""
        handle.seek(1 << 30)
        try:
            msvcrt.locking(handle.fileno(), msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
        except OSError:
            return False
        return True
else:
    import fcntl

    def try_lock(handle: IO[bytes], *, exclusive: bool = True) -> bool:
        """Whether the lock was free; the lock lasts until the handle is closed."""
        kind = fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH
        try:
            fcntl.flock(handle, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


class Lease:
    """One process's claim on the background work of one database; thread-safe."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._handle: IO[bytes] | None = None
        self._guard = threading.Lock()

    @property
    def held(self) -> bool:
        """Whether this process holds it."""
        return self._handle is not None

    def try_acquire(self) -> bool:
        """Take the lease if it is free; True also when this process has it already."""
        with self._guard:
            if self._handle is not None:
                return True
            try:
                handle = open(self._path, "a+b", buffering=0)  # noqa: SIM115 - kept open
            except OSError as error:
                raise PermissionDenied("the database directory cannot be written") from error
            if not try_lock(handle):
                handle.close()
                return False
            handle.truncate(0)
            handle.write(json.dumps({"pid": os.getpid(), "host": socket.gethostname()}).encode())
            self._handle = handle
            return True

    def acquire(self) -> None:
        """Take the lease or raise ``LockHeld`` naming its holder."""
        if not self.try_acquire():
            pid, host = self.holder()
            raise LockHeld(
                f"process {pid} on {host} is maintaining this database", pid=pid, host=host
            )

    def holder(self) -> tuple[int, str]:
        """(pid, host) as last written; (0, "") when nobody ever held it."""
        try:
            text = json.loads(self._path.read_bytes() or b"{}")
        except (OSError, ValueError):
            return 0, ""
        return int(text.get("pid", 0)), str(text.get("host", ""))

    def let_go(self) -> None:
        """In a forked child: drop the inherited descriptor, which would keep the parent's lock
        alive when the parent is gone. The parent keeps the lease."""
        self._guard = threading.Lock()
        if self._handle is not None:
            self._handle.close()
            self._handle = None

    def release(self) -> None:
        with self._guard:
            if self._handle is not None:
                self._handle.close()
                self._handle = None


class CreationLock:
    """Serialises the making of a database among processes; a blocking exclusive lock."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> None:
        try:
            self._handle = open(self._path, "ab")
        except OSError as error:
            raise PermissionDenied("the database directory cannot be written") from error
        if os.name != "nt":
            import fcntl

            fcntl.flock(self._handle, fcntl.LOCK_EX)

    def __exit__(self, *_: object) -> None:
        self._handle.close()
