"""Taking rows and samples out of every structure of LMDB for good, a few a transaction.

What hides is undone by ``restore``; what is removed here is gone from whatever reads a later
snapshot. Its bytes are in free pages until the store is rewritten, and vectors that were encoded
are in their slots until those are zeroed: ``scrub`` sees to both.

Each function is one step inside the caller's write transaction. They do not decide what goes:
``erasure`` does, and whoever evicts may.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping, Sequence

from pyroaring import BitMap

from memdb import facts, space_convert, trash
from memdb.engine import HIDDEN, LIVE, Engine
from memdb.storage import lookups, postings, series, spaces, vectors
from memdb.storage.ids import parse_id
from memdb.storage.store import Reader, Writer
from memdb.types import Memory


def withdraw(txn: Writer, engine: Engine, memories: Sequence[tuple[int, Memory]]) -> None:
    """Make rows, live or hidden, invisible for good: no face shows them, nothing restores them."""
    rows = BitMap([row for row, _ in memories])
    for row, memory in memories:
        facts.take_out(txn, row, memory)
    engine.filters.set_discard(txn, LIVE, rows)
    engine.filters.set_discard(txn, HIDDEN, rows)
    trash.take_out(txn, rows, ())
    txn.changed(removed=rows)


def withdraw_samples(txn: Writer, ids: Iterable[str]) -> None:
    """The same for samples."""
    wanted = list(ids)
    if wanted:
        series.hide(txn, wanted)
        trash.take_out(txn, BitMap(), wanted)
        txn.series_changed()


def remove_rows(txn: Writer, engine: Engine, rows: Sequence[int]) -> list[bytes]:
    """Remove rows that were withdrawn, with all that leads to them; those that are gone already
    are passed over. Returns the blobs that they held.

    Keys under which the caller's own ids lead to them are left: ``lookups.keys_naming`` finds them.
    """
    found = engine.records.outlines(txn, rows)
    blobs = [name for row in rows if (name := engine.records.blob_of(txn, row)) is not None]
    for name in blobs:
        engine.blobs.release(txn, name)
    engine.filters.remove(txn, list(found.items()))
    postings.remove(txn, rows)
    _forget_ways(txn, found)
    _forget_vectors(txn, engine, rows)
    engine.records.delete(txn, rows)
    txn.changed(removed=rows)  # caches of the filters' fresh values are bound to ``content_seq``
    return blobs


def _forget_ways(txn: Writer, found: Mapping[int, Memory]) -> None:
    """Ways to many memories at once: those that lie in one block are taken out of it together."""
    places: list[tuple[bytes, int, int]] = []
    by_id: dict[bytes, list[int]] = {}
    prefixes: dict[tuple[str, str], bytes] = {}
    for row, memory in found.items():
        facts.take_out(txn, row, memory)
        if memory.stream is not None and memory.position is not None:
            named = (memory.namespace, memory.stream)
            if named not in prefixes:
                prefixes[named] = lookups.stream_prefix(txn, *named)
            places.append((prefixes[named], memory.position, row))
        raw_id = parse_id(memory.id)
        if raw_id is not None:
            lookups.forget_version(txn, raw_id, memory.version, row)
            by_id.setdefault(raw_id, []).append(row)
    lookups.clear_positions(txn, places)
    led = lookups.rows_of(txn, sorted(by_id))
    lookups.forget_ids(txn, [raw_id for raw_id, row in led.items() if row in by_id[raw_id]])


def _forget_vectors(txn: Writer, engine: Engine, rows: Sequence[int]) -> None:
    for space in spaces.spaces(txn):
        runs = set(spaces.allocation(txn, space.number).runs)
        mine = [row for row in rows if row >> 16 in runs]
        if mine:
            vectors.drop_fresh(txn, space.number, mine)
            engine.filters.set_discard(txn, f"encoded/{space.number}", mine)
            engine.filters.set_discard(txn, space_convert.converted(space), mine)
            txn.layout_moved()


def unlink(txn: Writer, engine: Engine, rows: Sequence[int], gone: set[str]) -> None:
    """Strike ids out of the links of rows, whose bytes go from their cold blocks too."""
    for row, memory in engine.records.outlines(txn, rows).items():
        blob = engine.records.blob_of(txn, row)
        engine.records.delete(txn, [row])
        links = tuple(id for id in memory.links if id not in gone)
        engine.records.put(txn, row, memory.replace(links=links), blob)
    txn.changed(added=engine.live(txn) & BitMap(rows))


def rows_of_spaces(txn: Reader, rows: BitMap) -> dict[int, BitMap]:
    """Which of ``rows`` each space owns, by its number: where a vector of theirs may lie."""
    found = {}
    for space in spaces.spaces(txn):
        mine = rows & spaces.allocation(txn, space.number).all_rows()
        if mine:
            found[space.number] = mine
    return found


def remove_samples(txn: Writer, ids: Sequence[str]) -> None:
    """Remove samples that were withdrawn, rewriting the blocks that held them."""
    if series.erase(txn, ids):
        txn.series_changed()


def remove_dropped_files(engine: Engine) -> None:
    """Delete the folders of spaces that are no more. No snapshot may be older than their drop."""
    folder = engine.store.path / "space"
    present = sorted(folder.iterdir()) if folder.is_dir() else []  # before the look at the store:
    with engine.store.read() as txn:  # a space made meanwhile is known, and in the list or not
        known = {str(record.number) for record in spaces.spaces(txn)}
    for one in present:
        if one.name not in known:
            shutil.rmtree(one, ignore_errors=True)
