"""One LMDB environment: opened, its pages looked at, its errors typed.

The strategy: a thin wrapper that adds three things LMDB 0.9 lacks and nothing else: a checksum on
every value, scans bounded by a key range (both in ``table_access``), and typed errors. It knows one
directory; which directory is current, who may write and what a value means are decided above it.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, TypeVar

import lmdb

from memdb import settings
from memdb.errors import MemdbError, PermissionDenied, StoreCorrupt, StoreFull
from memdb.storage import pages, tables
from memdb.storage.kernels import KERNELS
from memdb.storage.table_access import ReadTxn, Tables, WriteTxn
from memdb.storage.values import seal, unseal

__all__ = ["Environment", "ReadTxn", "WriteTxn", "translate"]

_HASH_KEY = b"hash_key"
_WALKED_AT_OPEN_BYTES = 16 << 20  # some 20 ms; a larger file is walked by ``check``
_SNAPSHOT_ATTEMPTS = 100
_LOST_PAGES = "restore a snapshot; `memdb export` of one that opens keeps every field"


def translate(error: lmdb.Error, path: str = "kv") -> MemdbError:
    """The typed error for what LMDB raised; never contains a key or a value."""
    number = getattr(error, "code", None)
    if isinstance(error, lmdb.MapFullError | lmdb.DiskError) or number in (
        errno.ENOSPC,
        errno.EFBIG,
        errno.EDQUOT,
    ):
        return StoreFull("the store has no room for this write; nothing was written")
    if number == errno.EIO:  # LMDB's word for a short write; it reads through a map, never so
        return StoreFull("the disk is full or failing; nothing was written")
    if isinstance(error, lmdb.ReadonlyError | lmdb.LockError) or number in (
        errno.EACCES,
        errno.EPERM,
        errno.EROFS,
    ):
        return PermissionDenied("the database directory cannot be written")
    return StoreCorrupt(f"LMDB: {type(error).__name__}", path=path)


Txn = TypeVar("Txn", bound=ReadTxn)


class Environment:
    """One open LMDB environment: the directory of one generation.

    ``create`` makes the file and its tables; False takes their absence for damage, None makes
    them unless ``readonly``. A
    ``readonly`` environment in a directory that this process cannot write registers no readers:
    another user's writes may then change pages under its snapshots, and what it reads can fail
    its checksum while they do. ``walk`` looks at the pages first, at all of them in a small file;
    what was copied from an open one needs no such look, nor may who moves on to it wait for one.

    Raises ``PermissionDenied``, ``StoreCorrupt`` or ``StoreFull`` from ``open`` and from the
    transactions' context managers.
    """

    def __init__(
        self,
        path: Path,
        *,
        readonly: bool = False,
        create: bool | None = None,
        map_size: int = settings.MAP_SIZE_BYTES,
        walk: bool = True,
    ) -> None:
        self.path = path
        self.readonly = readonly
        self._file = f"kv/{path.name}/data.mdb"
        data = path / "data.mdb"
        fresh = not data.exists() or not data.stat().st_size
        if create is None:
            create = not readonly and fresh
        if not (create and fresh):
            self._look_at_metas()
        try:
            self._env = lmdb.open(
                str(path),
                map_size=map_size,
                max_dbs=len(tables.ALL),
                max_readers=510,
                readonly=readonly,
                create=create,
                lock=not readonly or os.access(path / "lock.mdb", os.W_OK),
                lib_version=0,
            )
        except lmdb.Error as error:
            raise translate(error, self._file) from error
        try:
            self._open_tables(create, walk)
            self._hash_key = self._load_hash_key()
            self._env.reader_check()
        except lmdb.Error as error:
            self._env.close()
            raise translate(error, self._file) from error
        except BaseException:
            self._env.close()
            raise

    def _look_at_metas(self) -> None:
        try:
            pages.read_metas(self.path / "data.mdb")
        except FileNotFoundError:
            raise StoreCorrupt("data.mdb is missing", path=self._file) from None
        except pages.Unsound as error:
            raise StoreCorrupt(f"data.mdb {error}", path=self._file) from error
        except OSError as error:
            raise PermissionDenied("the database directory cannot be read") from error

    def _open_tables(self, create: bool, walk: bool) -> None:
        self._dbs = Tables()
        if create:
            with self._env.begin(write=True) as txn:
                for name in tables.ALL:
                    self._dbs[name] = self._env.open_db(name.encode(), txn=txn)
                made, meta = seal(_HASH_KEY, os.urandom(32)), self._dbs[tables.META]
                txn.put(_HASH_KEY, made, overwrite=False, db=meta)
            return
        if walk:
            size = os.path.getsize(self.path / "data.mdb")
            self.verify_pages(deep=size <= _WALKED_AT_OPEN_BYTES)
        if self.readonly:
            self._find_tables(None)
            return
        # A table that is opened without a transaction gets a writing one for itself, and py-lmdb
        # keeps Python's lock while it waits for another process's to end: nobody in this process
        # would do anything meanwhile. The lock of one that is begun here is let go of.
        with self._env.begin(write=True) as txn:
            self._find_tables(txn)

    def _find_tables(self, txn: Any) -> None:
        for name in tables.ALL:
            try:
                self._dbs[name] = self._env.open_db(name.encode(), txn=txn, create=False)
            except lmdb.NotFoundError:
                if name not in tables.LATER:
                    raise
                if txn is not None:
                    self._dbs[name] = self._env.open_db(name.encode(), txn=txn, create=True)

    def take_over(self, before: Environment) -> None:
        """Go on with what readers derived from ``before``, of which this is the copy: it is bound
        to counters that a copy keeps. Else the first to read here would derive all of it anew."""
        self._dbs.scratch = before._dbs.scratch

    def verify_pages(self, *, deep: bool) -> int:
        """Walk the page trees, the leaves only if ``deep``; returns the pages looked at.

        LMDB trusts its pages: a damaged one ends the process. Raises ``StoreCorrupt``.
        """
        path = self.path / "data.mdb"
        try:
            for _ in range(_SNAPSHOT_ATTEMPTS):
                with self._env.begin() as txn:
                    looked_at = pages.verify(path, txn.id(), deep=deep)
                if looked_at:
                    return looked_at
        except pages.Unsound as error:
            raise StoreCorrupt(f"data.mdb {error}", path=self._file, hint=_LOST_PAGES) from error
        return 0  # the writers are faster than we are, so the trees are walked all the time

    def digest(self, data: bytes, size: int) -> bytes:
        """As ``ReadTxn.digest``, for outside a transaction."""
        return KERNELS.digest(self._hash_key, data, size)

    def _load_hash_key(self) -> bytes:
        with self._env.begin() as txn:
            sealed = txn.get(_HASH_KEY, None, self._dbs[tables.META])
        if sealed is None:
            raise StoreCorrupt("the store has no hash key", path=self._file)
        return unseal(_HASH_KEY, sealed)

    @contextmanager
    def transaction(self, kind: type[Txn], *, write: bool = False) -> Iterator[Txn]:
        """A transaction of class ``kind``; a writing one commits (one durable sync) when the
        block ends and aborts when it raises."""
        try:
            with self._env.begin(write=write) as txn:
                yield kind(txn, self._dbs, self._hash_key)
        except lmdb.Error as error:
            raise translate(error) from error

    def begin_read(self, kind: type[Txn]) -> Txn:
        """A read transaction the caller ends with ``ReadTxn.end``; for the hot path."""
        try:
            return kind(self._env.begin(), self._dbs, self._hash_key)
        except lmdb.Error as error:
            raise translate(error) from error

    def read(self) -> AbstractContextManager[ReadTxn]:
        return self.transaction(ReadTxn)

    def write(self) -> AbstractContextManager[WriteTxn]:
        return self.transaction(WriteTxn, write=True)

    def copy(self, target: Path) -> None:
        """A compacting copy of the last committed state into an existing empty directory."""
        try:
            self._env.copy(str(target), compact=True)
        except lmdb.Error as error:
            raise translate(error) from error

    def info(self) -> dict[str, int]:
        found = {**dict(self._env.info()), **dict(self._env.stat())}
        return {name: value for name, value in found.items() if isinstance(value, int)}

    def oldest_reader(self) -> int | None:
        """Transaction id of the oldest snapshot that any process reads now; None if none does.

        A process that was killed while it read is none: LMDB keeps its entry until it is told to
        look who is alive.
        """
        self._env.reader_check()
        lines = [line.split() for line in self._env.readers().splitlines()]
        return min((int(line[2]) for line in lines if line[2:] and line[2].isdigit()), default=None)

    def close(self) -> None:
        self._env.close()
