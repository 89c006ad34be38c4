"""Ways to a row that are not filters: public id, versions, the caller's own id, a profile
fact's timeline, a stream's order.

Each is a small B-tree beside the records, or blocks that stand for one (``dense``). User text
enters keys only as a keyed hash; what a hash stands for is checked against the record by the caller
where a collision could matter (64-bit stream hashes) and is out of reach where it could not (128
bits; 72 in blocks).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence

from pyroaring import BitMap

from memdb.storage import dense, tables
from memdb.storage.environment import ReadTxn, WriteTxn

_ROW = struct.Struct("<I")
_BIAS = 1 << 63


# --- public ids ---------------------------------------------------------------------------


def row_of(txn: ReadTxn, raw_id: bytes) -> int | None:
    """The row of the current version of a memory."""
    payload = dense.get(txn, tables.IDS, raw_id)
    return None if payload is None else int(_ROW.unpack(payload)[0])


def rows_of(txn: ReadTxn, raw_ids: list[bytes]) -> dict[bytes, int]:
    found = dense.get_many(txn, tables.IDS, raw_ids)
    return {key: int(_ROW.unpack(payload)[0]) for key, payload in found.items()}


def set_row(txn: WriteTxn, raw_id: bytes, row: int) -> None:
    txn.put(tables.IDS, raw_id, _ROW.pack(row))


def set_rows(txn: WriteTxn, pairs: list[tuple[bytes, int]]) -> None:
    txn.put_rising(tables.IDS, [(raw_id, _ROW.pack(row)) for raw_id, row in sorted(pairs)])


def all_ids(txn: ReadTxn) -> Iterator[tuple[bytes, int]]:
    """(raw id, row of its current version) of every memory, ascending by id."""
    for raw_id, payload in dense.scan(txn, tables.IDS):
        yield raw_id, int(_ROW.unpack(payload)[0])


def forget_ids(txn: WriteTxn, raw_ids: Sequence[bytes]) -> None:
    dense.delete_many(txn, tables.IDS, raw_ids)


def add_version(txn: WriteTxn, raw_id: bytes, version: int, row: int) -> None:
    """Where an earlier version of a memory is kept."""
    txn.put(tables.VERSIONS, raw_id + version.to_bytes(4, "big"), _ROW.pack(row))


def versions(txn: ReadTxn, raw_id: bytes) -> list[int]:
    """Rows of the earlier versions, oldest first; the current one is not among them."""
    stop = raw_id + b"\xff" * 5
    return [int(_ROW.unpack(p)[0]) for _, p in txn.scan(tables.VERSIONS, raw_id, stop)]


def forget_version(txn: WriteTxn, raw_id: bytes, version: int, row: int) -> None:
    """Forget where an earlier version is, if that row holds it."""
    key = raw_id + version.to_bytes(4, "big")
    if txn.get(tables.VERSIONS, key) == _ROW.pack(row):
        txn.delete(tables.VERSIONS, key)


def version_row(txn: ReadTxn, raw_id: bytes, version: int) -> int | None:
    """The row of one earlier version."""
    payload = txn.get(tables.VERSIONS, raw_id + version.to_bytes(4, "big"))
    return None if payload is None else int(_ROW.unpack(payload)[0])


# --- the caller's own id, and exact duplicates ----------------------------------------------


def external_key(txn: ReadTxn, namespace: str, external_id: str) -> bytes:
    return txn.digest_of_parts(b"e", (namespace, external_id), 16)


def content_key(txn: ReadTxn, content: bytes) -> bytes:
    """The key under which the first memory with exactly this content is found."""
    return txn.digest(b"c" + content, 16)


def id_under(txn: ReadTxn, key: bytes) -> bytes | None:
    """The raw id stored under an external or content key."""
    return dense.get(txn, tables.EXTERNAL, key)


def ids_under(txn: ReadTxn, keys: Sequence[bytes]) -> dict[bytes, bytes]:
    """The raw ids under those keys that lead to one."""
    return dense.get_many(txn, tables.EXTERNAL, keys)


def put_under(txn: WriteTxn, key: bytes, raw_id: bytes) -> None:
    txn.put(tables.EXTERNAL, key, raw_id)


def put_many_under(txn: WriteTxn, pairs: list[tuple[bytes, bytes]]) -> None:
    txn.put_many(tables.EXTERNAL, sorted(pairs))


def drop_under(txn: WriteTxn, key: bytes, raw_id: bytes) -> None:
    """Forget the key if it still names this memory."""
    if dense.get(txn, tables.EXTERNAL, key) == raw_id:
        dense.delete(txn, tables.EXTERNAL, key)


def keys_naming(txn: ReadTxn, raw_ids: set[bytes]) -> list[bytes]:
    """Every external and content key under which one of these ids is found.

    Reads the whole table: what a content key was made of need not be what is stored. A key from a
    block is its first bytes alone, which is enough for ``drop_keys``.
    """
    return [key for key, raw_id in dense.scan(txn, tables.EXTERNAL) if raw_id in raw_ids]


def dangling_keys(txn: ReadTxn) -> int:
    """How many keys lead to an id that leads to no row."""
    return sum(row_of(txn, raw_id) is None for _, raw_id in dense.scan(txn, tables.EXTERNAL))


def drop_keys(txn: WriteTxn, keys: list[bytes], raw_ids: set[bytes]) -> None:
    """Forget keys that still name one of these ids."""
    found = dense.get_many(txn, tables.EXTERNAL, keys)
    named = [key for key, raw_id in found.items() if raw_id in raw_ids]
    dense.delete_many(txn, tables.EXTERNAL, named)


# --- profile timelines ----------------------------------------------------------------------


def profile_key(txn: ReadTxn, namespace: str, subject: str, key: str) -> bytes:
    return txn.digest_of_parts(b"", (namespace, subject, key), 16)


def timeline(txn: ReadTxn, key: bytes) -> list[int]:
    """Rows of a fact's values in order of ``valid_from``; the last is the newest."""
    payload = txn.get(tables.PROFILE, key)
    if payload is None:
        return []
    if len(payload) == _ROW.size:  # most facts have had one value
        return list(_ROW.unpack(payload))
    return list(struct.unpack(f"<{len(payload) // 4}I", payload))


