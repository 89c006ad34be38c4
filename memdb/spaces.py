"""``db.spaces``: embedding spaces by name. One per model, or for vectors the caller brings.

Dropping one is two steps: a transaction after which no new snapshot knows the space, then, once
no snapshot from before it is read any more, the removal of its files. Files that could not be
removed (a reader that takes long, a system that keeps open files) go with the next ``drop`` or
``compact``: a number is never given to a second space.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, Final, Literal

from memdb import reembedding, settings, space_convert, space_sample, validate
from memdb.embedding import DEFAULT_SPACE
from memdb.engine import Engine
from memdb.errors import Conflict, InvalidArgument, LockHeld
from memdb.maintenance import Maintenance
from memdb.progress import Progress, reporting
from memdb.removal import remove_dropped_files
from memdb.space_sample import SpaceSample
from memdb.storage import spaces
from memdb.storage.spaces import SpaceRecord
from memdb.storage.store import Writer
from memdb.types import Space

METRICS = ("cosine", "ip", "l2")
PROFILES = ("exact", "standard", "compact", "nano", "pico")
_PATIENCE_S: Final = 10.0  # with a process that has the lease and moves nothing
_READERS_END_S: Final = 2.0


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
        profile: Literal["exact", "standard", "compact", "nano", "pico"] = settings.DEFAULT_PROFILE,
    ) -> Space:
        """A new space of ``dim`` dimensions. ``profile``: "exact" keeps 16 bits a dimension,
        "standard" 8, "compact" 5, "nano" 2 and "pico" 1: smaller, and less sure to rank the
        very nearest first. Raises ``Conflict`` when the name is taken, ``InvalidArgument``."""
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
        engine = self._engine
        with engine.store.read() as txn:
            visible = engine.visible(txn, engine.now())
            having = [
                (record, engine.vectors(record).rows_with_vectors(txn))
                for record in spaces.spaces(txn)
            ]
        return [
            _public(
                record, len(rows) if visible is None else rows.intersection_cardinality(visible)
            )
            for record, rows in having
        ]

    def sample(
        self,
        name: str = DEFAULT_SPACE,
        *,
        where: Mapping[str, Any] | None = None,
        limit: int = 1_000,
    ) -> SpaceSample:
        """Up to ``limit`` memories of a space with their vectors, in any namespace: for a picture.

        The same ones as long as nothing changes, and nearly the same afterwards. Raises
        ``NotFound``, ``FilterError``, ``InvalidArgument``.
        """
        validate.string(name, "name")
        validate.integer(limit, "limit", 1, space_sample.MOST)
        return space_sample.sample(self._engine, name, where, limit)

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
            if record.filling:
                raise Conflict(
                    "that space is being filled",
                    hint="db.reembed with the embedder there was before gives it up",
                )
            reembedding.drop(txn, engine, record)
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

    def convert(
        self,
        name: str,
        profile: Literal["exact", "standard", "compact", "nano", "pico"],
        *,
        progress: Progress = None,
    ) -> Space:
        """Keep the vectors of a space at a smaller ``profile``; returns when that is so.

        Others read and write meanwhile. Cut off, it goes on in the background, here or where the
        database is opened next; another ``profile`` begins anew, the present one gives it up. Where
        another process maintains the database, that does it and this waits. ``progress``: True for
        a bar on a terminal, or a callable given (vectors done, vectors). Raises ``NotFound``,
        ``Conflict`` for a profile that would keep more than there is, and ``LockHeld`` when the
        maintaining process does nothing about it.
        """
        validate.string(name, "name")
        engine = self._engine

        def aim(txn: Writer) -> SpaceRecord:
            record = engine.require_space(txn, name)
            return space_convert.aim(txn, engine.filters, record, profile)

        record = engine.store.write(aim)
        self._maintenance.notify()  # it goes on there when this is cut off
        with engine.store.read() as txn:
            total = len(engine.vectors(record).rows_with_vectors(txn))
        with reporting(progress, total, f"{name} to {profile}") as report:
            self._drive(name, profile, report)
            report(total)
        with engine.store.read() as txn:
            record = engine.require_space(txn, name)
            return _public(record, len(engine.vectors(record).rows_with_vectors(txn)))

    def _drive(self, name: str, profile: str, report: Callable[[int], None]) -> None:
        """Do the steps if the lease is free, else watch its holder do them."""
        engine = self._engine
        lease, known, since = engine.store.lease, -1, time.monotonic()
        while True:
            with engine.store.read() as txn:
                record = engine.require_space(txn, name)
                job = space_convert.job_of(txn, engine.filters, record)
            if job is None or job.profile != profile:
                break
            report(job.done)
            if lease.try_acquire():
                with self._maintenance.paused():
                    engine.vectors(record).convert_step()
                continue
            if job.done != known:
                known, since = job.done, time.monotonic()
            elif time.monotonic() - since > _PATIENCE_S:
                pid, host = lease.holder()
                raise LockHeld(
                    f"process {pid} on {host} maintains this database and does not convert",
                    pid=pid,
                    host=host,
                )
            time.sleep(settings.MAINTENANCE_POLL_MS / 1000)
        if record.profile != profile:
            raise Conflict(
                f"the conversion to {profile!r} was given up for another",
                hint="db.stats() says what the space is being converted to",
            )
        if lease.held:
            with self._maintenance.paused():
                space_convert.tidy(engine.vectors(record), engine.store, _READERS_END_S)

    @property
    def default(self) -> str:
        """The name of the space texts are embedded into."""
        return DEFAULT_SPACE


def _public(record: SpaceRecord, vectors: int) -> Space:
    embedder = None if record.embedder is None else str(record.embedder.get("name"))
    replaces = DEFAULT_SPACE if record.filling else None
    return Space(
        record.name, record.dim, record.metric, record.profile, embedder, vectors, replaces
    )
