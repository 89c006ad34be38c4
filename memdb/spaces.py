"""``db.spaces``: embedding spaces by name. One per model, or for vectors the caller brings.

Dropping one is two steps: a transaction after which no new snapshot knows the space, then, once
no snapshot from before it is read any more, the removal of its files. Files that could not be
removed (a reader that takes long, a system that keeps open files) go with the next ``drop`` or
``compact``: a number is never given to a second space.
"""

from __future__ import annotations

import shutil
from typing import Literal

from memdb import settings, validate
from memdb.embedding import DEFAULT_SPACE
from memdb.engine import Engine
from memdb.errors import Conflict, InvalidArgument
from memdb.maintenance import Maintenance
from memdb.storage import spaces, vectors
from memdb.storage.spaces import SpaceRecord
from memdb.storage.store import Writer
from memdb.types import Space

METRICS = ("cosine", "ip", "l2")
PROFILES = ("exact", "standard", "compact", "nano")


class Spaces:
    """Create, list and drop spaces; name one in ``remember`` and ``recall``."""

    def __init__(self, engine: Engine, maintenance: Maintenance) -> None:
        self._engine = engine
        self._maintenance = maintenance

    def create(
        self,
        name: str,
        *,
        dim: int,
        metric: Literal["cosine", "ip", "l2"] = "cosine",
        profile: Literal["exact", "standard", "compact", "nano"] = settings.DEFAULT_PROFILE,
    ) -> Space:
        """A new space of ``dim`` dimensions. ``profile``: "exact" keeps 16 bits a dimension,
        "standard" 8, "compact" 5 and "nano" 2: smaller, and less sure to rank the very nearest
        first. Raises ``Conflict`` when the name is taken, ``InvalidArgument``."""
        validate.string(name, "name")
        validate.integer(dim, "dim", 1, settings.MAX_DIM)
        if metric not in METRICS:
            raise InvalidArgument(f"metric must be one of {', '.join(METRICS)}", field="metric")
        if profile not in PROFILES:
            raise InvalidArgument(f"profile must be one of {', '.join(PROFILES)}", field="profile")
        record = SpaceRecord(number=0, name=name, dim=dim, metric=metric, profile=profile)

        def make(txn: Writer) -> SpaceRecord:
            return spaces.create_space(txn, record)

        return _public(self._engine.store.write(make), 0)

    def list(self) -> list[Space]:
        """Every space with the number of rows that have a vector in it."""
        with self._engine.store.read() as txn:
            return [
                _public(record, len(self._engine.vectors(record).rows_with_vectors(txn)))
                for record in spaces.spaces(txn)
            ]

    def drop(self, name: str) -> Space:
        """Delete a space with its vectors; returns what it was.

        The memories stay, without their vectors: words and filters still find them. Raises
        ``NotFound``, and ``Conflict`` for the default space while texts are embedded into it.
        """
        validate.string(name, "name")
        engine = self._engine

        def drop(txn: Writer) -> SpaceRecord:
            record = engine.require_space(txn, name)
            if record.name == DEFAULT_SPACE and record.embedder is not None:
                raise Conflict(
                    "the default space holds what the embedder made",
                    hint="only spaces of your own vectors are dropped; forget hides memories",
                )
            encoded = f"encoded/{record.number}"
            engine.filters.set_discard(txn, encoded, engine.filters.get_set(txn, encoded))
            vectors.drop_all_fresh(txn, record.number)
            spaces.drop_space(txn, record.number)
            txn.layout_moved()
            return record

        with self._maintenance.paused():
            with engine.store.read() as txn:
                known = engine.require_space(txn, name)
                count = len(engine.vectors(known).rows_with_vectors(txn))
            dropped = engine.store.write(drop)
            if engine.store.wait_for_readers():
                engine.close_space(dropped.number)
                remove_dropped_files(engine)
        return _public(dropped, count)

    @property
    def default(self) -> str:
        """The name of the space texts are embedded into."""
        return DEFAULT_SPACE


def remove_dropped_files(engine: Engine) -> None:
    """Delete the folders of spaces that are no more. No snapshot may be older than their drop."""
    folder = engine.store.path / "space"
    present = sorted(folder.iterdir()) if folder.is_dir() else []  # before the look at the store:
    with engine.store.read() as txn:  # a space made meanwhile is known, and in the list or not
        known = {str(record.number) for record in spaces.spaces(txn)}
    for one in present:
        if one.name not in known:
            shutil.rmtree(one, ignore_errors=True)


def _public(record: SpaceRecord, vectors: int) -> Space:
    embedder = None if record.embedder is None else str(record.embedder.get("name"))
    return Space(record.name, record.dim, record.metric, record.profile, embedder, vectors)
