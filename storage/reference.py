"""The twins of the native code of storage: slow, plain, and what it is tested against.

What they read and write is documented where it is used: the envelope of values in ``values``, sets
of rows in ``filters/bitmaps``, entries in ``filters/ordered``, texts in ``filters/strings``.
``kernels`` chooses between these and ``_native``. This file knows bytes and cursors, not tables.
"""

from __future__ import annotations

import struct
import sys
from array import array
from bisect import bisect_left, bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from hashlib import blake2b
from itertools import groupby, pairwise
from operator import itemgetter
from typing import Any, Final

import numpy as np
from google_crc32c import value as crc32c
from numpy.typing import NDArray
from pyroaring import BitMap

from memdb.errors import StoreCorrupt
from memdb.storage.reference_samples import build_rows
from memdb.storage.reference_scores import add_scores, clear_scores, postings_end

SMALL_MAX_BYTES: Final = 1_900
SMALL_PAYLOAD_MAX_BYTES: Final = SMALL_MAX_BYTES - 4
PAGE_BYTES: Final = 4_096
PAGE_HEADER_BYTES: Final = 16
_U32 = struct.Struct("<I")
_ENTRY_KEY = struct.Struct(">HQI")

__all__ = [
    "add_scores",
    "blocks_for",
    "build_rows",
    "clear_scores",
    "count_terms",
    "crc32c",
    "digest",
    "digest_of_parts",
    "extend_sets",
    "invert",
    "join_block",
    "join_blocks",
    "merge_blocks",
    "plain_strings",
    "postings_end",
    "radix_sets",
    "seal",
    "seal_many",
    "set_prefixes",
    "union_rows",
    "unseal",
    "unseal_joined",
    "unseal_until",
]

Pair = tuple[bytes, bytes]
RowSet = tuple[bytes, list[int]]  # (prefix, rows)
Entry = tuple[int, int]  # (key, row)
Text = tuple[bytes, int]  # (text, row)
Terms = tuple[bytes, bytes, int]  # distinct hashes ascending, how often each, how many in all
Numbers = NDArray[np.int64]


# --- the envelope of values -----------------------------------------------------------------------


def seal(key: bytes, payload: bytes) -> bytes:
    """The stored form of ``payload`` under ``key``."""
    body = payload
    if len(payload) > SMALL_PAYLOAD_MAX_BYTES:
        padding = -(8 + len(payload) + PAGE_HEADER_BYTES) % PAGE_BYTES
        body = b"".join((_U32.pack(len(payload)), payload, bytes(padding)))
    return _U32.pack(crc32c(key + body)) + body


def seal_many(items: Iterable[Pair]) -> list[Pair]:
    """(key, stored form) of many (key, payload)."""
    return [(key, seal(key, payload)) for key, payload in items]


def unseal(key: bytes, value: bytes) -> bytes:
    """The payload of a stored value; ``StoreCorrupt`` if a bit of it or of its key changed."""
    body = value[4:]
    if len(value) < 4 or crc32c(key + body) != int.from_bytes(value[:4], "little"):
        raise StoreCorrupt("a stored value fails its checksum", path="kv")
    if len(value) <= SMALL_MAX_BYTES:
        return body
    (length,) = _U32.unpack_from(body)
    if length > len(body) - 4:
        raise StoreCorrupt("a stored value fails its checksum", path="kv")
    return body[4 : 4 + length]


def unseal_until(entries: Iterable[Pair], stop: bytes) -> list[Pair]:
    """(key, payload) of the entries before the first whose key is ``stop`` or more."""
    found = []
    for key, value in entries:
        if key >= stop:
            break
        found.append((key, unseal(key, value)))
    return found


def unseal_joined(entries: Iterable[Pair], stop: bytes | None) -> tuple[bytes, bytes, bytes]:
    """The keys of the entries before ``stop`` (None: of all) in a row, their payloads in a row, and
    the first byte of each payload (0 of an empty one), which tells how many and of what kind.
    """
    found = []
    for key, value in entries:
        if stop is not None and key >= stop:
            break
        found.append((key, unseal(key, value)))
    keys, payloads = b"".join([key for key, _ in found]), [payload for _, payload in found]
    return keys, b"".join(payloads), bytes([one[0] if one else 0 for one in payloads])


# --- keys -----------------------------------------------------------------------------------------


def digest(key: bytes, data: bytes, size: int) -> bytes:
    """Keyed BLAKE2b of ``data``, ``size`` bytes."""
    return blake2b(data, digest_size=size, key=key).digest()


