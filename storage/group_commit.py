"""Group commit without a timer: who comes while a commit syncs goes with the next one.

Writers queue. The first of them leads: it runs all that queued meanwhile as one group, lets those
go whose writes that made durable, and hands on to the first that came since, which has waited for
longest. If the group fails, each of it is run again alone, so that one caller's error is never
another's. This file knows functions and threads; what a transaction is, and how a group becomes
one, is the store's to say.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Generic, TypeVar

from memdb.errors import MemdbError
from memdb.storage.transactions import Writer

T = TypeVar("T")
Beside = Callable[[Writer, Any], None]
"""What is called in the transaction of a write, with what the write returned."""

_MAX_GROUP = 64


class Job(Generic[T]):
    """One queued write: its function, and its outcome once the leader ran it."""

    __slots__ = ("beside", "committing", "done", "error", "function", "leads", "result", "turn")

    def __init__(
        self,
        function: Callable[[Writer], T],
        beside: Beside | None,
        committing: Callable[[], None] | None,
    ) -> None:
        self.function = function
        self.beside = beside
        self.committing = committing
        self.done = False
        self.leads = False
        self.turn = threading.Lock()  # held until it is done, or is to lead
        self.turn.acquire()
        self.result: T | None = None
        self.error: BaseException | None = None


class GroupCommit:
    """The queue of writes. ``run`` makes a group durable: all of it, or it raises."""

    def __init__(self, run: Callable[[list[Job[Any]]], None]) -> None:
        self._run = run
        self._running = threading.Lock()  # by who leads, or by ``paused``
        self._leading_thread: int | None = None
        self._queue: list[Job[Any]] = []
        self._queue_guard = threading.Lock()
        self._led = False

    def submit(self, job: Job[T]) -> T:
        """What the job's function returns, when it is durable. Raises what the function raises."""
        if self._leading_thread == threading.get_ident():
            raise MemdbError("a write inside a write: use the transaction at hand")
        with self._queue_guard:
            self._queue.append(job)
            if not self._led:
                self._led = job.leads = True
        try:
            if not job.leads:
                job.turn.acquire()
            if not job.done:
                self._lead(job)
        except BaseException:  # an interrupt: nobody else must wait for this thread
            self._leave(job)
            raise
        if job.error is not None:
            raise job.error
        return job.result  # type: ignore[return-value]

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Within the block no group is run; those who write wait."""
        with self._running:
            yield

    def _lead(self, job: Job[Any]) -> None:
        """Run the group that ``job`` is the first of, then hand on."""
        with self._running:
            self._leading_thread = threading.get_ident()
            try:
                self._commit_group()
            finally:
                self._leading_thread = None
        self._hand_on(job)

    def _hand_on(self, job: Job[Any]) -> None:
        """The first in the queue leads, if there is one."""
        with self._queue_guard:
            job.leads = False
            self._led = bool(self._queue)
            if self._led:
                self._queue[0].leads = True
                self._queue[0].turn.release()

    def _leave(self, job: Job[Any]) -> None:
        """Who waited or led was interrupted: what is queued of it is not run."""
        with self._queue_guard:
            if job in self._queue:
                self._queue.remove(job)
        if job.leads:
            self._hand_on(job)

    def _commit_group(self) -> None:
        with self._queue_guard:
            group = self._queue[:_MAX_GROUP]
            del self._queue[: len(group)]
        try:
            self._run(group)
        except BaseException as error:  # noqa: BLE001 - raised again in the thread that asked
            if len(group) == 1:
                group[0].error = error
            else:
                for job in group:
                    try:
                        self._run([job])
                    except BaseException as own:  # noqa: BLE001 - likewise
                        job.error = own
        for job in group:
            job.done = True
            if not job.leads:
                job.turn.release()
