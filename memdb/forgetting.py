"""The verbs of ``Database`` that forget: hide and restore, tell all that is known, erase for good.

Names and defaults, as in ``database``; ``writer``, ``trash``, ``erasure`` and ``receipt`` do it.
"""

from __future__ import annotations

import builtins
from collections.abc import Mapping, Sequence
from typing import Any

from memdb import receipt, settings, trash, validate
from memdb.engine import Engine
from memdb.erasure import Eraser
from memdb.maintenance import Maintenance
from memdb.reader import MemoryReader
from memdb.receipt import Receipt
from memdb.selection import selector
from memdb.types import Forgotten, Report, Trashed
from memdb.writer import MemoryWriter

Ids = str | Sequence[str] | None
Where = Mapping[str, Any] | None
Name = str | None


class Forgetting:
    """What ``Database`` inherits; it makes the parts named here."""

    _engine: Engine
    _acts: str
    _reader: MemoryReader
    _writer: MemoryWriter
    _eraser: Eraser
    _maintenance: Maintenance

    def forget(self, ids: Ids = None, *, where: Where = None, about: Name = None) -> Forgotten:
        """Hide memories at once; ``restore`` brings them back for seven days.

        What is named is narrowed by every argument given. Samples of a series have no words, tags
        or people: ``where`` and ``about`` do not reach them, ``ids`` does.
        """
        select = selector(self._reader, self._acts, ids=ids, where=where, about=about)
        done = self._writer.forget(select)
        self._maintenance.notify()
        return done

    def restore(
        self, ids: str | Sequence[str] | None = None, *, batch: str | None = None
    ) -> Sequence[str]:
        """Bring back what ``forget`` hid, by id or by batch; returns the ids.

        Raises ``NotFound`` when nothing of that is in the trash of this handle's namespace,
        ``Conflict`` when an external id has been taken meanwhile.
        """
        named = [ids] if isinstance(ids, str) else ids
        done = self._writer.restore(self._acts, named, batch)
        self._maintenance.notify()
        return done

    def trash(self) -> Sequence[Trashed]:
        """What ``restore`` can bring back within this handle's namespace, latest batch first."""
        with self._engine.store.read() as txn:
            return trash.listing(txn, self._engine, self._acts)

    def report(self, ids: Ids = None, *, where: Where = None, about: Name = None) -> Report:
        """Everything known under a selector, and what ``erase`` with it would reach.

        That is also what is in the trash or has expired, earlier versions, and what was derived.
        Memories that merely mention the name ``about`` are listed apart: ``erase`` leaves them.
        """
        select = self._eraser.select(self._acts, ids, where, about)
        return self._eraser.report(self._acts, select, about)

    def erase(
        self,
        ids: Ids = None,
        *,
        where: Where = None,
        about: Name = None,
        confirm_count: int | None = None,
    ) -> Receipt:
        """Remove memories for good, with all that was derived from them; nothing brings them back.

        They are invisible, in every process, when this returns; ``receipt.wait()`` returns when no
        file that memdb can reach holds a byte of them. Their ids and your ``external_id``s stay
        taken: writing, importing or syncing the same again does nothing.

        ``confirm_count``: the ``total`` of a report that was looked at. It is compared in the
        transaction that erases: ``Conflict``, and nothing is erased, where by now it would be
        another number.
        """
        if confirm_count is not None:
            validate.integer(confirm_count, "confirm_count", 0, settings.MAX_SAFE_INTEGER)
        select = self._eraser.select(self._acts, ids, where, about)
        number = self._eraser.erase(self._acts, select, confirm_count)
        return receipt.at(self._engine.whole, self._maintenance, number)

    def receipts(self) -> builtins.list[Receipt]:
        """The receipt of every erasure, oldest first. Raises ``StoreCorrupt`` where one was
        changed or is missing."""
        return receipt.listing(self._engine.whole, self._maintenance)
