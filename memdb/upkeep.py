"""The verbs of ``Database`` that keep house: what is stored, whether it is sound, copies of it.

Names and defaults, as in ``database``; ``admin`` does it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from memdb.admin import Admin
from memdb.maintenance import Maintenance
from memdb.progress import Progress


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
