"""What each memory of a database is worth at a moment, as one snapshot has them.

Gathers from the store what the formulas of ``value`` need, for all memories at once, and gives them
back as the candidates that policies see. The same snapshot and moment give the same numbers. It
reads; it decides and changes nothing.
"""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pyroaring import BitMap

from memdb.engine import Engine
from memdb.retention import ladder, value
from memdb.retention.config import Options
from memdb.retention.policies import Candidate
from memdb.storage import postings, spaces, tables
from memdb.storage.store import Reader
from memdb.types import Memory, to_micros

Floats = NDArray[np.float64]

_BEGINNING: Final = datetime.min.replace(tzinfo=UTC)
_NOVELTY_AMONG: Final = 8_192
"""A memory is compared with at most so many before it: novelty is about what is still around."""

_RECORD_BYTES: Final = 150  # of a record beside its text: fields, ids, filters
_TERM_BYTES: Final = 19  # of a term: 13 in the forward row, 6 in its posting list
_EARLIER_WEIGHS: Final = 0.25
"""An earlier version says what the current one corrects."""


class Valued(NamedTuple):
    """The candidates by row, and the bytes of an average memory in the store and in files."""

    candidates: list[Candidate]
    info: Floats
    novelty: Floats


def candidates(
    engine: Engine,
    txn: Reader,
    now: datetime,
    options: Options,
    *,
    live_bytes: int,
    vector_bytes: dict[int, float],
) -> Valued:
    """Every current memory and every earlier version, ascending by row.

    ``live_bytes`` are those of the store, shared out by what memories hold; ``vector_bytes`` what
    one vector takes in files, by the space's number.
    """
    live = engine.filters.get_set(txn, "live")
    earlier = earlier_rows(txn)
    rows = sorted(live | earlier)
    pairs = list(engine.records.iterate(txn, rows))
    rows = [row for row, _ in pairs]
    memories = [memory for _, memory in pairs]
    offsets, terms = _terms(txn, rows)
    kinds = [memory.kind for memory in memories]
    info = value.quantiles(value.information(terms, offsets), kinds)
    owners = _owners(txn, rows)
    new = _novelty(engine, txn, rows, memories, owners)
    importance = np.array(
        [math.nan if m.importance is None else m.importance for m in memories], np.float64
    )
    weight = value.weight(info, new, _links(memories), importance)
    weight[[row in earlier for row in rows]] *= _EARLIER_WEIGHS
    files = _Files()
    kept = _retention(memories, now, options, files)
    sizes = _sizes(memories, np.diff(offsets), live_bytes)
    cold = engine.records.cold_rows(txn, rows)
    profiles = {space.number: space.profile for space in spaces.spaces(txn)}
    found = []
    for place, (row, memory) in enumerate(zip(rows, memories, strict=True)):
        level = ladder.COLD if row in cold else ladder.AS_WRITTEN
        owner = owners.get(row)
        if owner is not None:
            level = max(level, ladder.LEVEL_OF_PROFILE[profiles[owner]])
        found.append(
            Candidate(
                row=row,
                memory=memory,
                value=float(weight[place] * kept[place]),
                weight=float(weight[place]),
                kept=float(kept[place]),
                size=2 * int(sizes[place]) + int(vector_bytes.get(owner or 0, 0)),
                level=level if is_whole(memory) else ladder.POINTER,
                current=row not in earlier,
                re_readable=memory.kind == "chunk" and row not in earlier and files.has(memory),
            )
        )
    return Valued(found, info, new)


def is_whole(memory: Memory) -> bool:
    """Whether a chunk still has its text; other memories always do."""
    return memory.kind != "chunk" or memory.text is not None or memory.data is not None


def earlier_rows(txn: Reader) -> BitMap:
    """The rows of earlier versions."""
    return BitMap([int.from_bytes(payload, "little") for _, payload in txn.scan(tables.VERSIONS)])


class _Files:
    """Which files of chunks are there; each is looked at once."""

    def __init__(self) -> None:
        self._known: dict[str, bool] = {}

    def has(self, memory: Memory) -> bool:
        path = memory.stream or ""
        if path not in self._known:
            self._known[path] = bool(path) and os.path.isfile(path)
        return self._known[path]


