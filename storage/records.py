"""Records by row, and the ways to a row: id, external id, profile key, stream position.

A value of ``records`` begins with one of

    0xdc        hot: the msgpack array of ``Memory`` (0xdc is msgpack's own array header)
    0xc1 0x01   cold: block u32, index u8; the record is in table ``cold``
    0xc1 0x02   blob: content hash 32 bytes, then the msgpack array with an empty text

0xc1 is the one byte msgpack never uses, so hot records carry no flag of their own. A row without a
value there may have its record in a *group* of table ``cold``, that of its number without the last
eight bits (``packing`` moves records there). A record written since counts, and not what the group
has. Callers see ``Memory`` and row ids only. It does not know filters, postings or vectors.
"""

from __future__ import annotations

import operator
import struct
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import TYPE_CHECKING

import msgspec
import numpy as np
from pyroaring import BitMap

from memdb.errors import StoreCorrupt
from memdb.storage import cold, tables
from memdb.storage.environment import ReadTxn, WriteTxn
from memdb.types import Memory

if TYPE_CHECKING:  # which imports the store, which imports what packs records
    from memdb.storage.blobs import BlobStore

_ESCAPE = 0xC1
_COLD = struct.Struct(">BBIB")
_BLOB_HEAD = 2 + 32
_BLOCK_BITS = 6
_ENCODER = msgspec.msgpack.Encoder()
_DECODER = msgspec.msgpack.Decoder(Memory)
_MANY_DECODER = msgspec.msgpack.Decoder(list[Memory])
_ARRAY_32 = b"\xdd"
_AT_ONCE = 128
_TOGETHER = 8  # records that are decoded faster as one array
GROUPS = 1 << 31  # what the keys of groups have in table ``cold`` that blocks' keys have not


def row_key(row: int) -> bytes:
    return row.to_bytes(4, "big")


def group_key(row: int) -> bytes:
    """Where table ``cold`` has the group of a row."""
    return (GROUPS | row >> cold.GROUP_BITS).to_bytes(4, "big")


def group_rows(key: bytes, payload: bytes) -> BitMap:
    """The rows that a group holds."""
    first = (int.from_bytes(key, "big") - GROUPS) << cold.GROUP_BITS
    return BitMap([first + index for index in cold.held(payload)])


def block_of(payload: bytes) -> int | None:
    """The block that a value of table ``records`` points at, if it does."""
    if payload[0] != _ESCAPE or payload[1] != 1:
        return None
    return int(_COLD.unpack(payload)[2])


def groups(txn: ReadTxn) -> Iterator[tuple[bytes, bytes]]:
    """(key, payload) of every group."""
    return txn.scan(tables.COLD, GROUPS.to_bytes(4, "big"))


def shared_bits(txn: ReadTxn, row: int) -> int:
    """How many last bits of a row do not matter for where its record lies, if it is cold: those of
    a block, or of a group."""
    in_block = txn.exists(tables.COLD, (row >> _BLOCK_BITS).to_bytes(4, "big"))
    return _BLOCK_BITS if in_block else cold.GROUP_BITS


def encode(memory: Memory) -> bytes:
    """The hot form of a record."""
    return _ENCODER.encode(memory)


def _decode_joined(count: int, joined: bytes) -> list[Memory]:
    """``count`` hot records in a row: an array of them, once its header stands before."""
    try:
        return _MANY_DECODER.decode(_ARRAY_32 + count.to_bytes(4, "big") + joined)
    except (msgspec.DecodeError, ValueError) as error:
        raise StoreCorrupt("a record does not decode", path="kv") from error


def _joined(txn: ReadTxn, rows: Sequence[int]) -> tuple[bytes, bytes, bytes]:
    """The keys, payloads and first bytes of records: of ``rows``, or of all between their ends
    where those are few more."""
    low, high = min(rows), max(rows)
    if high - low < len(rows) + len(rows) // 4:
        return txn.joined_between(tables.RECORDS, row_key(low), row_key(high) + b"\0")
    return txn.joined_many(tables.RECORDS, [row_key(row) for row in rows])


