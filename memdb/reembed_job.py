"""What a store keeps of a re-embedding: what is being filled, and what is left of the last one.

    meta/reembed    the space that is being filled, the embedder that fills it, how far it is
    meta/reembedded what became of the space that was replaced; kept when all is done, to be told

A store that has neither has never been re-embedded. Records only: ``reembedding`` acts on them.
"""

from __future__ import annotations

from typing import Final

import msgspec

from memdb.storage import tables
from memdb.storage.environment import ReadTxn, WriteTxn

NEXT_SPACE: Final = "default:next"
"""The name of the space being filled, until it takes the default one's."""
_JOB: Final = b"reembed"
_LAST: Final = b"reembedded"


class Job(msgspec.Struct, frozen=True):
    """A space being filled. ``closing``: it lacks next to nothing, and whoever writes embeds for
    both spaces, so that nothing is missing when it takes the default one's place."""

    target: int
    embedder: str
    closing: bool = False


class Last(msgspec.Struct, frozen=True):
    """The last space that was filled and is the default one since.

    ``old``: the number of the one before, 0 for none. ``kept_as``: the name that goes by, where it
    keeps the ``kept`` vectors of memories without text. ``over``: nothing is left to do.
    """

    target: int
    old: int = 0
    kept_as: str = ""
    kept: int = 0
    over: bool = False


_JOBS = msgspec.msgpack.Decoder(Job)
_LASTS = msgspec.msgpack.Decoder(Last)


def job(txn: ReadTxn) -> Job | None:
    """The re-embedding under way."""
    payload = txn.get(tables.META, _JOB)
    return None if payload is None else _JOBS.decode(payload)


def put_job(txn: WriteTxn, job: Job | None) -> None:
    """None: there is none any more."""
    if job is None:
        txn.delete(tables.META, _JOB)
    else:
        txn.put(tables.META, _JOB, msgspec.msgpack.encode(job))


def last(txn: ReadTxn) -> Last | None:
    """What is left of the last one, or was."""
    payload = txn.get(tables.META, _LAST)
    return None if payload is None else _LASTS.decode(payload)


def put_last(txn: WriteTxn, last: Last) -> None:
    txn.put(tables.META, _LAST, msgspec.msgpack.encode(last))


def textless(space: int) -> str:
    """The name of the set of rows that have no text to embed into that space."""
    return f"textless/{space}"