def _terms(txn: Reader, rows: Sequence[int]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(offsets (n + 1,), numbers of terms): the distinct terms of each row."""
    found = postings.forward_rows(txn, rows)
    empty = bytes(4)
    batch = postings.decode_forwards([found.get(row, empty) for row in rows])
    words = np.ascontiguousarray(batch.hashes[:, :8]).view(np.uint64).ravel()
    return batch.offsets, np.unique(words, return_inverse=True)[1]


def _links(memories: Sequence[Memory]) -> Floats:
    """(n,) how many memories and people each is linked with."""
    cited = Counter(source for memory in memories for source in memory.derived_from)
    return np.array(
        [len(m.derived_from) + len(m.about) + cited[m.id] for m in memories], np.float64
    )


def _owners(txn: Reader, rows: Sequence[int]) -> dict[int, int]:
    """The space of each row that belongs to one."""
    found: dict[int, int] = {}
    wanted = BitMap(rows)
    for space in spaces.answering(txn):
        for row in wanted & spaces.allocation(txn, space.number).all_rows():
            found[row] = space.number
    return found


def _novelty(
    engine: Engine,
    txn: Reader,
    rows: Sequence[int],
    memories: Sequence[Memory],
    owners: dict[int, int],
) -> Floats:
    """(n,) each memory's, among those of its namespace and space; .5 without a vector."""
    found = np.full(len(rows), 0.5)
    groups: dict[tuple[str, int], list[int]] = {}
    for place, row in enumerate(rows):
        if row in owners:
            groups.setdefault((memories[place].namespace, owners[row]), []).append(place)
    known = {space.number: space for space in spaces.spaces(txn)}
    for (_, number), places in groups.items():
        vectors = engine.vectors(known[number]).fetch(txn, [rows[place] for place in places])
        having = [place for place in places if rows[place] in vectors]
        for start in range(0, len(having), _NOVELTY_AMONG):
            first = max(0, start - _NOVELTY_AMONG // 2)
            among = having[first : start + _NOVELTY_AMONG]
            measured = value.novelty(np.stack([vectors[rows[place]] for place in among]))
            found[having[start : start + _NOVELTY_AMONG]] = measured[start - first :]
    return found


def _retention(
    memories: Sequence[Memory], now: datetime, options: Options, files: _Files
) -> Floats:
    """(n,) R of each at ``now``."""
    strengths, starts = [], []
    for memory in memories:
        named = value.class_of(memory.kind, memory.stream, memory.metadata.get("retention"))
        if named == "chunk" and not files.has(memory):
            named = "note"
        days = options.classes[named]
        strengths.append(math.inf if days is None else memory.strength or days)
        starts.append(to_micros(_last_seen(memory, named)))
    end = to_micros(now)
    if options.active_days:
        elapsed = value.ActiveDays(_activity(memories)).elapsed(np.array(starts, np.int64), end)
    else:
        elapsed = value.elapsed_days(np.array(starts, np.int64), end)
    uses = [memory.use_count for memory in memories]
    return value.retention(
        elapsed, np.array(strengths), curve=options.curve, floor=options.floor, uses=uses
    )


def _last_seen(memory: Memory, named: str) -> datetime:
    """From when it fades: its last use; else, what happened from when it did, what was noted
    from when it was."""
    if memory.last_used is not None:
        return memory.last_used
    happened = memory.event_time if named in ("event", "stream") else None
    recorded = memory.retired_at or memory.recorded_at
    return happened or recorded or _BEGINNING


def _activity(memories: Sequence[Memory]) -> list[int]:
    moments = [m.recorded_at for m in memories] + [m.last_used for m in memories]
    return [to_micros(moment) for moment in moments if moment is not None]


def _sizes(memories: Sequence[Memory], terms: NDArray[np.int64], live_bytes: int) -> Floats:
    """(n,) each memory's share of the store's live bytes."""
    texts = np.array([len((m.text or "").encode()) for m in memories], np.float64)
    raw: Floats = _RECORD_BYTES + texts + _TERM_BYTES * terms
    total = float(raw.sum())
    # Much of a small store is the least that its tables take, which no eviction frees.
    return raw * min(3.0, max(0.5, live_bytes / total)) if total else raw
