"""Where a database's bytes are, in the terms a budget needs.

Files are counted as ``du`` does, in allocated blocks. The store counts by its live pages: what a
compacting copy of it would take. It reads; it changes nothing.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np
from pyroaring import BitMap

from memdb.engine import HIDDEN, LIVE, Engine
from memdb.index import layout
from memdb.index.convert import LADDER
from memdb.index.protocol import SpaceSpec
from memdb.retention.ladder import COLD as COLD_LEVEL
from memdb.retention.ladder import COMPACT, LEVEL_OF_PROFILE, NANO, POINTER, SpaceUse, Usage
from memdb.retention.policies import Candidate
from memdb.storage import spaces, tables, vectors
from memdb.storage.records import GROUPS
from memdb.storage.spaces import SpaceRecord
from memdb.storage.store import Reader, Writer

PAGE: Final = 4096
_OWN_PAGES: Final = 4  # two metas, and the tree of tables
_COLD_SAVES: Final = 180  # bytes of a record that moves into a block (see storage/README.md)
TRASHED_BYTES: Final = 1_000  # of a memory in the trash, a rough figure
POINTERS: Final = "pointers"
"""The set of rows that are at that level."""
ENCODE_MIN: Final = 512
"""Fresh vectors of a space that are enough to train on."""
ENCODE_MORE: Final = 64
"""Further ones that are worth being encoded under pressure."""
BLOCK_MIN: Final = 32
"""Records of one group of 64 rows that are worth a cold block."""


def disk_bytes(path: Path) -> dict[str, int]:
    """Allocated bytes by the first part of the path: ``kv``, ``space``, ..., ``top`` for files."""
    sizes: dict[str, int] = {}
    pending = [("", os.fspath(path))]
    while pending:
        label, folder = pending.pop()
        try:
            entries = list(os.scandir(folder))
        except FileNotFoundError:
            continue  # a folder that went between the listing and the look
        for entry in entries:
            try:
                if entry.is_dir(follow_symlinks=False):
                    pending.append((label or entry.name, entry.path))
                    continue
                found = entry.stat(follow_symlinks=False)
            except FileNotFoundError:
                continue
            allocated = getattr(found, "st_blocks", -1) * 512
            part = label or "top"
            sizes[part] = sizes.get(part, 0) + (allocated if allocated >= 0 else found.st_size)
    return sizes


def live_bytes(txn: Reader | Writer) -> int:
    """What the store's pages in use take: the size of a compacting copy."""
    return sum(txn.bytes_of(name) for name in tables.ALL if txn.has(name)) + _OWN_PAGES * PAGE


def measure(engine: Engine, txn: Reader) -> Usage:
    """The bytes of everything at this snapshot."""
    on_disk = disk_bytes(engine.store.path)
    beside = lock_bytes(engine.store.path)
    hidden = engine.filters.get_set(txn, HIDDEN)
    return Usage(
        files=sum(on_disk.values()) - on_disk.get("kv", 0) + beside,
        live=live_bytes(txn),
        trash=len(hidden) * TRASHED_BYTES,
        encodable=_encodable(engine, txn),
        freezable=2 * _COLD_SAVES * sum(len(group) for group in freezable(engine, txn)),
    )


def _encodable(engine: Engine, txn: Reader) -> int:
    """What the budget gains where fresh vectors move from the store, counted twice, into files."""
    gain = 0
    for space in spaces.spaces(txn):
        count = len(vectors.fresh_rows(txn, space.number))
        if count >= worth_encoding(engine, txn, space):
            size = (2 if space.metric == "cosine" and space.profile != "exact" else 4) * space.dim
            gain += count * max(0, 2 * size - int(bytes_at(space)[space.profile]))
    return gain


def worth_encoding(engine: Engine, txn: Reader, space: SpaceRecord) -> int:
    """How many fresh vectors of a space are worth being encoded under pressure."""
    trained = bool(engine.filters.get_set(txn, f"encoded/{space.number}"))
    return ENCODE_MORE if trained else ENCODE_MIN


def lock_bytes(path: Path) -> int:
    """What lies in ``kv`` beside the stores' pages, as ``du`` counts it."""
    found = 0
    for file in (path / "kv").rglob("*"):
        if file.name != "data.mdb" and file.is_file():
            found += file.stat().st_blocks * 512 if hasattr(file.stat(), "st_blocks") else 0
    return found


