"""The verbs of ``Database`` that keep house: what is stored, whether it is sound, copies of it.

Names and defaults, as in ``database``; ``admin`` does it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from memdb.admin import Admin
from memdb.embedding import Given
from memdb.maintenance import Maintenance
from memdb.progress import Progress
from memdb.types import Reembedding


class Upkeep:
    """What ``Database`` inherits; it makes the parts named here."""

    _reads: str
    _admin: Admin
    _maintenance: Maintenance

    def stats(self) -> dict[str, Any]:
        """Counts, bytes by component, spaces and the maintenance backlog."""
        return self._admin.stats()

    def check(self, repair: bool = False) -> dict[str, Any]:
        """Verify every checksum and that all structures agree; ``repair`` rebuilds derived data."""
        return self._admin.check(repair=repair)

    def compact(self) -> dict[str, Any]:
        """Fold, merge, freeze and rewrite the store without free pages or dead bytes."""
        return self._admin.compact()

    def reembed(
        self, embedder: Given = None, progress: Progress = None, wait: bool = False
    ) -> Reembedding:
        """Embed all texts again with another model (as in ``open``), in the background.

        The present model answers until every text has its vector by the new one, then the new one
        does, in every process; vectors of two models are never compared. What is written, forgotten
        and erased meanwhile is so in both. Cut off, it goes on where the database is opened next;
        naming the present model gives it up, another one begins anew, and None goes on with what
        is under way, or embeds what has no vector. ``wait`` returns when it is done, with
        ``progress``: True for a bar on a terminal, or a callable given (texts done, texts).
        Memories without text keep their vectors: ``kept`` and ``space`` of the result.

        Raises ``InvalidArgument``, ``EmbedderUnavailable``, ``MissingDependency``, and while
        waiting ``LockHeld`` when the process that maintains the database does not embed.
        """
        return self._admin.reembed(embedder, progress, wait)

    def snapshot(self, path: str | os.PathLike[str]) -> Path:
        """A consistent copy of the database in a new directory, which opens like any other."""
        return self._admin.snapshot(Path(path))

    def export(
        self,
        path: str | os.PathLike[str],
        format: Literal["jsonl", "parquet"] = "jsonl",
        where: Mapping[str, Any] | None = None,
        *,
        progress: Progress = None,
    ) -> int:
        """Write every field of the memories selected; returns how many."""
        return self._admin.export(Path(path), format, self._reads, where, progress)

    def import_(self, path: str | os.PathLike[str], *, progress: Progress = None) -> int:
        """Read what ``export`` wrote; memories whose id exists are left alone. Returns how many
        were new."""
        added = self._admin.import_(Path(path), progress)
        self._maintenance.notify()
        return added
