"""Small entries of one size, hundreds to a value: what leads to rows, where room is dear.

An id, a caller's own id or a place in a stream costs some forty bytes as an LMDB entry of its own,
of which four tell something. A copy of the store (``packing``) may put the entries of tables
``ids``, ``external`` and ``streams`` into blocks of table ``dense``; what is written later stands
in the tables themselves, before which the blocks' entries count for nothing. Whoever reads these
tables does it through this file.

Grammar::

    key    := table u8 | the block's first key
    value  := version u8 = 1 | zstd frame of msgpack [n, [integers ...], rest of the keys, values]

A key of ``ids`` and ``streams`` (16 bytes) is two columns of big-endian 64-bit numbers; one of
``external``, a keyed hash, is cut to its first nine bytes, one column and a byte: two of a million
have those alike once in 10^10 stores. ``values`` are a column of rows, or ids in a row. Integers
are as in ``columns``. Entries ascend by key.

This file knows keys and values of fixed sizes; it does not know what they lead to.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from heapq import merge
from operator import itemgetter
from typing import Any, Final, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from memdb.errors import StoreCorrupt
from memdb.storage import cutting, tables
from memdb.storage.columns import compress, decode_ints, decompress, encode_ints
from memdb.storage.environment import ReadTxn, WriteTxn

Pair = tuple[bytes, bytes]

_VERSION = b"\1"
_LEVEL = 9
_MOST: Final = 1_024  # entries of a block
_BODY = msgspec.msgpack.Decoder()


class _Kind(NamedTuple):
    code: int
    key_bytes: int
    """What is kept of a key."""
    value_bytes: int


KINDS: Final = {
    tables.IDS: _Kind(1, 16, 4),
    tables.EXTERNAL: _Kind(2, 9, 16),
    tables.STREAMS: _Kind(3, 16, 4),
}


# --- blocks ---------------------------------------------------------------------------------


def encode(kind: _Kind, pairs: Sequence[Pair]) -> bytes:
    """The payload of a block of entries, ascending by key."""
    octets = np.frombuffer(b"".join([key for key, _ in pairs]), np.uint8)
    values = b"".join([value for _, value in pairs])
    return _encode(kind, octets.reshape(len(pairs), kind.key_bytes), values)


def _encode(kind: _Kind, matrix: NDArray[np.uint8], values: bytes) -> bytes:
    """The same of keys (n, bytes of a key) and their values in a row."""
    whole = kind.key_bytes // 8
    columns = [_column(matrix[:, 8 * i : 8 * i + 8]) for i in range(whole)]
    if kind.value_bytes == 4:
        columns.append(encode_ints(np.frombuffer(values, "<u4").astype(np.int64)))
        values = b""
    rest = matrix[:, 8 * whole :].tobytes()
    body = msgspec.msgpack.encode([len(matrix), columns, rest, values])
    return _VERSION + compress(body, _LEVEL)


def _column(octets: NDArray[np.uint8]) -> list[Any]:
    return encode_ints(np.ascontiguousarray(octets).view(">u8").ravel().astype("u8").view("i8"))


class Block(NamedTuple):
    """Entry i has the key and value at i times their sizes."""

    keys: bytes
    values: bytes
    size: int

    def place(self, key: bytes) -> int:
        """Of the first entry whose key is ``key`` or more."""
        step, low, high = len(key), 0, self.size
        while low < high:
            middle = (low + high) // 2
            if self.keys[middle * step : middle * step + step] < key:
                low = middle + 1
            else:
                high = middle
        return low


@lru_cache(64)
def _decode(code: int, payload: bytes) -> Block:
    kind = next(one for one in KINDS.values() if one.code == code)
    try:
        if payload[:1] != _VERSION:
            raise StoreCorrupt("a dense block has an unknown version", path="kv")
        count, columns, rest, values = _BODY.decode(decompress(memoryview(payload)[1:]))
        whole = kind.key_bytes // 8
        matrix = np.empty((count, kind.key_bytes), np.uint8)
        for i in range(whole):
            numbers = decode_ints(columns[i], count).astype(">i8")
            matrix[:, 8 * i : 8 * i + 8] = numbers.view(np.uint8).reshape(count, 8)
        left = kind.key_bytes - 8 * whole
        if left:
            matrix[:, 8 * whole :] = np.frombuffer(rest, np.uint8).reshape(count, left)
        if kind.value_bytes == 4:
            values = decode_ints(columns[whole], count).astype("<u4").tobytes()
    except (ValueError, LookupError, TypeError, OverflowError) as error:
        raise StoreCorrupt("a dense block does not decode", path="kv") from error
    if len(values) != count * kind.value_bytes:
        raise StoreCorrupt("a dense block has another length than its entries", path="kv")
    return Block(matrix.tobytes(), values, count)


def pairs_of(kind: _Kind, block: Block) -> list[Pair]:
    k, v = kind.key_bytes, kind.value_bytes
    return [
        (block.keys[k * i : k * i + k], block.values[v * i : v * i + v]) for i in range(block.size)
    ]


def blocks(kind: _Kind, pairs: Sequence[Pair]) -> Iterator[Pair]:
    """(key, payload) of blocks that hold entries ascending by key, each as full as it gets."""

    def piece(start: int, stop: int) -> bytes:
        return encode(kind, pairs[start:stop])

    for start, _, payload in cutting.cut(len(pairs), _MOST, piece):
        yield bytes((kind.code,)) + pairs[start][0], payload


# --- reading --------------------------------------------------------------------------------


def _dense(txn: ReadTxn, table: str) -> _Kind | None:
    """How the table's entries are kept in blocks, if any are."""
    if not txn.has(tables.DENSE):
        return None
    kind = KINDS[table]
    return kind if txn.first_key(tables.DENSE, *_bounds(kind)) is not None else None