def freezable(engine: Engine, txn: Reader) -> list[list[int]]:
    """Groups of rows whose records may move into a cold block, losing nothing."""
    rows = engine.filters.get_set(txn, LIVE) - engine.filters.present(txn, "key")
    rows -= engine.records.grouped(txn)
    groups: dict[int, list[int]] = {}
    for row in rows:
        groups.setdefault(row >> 6, []).append(row)
    full = {block: rows for block, rows in groups.items() if len(rows) >= BLOCK_MIN}
    have = txn.get_many(tables.COLD, [block.to_bytes(4, "big") for block in full])
    return [rows for block, rows in full.items() if block.to_bytes(4, "big") not in have]


def vector_bytes(txn: Reader) -> dict[int, float]:
    """What one vector of each space takes in files, by the space's number."""
    return {space.number: bytes_at(space)[space.profile] for space in spaces.spaces(txn)}


def bytes_at(space: SpaceRecord) -> dict[str, float]:
    """Bytes of a vector in the files of a space, at each profile."""
    found: dict[str, float] = {}
    base = SpaceSpec(dim=space.dim, metric=space.metric)
    for profile in LADDER:
        spec = replace(base, profile=profile)
        record = layout.record_bytes(spec.dim, spec.precision)
        codes = layout.block_bytes(spec.dim) / layout.BLOCK_ROWS if spec.has_codes else 0
        found[profile] = record + codes
    return found


def with_values(engine: Engine, txn: Reader, used: Usage, candidates: Sequence[Candidate]) -> Usage:
    """``used`` with what each space's vectors take and are worth.

    A space with vectors whose memories have no text does not go below 5 bits a coordinate: they
    could not be made again.
    """
    found = []
    rows = np.array([one.row for one in candidates], np.int64)
    values = np.array([one.value for one in candidates])
    given = {one.row for one in candidates if one.memory.text is None and one.current}
    for space in spaces.answering(txn):
        encoded = engine.filters.get_set(txn, f"encoded/{space.number}")
        mine = np.isin(rows >> 16, spaces.allocation(txn, space.number).runs)
        textless = space.embedder is None or any(row in given for row in encoded)
        smallest = "compact" if textless else "nano"
        if LEVEL_OF_PROFILE[space.profile] == NANO:
            smallest = space.profile
        found.append(
            SpaceUse(
                name=space.name,
                profile=space.profile,
                vectors=0 if space.converting else len(encoded),
                bytes_at={name: int(size) for name, size in bytes_at(space).items()},
                smallest=smallest,
                loss_value=float(values[mine].sum()),
            )
        )
    return replace(used, spaces=tuple(found))


def by_kind_and_level(engine: Engine, txn: Reader) -> dict[str, dict[str, dict[str, int]]]:
    """Current memories and about their bytes, by kind and level of the ladder (see ``ladder``).

    Bytes are averages of a level: records of its form, an equal share of what leads to records, and
    the vectors. Nothing is read but sets and the sizes of tables.
    """
    live = engine.filters.get_set(txn, LIVE)
    cold = engine.records.grouped(txn)
    for key in txn.scan_keys(tables.COLD, stop=GROUPS.to_bytes(4, "big")):
        block = int.from_bytes(key, "big")
        cold.add_range(block << 6, (block + 1) << 6)
    cold = (cold & live) - engine.filters.present(txn, "key")
    pointers = engine.filters.get_set(txn, POINTERS) & live
    levels: dict[int, BitMap] = {level: BitMap() for level in range(POINTER + 1)}
    vector_of: dict[int, tuple[BitMap, float]] = {}
    for space in spaces.spaces(txn):
        rows = engine.vectors(space).rows_with_vectors(txn) & live
        vector_of[space.number] = (rows, bytes_at(space)[space.profile])
        levels[LEVEL_OF_PROFILE[space.profile]] |= rows
    levels[POINTER] = pointers
    taken = BitMap()
    for level in (POINTER, NANO, COMPACT):
        levels[level] -= taken
        taken |= levels[level]
    levels[COLD_LEVEL] = cold - taken
    levels[0] = live - taken - cold
    hot = max(1, len(live - cold))
    records = {name: txn.bytes_of(name) for name in (tables.RECORDS, tables.COLD)}
    ways = max(0, live_bytes(txn) - sum(records.values()) - txn.bytes_of(tables.VECTORS))
    share = ways / max(1, len(live))
    found: dict[str, dict[str, dict[str, int]]] = {}
    for kind, _ in engine.filters.values(txn, "kind", live):
        mine = engine.filters.equals(txn, "kind", kind)
        for level, rows in levels.items():
            here = rows & mine
            if here:
                size = share * len(here) + len(here - cold) * records[tables.RECORDS] / hot
                size += len(here & cold) * records[tables.COLD] / max(1, len(cold))
                size += sum(len(here & having) * each for having, each in vector_of.values())
                named = {"memories": len(here), "bytes": int(size)}
                found.setdefault(str(kind), {})[f"L{level}"] = named
    return found
