"""What happens to rows inside one write transaction: enter, rewrite, retire, hide, show.

Every structure that knows a row (record, ids, filters, postings, vectors, streams, change log) is
changed here and only here, together, so that a transaction leaves them in agreement. These
functions have no effect but on their transaction: the store may run them again. They do not
decide what to write; ``writer`` does.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from datetime import datetime
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from pyroaring import BitMap

from memdb import settings
from memdb.aside import Encoding
from memdb.embedding import DEFAULT_SPACE, SpaceReplaced
from memdb.engine import HIDDEN, LIVE, Engine
from memdb.errors import Conflict, NotFound
from memdb.query.indexed_text import indexed_text
from memdb.query.tokenizer import TOKENIZER_VERSION
from memdb.storage import lookups, postings, spaces, vectors
from memdb.storage.ids import require_id
from memdb.storage.postings import Analysed
from memdb.storage.records import encode
from memdb.storage.store import Writer
from memdb.types import Memory

SEGMENT_AT = 128  # a batch this large writes its own segment of postings, and is filed at once
_FOLDED_AT_ONCE = 16  # rows that a writer files in passing where nobody else does


class Placed(NamedTuple):
    """A vector (dim,) and the number of its space. ``embedded``: memdb made it, for the space that
    was the default one. ``following``: the same of the space that is to take that one's place."""

    space: int = spaces.NO_VECTOR
    vector: NDArray[np.float32] | None = None
    embedded: bool = False
    following: tuple[int, NDArray[np.float32] | None] = (spaces.NO_VECTOR, None)


class Entry:
    """A memory about to become a row, with everything derived from it outside the transaction."""

    __slots__ = ("analysed", "blob", "memory", "placed", "raw_id")

    def __init__(
        self,
        memory: Memory,
        *,
        raw_id: bytes,
        placed: Placed | None = None,
        analysed: Analysed | None = None,
        blob: bytes | None = None,
    ) -> None:
        self.memory = memory
        self.raw_id = raw_id
        self.placed = placed or Placed()
        self.analysed = analysed
        self.blob = blob

    @property
    def space(self) -> int:
        """The number of the space that its row is of."""
        return self.placed.space

    @property
    def vector(self) -> NDArray[np.float32] | None:
        return self.placed.vector

    def copy(self) -> Entry:
        """One for this run of the transaction, which may change its memory and id."""
        return Entry(
            self.memory,
            raw_id=self.raw_id,
            placed=self.placed,
            analysed=self.analysed,
            blob=self.blob,
        )


def enter(txn: Writer, engine: Engine, entries: Sequence[Entry]) -> list[int]:
    """Give each entry a row and make it live; returns the rows in the order of ``entries``.

    Raises ``SpaceReplaced`` for texts embedded for a space that is not the default one any more.
    """
    for entry in entries:
        if entry.vector is not None and entry.memory.space is None:
            _require_default(txn, entries)
            break
    rows = _allocate(txn, entries)
    with ExitStack() as begun:
        encodings = _keep_vectors(txn, engine, entries, rows, begun)
        _file(txn, engine, entries, rows)
        for encoding in encodings:
            encoding.publish(txn)
    txn.changed(added=BitMap(rows))
    return rows


def _file(txn: Writer, engine: Engine, entries: Sequence[Entry], rows: Sequence[int]) -> None:
    """Everything but the vectors, which are written meanwhile."""
    _place_in_streams(txn, entries, rows)
    pairs = [(row, entry.memory) for row, entry in zip(rows, entries, strict=True)]
    plain = sorted(
        (row, encode(entry.memory))
        for row, entry in zip(rows, entries, strict=True)
        if entry.blob is None
    )
    engine.records.put_many(txn, plain)
    for row, entry in zip(rows, entries, strict=True):
        if entry.blob is not None:
            engine.records.put(txn, row, entry.memory, entry.blob)
            engine.blobs.reference(txn, entry.blob)
    lookups.set_rows(txn, [(entry.raw_id, row) for row, entry in zip(rows, entries, strict=True)])
    bitmap = BitMap(rows)
    if len(rows) >= SEGMENT_AT:
        engine.filters.add(txn, pairs)
        engine.filters.set_add(txn, LIVE, bitmap)
    else:
        engine.filters.add_fresh(txn, pairs, [LIVE])
        if engine.filters.fresh_count(txn) > settings.FRESH_FILTERS_LIMIT:
            engine.filters.fold(txn, max(_FOLDED_AT_ONCE, 2 * len(rows)))
    _index_terms(txn, entries, rows)


