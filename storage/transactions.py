"""Transactions of the store: LMDB's, with the state they saw and the one they will leave behind.

This file knows the state and the change log. It does not know generations, threads or records.
"""

from __future__ import annotations

from typing import Any

from memdb.errors import InvalidArgument
from memdb.storage.changes import Change, record_change
from memdb.storage.environment import ReadTxn, WriteTxn
from memdb.storage.state import State


class Reader(ReadTxn):
    """A read transaction with the state it saw."""

    __slots__ = ("state",)
    state: State


class Writer(WriteTxn):
    """The write transaction with the state it will leave behind."""

    __slots__ = ("_change", "_layout_moved", "state")
    state: State

    def begin_operation(self) -> None:
        self._change = Change()
        self._layout_moved = False

    def changed(
        self,
        *,
        added: Any = (),
        removed: Any = (),
    ) -> None:
        """Note rows that became visible or invisible; ``content_seq`` will count it."""
        self._change.note(added, removed)

    def series_changed(self) -> None:
        """Note that samples came or went; they have no rows, and ``content_seq`` counts them."""
        self._change.samples = True

    def moved_block(self, key: bytes) -> None:
        """Note a block of strings as written or deleted; ``content_seq`` counts it, filing too."""
        self._change.blocks.add(key)

    def layout_moved(self) -> None:
        """Note that maintenance moved bytes that caches of other readers may point at."""
        self._layout_moved = True

    def allocate_run(self) -> int:
        """The number of a new run of 65,536 row ids."""
        run = self.state.next_run
        if run >= 1 << 16:
            raise InvalidArgument("the database has used all of its row ids")
        self.state = self.state._replace(next_run=run + 1)
        return run

    def end_operation(self) -> None:
        if self._change:
            sequence = self.state.content_seq + 1
            self.state = self.state._replace(content_seq=sequence)
            record_change(self, sequence, self._change)
        if self._layout_moved:
            self.state = self.state._replace(layout_seq=self.state.layout_seq + 1)
