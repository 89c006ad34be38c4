"""What an erasure takes out of the audit: salt and body of every row that tells of what is erased.

A row tells of it that holds an erased id, or, in what was asked for, a word or a value that nothing
but the erased holds. Who did something, when and by which rule stays, and so does the chain. It is
done in place, in the files of every process, and twice: while the words of the erased can still be
looked up, and again by ids alone once no reader from before the erasure is left, since what such a
reader found may be told meanwhile. It does not decide what is erased.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from functools import partial
from typing import Final

import numpy as np
from pyroaring import BitMap

from memdb.engine import Engine
from memdb.errors import StoreCorrupt
from memdb.storage import audit, audit_log, erased, tables
from memdb.storage.audit import Broken, What
from memdb.storage.filters import field_values
from memdb.storage.ids import parse_id
from memdb.storage.postings import PostingsReader, forward_rows
from memdb.storage.postings.layout import decode_forwards
from memdb.storage.store import Reader, Writer
from memdb.types import Memory

_AT_ONCE: Final = 128  # rows of one transaction
_NAMED: Final = ("external_id", "stream", "subject", "key", "tags", "about", "source")
_CHARS: Final = 4  # of a value that is looked for; shorter ones are in everything

Tells = Callable[[What], bool]


class Traces:
    """What the rows that are to go hold."""

    def __init__(self, engine: Engine, rows: BitMap, samples: Iterable[str]) -> None:
        self._engine = engine
        self._samples = frozenset(samples)
        with engine.store.read() as txn:
            memories = list(engine.records.outlines(txn, list(rows)).values())
            raw = (parse_id(memory.id) for memory in memories)
            self._ids = {one for one in raw if one is not None}
            self._words = _words_of_none_other(txn, rows)
            self._values = _values_of_none_other(engine, txn, memories, rows)
            self._digest = txn.digest

    def told_by(self, what: What) -> bool:
        """Whether a row tells of it."""
        if not self._ids.isdisjoint(_ids_of(what)) or not self._samples.isdisjoint(what.samples):
            return True
        return any(self._holds(text) for text in (what.where, what.query, what.purpose) if text)

    def _holds(self, text: str) -> bool:
        if any(value in text for value in self._values):
            return True
        terms = self._engine.analyser.query(text, self._digest) if self._words else ()
        return any(term[1] in self._words for term in terms)


def blank(engine: Engine, rows: BitMap, samples: Iterable[str]) -> int:
    """Blank every row that tells of memories whose ``rows`` are still there, and of ``samples``;
    returns how many. It lasts when this returns."""
    if not _is_there_any(engine):
        return 0
    return _blank(engine, Traces(engine, rows, samples).told_by, 0)


def blank_erased(engine: Engine, since_us: int) -> int:
    """Blank every row of that time or later which holds the id of anything erased."""
    if not _is_there_any(engine):
        return 0

    def tells(what: What) -> bool:
        ids = _ids_of(what)
        if not ids:
            return False
        with engine.store.read() as txn:
            return bool(erased.among(txn, [erased.fingerprint(txn, erased.ID, one) for one in ids]))

    return _blank(engine, tells, since_us)


def _is_there_any(engine: Engine) -> bool:
    with engine.store.read() as txn:
        if any(True for _ in audit.stored(txn)):
            return True
    return bool(audit_log.files(engine.store.path))


def _blank(engine: Engine, tells: Tells, since_us: int) -> int:
    done = 0
    for file in audit_log.files(engine.store.path):
        done += _blank_file(file, tells, since_us)
    with engine.store.read() as txn:
        numbers = [seq for seq, raw in audit.stored(txn) if _is_told(raw, tells, since_us)]
    for start in range(0, len(numbers), _AT_ONCE):
        some = numbers[start : start + _AT_ONCE]
        engine.store.write(partial(_blank_stored, numbers=some))
    return done + len(numbers)


def _blank_stored(txn: Writer, numbers: list[int]) -> None:
    for seq in numbers:
        raw = txn.get(tables.AUDIT, seq.to_bytes(8, "big"))
        if raw is not None:
            audit.put_back(txn, seq, audit.blanked(raw))


def _blank_file(file: audit_log.LogFile, tells: Tells, since_us: int) -> int:
    """The mark first: a row that is marked may be half blanked by a crash, and is done again."""
    content = audit_log.read(file)
    found = [
        (offset, raw)
        for offset, raw in audit_log.rows_in(content)
        if _is_told(raw, tells, since_us) or audit.is_half_blanked(raw)
    ]
    if not found:
        return 0
    try:
        handle = os.open(file.path, os.O_RDWR)
        try:
            for offset, raw in found:
                os.pwrite(handle, bytes((audit.BLANKED,)), offset + audit.mark_at(raw))
            os.fsync(handle)
            for offset, raw in found:
                os.pwrite(handle, audit.blanked(raw), offset)
            os.fsync(handle)
        finally:
            os.close(handle)
    except OSError as error:
        raise StoreCorrupt(
            "a file of the audit cannot be written", path=f"{audit_log.FOLDER}/{file.path.name}"
        ) from error
    return len(found)


def _is_told(raw: bytes, tells: Tells, since_us: int) -> bool:
    try:
        row = audit.unpack(raw)
    except Broken:
        return False  # ``verify`` tells of it
    return row.what is not None and row.at_us >= since_us and tells(row.what)


def _ids_of(what: What) -> list[bytes]:
    return [what.ids[at : at + 16] for at in range(0, len(what.ids), 16)]


def _words_of_none_other(txn: Reader, rows: BitMap) -> set[bytes]:
    """The hashed words of ``rows`` that no other row holds."""
    payloads = forward_rows(txn, rows)
    if not payloads:
        return set()
    batch = decode_forwards(list(payloads.values()))
    hashes = {one.tobytes() for one in np.unique(batch.hashes, axis=0)}
    reader = PostingsReader(txn)
    found = set()
    for word in hashes:
        holders = reader.entries(word)["row"]
        if len(holders) <= len(rows) and all(row in rows for row in holders.tolist()):
            found.add(word)
    return found


def _values_of_none_other(
    engine: Engine, txn: Reader, memories: Iterable[Memory], rows: BitMap
) -> set[str]:
    """Names that the memories bear and that no other memory does."""
    named = {
        (name, value)
        for memory in memories
        for name in _NAMED
        for value in field_values(memory, name) or ()
        if isinstance(value, str) and len(value) >= _CHARS
    }
    return {value for name, value in named if not engine.filters.equals(txn, name, value) - rows}
