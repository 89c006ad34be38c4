"""What is done within one transaction of an LMDB environment: reading, scanning, writing.

The strategy: a thin wrapper with a checksum on every value and scans bounded by a key range.
``environment`` opens what these work on, and turns LMDB's errors into ours. This file knows tables
and keys, not what a value means.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice, takewhile
from typing import Any

from memdb.storage.kernels import KERNELS
from memdb.storage.reference import Entry, Pair, RowSet
from memdb.storage.values import seal, seal_many, unseal, unseal_joined, unseal_until

__all__ = ["ReadTxn", "Tables", "WriteTxn"]


class Tables(dict[str, Any]):
    """The table handles of one environment, and what its readers derived and share."""

    def __init__(self) -> None:
        super().__init__()
        self.scratch: dict[str, Any] = {}
        self.of_copy: dict[str, Any] = {}


class ReadTxn:
    """A snapshot. Valid only while the ``with`` that made it is open, on its own thread."""

    __slots__ = ("_dbs", "_hash_key", "_txn", "memo")

    def __init__(self, txn: Any, dbs: Tables, hash_key: bytes) -> None:
        self.memo: dict[str, Any] = {}  # derived values of this snapshot; a writer changes under it
        self._txn = txn
        self._dbs = dbs
        self._hash_key = hash_key

    @property
    def scratch(self) -> dict[str, Any]:
        """Derived values that transactions on this open environment share, and with those on its
        next copy: each says of which ``content_seq`` it is true. It is not stored."""
        return self._dbs.scratch

    @property
    def of_copy(self) -> dict[str, Any]:
        """The same of what a copy may write otherwise: it stays with this environment."""
        return self._dbs.of_copy

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

    def __init__(self, txn: Any, dbs: Tables, hash_key: bytes) -> None:
        super().__init__(txn, dbs, hash_key)
        self._own: dict[str, Any] = {}

    @property
    def scratch(self) -> dict[str, Any]:
        """Derived values of this transaction alone: they may follow from what is not committed."""
        return self._own

    of_copy = scratch

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