def digest_of_parts(key: bytes, tag: bytes, parts: tuple[str, ...], size: int) -> bytes:
    """Of ``tag`` and strings, each behind its length: no two lists of parts are digested alike."""
    encoded = [part.encode() for part in parts]
    joined = b"".join([len(part).to_bytes(4, "big") + part for part in encoded])
    return digest(key, tag + joined, size)


def set_prefixes(key: bytes, tag: bytes, field: int, texts: list[bytes]) -> list[bytes]:
    """Each text's prefix among the sets of a field: 63 bits of its digest, the highest bit set."""
    found = []
    for text in texts:
        hashed = digest(key, tag + text, 8)
        found.append(field.to_bytes(2, "big") + bytes((hashed[0] | 0x80,)) + hashed[1:])
    return found


def plain_strings(values: tuple[object, ...]) -> bool:
    """Whether all are None or ``str`` itself, of valid Unicode, or tuples of such values."""
    for value in values:
        if type(value) is str:
            try:
                value.encode()
            except UnicodeEncodeError:
                return False
        elif value is not None and not (type(value) is tuple and plain_strings(value)):
            return False
    return True


# --- through a cursor -----------------------------------------------------------------------------


def _floor(cursor: Any, key: bytes, shared: int) -> tuple[bytes, bytes, bytes] | None:
    """The entry at or before ``key`` as (key, payload, the key that follows it, or ``b""``).

    None where that entry's first ``shared`` bytes are not the key's.
    """
    following = cursor.key() if cursor.set_range(key) else b""
    if following == key:
        value = cursor.value()
        return key, unseal(key, value), cursor.key() if cursor.next() else b""
    more = cursor.prev() if following else cursor.last()
    before = cursor.key() if more else b""
    if before[:shared] != key[:shared]:
        return None
    return before, unseal(before, cursor.value()), following


def blocks_for(cursor: Any, field: int, entries: list[Entry]) -> tuple[list[Pair], list[int]]:
    """The blocks that entries belong in, as (key, payload), and where each one's begin.

    Of the distinct entries in order, those of block i are ``[bounds[i]:bounds[i + 1]]``. One before
    the field's first block belongs in that. A field without blocks has none, and no bounds.
    """
    names = [_ENTRY_KEY.pack(field, *entry) for entry in sorted(set(entries))]
    blocks: list[Pair] = []
    bounds = [0]
    at = 0
    while at < len(names):
        found = _floor(cursor, names[at], 2)
        if found is None:
            first = cursor.key() if cursor.set_range(names[at]) else b""
            if first[:2] != names[at][:2]:
                return [], []
            found = _floor(cursor, first, 2)
        if found is not None:
            key, payload, following = found
            blocks.append((key, payload))
            at = bisect_left(names, following, at + 1) if following else len(names)
            bounds.append(at)
    return blocks, bounds


# --- sets of rows ---------------------------------------------------------------------------------

_INLINE_MAX = 8
_CHUNK_ROWS = 1 << 13


def extend_sets(
    cursor: Any, sets: list[RowSet]
) -> tuple[list[list[int] | None], list[Pair], list[int]]:
    """What becomes of sets, in key order, that get rows: what each was, what to write, the rest.

    A set was all its rows if it was inline or empty, else None. To be written are (key, payload).
    The rest are the places of sets that change more than one block, or need another.
    """
    before: list[list[int] | None] = []
    pieces: list[Pair] = []
    cut: list[int] = []
    for place, (prefix, given) in enumerate(sets):
        rows = sorted(set(given))
        found = _floor(cursor, prefix + rows[0].to_bytes(4, "big"), len(prefix))
        key, payload, following = found or (prefix + bytes(4), b"A", b"")
        held = _numbers("I", payload[1:]) if payload[:1] == b"A" else None
        before.append(held)
        made: bytes | None = None
        if held is not None:
            key, every = prefix + bytes(4), sorted({*held, *rows})
            if len(every) == len(held):
                continue
            made = _new_block(every)
        elif following[:-4] != prefix or following[-4:] > rows[-1].to_bytes(4, "big"):
            made = _extended(payload, int.from_bytes(key[-4:], "big"), rows)
        if made is None or len(made) > SMALL_PAYLOAD_MAX_BYTES:
            cut.append(place)
        else:
            pieces.append((key, made))
    return before, pieces, cut


def _new_block(rows: list[int]) -> bytes:
    return b"A" + _packed("I", rows) if len(rows) <= _INLINE_MAX else _roaring(BitMap(rows))


def _extended(payload: bytes, first: int, rows: list[int]) -> bytes | None:
    if payload[:1] == b"R":
        return _roaring(BitMap.deserialize(payload[1:]) | BitMap(rows))
    if rows[-1] >= first + _CHUNK_ROWS:
        return None
    bits = bytearray(payload[1:].ljust((rows[-1] - first >> 3) + 1, b"\0"))
    for row in rows:
        bits[row - first >> 3] |= 1 << (row & 7)
    return b"B" + bits


