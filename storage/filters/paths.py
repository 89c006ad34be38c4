"""The numbers of metadata paths, and which of them a namespace has indexed.

    meta  "fp" | path hash 8       -> number u16 | path       the number of a metadata path
    meta  "fn" | namespace hash 8  -> numbers u16 ...         what that namespace indexes, <= 256
    meta  "f#"                     -> next free number u16

A path is user text and therefore in the value. Numbers are never used twice. This file knows
nothing of values.
"""

from __future__ import annotations

import struct

from memdb import settings
from memdb.storage import tables
from memdb.storage.environment import ReadTxn, WriteTxn
from memdb.storage.filters.fields import FIRST_METADATA, LAST_METADATA

_NEXT = b"f#"


def path_number(txn: ReadTxn, path: str) -> int | None:
    """The number of a metadata path, None if no row has it indexed."""
    payload = txn.get(tables.META, _path_key(txn, path))
    return None if payload is None else int.from_bytes(payload[:2], "little")


def bucket(txn: ReadTxn, path: str) -> bytes:
    """Which of 256 sets holds the rows that have this path unindexed: a set code of 8 bytes."""
    return bytes(7) + txn.digest(path.encode(), 1)


def forget_path(txn: WriteTxn, path: str, namespaces: set[str]) -> None:
    """No row has the path any more: its name goes, and its place in these namespaces is free."""
    number = path_number(txn, path)
    txn.delete(tables.META, _path_key(txn, path))
    for namespace in namespaces:
        key = _namespace_key(txn, namespace)
        indexed = _unpack(txn.get(tables.META, key))
        if number in indexed:
            indexed.remove(number)
            txn.put(tables.META, key, _pack(indexed))


class PathNumbers:
    """Numbers looked up, and for a writer allocated, within one transaction."""

    def __init__(self, txn: ReadTxn) -> None:
        self._txn = txn
        self._known: dict[tuple[str, str], int | None] = {}
        self._namespaces: dict[str, list[int]] = {}

    def find(self, namespace: str, path: str) -> int | None:
        """The number under which this namespace indexes the path, if it does."""
        number = path_number(self._txn, path)
        return number if number in self._indexed(namespace) else None

    def claim(self, txn: WriteTxn, namespace: str, path: str) -> int | None:
        """As ``find``, but starts to index the path unless the namespace has its full number."""
        known = (namespace, path)
        if known in self._known:
            return self._known[known]
        indexed = self._indexed(namespace)
        number = path_number(txn, path)
        if number not in indexed:
            if len(indexed) >= settings.MAX_INDEXED_METADATA_KEYS:
                number = None
            elif number is None:
                number = self._allocate(txn, path)
            if number is not None:
                indexed.append(number)
                txn.put(tables.META, _namespace_key(txn, namespace), _pack(indexed))
        self._known[known] = number
        return number

    def _indexed(self, namespace: str) -> list[int]:
        indexed = self._namespaces.get(namespace)
        if indexed is None:
            payload = self._txn.get(tables.META, _namespace_key(self._txn, namespace))
            indexed = self._namespaces[namespace] = _unpack(payload)
        return indexed

    def _allocate(self, txn: WriteTxn, path: str) -> int | None:
        payload = txn.get(tables.META, _NEXT)
        number = FIRST_METADATA if payload is None else int.from_bytes(payload, "little")
        if number >= LAST_METADATA:
            return None
        txn.put(tables.META, _NEXT, (number + 1).to_bytes(2, "little"))
        txn.put(tables.META, _path_key(txn, path), number.to_bytes(2, "little") + path.encode())
        return number


def _path_key(txn: ReadTxn, path: str) -> bytes:
    return b"fp" + txn.digest(path.encode(), 8)


def _namespace_key(txn: ReadTxn, namespace: str) -> bytes:
    return b"fn" + txn.digest(namespace.encode(), 8)


def _pack(numbers: list[int]) -> bytes:
    return struct.pack(f"<{len(numbers)}H", *numbers)


def _unpack(payload: bytes | None) -> list[int]:
    return list(struct.unpack(f"<{len(payload) // 2}H", payload)) if payload else []