def set_timeline(txn: WriteTxn, key: bytes, rows: list[int]) -> None:
    if rows:
        txn.put(tables.PROFILE, key, struct.pack(f"<{len(rows)}I", *rows))
    else:
        txn.delete(tables.PROFILE, key)


# --- streams --------------------------------------------------------------------------------


def stream_prefix(txn: ReadTxn, namespace: str, stream: str) -> bytes:
    return txn.digest_of_parts(b"", (namespace, stream), 8)


def _stream_key(prefix: bytes, position: int) -> bytes:
    return prefix + (position + _BIAS).to_bytes(8, "big")


def last_position(txn: ReadTxn, prefix: bytes) -> int | None:
    """The greatest position of a stream, or None when it is empty."""
    entry = dense.floor(txn, tables.STREAMS, prefix + b"\xff" * 8)
    if entry is None or not entry[0].startswith(prefix):
        return None
    return int.from_bytes(entry[0][8:], "big") - _BIAS


def set_position(txn: WriteTxn, prefix: bytes, position: int, row: int) -> None:
    txn.put(tables.STREAMS, _stream_key(prefix, position), _ROW.pack(row))


def set_positions(txn: WriteTxn, places: list[tuple[bytes, int, int]]) -> None:
    """Many of (prefix, position, row); of equal places the last given stands."""
    entries = {_stream_key(prefix, position): row for prefix, position, row in places}
    txn.put_many(tables.STREAMS, [(key, _ROW.pack(entries[key])) for key in sorted(entries)])


def clear_position(txn: WriteTxn, prefix: bytes, position: int, row: int) -> None:
    """Vacate a place in a stream if this row holds it."""
    clear_positions(txn, [(prefix, position, row)])


def clear_positions(txn: WriteTxn, places: Sequence[tuple[bytes, int, int]]) -> None:
    """The same of many (prefix, position, row)."""
    rows: dict[bytes, set[bytes]] = {}
    for prefix, position, row in places:
        rows.setdefault(_stream_key(prefix, position), set()).add(_ROW.pack(row))
    found = dense.get_many(txn, tables.STREAMS, sorted(rows))
    held = [key for key, payload in found.items() if payload in rows[key]]
    dense.delete_many(txn, tables.STREAMS, held)


def row_at(txn: ReadTxn, prefix: bytes, position: int) -> int | None:
    payload = dense.get(txn, tables.STREAMS, _stream_key(prefix, position))
    return None if payload is None else int(_ROW.unpack(payload)[0])


def beside(txn: ReadTxn, places: Sequence[tuple[bytes, int]]) -> list[tuple[int, ...]]:
    """For each (prefix, position), the rows one position before and one after, where there are."""
    keys = [
        (_stream_key(prefix, position - 1), _stream_key(prefix, position + 1))
        for prefix, position in places
    ]
    found = dense.get_many(txn, tables.STREAMS, sorted({key for pair in keys for key in pair}))
    rows = {key: int(_ROW.unpack(payload)[0]) for key, payload in found.items()}
    return [tuple(rows[key] for key in pair if key in rows) for pair in keys]


def neighbours(
    txn: ReadTxn, prefix: bytes, position: int, among: BitMap | None = None
) -> Iterator[int]:
    """Rows just before and just after a position of a stream; of those ``among`` a set, if given,
    as if there were no others."""
    here = _stream_key(prefix, position)
    before = dense.scan(txn, tables.STREAMS, prefix, here, reverse=True)
    after = dense.scan(txn, tables.STREAMS, _stream_key(prefix, position + 1), prefix + b"\xff" * 9)
    for side in (before, after):
        for _, payload in side:
            row = int(_ROW.unpack(payload)[0])
            if among is None or row in among:
                yield row
                break