def _roaring(rows: BitMap) -> bytes:
    rows.run_optimize()
    return b"R" + bytes(rows.serialize())


def union_rows(blocks: list[Pair], packed: list[bytes]) -> bytes:
    """Blocks of rows, as (a key that ends in the block's first row, payload), and lists of rows as
    u32 little-endian, as one set in roaring's portable form, whatever its containers are.

    Raises ``StoreCorrupt`` where one of them has no known form.
    """
    found = BitMap()
    lists = list(packed)
    for key, block in blocks:
        kind, rest = block[:1], block[1:]
        if kind == b"A":
            lists.append(rest)
        elif kind == b"R":
            try:
                found |= BitMap.deserialize(rest)
            except ValueError as error:
                raise StoreCorrupt("a block of rows has no known form", path="kv") from error
        elif kind == b"B" and len(rest) <= _CHUNK_ROWS // 8:
            first = int.from_bytes(key[-4:], "big")
            if first % _CHUNK_ROWS:
                raise StoreCorrupt("a block of rows has no known form", path="kv")
            bits = np.unpackbits(np.frombuffer(rest, np.uint8), bitorder="little")
            found |= BitMap((np.flatnonzero(bits) + first).tolist())
        else:
            raise StoreCorrupt("a block of rows has no known form", path="kv")
    for rows in lists:
        if len(rows) % 4:
            raise StoreCorrupt("a list of rows has no known form", path="kv")
        found |= BitMap(_numbers("I", rows))
    return bytes(found.serialize())


def _numbers(code: str, packed: bytes) -> list[int]:
    numbers = array(code, packed)
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers.tolist()


def _packed(code: str, numbers: Iterable[int]) -> bytes:
    made = array(code, numbers)
    if sys.byteorder == "big":
        made.byteswap()
    return made.tobytes()


# --- entries in order -----------------------------------------------------------------------------


