"""Batches in order, one committing while the next is checked and embedded.

A commit waits for the disk and copies pages with the interpreter's lock released; meanwhile the
caller's thread can do the work of the next batch that needs no transaction. One batch is in flight
at most, so an error in it is raised before a later one begins.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Generic, Self, TypeVar

T = TypeVar("T")


class Pipeline(Generic[T]):
    """Runs jobs one after the other on a thread of its own."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="memdb-write")
        self._flying: Future[T] | None = None

    def put(self, job: Callable[[], T]) -> T | None:
        """Start ``job`` once the one before it is done; returns that one's result."""
        before = self.drain()
        self._flying = self._pool.submit(job)
        return before

    def drain(self) -> T | None:
        """Wait for the job in flight; its result, or None. Raises what it raised."""
        flying, self._flying = self._flying, None
        return None if flying is None else flying.result()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._pool.shutdown(wait=True)
