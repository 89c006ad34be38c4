"""Terms filed in the tables, kept fresh, and taken out: the write side below ``FilterIndex``.

All sets of one write are visited in key order, so that neighbours share pages. This file knows
terms, not memories.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from operator import itemgetter

from memdb.storage.environment import ReadTxn, WriteTxn
from memdb.storage.filters import bitmaps, fresh, strings
from memdb.storage.filters.fields import FIELDS, FIRST_METADATA
from memdb.storage.filters.ordered import NUMBERS, PLAIN_NUMBERS, TIMES, OrderedIndex
from memdb.storage.filters.terms import LONG, Gathered, Term

Groups = Mapping[Term, list[int]]
_TIMES = frozenset(field.number for field in FIELDS.values() if field.type == "time")


def enter_all(txn: WriteTxn, gathered: Gathered) -> None:
    """As ``enter``, for the terms of a batch."""
    sets: list[_Set] = [
        (code_prefix(number, code), rows, None) for (number, code), rows in gathered.sets.items()
    ]
    for (number, prefix), rows in gathered.parts.items():
        sets.append((part_prefix(txn, number, prefix.encode()), rows, None))
    for number, by_text in gathered.texts.items():
        long: list[int] = []
        texts = [text.encode() for text in by_text]
        named = txn.set_prefixes(b"v", number, texts)
        for name, text, rows in zip(named, texts, by_text.values(), strict=True):
            if len(text) <= strings.TEXT_MAX_BYTES:
                sets.append((name, rows, text))
            else:
                sets.append((name, rows, None))
                long += rows
        if long:
            sets.append((code_prefix(number, LONG), long, None))
    sets.sort(key=itemgetter(0))
    _file(txn, sets, gathered.ordered)


def enter(txn: WriteTxn, groups: Groups) -> None:
    """File rows under terms: {term: rows}. Again is the same as once."""
    _file(txn, *_sorted_out(txn, groups))


def keep_fresh(txn: WriteTxn, row: int, terms: Iterable[Term], named: Sequence[bytes]) -> bool:
    """Keep what a row is to be filed under, and the named sets it is in, as one small value.

    False, and nothing written, where that would not be small.
    """
    sets: list[tuple[bytes, bytes | None]] = []
    ordered: list[tuple[int, int]] = []
    long: set[int] = set()
    for kind, number, value in dict.fromkeys(terms):
        if isinstance(value, int):
            ordered.append((number, value))
        elif isinstance(value, bytes):
            sets.append((code_prefix(number, value), None))
        elif kind == "part":
            sets.append((part_prefix(txn, number, value.encode()), None))
        else:
            text = value.encode()
            kept = len(text) <= strings.TEXT_MAX_BYTES
            sets.append((text_prefix(txn, number, text), text if kept else None))
            if not kept:
                long.add(number)
    sets += [(code_prefix(number, LONG), None) for number in long]
    sets.sort(key=itemgetter(0))
    entries = fresh.Entries([*sets, *((prefix, None) for prefix in named)], ordered)
    return fresh.put(txn, row, entries)


def file_fresh(txn: WriteTxn, rows: Sequence[int]) -> None:
    """File rows that are fresh; others are passed over."""
    texts: dict[bytes, bytes | None] = {}
    members: defaultdict[bytes, list[int]] = defaultdict(list)
    ordered: _Ordered = defaultdict(list)
    for row in rows:
        entries = fresh.get(txn, row)
        if entries is None:
            continue
        for prefix, text in entries.sets:
            members[prefix].append(row)
            texts[prefix] = text
        for number, key in entries.ordered:
            ordered[number].append((key, row))
        fresh.drop(txn, row)
    _file(txn, [(prefix, members[prefix], texts[prefix]) for prefix in sorted(members)], ordered)


def _file(txn: WriteTxn, sets: list[_Set], ordered: _Ordered) -> None:
    added: defaultdict[int, list[strings.Entry]] = defaultdict(list)
    dropped: defaultdict[int, list[strings.Entry]] = defaultdict(list)
    held = bitmaps.add_many(txn, [(prefix, rows) for prefix, rows, _ in sets])
    for (prefix, rows, text), before in zip(sets, held, strict=True):
        if before is None or text is None:  # a string with many rows has its one entry
            continue
        number = int.from_bytes(prefix[:2], "big")
        after = {*before, *rows}
        if len(after) <= bitmaps.INLINE_MAX:
            added[number] += [(text, row) for row in after.difference(before)]
        else:
            dropped[number] += [(text, row) for row in before]
            added[number].append((text, strings.MANY))
    for number, entries in ordered.items():
        table_of(number).add(txn, number, entries)
    for number, texts in dropped.items():
        strings.remove(txn, number, texts)
    for number, texts in added.items():
        strings.insert(txn, number, texts)


def take_out(txn: WriteTxn, groups: Groups) -> None:
    """Undo ``enter``; what is not there is passed over, and so are fresh rows."""
    sets, ordered = _sorted_out(txn, groups)
    dropped: defaultdict[int, list[strings.Entry]] = defaultdict(list)
    for prefix, rows, text in sets:
        inline, empty = bitmaps.discard_rows(txn, prefix, rows)
        if text is not None:
            number = int.from_bytes(prefix[:2], "big")
            dropped[number] += [(text, row) for row in inline]
            if empty:
                dropped[number].append((text, strings.MANY))
    for number, entries in ordered.items():
        table_of(number).remove(txn, number, entries)
    for number, texts in dropped.items():
        strings.remove(txn, number, texts)


_Set = tuple[bytes, list[int], bytes | None]
_Ordered = defaultdict[int, list[tuple[int, int]]]


def _sorted_out(txn: ReadTxn, groups: Groups) -> tuple[list[_Set], _Ordered]:
    """Terms as sets of rows in key order, with the text if it is kept in order, and as entries."""
    sets: list[_Set] = []
    long: defaultdict[int, list[int]] = defaultdict(list)
    ordered: _Ordered = defaultdict(list)
    for (kind, number, value), rows in groups.items():
        if isinstance(value, int):
            ordered[number] += [(value, row) for row in rows]
        elif isinstance(value, bytes):
            sets.append((code_prefix(number, value), rows, None))
        elif kind == "part":
            sets.append((part_prefix(txn, number, value.encode()), rows, None))
        else:
            _add_text(txn, sets, long[number], number, value, rows)
    sets += [(code_prefix(number, LONG), rows, None) for number, rows in long.items() if rows]
    sets.sort(key=itemgetter(0))
    return sets, ordered


def _add_text(
    txn: ReadTxn, sets: list[_Set], long: list[int], number: int, value: str, rows: list[int]
) -> None:
    """The set of a string's rows; a string that is not kept in order adds them to ``long``."""
    text = value.encode()
    if len(text) > strings.TEXT_MAX_BYTES:
        long += rows
        sets.append((text_prefix(txn, number, text), rows, None))
    else:
        sets.append((text_prefix(txn, number, text), rows, text))


def table_of(number: int) -> OrderedIndex:
    if number in _TIMES:
        return TIMES
    return NUMBERS if number >= FIRST_METADATA else PLAIN_NUMBERS


def code_prefix(number: int, code: bytes) -> bytes:
    return number.to_bytes(2, "big") + code


def text_prefix(txn: ReadTxn, number: int, text: bytes) -> bytes:
    return txn.set_prefixes(b"v", number, [text])[0]


def part_prefix(txn: ReadTxn, number: int, prefix: bytes) -> bytes:
    return txn.set_prefixes(b"p", number, [prefix])[0]


def hashed(txn: ReadTxn, data: bytes) -> bytes:
    """63 bits; the highest bit is set, apart from special sets and radix levels."""
    digest = txn.digest(data, 8)
    return bytes((digest[0] | 0x80,)) + digest[1:]
