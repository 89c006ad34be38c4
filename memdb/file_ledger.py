"""The ledger of synced files: a row for each folder and each file in table ``files``.

    key    namespace and root, keyed hash, 6 bytes | path, keyed hash, 10 bytes
    value  ``FileState`` (memdb.ingest.sync); under ten zero bytes the folder's ``Root``

A folder's rows lie side by side, so that a sync reads its ledger with one scan; paths are in
values only. It knows keys and rows; what a row means is for ``files`` to say.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from memdb.errors import StoreCorrupt
from memdb.ingest.sync import FileState
from memdb.storage import tables
from memdb.storage.store import Reader, Writer
from memdb.types import Memory

_PREFIX_BYTES = 6
_PATH_BYTES = 10
_ROOT = bytes(_PATH_BYTES)


class Root(msgspec.Struct, frozen=True, array_like=True):
    """A synced folder: absolute real path, and the patterns of its last sync."""

    namespace: str
    path: str
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()


_ENCODER = msgspec.msgpack.Encoder()
_DECODER = msgspec.msgpack.Decoder(Root)


def prefix_of(txn: Reader | Writer, namespace: str, root: str) -> bytes:
    return txn.digest(msgspec.msgpack.encode((namespace, root)), _PREFIX_BYTES)


def file_key(txn: Reader | Writer, prefix: bytes, path: str) -> bytes:
    return prefix + txn.digest(path.encode(), _PATH_BYTES)


def root_at(txn: Reader | Writer, prefix: bytes) -> Root | None:
    payload = txn.get(tables.FILES, prefix + _ROOT)
    return None if payload is None else _decode(payload)


def put_root(txn: Writer, prefix: bytes, root: Root) -> None:
    txn.put(tables.FILES, prefix + _ROOT, _ENCODER.encode(root))


def roots(txn: Reader | Writer) -> list[tuple[bytes, Root]]:
    """Every synced folder with its prefix; one look-up each, however many files it has."""
    found: list[tuple[bytes, Root]] = []
    start = b""
    while True:
        entry = next(txn.scan(tables.FILES, start), None)
        if entry is None:
            return found
        prefix = entry[0][:_PREFIX_BYTES]
        if entry[0] == prefix + _ROOT:
            found.append((prefix, _decode(entry[1])))
        start = prefix + b"\xff" * (_PATH_BYTES + 1)


def states(txn: Reader | Writer, prefix: bytes) -> Iterator[FileState]:
    """The files of a folder."""
    start = prefix + _ROOT + b"\0"
    for _, payload in txn.scan(tables.FILES, start, prefix + b"\xff" * (_PATH_BYTES + 1)):
        yield FileState.decode(payload)


def state_at(txn: Reader | Writer, prefix: bytes, path: str) -> FileState | None:
    payload = txn.get(tables.FILES, file_key(txn, prefix, path))
    return None if payload is None else FileState.decode(payload)


def put_state(txn: Writer, prefix: bytes, state: FileState) -> None:
    txn.put(tables.FILES, file_key(txn, prefix, state.path), state.encode())


def drop_state(txn: Writer, prefix: bytes, path: str) -> None:
    txn.delete(tables.FILES, file_key(txn, prefix, path))


def holding(txn: Reader | Writer, memory: Memory) -> tuple[bytes, FileState] | None:
    """The folder's prefix and the row of the file that a chunk belongs to."""
    path = memory.metadata.get("path")
    if memory.kind != "chunk" or not isinstance(path, str):
        return None
    for prefix, root in roots(txn):
        if root.namespace == memory.namespace:
            state = state_at(txn, prefix, path)
            if state is not None and any(chunk.id == memory.id for chunk in state.chunks):
                return prefix, state
    return None


def strike(txn: Writer, memory: Memory) -> bytes | None:
    """Take an erased chunk out of its file's row; returns its digest. None if none lists it.

    A file that has no chunk left has no row left: its path may be what was erased.
    """
    found = holding(txn, memory)
    if found is None:
        return None
    prefix, state = found
    kept = tuple(chunk for chunk in state.chunks if chunk.id != memory.id)
    if kept:
        put_state(txn, prefix, msgspec.structs.replace(state, chunks=kept))
    else:
        drop_state(txn, prefix, state.path)
    return next(chunk.digest for chunk in state.chunks if chunk.id == memory.id)


def _decode(payload: bytes) -> Root:
    try:
        return _DECODER.decode(payload)
    except (msgspec.DecodeError, ValueError) as error:
        raise StoreCorrupt("a row of the file ledger does not decode", path="kv") from error
