"""The filter index: which rows have which values, exactly and transactionally.

Writes file a memory under its terms; reads answer one condition with the set of rows that meet
it. Sets keep rows that are no longer live: who evaluates intersects with the live ones. What the
index cannot decide it names (``undecided``), and the caller looks at those rows themselves.
Combining conditions, and what an operator means, is ``query``'s.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from pyroaring import BitMap

from memdb.errors import InvalidArgument
from memdb.storage import tables
from memdb.storage.environment import ReadTxn, WriteTxn
from memdb.storage.filters import bitmaps, fresh, merged, strings, text_ranges
from memdb.storage.filters.fields import (
    FIELDS,
    METADATA,
    SETS,
    UNINDEXED,
    JsonScalar,
    parts,
)
from memdb.storage.filters.filing import (
    code_prefix,
    enter,
    enter_all,
    file_fresh,
    hashed,
    keep_fresh,
    part_prefix,
    take_out,
    text_prefix,
)
from memdb.storage.filters.fresh_view import Fresh
from memdb.storage.filters.ordered import (
    KEY_END,
    NUMBERS,
    key_number,
    key_time,
    keys_times,
    number_key,
    time_key,
)
from memdb.storage.filters.paths import PathNumbers, bucket, forget_path, path_number
from memdb.storage.filters.terms import (
    AFTER_SPECIAL,
    FALSE,
    LONG,
    NULL,
    PRESENT,
    SEVERAL,
    TRUE,
    Term,
    gather,
    terms_of,
)
from memdb.types import Memory

__all__ = ["FilterIndex"]

Bound = str | int | float | None


class FilterIndex:
    """Stateless; every call takes its transaction, so any number of processes may use one store.

    Fields are named as in a filter: ``kind``, ``tags``, ``metadata.chat``. A field nothing was
    filed under has no rows. Times are microseconds UTC.
    """

    # --- writing ---------------------------------------------------------------------------

    def add_fresh(
        self, txn: WriteTxn, rows: Sequence[tuple[int, Memory]], sets: Sequence[str] = ()
    ) -> None:
        """As ``add`` and ``set_add`` of each of ``sets``, for new rows, at a fraction of the cost.

        Filing is left to ``fold``.
        """
        numbers = PathNumbers(txn)
        named = [_set_prefix(txn, name) for name in sets]
        large = []
        for row, memory in rows:
            terms = terms_of(
                memory,
                lambda namespace, path: numbers.claim(txn, namespace, path),
                lambda path: bucket(txn, path),
            )
            if not keep_fresh(txn, row, terms, named):
                large.append((row, memory))
        if large:
            self.add(txn, large)
            for name in sets:
                self.set_add(txn, name, [row for row, _ in large])

    def fresh_count(self, txn: ReadTxn) -> int:
        """Rows that ``fold`` has yet to file."""
        return fresh.count(txn)

    def fold(self, txn: WriteTxn, at_most: int) -> int:
        """File up to ``at_most`` fresh rows, the lowest first; returns how many.

        No answer changes, but ``content_seq`` rises where blocks of strings are written.
        """
        rows = fresh.lowest(txn, at_most)
        file_fresh(txn, rows)
        return len(rows)

    def add(self, txn: WriteTxn, rows: Sequence[tuple[int, Memory]]) -> None:
        """File memories under their rows; again is the same as once."""
        if not rows:
            return
        file_fresh(txn, fresh.among(txn, [row for row, _ in rows]))
        numbers = PathNumbers(txn)
        gathered = gather(
            rows,
            lambda namespace, path: numbers.claim(txn, namespace, path),
            lambda path: bucket(txn, path),
        )
        enter_all(txn, gathered)

    def remove(self, txn: WriteTxn, rows: Sequence[tuple[int, Memory]]) -> None:
        """Take memories out physically; strings and metadata paths nobody else has go too.

        The memories must be what was added. Rows not there are passed over.
        """
        groups: defaultdict[Term, list[int]] = defaultdict(list)
        filed = _Filed(txn)
        kept_fresh = frozenset(fresh.among(txn, [row for row, _ in rows]))
        for row, memory in rows:
            for term in filed.terms(row, memory):
                if row not in kept_fresh:
                    groups[term].append(row)
        for row in kept_fresh:
            _strip(txn, row)
        take_out(txn, groups)
        filed.forget_unused(txn)

    def change(self, txn: WriteTxn, row: int, before: Memory, after: Memory) -> None:
        """Refile one row; of one that is filed, only the terms that differ are written."""
        numbers = PathNumbers(txn)
        filed = _Filed(txn)
        old = set(filed.terms(row, before))
        new = set(
            terms_of(
                after,
                lambda namespace, path: numbers.claim(txn, namespace, path),
                lambda path: bucket(txn, path),
            )
        )
        entries = fresh.get(txn, row)
        if entries is None or not keep_fresh(txn, row, new, _named(entries)):
            file_fresh(txn, [row])
            take_out(txn, {term: [row] for term in old - new})
            enter(txn, {term: [row] for term in new - old})
        filed.forget_unused(txn)

    def drop_damaged(self, txn: WriteTxn) -> list[int]:
        """Forget fresh rows whose entries cannot be read, with their named sets; returns them."""
        return fresh.drop_damaged(txn)

    # --- named sets of rows ----------------------------------------------------------------

    def set_add(self, txn: WriteTxn, name: str, rows: Iterable[int]) -> None:
        members = list(rows)
        if members:
            bitmaps.add_rows(txn, _set_prefix(txn, name), members)

    def set_discard(self, txn: WriteTxn, name: str, rows: Iterable[int]) -> None:
        members = BitMap(rows)
        bitmaps.discard_rows(txn, _set_prefix(txn, name), members)
        fresh.discard(txn, _set_prefix(txn, name), members)

    def get_set(self, txn: ReadTxn, name: str) -> BitMap:
        """The rows of a named set, such as ``live``; empty if nothing was added."""
        prefix = _set_prefix(txn, name)
        return bitmaps.load(txn, prefix) | Fresh.of(txn).load(prefix)

    def logged_set(self, txn: ReadTxn, name: str) -> BitMap:
        """The same of a set whose every change is in the change log; not to be changed."""
        return merged.load(txn, _set_prefix(txn, name))

    # --- conditions ------------------------------------------------------------------------

    def equals(self, txn: ReadTxn, field: str, value: JsonScalar) -> BitMap:
        """Rows with a value equal to ``value``: 1 is 1.0 and is not True."""
        return self.any_of(txn, field, (value,))

    def any_of(self, txn: ReadTxn, field: str, values: Sequence[JsonScalar]) -> BitMap:
        """Rows with a value equal to any of ``values``."""
        number = _number(txn, field)
        if number is None:
            return BitMap()
        prefixes: list[bytes] = []
        found: list[BitMap] = []
        for value in values:
            if isinstance(value, str):
                prefixes.append(text_prefix(txn, number, value.encode()))
            elif value is None:
                prefixes.append(code_prefix(number, NULL))
            elif isinstance(value, bool):
                if value or field != "pinned":
                    prefixes.append(code_prefix(number, TRUE if value else FALSE))
                else:
                    found.append(self.present(txn, field) - self.equals(txn, field, True))
            else:
                key = number_key(value)
                found.append(merged.rows_between(txn, number, key, key + 1))
        if prefixes:
            found.append(merged.load_many(txn, prefixes))
        return _union(found)

    def present(self, txn: ReadTxn, field: str) -> BitMap:
        """Rows that have the field."""
        known = FIELDS.get(field)
        if known is not None and not known.always and known.type in ("time", "number"):
            return self.range(txn, field, None, None)
        number = _number(txn, "namespace" if known and known.always else field)
        return BitMap() if number is None else merged.load(txn, code_prefix(number, PRESENT))

    def several(self, txn: ReadTxn, field: str) -> BitMap:
        """Rows with more than one value under a metadata path."""
        number = _number(txn, field)
        return BitMap() if number is None else merged.load(txn, code_prefix(number, SEVERAL))

    def undecided(self, txn: ReadTxn, field: str, *, ordered: bool) -> BitMap:
        """Rows whose value under ``field`` is not, or not wholly, in the index.

        Metadata past the number of indexed keys; for a range or prefix (``ordered``) also strings
        over 512 bytes.
        """
        found = []
        if field.startswith(METADATA):
            code = bucket(txn, field.removeprefix(METADATA))
            found.append(merged.load(txn, code_prefix(UNINDEXED, code)))
        number = _number(txn, field) if ordered else None
        if number is not None:
            found.append(merged.load(txn, code_prefix(number, LONG)))
        return _union(found)

    def range(
        self,
        txn: ReadTxn,
        field: str,
        low: Bound,
        high: Bound,
        *,
        include_low: bool = True,
        include_high: bool = False,
    ) -> BitMap:
        """Rows with a value between the bounds, of the bounds' type; None is no bound.

        Strings are ordered by code point. Times are given as microseconds UTC.
        """
        number = _number(txn, field)
        if number is None:
            return BitMap()
        if isinstance(low, str) or isinstance(high, str):
            start = b"" if low is None else str(low).encode() + (b"" if include_low else b"\0")
            stop = None if high is None else str(high).encode() + (b"\0" if include_high else b"")
            return self._strings_between(txn, field, number, start, stop)
        is_time = field in FIELDS and FIELDS[field].type == "time"
        first, last = 0, KEY_END
        if low is not None:
            first = (time_key(int(low)) if is_time else number_key(low)) + (not include_low)
        if high is not None:
            last = (time_key(int(high)) if is_time else number_key(high)) + include_high
        return merged.rows_between(txn, number, first, last)

    def prefix(self, txn: ReadTxn, field: str, prefix: str) -> BitMap:
        """Rows with a string that starts with ``prefix``."""
        number = _number(txn, field)
        if number is None:
            return BitMap()
        start = prefix.encode()
        if self.has_part(field, prefix):
            sets = [part_prefix(txn, number, start), text_prefix(txn, number, start)]
            return merged.load_many(txn, sets)
        return self._strings_between(txn, field, number, start, start + b"\xff")

    @staticmethod
    def has_part(field: str, prefix: str) -> bool:
        """Whether ``prefix`` ends at a component boundary that has a set of its own."""
        known = FIELDS.get(field)
        return known is not None and known.parts and parts(prefix + "x")[-1:] == (prefix,)

    @staticmethod
    def has_many(field: str) -> bool:
        """Whether a top-level field holds a list."""
        return FIELDS[field].many

    def subtree(self, txn: ReadTxn, namespace: str) -> BitMap:
        """Rows of a namespace and of everything under it; ``""`` is every row."""
        if not namespace:
            return self.present(txn, "namespace")
        inside = self.prefix(txn, "namespace", namespace + "/")
        rows = self.equals(txn, "namespace", namespace)
        return rows | inside if inside else rows

    def _strings_between(
        self, txn: ReadTxn, field: str, number: int, start: bytes, stop: bytes | None
    ) -> BitMap:
        filed = self._filed_strings_between(txn, field, number, start, stop)
        return filed | Fresh.of(txn).strings_between(number, start, stop)

    def _filed_strings_between(
        self, txn: ReadTxn, field: str, number: int, start: bytes, stop: bytes | None
    ) -> BitMap:
        exact = self._has_one_string_each(txn, field, number)
        found = text_ranges.find(txn, number, start, stop, or_outside=exact)
        rows = found.rows
        if found.many:
            rows |= bitmaps.load_many(txn, [text_prefix(txn, number, t) for t in found.many])
        if not found.outside:
            return rows
        known = FIELDS.get(field)
        holder = FIELDS["namespace"].number if known and known.always else number
        return bitmaps.load(txn, code_prefix(holder, PRESENT)) - rows

    @staticmethod
    def _has_one_string_each(txn: ReadTxn, field: str, number: int) -> bool:
        """Whether every row that has the field has one string under it, and that in order."""
        known = FIELDS.get(field)
        if known is not None:
            return not known.many and not bitmaps.exists(txn, code_prefix(number, LONG))
        # What else a row may have under it has a set of its own, next to the others' in one place.
        first, stop = code_prefix(number, TRUE), code_prefix(number, AFTER_SPECIAL)
        if txn.first_key(tables.BITMAPS, first, stop) is not None:
            return False
        return NUMBERS.is_empty(txn, number)

    # --- values and order ------------------------------------------------------------------

    def values(self, txn: ReadTxn, field: str, within: BitMap) -> list[tuple[JsonScalar, int]]:
        """The distinct values of a field among some rows, each with how many of them have it.

        Most frequent first, then by value. Strings over 512 bytes are left out, and so is
        metadata past the number of indexed keys. Raises ``InvalidArgument`` for a time field.
        """
        if field in FIELDS and FIELDS[field].type == "time":
            raise InvalidArgument(f"{field} is a time and has no list of values", field=field)
        number = _number(txn, field)
        if number is None:
            return []
        counts: defaultdict[str, int] = defaultdict(int)
        for text, row in strings.scan(txn, number):
            if row == strings.MANY:
                rows = bitmaps.load(txn, text_prefix(txn, number, text))
                counts[text.decode()] = rows.intersection_cardinality(within)
            elif row in within:
                counts[text.decode()] += 1
        for text, row in Fresh.of(txn).strings(number):
            counts[text.decode()] += row in within
        figures: defaultdict[float, int] = defaultdict(int)
        for key, row in merged.scan(txn, number, 0, KEY_END):
            if row in within:
                figures[key_number(key)] += 1
        found: list[tuple[JsonScalar, int]] = [(text, n) for text, n in counts.items() if n]
        found += [(int(x) if x.is_integer() else x, n) for x, n in figures.items()]
        for value in (True, False, None):
            n = self.equals(txn, field, value).intersection_cardinality(within)
            if n:
                found.append((value, n))
        return sorted(found, key=lambda pair: (-pair[1], type(pair[0]).__name__, str(pair[0])))

    def times_in_order(
        self,
        txn: ReadTxn,
        field: str,
        low_us: int | None,
        high_us: int | None,
        *,
        reverse: bool = False,
    ) -> Iterator[tuple[int, int]]:
        """(microseconds, row) with low_us <= time < high_us, by time and row, or reversed."""
        number = FIELDS[field].number
        low = 0 if low_us is None else time_key(low_us)
        high = KEY_END if high_us is None else time_key(high_us)
        for key, row in merged.scan(txn, number, low, high, reverse=reverse):
            yield key_time(key), row

    def times_in_blocks(
        self,
        txn: ReadTxn,
        field: str,
        low_us: int | None,
        high_us: int | None,
        *,
        reverse: bool = False,
    ) -> Iterator[tuple[NDArray[np.int64], NDArray[np.uint32]]]:
        """What ``times_in_order`` gives, some at a time: microseconds (n,), rows (n,), n >= 1."""
        number = FIELDS[field].number
        low = 0 if low_us is None else time_key(low_us)
        high = KEY_END if high_us is None else time_key(high_us)
        for keys, rows in merged.blocks(txn, number, low, high, reverse=reverse):
            yield keys_times(keys), rows

    def times_extent(self, txn: ReadTxn, field: str) -> tuple[int, int] | None:
        """The least and the greatest time of a field, in microseconds UTC."""
        keys = merged.extent(txn, FIELDS[field].number)
        return None if keys is None else (key_time(keys[0]), key_time(keys[1]))

    def bounds(self, txn: ReadTxn, field: str) -> tuple[float, float] | None:
        """Two numbers (for a time field: microseconds) near the least and the greatest."""
        number = _number(txn, field)
        if number is None:
            return None
        is_time = field in FIELDS and FIELDS[field].type == "time"
        keys = merged.bounds(txn, number)
        if keys is None:
            return None
        decode = key_time if is_time else key_number
        return decode(keys[0]), decode(keys[1])


class _Filed:
    """The terms rows are filed under, within one transaction.

    Whether a metadata path was indexed when a row was added is read off the row's being present
    under it: since then its namespace may have got room, or lost it.
    """

    def __init__(self, txn: ReadTxn) -> None:
        self._txn = txn
        self._present: dict[str, tuple[int | None, BitMap]] = {}
        self._namespaces: defaultdict[str, set[str]] = defaultdict(set)

    def terms(self, row: int, memory: Memory) -> Iterator[Term]:
        txn = self._txn

        def number(namespace: str, path: str) -> int | None:
            self._namespaces[path].add(namespace)
            if path not in self._present:
                found = path_number(txn, path)
                rows = BitMap() if found is None else merged.load(txn, code_prefix(found, PRESENT))
                self._present[path] = (found, rows)
            found, rows = self._present[path]
            return found if row in rows else None

        return terms_of(memory, number, lambda path: bucket(txn, path))

    def forget_unused(self, txn: WriteTxn) -> None:
        """Drop the names of metadata paths that no row has any more."""
        for path, namespaces in self._namespaces.items():
            number = path_number(txn, path)
            if number is not None and not merged.exists(txn, code_prefix(number, PRESENT)):
                forget_path(txn, path, namespaces)


def _number(txn: ReadTxn, field: str) -> int | None:
    if field.startswith(METADATA):
        return path_number(txn, field.removeprefix(METADATA))
    return FIELDS[field].number


def _named(entries: fresh.Entries) -> list[bytes]:
    """The prefixes of the named sets among a row's fresh entries."""
    return [prefix for prefix, _ in entries.sets if prefix[:2] == SETS.to_bytes(2, "big")]


def _strip(txn: WriteTxn, row: int) -> None:
    """Leave a fresh row nothing but its named sets."""
    entries = fresh.get(txn, row)
    named = [] if entries is None else _named(entries)
    fresh.drop(txn, row)
    if named:
        keep_fresh(txn, row, (), named)


def _set_prefix(txn: ReadTxn, name: str) -> bytes:
    return SETS.to_bytes(2, "big") + hashed(txn, b"s" + name.encode())


def _union(found: Sequence[BitMap]) -> BitMap:
    if not found:
        return BitMap()
    return found[0] if len(found) == 1 else BitMap.union(*found)
