"""``python -m bench ann insert``: durable inserts a second in batches, and the time to open.

Of memdb only. A batch counts when ``add`` has returned, that is when it is on disk; ``wait`` after
the last one is in the time. How much of it was encoded by then stands beside, since fresh vectors
are durable too but are scanned at full precision.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import memdb
from bench import report
from bench.ann.data import DataSet
from bench.ann.engines import Variant
from bench.measure import load, percentile

BATCHES = (1, 64, 1024, 8192, 65_536)
LEAST_PER_SECOND = 20_000

Row = dict[str, Any]


def measure(
    data: DataSet,
    variants: list[Variant],
    folder: Path,
    limit_s: float,
    hear: Callable[[Row], None],
) -> None:
    """A row for each variant and size of batch; each takes at most about ``limit_s``."""
    for variant in variants:
        for batch in BATCHES:
            report.progress(f"{variant.label}: inserts in batches of {batch:,}")
            hear(_inserted(data, variant, batch, folder / "inserted", limit_s))


def _inserted(data: DataSet, variant: Variant, batch: int, path: Path, limit_s: float) -> Row:
    seconds: list[float] = []
    done = 0
    index = memdb.VectorIndex(
        path, dim=data.dim, metric=data.metric, memory_budget="16GiB", **variant.build
    )
    try:
        started, cpu = time.perf_counter(), time.process_time()
        while done < len(data.base) and time.perf_counter() - started < limit_s:
            part = data.base[done : done + batch]
            before = time.perf_counter()
            index.add(np.arange(done, done + len(part)), part)
            seconds.append(time.perf_counter() - before)
            done += len(part)
        index.wait()
        elapsed, cpu = time.perf_counter() - started, time.process_time() - cpu
        encoded = int(index.stats().get("encoded", 0))
    finally:
        index.close()
        shutil.rmtree(path, ignore_errors=True)
    return {
        "part": "insert",
        "label": variant.label,
        "case": f"batches of {batch:,}",
        "batch": batch,
        "vectors": done,
        "per_second": done / elapsed,
        "per_cpu_second": done / max(cpu, 1e-9),
        "encoded": encoded / done,
        "batch_p50_ms": percentile(seconds, 50) * 1e3,
        "batch_p99_ms": percentile(seconds, 99) * 1e3,
        "load": load()["load"],
    }


def table(rows: list[Row]) -> list[Row]:
    """One line a size of batch."""
    return [
        {
            "engine": row["label"],
            "inserted in": row["case"],
            "vectors": row["vectors"],
            "a second": row["per_second"],
            "a cpu second": row["per_cpu_second"],
            "encoded": f"{row['encoded'] * 100:.0f} %",
            "batch p50 ms": row["batch_p50_ms"],
            "batch p99 ms": row["batch_p99_ms"],
        }
        for row in rows
        if row.get("part") == "insert" and "error" not in row
    ]


def openings(rows: list[Row]) -> list[Row]:
    """What the rows of ``compare`` say about opening, one line a variant and size."""
    by_index = {(row["label"], row["vectors"]): row for row in rows if "open_ms" in row}
    shown = []
    for (label, count), row in by_index.items():
        cold = row.get("cold") or {}
        shown.append(
            {
                "engine": label,
                "open": f"{count:,} vectors",
                "warm ms": row["open_ms"],
                "cold ms": cold.get("open_ms"),
                "first answer, cold ms": cold.get("first_ms"),
                "build s": row["build_s"],
                "disk B/v": round(row["disk_bytes_per_vector"]),
            }
        )
    return shown
