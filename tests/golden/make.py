"""Makes ``format-<version>.tar.xz``: a database of this format, for later versions to open.

    python -m tests.golden.make

Run it when the format of a version that is not yet released changes; a released version's file
never changes again. The content is ``tests/memdb/full_store.py``'s, at a fixed time.
"""

from __future__ import annotations

import tarfile
import tempfile
from pathlib import Path

from memdb import settings
from tests.memdb import full_store

_LEFT_OUT = ("lock.mdb", "lease", "creating")


def archive(version: int) -> Path:
    return Path(__file__).parent / f"format-{version}.tar.xz"


def _anonymous(entry: tarfile.TarInfo) -> tarfile.TarInfo | None:
    """Neither the maker's name nor the hour, nor files that only say who works on it."""
    if Path(entry.name).name in _LEFT_OUT:
        return None
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = ""
    entry.mtime = int(full_store.NOW.timestamp())
    return entry


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        database = Path(folder) / "db"
        full_store.build(database, Path(folder) / "notes", full_store.Clock())
        target = archive(settings.FORMAT_VERSION)
        with tarfile.open(target, "w:xz", preset=9) as packed:
            packed.add(database, "db", filter=_anonymous)
    print(f"{target.name}: {target.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
