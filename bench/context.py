"""Is a context within its budget, always, and how long does it take?

    python -m bench context [--sizes 10000 100000] [--budgets 10000]

Budgets: random ones, 0 among them, by the embedder's tokenizer and by the estimate in turn.
Latency: ``db.context`` with the embedded default model, by the clock and by processor time, and as
a multiple of the ``db.recall`` of ten hits, in a store that has done its background work.
"""

from __future__ import annotations

import argparse
import random
import tempfile
import time
from pathlib import Path
from typing import Any

import memdb
from bench import makers, report
from bench.measure import percentile, settle

LIMIT_MS = 30.0
LIMIT_TIMES_RECALL = 3.0  # of processor time, asked in turns


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench context", description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--budgets", type=int, default=10_000)
    parser.add_argument("--questions", type=int, default=100)
    parser.add_argument("--json", type=Path, help="write the figures to this file as well")
    options = parser.parse_args(arguments)
    rows = [budgets(options.budgets)]
    rows += [latency(size, options.questions) for size in options.sizes]
    report.table(rows)
    report.save(options.json, "context", arguments, rows)
    return 0 if all(row["verdict"] == "met" for row in rows) else 1


def budgets(count: int) -> dict[str, Any]:
    """How many of ``count`` random budgets were exceeded, by the tokenizer of the default embedder
    and by the estimate in turn."""
    rng = random.Random(5)
    over = 0
    memories = list(makers.memories(60, None, seed=3))
    question = memories[0]["text"]
    with (
        tempfile.TemporaryDirectory() as folder,
        memdb.open(Path(folder) / "with", embedder="static") as with_model,
        memdb.open(Path(folder) / "without", embedder="none") as without,
    ):
        stores = (with_model, without)
        for db in stores:
            db.remember_many([*memories, "tö " * 3_000])
        for number in range(count):
            if number % 100 == 0:
                report.progress(f"budgets: {number:,}/{count:,}")
            budget = 0 if number % 50 == 0 else rng.randrange(2_500)
            packed = stores[number % 2].context(question, budget)
            over += packed.tokens > budget or (budget > 1_000 and not packed.items)
    return {
        "what": f"{count:,} budgets",
        "over": over,
        "verdict": "met" if not over else "not met",
    }


def latency(size: int, questions: int) -> dict[str, Any]:
    """Milliseconds of ``db.context`` by the clock and of the processor, at ``size`` memories."""
    asked = [one["text"] for one in makers.memories(questions, None, seed=99)]
    with tempfile.TemporaryDirectory() as folder, memdb.open(folder, embedder="static") as db:
        for start in range(0, size, 20_000):
            report.progress(f"building: {start:,}/{size:,}")
            part = min(20_000, size - start)
            db.remember_many(makers.memories(part, None, seed=start + 1))
        settle(db)
        for query in asked[:10]:
            db.context(query)
        wall, cpu, recall_cpu = [], [], []
        for query in asked:
            started, busy = time.perf_counter(), time.thread_time()
            db.context(query)
            wall.append(time.perf_counter() - started)
            cpu.append(time.thread_time() - busy)
            busy = time.thread_time()
            db.recall(query)
            recall_cpu.append(time.thread_time() - busy)
    p50 = percentile(wall, 50) * 1e3
    times = percentile(cpu, 50) / percentile(recall_cpu, 50)
    return {
        "what": f"context at {size:,}",
        "p50_ms": p50,
        "p99_ms": percentile(wall, 99) * 1e3,
        "p50_cpu_ms": percentile(cpu, 50) * 1e3,
        "times_recall": times,
        "verdict": "met" if p50 < LIMIT_MS and times < LIMIT_TIMES_RECALL else "not met",
    }