def _bounds(kind: _Kind) -> tuple[bytes, bytes]:
    return bytes((kind.code,)), bytes((kind.code + 1,))


def _block_of(txn: ReadTxn, kind: _Kind, key: bytes) -> tuple[bytes, Block] | None:
    """The block that would hold a key."""
    found = txn.floor(tables.DENSE, bytes((kind.code,)) + key)
    if found is None or found[0][0] != kind.code:
        return None
    return found[0], _decode(kind.code, found[1])


def _find(txn: ReadTxn, kind: _Kind, key: bytes) -> bytes | None:
    found = _block_of(txn, kind, key[: kind.key_bytes])
    if found is None:
        return None
    return _value_in(found[1], kind, key[: kind.key_bytes])


def _value_in(block: Block, kind: _Kind, key: bytes) -> bytes | None:
    at = block.place(key)
    k, v = kind.key_bytes, kind.value_bytes
    if at == block.size or block.keys[k * at : k * at + k] != key:
        return None
    return block.values[v * at : v * at + v]


def get(txn: ReadTxn, table: str, key: bytes) -> bytes | None:
    payload = txn.get(table, key)
    if payload is None and txn.has(tables.DENSE):
        payload = _find(txn, KINDS[table], key)
    return payload


def get_many(txn: ReadTxn, table: str, keys: Sequence[bytes]) -> dict[bytes, bytes]:
    found = txn.get_many(table, keys)
    if len(found) == len(keys):
        return found
    kind = _dense(txn, table)
    if kind is not None:
        for key in keys:
            if key not in found:
                payload = _find(txn, kind, key)
                if payload is not None:
                    found[key] = payload
    return found


def scan(
    txn: ReadTxn,
    table: str,
    start: bytes = b"",
    stop: bytes | None = None,
    *,
    reverse: bool = False,
) -> Iterator[Pair]:
    """(key, payload) for start <= key < stop, in key order or reversed; keys in blocks as kept."""
    plain = txn.scan(table, start, stop, reverse=reverse)
    kind = _dense(txn, table)
    if kind is None:
        yield from plain
        return
    last: bytes | None = None
    packed = _scan_blocks(txn, kind, start, stop, reverse=reverse)
    both = merge(
        ((key[: kind.key_bytes], 0, key, payload) for key, payload in plain),
        ((key, 1, key, payload) for key, payload in packed),
        key=_reversed if reverse else itemgetter(0, 1),
    )
    for cut, _, key, payload in both:
        if cut != last:
            yield key, payload
        last = cut


def _reversed(entry: tuple[bytes, int, bytes, bytes]) -> tuple[int, int]:
    return -int.from_bytes(entry[0], "big"), entry[1]