def _require_default(txn: Writer, entries: Sequence[Entry]) -> None:
    """Vectors that name no space go into the default one, which may be another by now."""
    default = spaces.find_space(txn, DEFAULT_SPACE)
    number = spaces.NO_VECTOR if default is None else default.number
    for entry in entries:
        placed = entry.placed
        if placed.vector is None or entry.memory.space is not None or placed.space == number:
            continue
        if placed.embedded and placed.following[0] == number and number:
            entry.placed = Placed(*placed.following, embedded=True)
        elif placed.embedded:
            raise SpaceReplaced("the default space was replaced while the texts were embedded")
        else:
            raise Conflict(
                "the default space was replaced or dropped while a vector for it was written",
                hint="write it again, with a vector of the model that the space is of",
            )


def _allocate(txn: Writer, entries: Sequence[Entry]) -> list[int]:
    wanted: dict[int, int] = {}
    for entry in entries:
        wanted[entry.space] = wanted.get(entry.space, 0) + 1
    given = {space: iter(spaces.allocate(txn, space, count)) for space, count in wanted.items()}
    return [next(given[entry.space]) for entry in entries]


def _place_in_streams(txn: Writer, entries: Sequence[Entry], rows: Sequence[int]) -> None:
    """Number the memories of each stream that came without a position, and enter all of them."""
    greatest: dict[bytes, int] = {}  # position of the batch so far, by stream
    numbered: set[bytes] = set()  # streams of which what is stored counts in that
    prefixes: dict[tuple[str, str], bytes] = {}
    places: list[tuple[bytes, int, int]] = []
    for row, entry in zip(rows, entries, strict=True):
        memory = entry.memory
        if memory.stream is None:
            continue
        named = (memory.namespace, memory.stream)
        prefix = prefixes.get(named)
        if prefix is None:
            prefix = prefixes[named] = lookups.stream_prefix(txn, *named)
        position = memory.position
        if position is None:
            if prefix not in numbered:
                numbered.add(prefix)
                known = (greatest.get(prefix), lookups.last_position(txn, prefix))
                taken = [place for place in known if place is not None]
                greatest[prefix] = max(taken, default=-1)
            position = greatest[prefix] + 1
            entry.memory = memory.replace(position=position)
        greatest[prefix] = max(greatest.get(prefix, position), position)
        places.append((prefix, position, row))
    lookups.set_positions(txn, places)


def _index_terms(txn: Writer, entries: Sequence[Entry], rows: Sequence[int]) -> None:
    analysed = [
        (row, entry.analysed)
        for row, entry in zip(rows, entries, strict=True)
        if entry.analysed is not None
    ]
    if analysed and not txn.state.tokenizer:
        # A later version reads here whether its terms are those of the postings.
        txn.state = txn.state._replace(tokenizer=TOKENIZER_VERSION)
    if len(analysed) >= SEGMENT_AT:
        texts = [terms for _, terms in analysed]
        postings.add_segment(txn, [row for row, _ in analysed], texts)
    else:
        for row, terms in analysed:
            postings.add(txn, row, terms)


def _keep_vectors(
    txn: Writer, engine: Engine, entries: Sequence[Entry], rows: Sequence[int], begun: ExitStack
) -> list[Encoding]:
    """Keep the vectors in the transaction, or begin to write them to their files: whatever becomes
    of the transaction, the end of ``begun`` waits for that."""
    by_space: dict[int, tuple[list[int], list[NDArray[np.float32]]]] = {}
    for row, entry in zip(rows, entries, strict=True):
        if entry.vector is not None:
            kept = by_space.setdefault(entry.space, ([], []))
            kept[0].append(row)
            kept[1].append(entry.vector)
        number, following = entry.placed.following
        next_space = None if following is None else spaces.get_space(txn, number)
        if following is not None and next_space is not None:
            spaces.share(txn, number, [row >> 16])
            engine.vectors(next_space).put_fresh(txn, [row], following[None, :])
    found = []
    for number in by_space:
        space = spaces.get_space(txn, number)
        if space is None:
            raise NotFound("the space of the vector was dropped meanwhile", hint="write it again")
        found.append(engine.vectors(space))
    encodings = []
    for space_vectors, (its_rows, its_vectors) in zip(found, by_space.values(), strict=True):
        encoding = None
        if len(its_rows) >= settings.ENCODE_DIRECTLY_AT and engine.store.lease.held:
            # A batch goes straight to the files if this process may write them.
            encoding = space_vectors.begin_encoded(txn, its_rows, np.stack(its_vectors))
        if encoding is None:
            space_vectors.put_fresh(txn, its_rows, np.stack(its_vectors))
        else:
            begun.callback(encoding.wait)
            encodings.append(encoding)
    return encodings


