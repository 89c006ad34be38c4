"""Level 4 of the ladder: a chunk whose file is there keeps its words, its time and where it stands.

Its text and vector go; it is found by its words as before, and read again from the file it names. A
sync that finds the file changed replaces it like any other chunk.
"""

from __future__ import annotations

from memdb.engine import Engine
from memdb.retention.usage import POINTERS
from memdb.storage import spaces, vectors
from memdb.storage.store import Writer
from memdb.types import Memory


def keep_pointer(txn: Writer, engine: Engine, row: int, memory: Memory) -> None:
    """Take a chunk's text and vector out of a live row; for good."""
    blob = engine.records.blob_of(txn, row)
    if blob is not None:
        engine.blobs.release(txn, blob)
    engine.records.delete(txn, [row])
    engine.records.put(txn, row, memory.replace(text=None))
    drop_vector(txn, engine, row)
    engine.filters.set_add(txn, POINTERS, [row])
    txn.changed(added=[row])


def drop_vector(txn: Writer, engine: Engine, row: int) -> None:
    """The row has no vector from the commit of ``txn`` on."""
    for space in spaces.spaces(txn):
        if row >> 16 in spaces.allocation(txn, space.number).runs:
            vectors.drop_fresh(txn, space.number, [row])
            engine.filters.set_discard(txn, f"encoded/{space.number}", [row])
            engine.filters.set_discard(txn, f"converted/{space.number}", [row])
            txn.layout_moved()
