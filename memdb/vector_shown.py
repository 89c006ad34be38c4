"""Which book of a ``VectorIndex`` this process shows, and how a search meets a commit.

Book and engine are replaced together, by one assignment: a search whose snapshot is of that book
takes both without a lock. One that meets a commit of this process before its book is shown waits
for that, instead of reading again what is at hand. This file knows sequence numbers; it reads
nothing.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

from memdb.index import engines
from memdb.index.protocol import Graphed, Linking
from memdb.storage.environment import ReadTxn
from memdb.vector_book import Book


class View(NamedTuple):
    """One state of everything: a snapshot, its book, and the engine whose files hold its slots."""

    txn: ReadTxn
    book: Book
    files: engines.AnyEngine

    @property
    def linking(self) -> Linking | None:
        return self.files if isinstance(self.files, Linking) else None

    @property
    def graph(self) -> Graphed | None:
        return self.files if isinstance(self.files, Graphed) else None


class Shown:
    """The newest book that this process has seen, and the engine that holds its slots."""

    def __init__(self) -> None:
        self._now: tuple[Book, engines.AnyEngine] | None = None
        self._coming: tuple[int, threading.Event] | None = None

    @property
    def book(self) -> Book | None:
        now = self._now
        return None if now is None else now[0]

    def put(self, book: Book, files: engines.AnyEngine) -> None:
        self._now = book, files

    def view(self, txn: ReadTxn, sequence: int) -> View | None:
        """What is shown, if that is the book of the snapshot."""
        now = self._now
        if now is None or now[0].sequence != sequence:
            return None
        return View(txn, *now)

    def is_past(self, sequence: int) -> bool:
        """Whether a newer book is shown."""
        now = self._now
        return now is not None and now[0].sequence > sequence

    @contextmanager
    def committing(self) -> Iterator[Callable[[int], None]]:
        """While one thread commits a book and shows it; it says which, before it commits."""
        shown = threading.Event()

        def coming(sequence: int) -> None:
            self._coming = sequence, shown

        try:
            yield coming
        finally:  # also where the commit failed: who has waited reads what there is
            self._coming = None
            shown.set()

    def wait_for(self, sequence: int) -> None:
        """Until the book is shown, where this process is about to show it."""
        coming = self._coming
        if coming is not None and coming[0] == sequence:
            coming[1].wait()
