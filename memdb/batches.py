"""Many items in batches, each checked while the batch before it waits for the disk.

Only of a list or tuple: what an iterator gives may depend on what was written of it so far, so a
batch of that is read and checked when its turn comes. Checking changes nothing, and an error of a
batch is raised in its turn: the batches before it are written. This file writes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

from memdb.aside import Aside
from memdb.validate import Draft

Item = Mapping[str, Any] | str
Check = Callable[[Mapping[str, Any]], Draft]


class Batch:
    """Some items, checked where their drafts are asked for or, once begun, in another thread."""

    def __init__(self, items: Sequence[Item], checker: Callable[[], Check]) -> None:
        self._items = items
        self._checker = checker
        self._begun: Aside[list[Draft]] | None = None
        self.following: Batch | None = None

    def begin_next(self) -> None:
        """Have the batch after this one checked; once or more than once, from any thread."""
        following = self.following
        if following is not None and following._begun is None:
            following._begun = Aside(following._check)

    def drafts(self) -> list[Draft]:
        return self._check() if self._begun is None else self._begun.result()

    def wait(self) -> None:
        """Return once nothing is checked any more."""
        if self._begun is not None:
            self._begun.wait()

    def _check(self) -> list[Draft]:
        check = self._checker()
        return [check({"text": one} if isinstance(one, str) else one) for one in self._items]


def batches_of(
    items: Iterable[Item], size: int, checker: Callable[[], Check]
) -> Generator[Batch, None, None]:
    """Batches of ``size`` in order. To be closed: nothing is checked after that."""
    iterator = iter(items)
    ahead = isinstance(items, list | tuple)
    batch = _next(iterator, size, checker)
    while batch is not None:
        if ahead:
            batch.following = _next(iterator, size, checker)
        try:
            yield batch
        finally:
            if batch.following is not None:
                batch.following.wait()
        batch = batch.following if ahead else _next(iterator, size, checker)


def _next(iterator: Iterator[Item], size: int, checker: Callable[[], Check]) -> Batch | None:
    chunk = list(islice(iterator, size))
    return Batch(chunk, checker) if chunk else None
