"""``db.reembed``: what a caller asks for, and may wait for.

It sets the aim; ``reembedding`` takes the steps, in this process if it holds the maintenance lease
(in the background, or here while somebody waits), else in the one that does. An embedder object
lives in this process only, so with one of those this process takes the steps whoever has the lease.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from memdb import reembed_job, reembedding, settings
from memdb.embedding import NONE, Given, checked
from memdb.engine import Engine
from memdb.errors import InvalidArgument, LockHeld
from memdb.ingest import embedders
from memdb.ingest.embedders import identity_of
from memdb.maintenance import Maintenance
from memdb.progress import Progress, reporting
from memdb.removal import remove_dropped_files
from memdb.storage import spaces
from memdb.storage.store import Writer
from memdb.types import Reembedding

_PATIENCE_S: Final = 10.0  # with a process that has the lease and moves nothing
_READERS_END_S: Final = 2.0


class ReembedCall:
    """``db.reembed`` over one engine; stateless between calls."""

    def __init__(self, engine: Engine, maintenance: Maintenance) -> None:
        self._engine = engine.whole
        self._maintenance = maintenance
        self._steps = maintenance.reembedder

    def reembed(self, given: Given, progress: Progress, wait: bool) -> Reembedding:
        """Aim at an embedder, or go on with what is under way; see ``Database.reembed``."""
        engine = self._engine
        own = self._aim(given)
        self._steps.error = None
        self._maintenance.notify()
        state = self.look()
        if wait and state is not None:
            with reporting(progress, state.total, f"embedding with {state.embedder}") as report:
                self._drive(report, own)
            state = self.look()
        if state is None:
            raise InvalidArgument(
                "nothing is being embedded again", field="embedder", hint="name an embedder"
            )
        if engine.store.lease.held and engine.store.wait_for_readers(0.0):
            remove_dropped_files(engine)  # of a space that was given up
        return state

    def look(self) -> Reembedding | None:
        """How far it is, and why it does not go on."""
        with self._engine.store.read() as txn:
            state = reembedding.state(txn, self._engine)
        error = self._steps.error
        if state is None or error is None or state.state == "done":
            return state
        return replace(state, waiting=error.message)

    def _aim(self, given: Given) -> bool:
        """Whether only this process can embed what is aimed at."""
        engine = self._engine
        spec, model = checked(given)
        if given is None:
            with engine.store.read() as txn:
                if reembedding.due(txn):
                    return False
            spec, model = engine.embedding.spec, engine.embedding.get()
        elif model is None and spec is not None:
            model = embedders.load(spec)
        if model is None or spec is None or spec == NONE:
            raise InvalidArgument(
                "'none' embeds nothing",
                field="embedder",
                hint="memdb.open(path, embedder='none') searches by words alone",
            )
        wanted = identity_of(model)
        engine.embedding.offer(spec, model)

        def aim(txn: Writer) -> None:
            reembedding.begin(txn, engine, spec, wanted)

        with self._maintenance.paused():
            engine.store.write(aim)
        return not isinstance(given, str) and given is not None

    def _drive(self, report: Callable[[int], None], own: bool) -> None:
        """Take the steps if the lease is free, or they are nobody else's; else watch them."""
        lease, known, since = self._engine.store.lease, -1, time.monotonic()
        while True:
            state = self.look()
            if state is None or state.state == "done":
                return
            report(state.done)
            if lease.try_acquire() or (own and state.state == "running"):
                with self._maintenance.paused():
                    worked = self._steps.step(again=True)
                if worked:
                    continue
                if self._steps.error is not None:
                    raise self._steps.error
                if self._settled():
                    return
            elif self._settled():
                return
            if state.done != known:
                known, since = state.done, time.monotonic()
            elif time.monotonic() - since > _PATIENCE_S and not lease.held:
                pid, host = lease.holder()
                raise LockHeld(
                    f"process {pid} on {host} maintains this database and does not embed",
                    pid=pid,
                    host=host,
                    hint="it may lack the model; stop it, or wait until it has ended",
                )
            time.sleep(settings.MAINTENANCE_POLL_MS / 1000)

    def _settled(self) -> bool:
        """Whether all that is left is to remove files, which somebody may still read."""
        with self._engine.store.read() as txn:
            last = reembed_job.last(txn)
            if reembed_job.job(txn) is not None or last is None:
                return False
            old = spaces.get_space(txn, last.old)
            state = reembedding.state(txn, self._engine)
        return last.over or (old is None and state is not None and state.done == state.total)