def decode(payload: bytes) -> Memory:
    try:
        return _DECODER.decode(payload)
    except (msgspec.DecodeError, ValueError) as error:
        raise StoreCorrupt("a record does not decode", path="kv") from error


class Records:
    """Reads and writes records; needs the blob store for texts too large for a value."""

    def __init__(self, blobs: BlobStore) -> None:
        self._blobs = blobs

    # --- by row -------------------------------------------------------------------------

    def get(self, txn: ReadTxn, row: int) -> Memory | None:
        payload = txn.get(tables.RECORDS, row.to_bytes(4, "big"))
        if payload is None:
            return self._from_groups(txn, [row]).get(row)
        return decode(payload) if payload[0] != _ESCAPE else self._open(txn, payload)

    def get_many(self, txn: ReadTxn, rows: Sequence[int]) -> dict[int, Memory]:
        """Those of ``rows`` that exist."""
        if len(rows) >= _TOGETHER:
            keys, joined, firsts = _joined(txn, rows)
            if _ESCAPE not in firsts:
                numbers = np.frombuffer(keys, ">u4").tolist()
                known = dict(zip(numbers, _decode_joined(len(numbers), joined), strict=True))
                if len(rows) == len(known) == max(rows) - min(rows) + 1:
                    return known
                there = {row: known[row] for row in rows if row in known}
                return there if len(there) == len(rows) else self._with_groups(txn, rows, there)
        found = txn.get_many(tables.RECORDS, [row_key(row) for row in rows])
        blocks: dict[int, list[Memory | None]] = {}
        memories: dict[int, Memory] = {}
        decode_hot, number = _DECODER.decode, int.from_bytes
        try:
            for key, payload in found.items():
                if payload[0] != _ESCAPE:
                    memories[number(key, "big")] = decode_hot(payload)
                else:
                    memories[number(key, "big")] = self._open(txn, payload, blocks)
        except msgspec.MsgspecError as error:
            raise StoreCorrupt("a record does not decode", path="kv") from error
        return memories if len(memories) == len(rows) else self._with_groups(txn, rows, memories)

    def in_turn(self, txn: ReadTxn, rows: Sequence[int]) -> Iterator[Memory]:
        """The memories of rows that all exist, in the order of ``rows``.

        What is stored is read at once, and decoded as it is taken, some at a time: a thousand
        memories that nobody keeps would only push each other out of the processor's cache. It may
        be taken after ``txn`` has ended. Raises ``StoreCorrupt`` where a row has no record.
        """
        parts: list[tuple[int, bytes] | list[Memory]] = []
        for start in range(0, len(rows), _AT_ONCE):
            some = rows[start : start + _AT_ONCE]
            rising = all(map(operator.lt, some, some[1:]))
            keys, joined, firsts = _joined(txn, some) if rising else (b"", b"", b"")
            those = np.array_equal(np.frombuffer(keys, ">u4"), some)
            if those and _ESCAPE not in firsts:
                parts.append((len(some), joined))
                continue
            found = self.get_many(txn, some)
            if not found.keys() >= set(some):
                raise StoreCorrupt("a row has no record", path="kv")
            parts.append([found[row] for row in some])
        return chain.from_iterable(
            part if isinstance(part, list) else _decode_joined(*part) for part in parts
        )

    def _with_groups(
        self, txn: ReadTxn, rows: Sequence[int], found: dict[int, Memory]
    ) -> dict[int, Memory]:
        """``found`` and the other ``rows`` that lie in groups, in the order of ``rows``."""
        more = self._from_groups(txn, [row for row in rows if row not in found])
        if not more:
            return found
        return {row: found.get(row) or more[row] for row in rows if row in found or row in more}

    @staticmethod
    def _from_groups(txn: ReadTxn, rows: Sequence[int]) -> dict[int, Memory]:
        """Those of ``rows``, which have no value of their own, that lie in groups."""
        members: dict[bytes, list[int]] = {}
        for row in rows:
            members.setdefault(group_key(row), []).append(row)
        found: dict[int, Memory] = {}
        for key, payload in txn.get_many(tables.COLD, sorted(members)).items():
            mine = members[key]
            memories = cold.decode(payload, [row & cold.GROUP_RECORDS - 1 for row in mine])
            found.update(
                (row, memory)
                for row, memory in zip(mine, memories, strict=True)
                if memory is not None
            )
        return found

    @staticmethod
    def stored(txn: ReadTxn) -> BitMap:
        """The rows that have a record, wherever it lies."""
        rows = BitMap([int.from_bytes(key, "big") for key in txn.scan_keys(tables.RECORDS)])
        for key, payload in groups(txn):
            rows |= group_rows(key, payload)
        return rows

    @staticmethod
    def grouped(txn: ReadTxn) -> BitMap:
        """The rows whose record lies in a group, and in no value of its own."""
        rows = BitMap()
        for key, payload in groups(txn):
            rows |= group_rows(key, payload)
        for key in txn.scan_keys(tables.RECORDS) if rows else ():
            rows.discard(int.from_bytes(key, "big"))
        return rows

    @staticmethod
    def cold_rows(txn: ReadTxn, rows: Sequence[int]) -> set[int]:
        """Those of ``rows`` whose record lies in a cold block."""
        found = txn.get_many(tables.RECORDS, [row_key(row) for row in rows])
        cold_mark = bytes((_ESCAPE, 1))
        marked = {int.from_bytes(k, "big") for k, p in found.items() if p[:2] == cold_mark}
        bare = BitMap([row for row in rows if row_key(row) not in found])
        keys = sorted({group_key(row) for row in bare})
        for key, payload in txn.get_many(tables.COLD, keys).items() if keys else ():
            marked.update(group_rows(key, payload) & bare)
        return marked

    def iterate(
        self, txn: ReadTxn, rows: Iterable[int], chunk: int = 512
    ) -> Iterator[tuple[int, Memory]]:
        """(row, memory) in the order of ``rows``."""
        batch: list[int] = []
        for row in rows:
            batch.append(row)
            if len(batch) == chunk:
                yield from self._in_order(txn, batch)
                batch = []
        yield from self._in_order(txn, batch)

    def _in_order(self, txn: ReadTxn, rows: list[int]) -> Iterator[tuple[int, Memory]]:
        found = self.get_many(txn, rows)
        for row in rows:
            if row in found:
                yield row, found[row]

    def _open(
        self, txn: ReadTxn, payload: bytes, blocks: dict[int, list[Memory | None]] | None = None
    ) -> Memory:
        """Decode a record; ``blocks`` keeps the cold blocks opened so far."""
        if payload[0] != _ESCAPE:
            return decode(payload)
        if payload[1] == 1:
            _, _, block, index = _COLD.unpack(payload)
            if blocks is None:
                return _present(self._open_block(txn, block, [index])[0])
            if block not in blocks:
                blocks[block] = self._open_block(txn, block)
            return _present(blocks[block][index])
        text = self._blobs.get(payload[2:_BLOB_HEAD]).decode()
        return decode(payload[_BLOB_HEAD:]).replace(text=text)

    @staticmethod
    def _open_block(
        txn: ReadTxn, block: int, indexes: Sequence[int] | None = None
    ) -> list[Memory | None]:
        payload = txn.get(tables.COLD, block.to_bytes(4, "big"))
        if payload is None:
            raise StoreCorrupt("a cold block is missing", path="kv")
        return cold.decode(payload, indexes)

    # --- writing ------------------------------------------------------------------------

    @staticmethod
    def put(txn: WriteTxn, row: int, memory: Memory, blob: bytes | None = None) -> None:
        """Write a record hot; ``blob`` is the hash under which its text was stored already."""
        if blob is None:
            txn.put(tables.RECORDS, row_key(row), encode(memory))
        else:
            payload = bytes((_ESCAPE, 2)) + blob + encode(memory.replace(text=""))
            txn.put(tables.RECORDS, row_key(row), payload)

    @staticmethod
    def put_many(txn: WriteTxn, records: Iterable[tuple[int, bytes]]) -> None:
        """Write encoded hot records, ascending by row."""
        pairs = [(row.to_bytes(4, "big"), payload) for row, payload in records]
        txn.put_rising(tables.RECORDS, pairs)

    @staticmethod
    def blob_of(txn: ReadTxn, row: int) -> bytes | None:
        """The content hash of the blob that holds a record's text, if one does."""
        payload = txn.get(tables.RECORDS, row_key(row))
        is_blob = payload is not None and payload[0] == _ESCAPE and payload[1] == 2
        return payload[2:_BLOB_HEAD] if payload is not None and is_blob else None

    def outlines(self, txn: ReadTxn, rows: Sequence[int]) -> dict[int, Memory]:
        """As ``get_many``, without texts that are blobs: no file is read."""
        found = txn.get_many(tables.RECORDS, [row_key(row) for row in rows])
        blocks: dict[int, list[Memory | None]] = {}
        memories = {
            int.from_bytes(key, "big"): decode(payload[_BLOB_HEAD:])
            if payload[0] == _ESCAPE and payload[1] == 2
            else self._open(txn, payload, blocks)
            for key, payload in found.items()
        }
        return memories if len(found) == len(rows) else self._with_groups(txn, rows, memories)

    def delete(self, txn: WriteTxn, rows: Iterable[int]) -> None:
        """Remove records' bytes, from their cold blocks too.

        A record that was written again since it was frozen is hot; its earlier bytes in the block
        go as well.
        """
        members: dict[bytes, list[int]] = {}
        for row in rows:
            txn.delete(tables.RECORDS, row_key(row))
            members.setdefault((row >> 6).to_bytes(4, "big"), []).append(row & 63)
            members.setdefault(group_key(row), []).append(row & cold.GROUP_RECORDS - 1)
        for key, indexes in members.items():
            packed = txn.get(tables.COLD, key)
            if packed is None:
                continue
            held = cold.held(packed)
            gone = [index for index in indexes if index in held]
            if len(gone) == len(held):
                txn.delete(tables.COLD, key)
            elif gone:
                txn.put(tables.COLD, key, cold.without(packed, gone))

    def freeze(self, txn: WriteTxn, rows: Sequence[int]) -> int:
        """Move up to 64 hot records of one aligned group of rows into a cold block.

        Records already cold, with a blob, or absent are left alone. Returns how many moved. The
        block's number is the group's, so the group is frozen at most once; a later rewrite of
        one record makes that one hot again.
        """
        if not rows:
            return 0
        block = rows[0] >> 6
        if any(row >> 6 != block for row in rows):
            raise ValueError("rows of one aligned group of 64 are frozen together")
        key = block.to_bytes(4, "big")
        if txn.exists(tables.COLD, key):
            return 0
        found = txn.get_many(tables.RECORDS, [row_key(row) for row in rows])
        members: list[bytes | None] = [None] * 64
        moved = []
        for row_bytes, payload in found.items():
            if payload[0] != _ESCAPE:
                row = int.from_bytes(row_bytes, "big")
                members[row & 63] = payload
                moved.append(row)
        if not moved:
            return 0
        txn.put(tables.COLD, key, cold.encode(members))
        for row in moved:
            txn.put(tables.RECORDS, row_key(row), _COLD.pack(_ESCAPE, 1, block, row & 63))
        return len(moved)


def _present(memory: Memory | None) -> Memory:
    if memory is None:
        raise StoreCorrupt("a cold block lacks a record that points at it", path="kv")
    return memory
