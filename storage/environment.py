"""One LMDB environment and its transactions, with checksummed values.

The strategy: a thin wrapper that adds three things LMDB 0.9 lacks and nothing else: a checksum on
every value, typed errors, and scans bounded by a key range. It knows one directory; which
directory is current, who may write and what a value means are decided above it.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from itertools import islice, takewhile
from pathlib import Path
from typing import Any, TypeVar

import lmdb

from memdb import settings
from memdb.errors import MemdbError, PermissionDenied, StoreCorrupt, StoreFull
from memdb.storage import pages, tables
from memdb.storage.kernels import KERNELS
from memdb.storage.reference import Entry, Pair, RowSet
from memdb.storage.values import seal, seal_many, unseal, unseal_joined, unseal_until

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


class _Tables(dict[str, Any]):
    """The table handles of one environment, and what its readers derived and share."""

    def __init__(self) -> None:
        super().__init__()
        self.scratch: dict[str, Any] = {}


class ReadTxn:
    """A snapshot. Valid only while the ``with`` that made it is open, on its own thread."""

    __slots__ = ("_dbs", "_hash_key", "_txn", "memo")

    def __init__(self, txn: Any, dbs: _Tables, hash_key: bytes) -> None:
        self.memo: dict[str, Any] = {}  # derived values of this snapshot; a writer changes under it
        self._txn = txn
        self._dbs = dbs
        self._hash_key = hash_key

    @property
    def scratch(self) -> dict[str, Any]:
        """Derived values that transactions on this open environment share; it is not stored."""
        return self._dbs.scratch

    def end(self) -> None:
        """Give the snapshot back; nothing may be read after."""
        self._txn.abort()

    def digest(self, data: bytes, size: int) -> bytes:
        """Keyed BLAKE2b of user text, ``size`` bytes: the only form text takes in a key."""
        return KERNELS.digest(self._hash_key, data, size)

    def digest_of_parts(self, tag: bytes, parts: tuple[str, ...], size: int) -> bytes:
        """As ``digest``, of several strings."""
        return KERNELS.digest_of_parts(self._hash_key, tag, parts, size)

    def set_prefixes(self, tag: bytes, field: int, texts: list[bytes]) -> list[bytes]:
        """The prefixes of texts among a field's sets of rows; see ``reference.set_prefixes``."""
        return KERNELS.set_prefixes(self._hash_key, tag, field, texts)

    def get(self, table: str, key: bytes) -> bytes | None:
        """The payload under ``key``, checked, or None."""
        value = self._txn.get(key, None, self._dbs[table])
        return None if value is None else unseal(key, value)

    def get_many(self, table: str, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        """The payloads of those keys that exist. Sorted keys touch fewest pages."""
        with self._txn.cursor(self._dbs[table]) as cursor:
            return {key: unseal(key, value) for key, value in cursor.getmulti(keys)}

    def has(self, table: str) -> bool:
        """Whether the store has the table: see ``tables.LATER``."""
        return table in self._dbs

    def exists(self, table: str, key: bytes) -> bool:
        return self._txn.get(key, None, self._dbs[table]) is not None

    def scan(
        self, table: str, start: bytes = b"", stop: bytes | None = None, *, reverse: bool = False
    ) -> Iterator[tuple[bytes, bytes]]:
        """(key, payload) for start <= key < stop, in key order or reversed."""
        with self._txn.cursor(self._dbs[table]) as cursor:
            for key, value in self._range(cursor, start, stop, reverse=reverse, values=True):
                yield key, unseal(key, value) if value else b""

    def entries(
        self, table: str, start: bytes, stop: bytes, limit: int | None = None
    ) -> list[tuple[bytes, bytes]]:
        """All of ``scan`` at once, or the first ``limit``: half its cost an entry."""
        with self._txn.cursor(self._dbs[table]) as cursor:
            found = cursor.iternext() if cursor.set_range(start) else ()
            return unseal_until(found if limit is None else islice(found, limit), stop)

    def keys(self, table: str, start: bytes, stop: bytes, limit: int | None = None) -> list[bytes]:
        """All of ``scan_keys`` at once, or the first ``limit``."""
        with self._txn.cursor(self._dbs[table]) as cursor:
            return list(
                islice(self._range(cursor, start, stop, reverse=False, values=False), limit)
            )

    def first_key(self, table: str, start: bytes, stop: bytes) -> bytes | None:
        """The first key with start <= key < stop, or None."""
        with self._txn.cursor(self._dbs[table]) as cursor:
            found = cursor.key() if cursor.set_range(start) else stop
            return found if found < stop else None

    def last_key(self, table: str, start: bytes, stop: bytes) -> bytes | None:
        """The last key with start <= key < stop, or None."""
        with self._txn.cursor(self._dbs[table]) as cursor:
            more = cursor.prev() if cursor.set_range(stop) else cursor.last()
            found = cursor.key() if more else b""
            return found if found >= start and more else None

    def scan_keys(
        self, table: str, start: bytes = b"", stop: bytes | None = None, *, reverse: bool = False
    ) -> Iterator[bytes]:
        """Keys alone for start <= key < stop; no value is read."""
        with self._txn.cursor(self._dbs[table]) as cursor:
            yield from self._range(cursor, start, stop, reverse=reverse, values=False)

    @staticmethod
    def _range(
        cursor: Any, start: bytes, stop: bytes | None, *, reverse: bool, values: bool
    ) -> Iterator[Any]:
        """The entries inside the bounds: LMDB's own iterator, cut off, with no Python a key."""
        if reverse:
            found = cursor.set_range(stop) if stop is not None else False
            found = cursor.prev() if found else cursor.last()
            entries = cursor.iterprev(keys=True, values=values)
            if not found:
                return iter(())
            if values:
                return takewhile(lambda entry: entry[0] >= start, entries)
            return takewhile(start.__le__, entries)
        if not (cursor.set_range(start) if start else cursor.first()):
            return iter(())
        entries = cursor.iternext(keys=True, values=values)
        if stop is None:
            return iter(entries)
        if values:
            return takewhile(lambda entry: entry[0] < stop, entries)
        return takewhile(stop.__gt__, entries)

    def prefixed(self, table: str, prefixes: Iterable[bytes]) -> list[bytes]:
        """The payloads of all keys that begin with one of ``prefixes``, by one cursor."""
        found = []
        with self._txn.cursor(self._dbs[table]) as cursor:
            for prefix in prefixes:
                more = cursor.set_range(prefix)
                while more and cursor.key().startswith(prefix):
                    found.append(unseal(*cursor.item()))
                    more = cursor.next()
        return found

    def joined(self, table: str, prefixes: Iterable[bytes]) -> bytes:
        """The payloads of all keys that begin with one of ``prefixes``, in a row.

        At most eight bytes of a key come after its prefix.
        """
        found = []
        with self._txn.cursor(self._dbs[table]) as cursor:
            for prefix in prefixes:
                if cursor.set_range(prefix):
                    found.append(unseal_joined(cursor.iternext(), prefix + b"\xff" * 9)[1])
        return b"".join(found)

    def joined_many(self, table: str, keys: Sequence[bytes]) -> tuple[bytes, bytes, bytes]:
        """As ``get_many``: the keys that exist in a row, their payloads in a row, and the first
        byte of each. For values that tell their own end."""
        with self._txn.cursor(self._dbs[table]) as cursor:
            return unseal_joined(cursor.getmulti(keys), None)

    def joined_between(self, table: str, start: bytes, stop: bytes) -> tuple[bytes, bytes, bytes]:
        """The same of all start <= key < stop: several times as fast a key."""
        with self._txn.cursor(self._dbs[table]) as cursor:
            return unseal_joined(cursor.iternext() if cursor.set_range(start) else (), stop)

    def page(self, table: str, start: bytes, stop: bytes, limit: int) -> list[tuple[bytes, bytes]]:
        """Up to ``limit`` (key, payload) with start <= key < stop; fewer only if there are no more.

        For readers that write between pages: no cursor outlives the call.
        """
        found = []
        with self._txn.cursor(self._dbs[table]) as cursor:
            if cursor.set_range(start):
                for key, value in islice(cursor, limit):
                    if key >= stop:
                        break
                    found.append((key, unseal(key, value)))
        return found

    def floor(self, table: str, key: bytes) -> tuple[bytes, bytes] | None:
        """The entry with the greatest key <= ``key``, or None."""
        with self._txn.cursor(self._dbs[table]) as cursor:
            if cursor.set_range(key):
                if cursor.key() != key and not cursor.prev():
                    return None
            elif not cursor.last():
                return None
            return cursor.key(), unseal(*cursor.item())

    def blocks_for(
        self, table: str, field: int, entries: list[Entry]
    ) -> tuple[list[Pair], list[int]]:
        """The blocks that entries belong in; see ``reference.blocks_for``."""
        with self._txn.cursor(self._dbs[table]) as cursor:
            return KERNELS.blocks_for(cursor, field, entries)

    def extend_sets(
        self, table: str, sets: list[RowSet]
    ) -> tuple[list[list[int] | None], list[Pair], list[int]]:
        """What becomes of sets that get rows; see ``reference.extend_sets``. Writes nothing."""
        with self._txn.cursor(self._dbs[table]) as cursor:
            return KERNELS.extend_sets(cursor, sets)

    def count(self, table: str) -> int:
        """Entries in the table."""
        return int(self._txn.stat(self._dbs[table])["entries"])

    def bytes_of(self, table: str) -> int:
        """What the pages of a table take."""
        found = self._txn.stat(self._dbs[table])
        pages = found["branch_pages"] + found["leaf_pages"] + found["overflow_pages"]
        return int(pages * found["psize"])

    def raw(self, table: str) -> Iterator[tuple[bytes, bytes]]:
        """Every (key, stored value) unchecked: for ``check`` and the size-rule test."""
        with self._txn.cursor(self._dbs[table]) as cursor:
            yield from cursor


class WriteTxn(ReadTxn):
    """The one writer's transaction; sees its own writes."""

    __slots__ = ("_own",)

    def __init__(self, txn: Any, dbs: _Tables, hash_key: bytes) -> None:
        super().__init__(txn, dbs, hash_key)
        self._own: dict[str, Any] = {}

    @property
    def scratch(self) -> dict[str, Any]:
        """Derived values of this transaction alone: they may follow from what is not committed."""
        return self._own

    @property
    def shared(self) -> Mapping[str, Any]:
        """What the readers' ``scratch`` holds, all of it committed: to begin from."""
        return self._dbs.scratch

    def put(self, table: str, key: bytes, payload: bytes) -> None:
        self._txn.put(key, seal(key, payload), db=self._dbs[table])

    def put_key(self, table: str, key: bytes) -> None:
        """Enter a key that needs no value (time index)."""
        self._txn.put(key, b"", db=self._dbs[table])

    def put_many(
        self, table: str, items: Iterable[tuple[bytes, bytes]], *, append: bool = False
    ) -> None:
        """Enter many; sorted keys are fastest. ``append``: keys ascend past the table's last."""
        sealed = seal_many(items)
        with self._txn.cursor(self._dbs[table]) as cursor:
            cursor.putmulti(sealed, append=append)

    def put_rising(self, table: str, items: list[tuple[bytes, bytes]]) -> None:
        """Enter many whose keys ascend; where they come after the table's last they are appended,
        which leaves full pages behind instead of half full ones."""
        if items:
            sealed = seal_many(items)
            with self._txn.cursor(self._dbs[table]) as cursor:
                append = not cursor.last() or cursor.key() < items[0][0]
                cursor.putmulti(sealed, append=append)

    def put_keys(self, table: str, keys: Iterable[bytes]) -> None:
        """Enter many keys that need no value."""
        with self._txn.cursor(self._dbs[table]) as cursor:
            cursor.putmulti([(key, b"") for key in keys])

    def moved_block(self, key: bytes) -> None:
        """Note that a block of strings was written or deleted, for caches that hold its rows.

        Nobody shares what this class leaves; the store's own transactions log it.
        """

    def delete(self, table: str, key: bytes) -> bool:
        """Whether there was an entry to delete."""
        return bool(self._txn.delete(key, db=self._dbs[table]))

    def delete_range(self, table: str, start: bytes, stop: bytes) -> int:
        """Delete start <= key < stop; returns how many."""
        deleted = 0
        with self._txn.cursor(self._dbs[table]) as cursor:
            found = cursor.set_range(start)
            while found and cursor.key() < stop:
                cursor.delete()  # leaves the cursor on the next entry
                deleted += 1
                found = bool(cursor.key())  # keys are never empty
        return deleted


Txn = TypeVar("Txn", bound=ReadTxn)


class Environment:
    """One open LMDB environment: the directory of one generation.

    ``create`` makes the file and its tables; False takes their absence for damage, None makes
    them unless ``readonly``. A
    ``readonly`` environment in a directory that this process cannot write registers no readers:
    another user's writes may then change pages under its snapshots, and what it reads can fail
    its checksum while they do.

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
            self._open_tables(create)
            self._hash_key = self._load_hash_key(create)
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

    def _open_tables(self, create: bool) -> None:
        self._dbs = _Tables()
        if create:
            with self._env.begin(write=True) as txn:
                for name in tables.ALL:
                    self._dbs[name] = self._env.open_db(name.encode(), txn=txn)
            return
        self.verify_pages(deep=os.path.getsize(self.path / "data.mdb") <= _WALKED_AT_OPEN_BYTES)
        for name in tables.ALL:
            try:
                self._dbs[name] = self._env.open_db(name.encode(), create=False)
            except lmdb.NotFoundError:
                if name not in tables.LATER:
                    raise
                if not self.readonly:
                    self._dbs[name] = self._env.open_db(name.encode(), create=True)

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

    def _load_hash_key(self, create: bool) -> bytes:
        with self._env.begin() as txn:
            sealed = txn.get(_HASH_KEY, None, self._dbs[tables.META])
        if sealed is None and not create:
            raise StoreCorrupt("the store has no hash key", path=self._file)
        if sealed is None:
            with self._env.begin(write=True) as txn:
                made = seal(_HASH_KEY, os.urandom(32))
                txn.put(_HASH_KEY, made, overwrite=False, db=self._dbs[tables.META])
                sealed = txn.get(_HASH_KEY, None, self._dbs[tables.META])
        if sealed is None:
            raise StoreCorrupt("the store did not keep its hash key", path=self._file)
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

    def copy_dense(self, target: Path) -> None:
        """As ``copy``, with every entry entered anew in key order: full pages.

        LMDB's compacting copy keeps pages as they are, and a table whose entries were removed here
        and there has half-empty ones for good. About a microsecond an entry. Not synced.
        """
        try:
            new = lmdb.open(
                str(target),
                map_size=int(self._env.info()["map_size"]),
                max_dbs=len(tables.ALL),
                sync=False,
                lock=False,
                lib_version=0,
            )
        except lmdb.Error as error:
            raise translate(error) from error
        try:
            with self._env.begin() as txn:
                for name in tables.ALL:
                    _copy_table(txn, self._dbs[name], new, name)
        except lmdb.Error as error:
            raise translate(error) from error
        finally:
            new.close()

    def info(self) -> dict[str, int]:
        found = {**dict(self._env.info()), **dict(self._env.stat())}
        return {name: value for name, value in found.items() if isinstance(value, int)}

    def oldest_reader(self) -> int | None:
        """Transaction id of the oldest snapshot that any process reads now; None if none does."""
        lines = [line.split() for line in self._env.readers().splitlines()]
        return min((int(line[2]) for line in lines if line[2:] and line[2].isdigit()), default=None)

    def close(self) -> None:
        self._env.close()


_COPIED_AT_ONCE = 1 << 16


def _copy_table(txn: Any, table: Any, new: Any, name: str) -> None:
    """All entries of an open table into one of that name, some thousands a transaction."""
    with new.begin(write=True) as writing:
        made = new.open_db(name.encode(), txn=writing)
    with txn.cursor(table) as cursor:
        entries = iter(cursor)
        while some := list(islice(entries, _COPIED_AT_ONCE)):
            with new.begin(write=True, db=made) as writing, writing.cursor(made) as target:
                target.putmulti(some, append=True)