def _scan_blocks(
    txn: ReadTxn, kind: _Kind, start: bytes, stop: bytes | None, *, reverse: bool
) -> Iterator[Pair]:
    code = bytes((kind.code,))
    first = txn.floor(tables.DENSE, code + start[: kind.key_bytes])
    begin = first[0] if first is not None and first[0][0] == kind.code else code
    end = bytes((kind.code + 1,)) if stop is None else code + stop
    for _, payload in txn.scan(tables.DENSE, begin, end, reverse=reverse):
        pairs = pairs_of(kind, _decode(kind.code, payload))
        for key, value in reversed(pairs) if reverse else pairs:
            if key >= start and (stop is None or key < stop):
                yield key, value


def floor(txn: ReadTxn, table: str, key: bytes) -> Pair | None:
    """The entry with the greatest key <= ``key``, or None; not for keys that are cut."""
    plain = txn.floor(table, key)
    kind = _dense(txn, table)
    found = _block_of(txn, kind, key) if kind is not None else None
    if kind is None or found is None:
        return plain
    block = found[1]
    at = block.place(key)
    k, v = kind.key_bytes, kind.value_bytes
    if at == block.size or block.keys[k * at : k * at + k] != key:
        at -= 1  # never below 0: the block begins with a key that is not beyond
    packed = block.keys[k * at : k * at + k], block.values[v * at : v * at + v]
    return plain if plain is not None and plain[0] >= packed[0] else packed


# --- writing --------------------------------------------------------------------------------


def delete(txn: WriteTxn, table: str, key: bytes) -> bool:
    """Whether there was an entry to delete, in the table or in a block, which is written anew."""
    return bool(delete_many(txn, table, [key]))


def delete_many(txn: WriteTxn, table: str, keys: Sequence[bytes]) -> int:
    """How many of ``keys`` there was an entry for, in the table or in a block. Each block that held
    some of them is written anew once, so keys that lie close by are given together."""
    gone = {key for key in keys if txn.delete(table, key)}
    kind = _dense(txn, table)
    if kind is None:
        return len(gone)
    whole = {key[: kind.key_bytes]: key for key in keys}
    left = sorted(whole)
    while left:
        found = _block_of(txn, kind, left[0])
        if found is None:  # before the first block
            del left[0]
            continue
        block = found[1]
        last = block.keys[-kind.key_bytes :]
        here = left[: max(1, bisect_right(left, last))]
        del left[: len(here)]
        inside = _places(block, kind, here)
        if inside:
            gone.update(whole[key] for key in inside)
            _put_without(txn, kind, found, list(inside.values()))
    return len(gone)


def _places(block: Block, kind: _Kind, keys: Sequence[bytes]) -> dict[bytes, int]:
    """Where those of ``keys`` stand that the block holds."""
    size, found = kind.key_bytes, {}
    for key in keys:
        at = block.place(key)
        if at < block.size and block.keys[size * at : size * at + size] == key:
            found[key] = at
    return found


def _put_without(
    txn: WriteTxn, kind: _Kind, stored: tuple[bytes, Block], places: Sequence[int]
) -> None:
    """Write a block anew under the first key that is left of it."""
    key, block = stored
    kept = np.ones(block.size, np.bool_)
    kept[places] = False
    matrix = np.frombuffer(block.keys, np.uint8).reshape(block.size, kind.key_bytes)[kept]
    values = np.frombuffer(block.values, np.uint8).reshape(block.size, kind.value_bytes)[kept]
    txn.delete(tables.DENSE, key)
    if len(matrix):
        first = bytes((kind.code,)) + matrix[0].tobytes()
        txn.put(tables.DENSE, first, _encode(kind, matrix, values.tobytes()))


def everything(txn: ReadTxn) -> Iterator[Pair]:
    """The blocks, key and payload, of all that is in tables and blocks now, in key order."""
    for table, kind in KINDS.items():
        entries = scan(txn, table)
        yield from blocks(kind, [(key[: kind.key_bytes], payload) for key, payload in entries])


def decoded(key: bytes, payload: bytes) -> Iterable[Pair]:
    """The entries of a block of table ``dense``: for whoever looks for residues."""
    kind = next((one for one in KINDS.values() if one.code == key[0]), None)
    return () if kind is None else pairs_of(kind, _decode(kind.code, payload))
