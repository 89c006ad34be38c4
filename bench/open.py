"""How long until a new process can answer: import, cold open, first recall.

    python -m bench open [--records 100000] [--times 15] [--drop-caches]

Every measurement is a process of its own, on a store whose pages were put out of the page cache
first: the whole cache with ``--drop-caches`` (needs root), else the store's own files.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import memdb
from bench import makers, report
from bench.measure import judged, load, percentile, settle

HEAVY = ("pyarrow", "torch", "flask", "sentence_transformers", "pandas", "tokenizers", "lmdb")
NOT_WANTED = ("pyarrow", "torch", "flask")

# Run in the new process. It must import nothing but what it measures.
_CHILD = """
import json, sys, time
t0 = time.perf_counter()
import memdb
t1 = time.perf_counter()
plain = [m for m in {heavy!r} if m in sys.modules]
open_ = memdb.open
t2 = time.perf_counter()
db = open_(sys.argv[1], create=False)
t3 = time.perf_counter()
count = db.count()
t4 = time.perf_counter()
loaded = [m for m in {heavy!r} if m in sys.modules]
import random
vector = [random.gauss(0, 1) for _ in range({dim})]
t5 = time.perf_counter()
hits = db.recall(sys.argv[2], vector=vector)
t6 = time.perf_counter()
hits = db.recall(sys.argv[2], vector=vector)
t7 = time.perf_counter()
print(json.dumps(dict(bare_import=t1 - t0, imports=t2 - t0, open=t3 - t2, count=t4 - t3,
    first=t6 - t5, second=t7 - t6, memories=count, hits=len(hits), plain=plain, loaded=loaded)))
"""


def build(folder: Path, records: int) -> None:
    """A store of ``records`` memories with text and vectors, at rest."""
    with memdb.open(folder, embedder="none") as db:
        for start in range(0, records, 50_000):
            size = min(50_000, records - start)
            given = makers.vectors(size, seed=start + 1)
            items = makers.memories(size, given, seed=start + 1)
            report.progress(f"building: {start:,}/{records:,}")
            db.remember_many(items)
        settle(db)


def forget_pages(folder: Path, *, everything: bool) -> None:
    """Put the store's files (or the whole page cache) out of memory; they are synced first."""
    os.sync()
    if everything:
        Path("/proc/sys/vm/drop_caches").write_text("3\n")
        return
    advise = getattr(os, "posix_fadvise", None)
    if advise is None:
        return
    # No process has the store open here: closing a descriptor of LMDB's files drops its locks.
    for path in folder.rglob("*"):
        if path.is_file():
            handle = os.open(path, os.O_RDONLY)
            try:
                advise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
            finally:
                os.close(handle)


def once(folder: Path, query: str, compiled: Path) -> dict[str, Any]:
    """What one new process says of itself; its modules are compiled into ``compiled`` once."""
    environment = {**os.environ, "PYTHONPYCACHEPREFIX": str(compiled)}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    script = _CHILD.format(heavy=HEAVY, dim=makers.DIM)
    done = subprocess.run(
        [sys.executable, "-c", script, str(folder), query],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )
    if done.returncode:
        raise RuntimeError(f"the measured process failed: {done.stderr.strip()}")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def measure(folder: Path, records: int, times: int, *, everything: bool) -> list[dict[str, Any]]:
    """The table: cold and warm processes in turn."""
    query = next(makers.texts(1, seed=9, per_text=4))
    compiled = folder.parent / "compiled"
    once(folder, query, compiled)
    found: dict[str, list[dict[str, Any]]] = {"cold": [], "warm": []}
    for number in range(times):
        report.progress(f"opening: {number}/{times}")
        forget_pages(folder, everything=everything)
        found["cold"].append(once(folder, query, compiled))
        found["warm"].append(once(folder, query, compiled))
    last = found["warm"][-1]
    if last["memories"] != records or not last["hits"]:
        raise RuntimeError("the store opened is not the one built")

    def row(state: str, name: str, label: str, limit: float | None = None) -> dict[str, Any]:
        millis = [one[name] * 1e3 for one in found[state]]
        return judged(f"{label}, {state}, p50", percentile(millis, 50), "ms", at_most=limit)

    limit = 150.0 if records <= 100_000 else None
    rows = [
        row("warm", "bare_import", "import memdb", 150.0),
        row("warm", "imports", "import memdb and all that open needs", 150.0),
        row("cold", "open", f"open of {records:,}", limit),
        row("warm", "open", f"open of {records:,}"),
        row("cold", "count", "first count"),
        row("cold", "first", "first recall (hybrid, vector given)"),
        row("warm", "first", "first recall (hybrid, vector given)"),
        row("warm", "second", "second recall"),
    ]
    unwanted = len([name for name in last["loaded"] if name in NOT_WANTED])
    rows.append(judged(f"of {', '.join(NOT_WANTED)}: loaded", unwanted, "modules", at_most=0))
    rows.append(
        {
            "figure": "heavy modules after import; after open",
            "value": f"{'+'.join(last['plain']) or 'none'}; {'+'.join(last['loaded']) or 'none'}",
        }
    )
    return rows


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench open", description=__doc__)
    parser.add_argument("--records", type=int, default=100_000)
    parser.add_argument("--times", type=int, default=15, help="processes of each kind")
    parser.add_argument("--drop-caches", action="store_true", help="the whole page cache (root)")
    parser.add_argument("--folder", type=Path, help="make the database here (a temporary folder)")
    parser.add_argument("--json", type=Path, help="write the figures to this file as well")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(dir=options.folder) as made:
        folder = Path(made) / "db"
        build(folder, options.records)
        before = load()["load"]
        rows = measure(folder, options.records, options.times, everything=options.drop_caches)
    rows = [{**row, "load": before and before[0]} for row in rows]
    report.table(rows)
    report.save(options.json, "open", arguments, rows)
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
