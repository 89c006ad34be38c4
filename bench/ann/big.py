"""``python -m bench ann big``: millions of vectors within a budget of memory, from made to asked.

Vectors beyond the given ones are perturbed copies (``scaling``), made block by block from their
seed and never all in memory: once for the exact neighbours, once to be added. The index is built in
this process within the budget, and asked in another that has opened it: the time to open, answers
at several efforts, private memory. What is built is kept, and found again with ``--reuse``.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

import memdb
from bench import report
from bench.ann import scaling, truth
from bench.ann.data import DataSet
from bench.ann.measuring import Row, sources_sha256
from bench.ann.truth import Doubles, Floats, Ids
from bench.ann.workers.harness import PeakMemory, give_back_freed_memory
from bench.measure import load, percentile

BUDGET = "1GiB"
OPEN_MS, ANSWER_MS, LEAST_RECALL = 1000.0, 10.0, 0.95
EFFORTS = (128, 192, 256, 384, 512, 768)


def blocks(data: DataSet, count: int, seed: int) -> Iterator[tuple[int, Floats]]:
    """The first id and the vectors of each block, in order; the same whenever it is asked."""
    step = len(data.base)
    for first in range(0, count, step):
        yield first, scaling.block(data.base, first, min(step, count - first), data.metric, seed)


def exact(data: DataSet, count: int, seed: int, k: int) -> tuple[Ids, Doubles]:
    """(q, k) ids and distances of the exact neighbours."""
    ids: Ids = np.empty((len(data.queries), 0), np.int64)
    distances: Doubles = np.empty((len(data.queries), 0))
    for first, vectors in blocks(data, count, seed):
        found, theirs = truth.exact(vectors, data.queries, data.metric, min(k, len(vectors)))
        report.progress(f"exact neighbours: {first + len(vectors):,}/{count:,}")
        ids = np.concatenate((ids, found + first), axis=1)
        distances = np.concatenate((distances, theirs), axis=1)
        order = np.argsort(distances, axis=1, kind="stable")[:, :k]
        ids, distances = (np.take_along_axis(each, order, 1) for each in (ids, distances))
    return ids, distances


def measure(
    data: DataSet,
    count: int,
    cache: Path,
    *,
    k: int,
    seed: int,
    threads: int,
    reuse: bool,
    budget: str,
    efforts: tuple[int, ...],
    hear: Callable[[Row], None],
) -> None:
    """A row for each effort, of one index."""
    name = f"{data.sha256[:16]}-{count}-{seed}"
    true, _ = truth.kept(
        cache / "truth" / f"big-{name}-{k}.npz",
        lambda: exact(data, count, seed, k),
        (len(data.queries), k),
    )
    key = hashlib.sha256(f"{name} {budget} {sources_sha256()}".encode()).hexdigest()[:24]
    folder = cache / "indexes" / f"big-{key}"
    facts_path = folder.with_suffix(".json")
    if not (reuse and facts_path.exists() and folder.is_dir()):
        shutil.rmtree(folder, ignore_errors=True)
        facts = build(data, count, folder, seed=seed, threads=threads, budget=budget)
        facts_path.write_text(json.dumps(facts), encoding="utf-8")
    facts = json.loads(facts_path.read_text(encoding="utf-8"))
    queries = cache / "indexes" / f"big-{key}.queries.npy"
    np.save(queries, data.queries)
    job = {"folder": str(folder), "queries": str(queries), "k": k, "budget": budget,
           "efforts": list(efforts)}  # fmt: skip
    report.progress(f"{count:,} vectors: opened by another process, and asked")
    command = [sys.executable, "-m", "bench.ann.big", json.dumps(job)]
    told = subprocess.run(command, check=True, capture_output=True, text=True, cwd=os.getcwd())
    report.progress("")
    for line in told.stdout.splitlines():
        row = json.loads(line)
        pairs = zip(row.pop("ids"), true.tolist(), strict=True)
        row["recall"] = sum(len({*found} & {*wanted}) for found, wanted in pairs) / true.size
        hear(_judged({"part": "big", "label": f"memdb ssd standard {budget}", "vectors": count,
                      "parameter": f"effort {row['effort']}", **facts, **row}))  # fmt: skip


def build(data: DataSet, count: int, folder: Path, *, seed: int, threads: int, budget: str) -> Row:
    """Add everything and link it; what that took."""
    give_back_freed_memory()
    started, cpu = time.perf_counter(), time.process_time()
    with (
        PeakMemory() as peak,
        memdb.VectorIndex(
            folder, dim=data.dim, metric=data.metric, kind="ssd", memory_budget=budget,
            threads=threads,
        ) as index,
    ):  # fmt: skip
        for first, vectors in blocks(data, count, seed):
            report.progress(f"adding: {first:,}/{count:,}")
            index.add(np.arange(first, first + len(vectors)), vectors)
        added = time.perf_counter() - started
        with report.ticking(f"linking {count:,} vectors", 0, 1):
            index.wait()
    report.progress("")
    return {
        "add_s": added,
        "build_s": time.perf_counter() - started,
        "build_cpu_s": time.process_time() - cpu,
        "build_peak_bytes": peak.growth,
        "disk_bytes_per_vector": sum(
            path.stat().st_blocks * 512 for path in folder.rglob("*") if path.is_file()
        )
        / count,
    }


def _judged(row: Row) -> Row:
    met = row["open_ms"] < OPEN_MS and row["p50_ms"] < ANSWER_MS and row["recall"] >= LEAST_RECALL
    return {**row, "verdict": "met" if met else "not met"}


def table(rows: list[Row]) -> list[Row]:
    """One line an effort."""
    return [
        {
            "engine": row["label"],
            "vectors": row["vectors"],
            "asked": row["parameter"],
            "io": row["io"],
            "recall": f"{row['recall']:.4f}",
            "p50 ms": row["p50_ms"],
            "p99 ms": row["p99_ms"],
            "cpu ms": row["cpu_ms"],
            "open ms": row["open_ms"],
            "private MB": (row["anonymous_bytes"] or 0) / 1e6,
            "add s": row["add_s"],
            "build s": row["build_s"],
            "build peak MB": (row["build_peak_bytes"] or 0) / 1e6,
            "disk B/v": round(row["disk_bytes_per_vector"]),
            "limit": row["verdict"],
        }
        for row in rows
        if row.get("part") == "big"
    ]


def ask(job: dict[str, Any]) -> Iterator[Row]:
    """In a process of its own: open, then every query at each effort."""
    from bench.ann.workers.harness import anonymous_bytes

    queries, k = np.load(job["queries"]), job["k"]
    give_back_freed_memory()
    before = anonymous_bytes()
    started = time.perf_counter()
    index = memdb.VectorIndex(job["folder"], memory_budget=job["budget"], readonly=True)
    index.search(queries[0], k)
    open_ms = (time.perf_counter() - started) * 1e3
    for effort in job["efforts"]:
        seconds, ids = np.empty(len(queries)), np.empty((len(queries), k), np.uint64)
        cpu = time.process_time()
        for number, query in enumerate(queries):
            started = time.perf_counter()
            ids[number] = index.search(query, k, effort=effort)[0][0]
            seconds[number] = time.perf_counter() - started
        after = anonymous_bytes()
        yield {
            "effort": effort,
            "io": index.stats()["io"],
            "open_ms": open_ms,
            "p50_ms": percentile(seconds, 50) * 1e3,
            "p99_ms": percentile(seconds, 99) * 1e3,
            "cpu_ms": (time.process_time() - cpu) / len(queries) * 1e3,
            "anonymous_bytes": None if None in (before, after) else (after or 0) - (before or 0),
            "ids": ids.tolist(),
            "load": load()["load"],
        }
    index.close()


if __name__ == "__main__":
    for found in ask(json.loads(sys.argv[1])):
        print(json.dumps(found), flush=True)
