"""What a copy of the store writes otherwise than it finds it, so that the copy is small.

A store is written for fast writes: an entry a record, an entry each way to it, a forward row beside
its postings. Where room is dear (a budget, records that are cold for the most part) the next copy
(``copying``) takes from here what some tables hold instead:

* ``records`` and ``cold``: blocks of 64 cold records become groups of 256; the values that pointed
  at blocks go (``records``, ``cold``);
* ``ids``, ``external``, ``streams``: their entries become blocks of table ``dense`` (``dense``);
* ``numbers``, ``times``: columns of differences (``filters/packed_blocks``);
* ``postings``, ``forward`` and what ``meta`` says of segments: packed segments, no forward rows of
  what is filed (``postings/packed``).

What is written after it is written as always, and joins the rest in the next such copy. Nothing is
lost, and no answer changes. This file decides what is worth it and gives (key, payload) in key
order; it writes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from memdb.storage import cold, dense, postings, records, tables
from memdb.storage.environment import ReadTxn
from memdb.storage.filters import packed_blocks
from memdb.storage.postings import manifest
from memdb.storage.records import GROUPS

Pair = tuple[bytes, bytes]

_BLOCK_BITS: Final = 6
_GROUP_BYTES: Final = 32 << 10
"""Compressed bytes from which blocks stay as they are: long texts find enough in themselves, and a
group of them would take long to write, and to read for one of them."""
_WORTH: Final = 8
"""Entries join the blocks of table ``dense`` once they are an eighth as many as cold records."""


def is_worth(txn: ReadTxn) -> bool:
    """Whether most records are cold: then room was asked for, or they are old."""
    whole = txn.count(tables.RECORDS)
    blocks = sum(1 for _ in txn.scan_keys(tables.COLD, stop=GROUPS.to_bytes(4, "big")))
    in_groups = sum(len(records.group_rows(*one)) for one in records.groups(txn))
    # Records of blocks have a value too, which points at them.
    return in_groups + (blocks << _BLOCK_BITS) > (whole + in_groups) // 2


def is_due(txn: ReadTxn) -> bool:
    """Whether a copy that packs would make anything smaller than it is."""
    return is_worth(txn) and (_dense_is_worth(txn) or bool(_joining(txn)) or postings.is_due(txn))


def holds_removed(txn: ReadTxn) -> bool:
    """Whether a copy has to take things from here for nothing to be left of what was removed."""
    return postings.has_gone(txn)


def replaced(txn: ReadTxn, *, whole: bool = True) -> dict[str, Iterable[Pair]]:
    """For each table that the copy fills otherwise: (key, payload) in key order.

    Without ``whole`` only what holds something that was removed: the rest takes as long again.
    """
    found: dict[str, Iterable[Pair]] = {}
    if whole:
        joining = _joining(txn)
        found[tables.COLD] = _cold(txn, joining)
        found[tables.RECORDS] = _records(
            txn, {block for some in joining.values() for block in some}
        )
    if whole and _dense_is_worth(txn):
        found[tables.DENSE] = dense.everything(txn)
        found.update((table, ()) for table in dense.KINDS)
    if whole:
        for table in (tables.NUMBERS, tables.TIMES):
            found[table] = packed_blocks.packed(txn.scan(table))
    packed = postings.repack(txn)
    if packed is not None:
        found[tables.POSTINGS] = packed.postings
        found[tables.FORWARD] = packed.forwards
        found[tables.META] = _meta(txn, packed.meta)
    return found


def _dense_is_worth(txn: ReadTxn) -> bool:
    loose = sum(txn.count(table) for table in dense.KINDS)
    held = sum(len(records.group_rows(*one)) for one in records.groups(txn))
    return loose > 0 and loose * _WORTH >= held


def _meta(txn: ReadTxn, own: list[Pair]) -> Iterator[Pair]:
    others = [pair for pair in txn.scan(tables.META) if not manifest.is_own(pair[0])]
    yield from sorted([*others, *own])


# --- records --------------------------------------------------------------------------------


def _joining(txn: ReadTxn) -> dict[bytes, list[int]]:
    """The blocks of 64 that go into each group, by its key."""
    sizes: dict[bytes, int] = {}
    blocks: dict[bytes, list[int]] = {}
    for key, payload in txn.scan(tables.COLD):
        number = int.from_bytes(key, "big")
        if number < GROUPS:
            group = (GROUPS | number >> cold.GROUP_BITS - _BLOCK_BITS).to_bytes(4, "big")
            blocks.setdefault(group, []).append(number)
        else:
            group = key
        sizes[group] = sizes.get(group, 0) + len(payload)
    return {group: some for group, some in blocks.items() if sizes[group] <= _GROUP_BYTES}


def _records(txn: ReadTxn, joining: set[int]) -> Iterator[Pair]:
    """All but those that point at a block which goes into a group."""
    for key, payload in txn.scan(tables.RECORDS):
        block = records.block_of(payload)
        if block is None or block not in joining:
            yield key, payload


def _cold(txn: ReadTxn, joining: dict[bytes, list[int]]) -> Iterator[Pair]:
    """The blocks that stay, then the groups, each with what its blocks of 64 hold."""
    gone = {block for some in joining.values() for block in some}
    for key, payload in txn.scan(tables.COLD, stop=GROUPS.to_bytes(4, "big")):
        if int.from_bytes(key, "big") not in gone:
            yield key, payload
    known = set(txn.scan_keys(tables.COLD, GROUPS.to_bytes(4, "big")))
    for group in sorted(known | joining.keys()):
        held = txn.get(tables.COLD, group)
        mine = joining.get(group, [])
        if held is not None and not mine and not cold.is_hasty(held):
            yield group, held
            continue
        members = _members(txn, group, held, mine)
        if any(member is not None for member in members):
            yield group, cold.encode_group(members)


def _members(
    txn: ReadTxn, group: bytes, payload: bytes | None, blocks: list[int]
) -> list[bytes | None]:
    members: list[bytes | None] = [None] * cold.GROUP_RECORDS
    first = (int.from_bytes(group, "big") - GROUPS) << cold.GROUP_BITS
    if payload is not None:
        members = cold.decode_raw(payload)
    for block in blocks:
        found = txn.get(tables.COLD, block.to_bytes(4, "big"))
        start = (block << _BLOCK_BITS) - first
        for index, record in enumerate(cold.decode_raw(found) if found is not None else []):
            if record is not None:
                members[start + index] = record
    start_key, stop_key = records.row_key(first), records.row_key(first + len(members) - 1)
    for key, value in txn.scan(tables.RECORDS, start_key, stop_key + b"\0"):
        if (
            records.block_of(value) not in blocks
        ):  # written since it was frozen: what was frozen is stale
            members[int.from_bytes(key, "big") - first] = None
    return members