def twins(txn: Writer, engine: Engine, found: Mapping[int, Memory]) -> list[Entry]:
    """For each memory by its row, an entry with the text, terms and vector that the row has."""
    terms = engine.analyse([indexed_text(memory) for memory in found.values()])
    entries = {}
    for (row, memory), analysed in zip(found.items(), terms, strict=True):
        blob = engine.records.blob_of(txn, row)
        raw_id = require_id(memory.id)
        entries[row] = Entry(memory, raw_id=raw_id, analysed=analysed, blob=blob)
    for space in spaces.answering(txn):
        runs = set(spaces.allocation(txn, space.number).runs)
        mine = [row for row in found if row >> 16 in runs]
        for row, vector in _vectors(txn, engine, space, mine).items():
            entry = entries[row]
            if entry.vector is None:
                entry.placed = Placed(space.number, vector)
                if space.name != DEFAULT_SPACE:
                    entry.memory = entry.memory.replace(space=space.name)
    return list(entries.values())


def _vectors(
    txn: Writer, engine: Engine, space: spaces.SpaceRecord, wanted: Sequence[int]
) -> dict[int, NDArray[np.float32]]:
    """Vectors of rows: those that this transaction sees as fresh, and committed ones."""
    ids, matrix = vectors.load_fresh(txn, space.number, space.dim, wanted)
    found = dict(zip(ids.tolist(), matrix, strict=True))
    left = [row for row in wanted if row not in found]
    if left:
        with engine.store.read() as reader:
            found.update(engine.vectors(space).fetch(reader, left))
    return found


def rewrite(txn: Writer, engine: Engine, row: int, old: Memory, new: Memory) -> None:
    """Change fields of a row in place; its text, vector and terms stay what they are."""
    engine.filters.change(txn, row, old, new)
    engine.records.put(txn, row, new, engine.records.blob_of(txn, row))
    txn.changed(added=[row])


def archive(txn: Writer, engine: Engine, row: int, old: Memory, now: datetime) -> None:
    """Keep a version that is about to be rewritten in place, under a row of its own."""
    blob = engine.records.blob_of(txn, row)
    if blob is not None:
        engine.blobs.reference(txn, blob)
    (kept,) = spaces.allocate(txn, spaces.NO_VECTOR, 1)
    engine.records.put(txn, kept, old.replace(retired_at=now), blob)
    lookups.add_version(txn, require_id(old.id), old.version, kept)


def retire(txn: Writer, engine: Engine, row: int, old: Memory, now: datetime) -> None:
    """Take a row out of sight because another row holds the memory's next version."""
    blob = engine.records.blob_of(txn, row)
    engine.records.put(txn, row, old.replace(retired_at=now), blob)
    lookups.add_version(txn, require_id(old.id), old.version, row)
    engine.filters.set_discard(txn, LIVE, BitMap([row]))
    txn.changed(removed=[row])


def hide(txn: Writer, engine: Engine, memories: Iterable[tuple[int, Memory]]) -> BitMap:
    """Make live rows invisible at once; nothing of them is lost."""
    pairs = list(memories)
    rows = BitMap([row for row, _ in pairs])
    for row, memory in pairs:
        if memory.key is not None:
            key = lookups.profile_key(txn, memory.namespace, memory.subject or "", memory.key)
            left = [other for other in lookups.timeline(txn, key) if other != row]
            lookups.set_timeline(txn, key, left)
    engine.filters.set_discard(txn, LIVE, rows)
    engine.filters.set_add(txn, HIDDEN, rows)
    txn.changed(removed=rows)
    return rows


def show(txn: Writer, engine: Engine, rows: BitMap) -> None:
    """Make hidden rows visible again."""
    engine.filters.set_discard(txn, HIDDEN, rows)
    engine.filters.set_add(txn, LIVE, rows)
    txn.changed(added=rows)
