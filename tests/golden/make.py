"""Write the golden database of the current format: ``python -m tests.golden.make``.

``format-N.zip`` is a database that uses every feature, written once by the memdb that introduced
format N and never again; ``format-N.jsonl.zst`` is what that memdb exported from it. Later versions
must open the one and give the other. While format N is not released, a change of it may write both
anew; afterwards a change is format N + 1.
"""

from __future__ import annotations

import tempfile
import zipfile
from pathlib import Path

import memdb
from memdb import settings
from tests.memdb import full_store

HERE = Path(__file__).resolve().parent


_OF_THIS_MACHINE = {"lease", "lock.mdb"}  # made anew by whoever opens the database


def pack(database: Path, target: Path) -> None:
    """Every file and folder of a closed database; the same bytes give the same archive."""
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for path in sorted(database.rglob("*")):
            if path.name in _OF_THIS_MACHINE:
                continue
            name = path.relative_to(database).as_posix() + ("/" if path.is_dir() else "")
            entry = zipfile.ZipInfo(name)
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, b"" if path.is_dir() else path.read_bytes())


def main() -> None:
    name = f"format-{settings.FORMAT_VERSION}"
    with tempfile.TemporaryDirectory() as folder:
        database, clock = Path(folder) / "db", full_store.Clock()
        full_store.build(database, Path(folder) / "notes", clock)
        with memdb.open(database, embedder="none", clock=clock, namespace="") as db:
            db.export(HERE / f"{name}.jsonl.zst")
            found = db.check()
            assert found["ok"], found
        pack(database, HERE / f"{name}.zip")


if __name__ == "__main__":
    main()