def merge_blocks(
    field: int, blocks: list[Pair], bounds: list[int], entries: list[Entry], full: int
) -> tuple[list[Pair], list[bytes]]:
    """Entries entered in the blocks they belong in: what to write, and keys to delete.

    Blocks hold up to ``full`` entries. Entries mostly ascend: full blocks stay full then, otherwise
    a split leaves room. Without blocks, new ones.
    """
    entries = sorted(set(entries))
    pairs: list[Pair] = []
    gone: list[bytes] = []
    if not blocks:
        return _cut(field, entries, full), []
    for (key, payload), (start, stop) in zip(blocks, pairwise(bounds), strict=True):
        old = _entries(payload)
        new = sorted(set(entries[start:stop]).difference(old))
        if not new:
            continue
        merged = sorted(old + new)
        pieces = -(-len(merged) // full)
        size = full if not old or new[0] > old[-1] else -(-len(merged) // pieces)
        made = _cut(field, merged, size)
        pairs += made
        if made[0][0] != key:
            gone.append(key)
    return pairs, gone


def _entries(payload: bytes) -> list[Entry]:
    count, rest = divmod(len(payload), 12)
    if rest:
        raise StoreCorrupt("a block of entries has an impossible length", path="kv")
    keys, rows = _numbers("Q", payload[: 8 * count]), _numbers("I", payload[8 * count :])
    return list(zip(keys, rows, strict=True))


def _cut(field: int, entries: list[Entry], size: int) -> list[Pair]:
    made = []
    for at in range(0, len(entries), size):
        part = entries[at : at + size]
        name = _ENTRY_KEY.pack(field, *part[0])
        keys, rows = [key for key, _ in part], [row for _, row in part]
        made.append((name, _packed("Q", keys) + _packed("I", rows)))
    return made


def radix_sets(
    field: int, shifts: list[int], first_level: int, entries: list[Entry]
) -> list[RowSet]:
    """The radix sets of entries, with their rows, in the order of their prefixes."""
    entries = sorted(set(entries))
    sets = []
    for level, shift in enumerate(shifts, first_level):
        head = field.to_bytes(2, "big") + bytes((level,))
        for bucket, members in groupby(
            [(key >> shift, row) for key, row in entries], itemgetter(0)
        ):
            sets.append((head + bucket.to_bytes(7, "big"), [row for _, row in members]))
    return sets


# --- texts in order -------------------------------------------------------------------------------


def join_block(block: bytes, entries: Sequence[Text]) -> bytes | None:
    """A block with ascending entries added, without taking it apart into its texts.

    None where that does not do: they lack what all texts of the block begin with, or do not fit.
    """
    prefix, texts = _texts(block)
    if not all(text.startswith(prefix) for text, _ in entries):
        return None
    merged = sorted({*texts, *((text[len(prefix) :], row) for text, row in entries)})
    rows = _packed("I", (row for _, row in merged))
    suffixes = b"".join([b"\xff" + suffix for suffix, _ in merged])
    made = len(merged).to_bytes(2, "little") + rows + prefix + suffixes
    return made if len(made) <= SMALL_PAYLOAD_MAX_BYTES else None


def join_blocks(blocks: list[Pair], entries: list[Text]) -> tuple[list[Pair], list[Text]]:
    """Ascending entries entered in a field's blocks: what to write, and the entries left over.

    Left are those of blocks for which ``join_block`` gives None. All of the field's blocks.
    """
    firsts = []
    for _, payload in blocks:
        prefix, texts = _texts(payload)
        if not texts:
            raise StoreCorrupt("a block of strings has no known form", path="kv")
        firsts.append((prefix + texts[0][0], texts[0][1]))
    written: list[Pair] = []
    left: list[Text] = []
    at = 0
    while at < len(entries) and blocks:
        place = max(bisect_right(firsts, entries[at]) - 1, 0)
        stop = len(entries)
        if place + 1 < len(firsts):
            stop = max(bisect_left(entries, firsts[place + 1], at), at + 1)
        key, payload = blocks[place]
        made = join_block(payload, entries[at:stop])
        if made is None:
            left += entries[at:stop]
        else:
            written.append((key, made))
        at = stop
    return written, left if blocks else entries


def _texts(block: bytes) -> tuple[bytes, list[Text]]:
    """What a block's texts begin with, and the rest of each with its row."""
    if not block:
        return b"", []
    count = int.from_bytes(block[:2], "little")
    prefix, *suffixes = block[2 + 4 * count :].split(b"\xff")
    rows = block[2 : 2 + 4 * count]
    if len(block) < 2 + 4 * count or len(suffixes) != count:
        raise StoreCorrupt("a block of strings has no known form", path="kv")
    return prefix, list(zip(suffixes, _numbers("I", rows), strict=True))


# --- terms ----------------------------------------------------------------------------------------

_HASH_BYTES = 12
_POSTING = struct.Struct("<IBB")


def count_terms(
    tokens: list[int],
    counts: list[int],
    starts: Numbers,
    sizes: Numbers,
    numbers: Numbers,
    hashes: NDArray[np.uint8],
) -> list[Terms]:
    """The terms of texts of ``counts`` tokens each, which ``tokens`` has one after the other.

    Token t stands for the terms ``numbers[starts[t]:starts[t] + sizes[t]]``, term n for
    ``hashes[n]`` (terms, 12). How often a term occurs is given as at most 255.
    """
    found = []
    at = 0
    for count in counts:
        terms: list[int] = []
        for token in tokens[at : at + count]:
            terms += numbers[starts[token] : starts[token] + sizes[token]].tolist()
        at += count
        times = sorted(Counter(hashes[number].tobytes() for number in terms).items())
        tfs = bytes([min(n, 255) for _, n in times])
        found.append((b"".join([one for one, _ in times]), tfs, len(terms)))
    return found


def invert(segment: int, rows: list[int], forwards: list[bytes], lengths: bytes) -> list[Pair]:
    """The postings of a segment as (key, payload) in key order, from the forward rows of ``rows``.

    ``lengths`` has a row's length as one byte. The hash of zeros is in every row.
    """
    found: defaultdict[bytes, list[tuple[int, int, int]]] = defaultdict(list)
    for row, forward, length in zip(rows, forwards, lengths, strict=True):
        count, rest = divmod(len(forward) - 4, _HASH_BYTES + 1)
        if rest or count < 0:
            raise StoreCorrupt("a forward row has an impossible length", path="kv")
        found[bytes(_HASH_BYTES)].append((row, 1, length))
        for i, tf in enumerate(forward[4 : 4 + count]):
            at = 4 + count + _HASH_BYTES * i
            found[forward[at : at + _HASH_BYTES]].append((row, tf, length))
    pairs = []
    most = SMALL_PAYLOAD_MAX_BYTES // _POSTING.size
    for term, entries in sorted(found.items()):
        entries.sort()
        for start in range(0, len(entries), most):
            part = entries[start : start + most]
            key = segment.to_bytes(4, "big") + term + part[0][0].to_bytes(4, "big")
            pairs.append((key, b"".join([_POSTING.pack(*entry) for entry in part])))
    return pairs
