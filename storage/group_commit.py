"""Group commit without a timer: who comes while a commit syncs goes with the next one.

Writers queue; whichever thread gets the leader lock runs all that queued meanwhile as one group. If
the group fails, each of it is run again alone, so that one caller's error is never another's. This
file knows functions and threads; what a transaction is, and how a group becomes one, is the
store's to say.
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

    __slots__ = ("beside", "committing", "done", "error", "function", "result")

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
        self.result: T | None = None
        self.error: BaseException | None = None


class GroupCommit:
    """The queue of writes. ``run`` makes a group durable: all of it, or it raises."""

    def __init__(self, run: Callable[[list[Job[Any]]], None]) -> None:
        self._run = run
        self._leader = threading.Lock()
        self._leading_thread: int | None = None
        self._queue: list[Job[Any]] = []
        self._queue_guard = threading.Lock()

    def submit(self, job: Job[T]) -> T:
        """What the job's function returns, when it is durable. Raises what the function raises."""
        if self._leading_thread == threading.get_ident():
            raise MemdbError("a write inside a write: use the transaction at hand")
        with self._queue_guard:
            self._queue.append(job)
        with self._leader:
            self._leading_thread = threading.get_ident()
            try:
                while not job.done:
                    self._commit_group()
            finally:
                self._leading_thread = None
        if job.error is not None:
            raise job.error
        return job.result  # type: ignore[return-value]

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Within the block no group is run; those who write wait."""
        with self._leader:
            yield

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
