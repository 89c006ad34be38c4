"""``python -m bench ann cold`` and ``layout``: a graph whose pages come from the disk.

    cold     every query meets an empty page cache: reads past it (O_DIRECT), or its files are
             put out of it before each query; reads, bytes and how long. The index's own cache of
             pages is emptied too, or kept
    layout   what entry points that depend on the query, and pages in affinity order, are worth:
             DiskANN++'s two ideas, each taken away in turn; nodes, pages and reads a query

What a read costs on this disk is measured beside the reads past the page cache: alone, and as one
of 32 that are sent together. A search can be no faster than so many of the latter as it reads.

Of memdb's kind "ssd", through ``memdb.VectorIndex``; graphs are laid out anew with ``memdb.index``.
Nothing here is kept on one core: reads that wait take turns on all of them.
"""

from __future__ import annotations

import mmap
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import memdb
from bench import report
from bench.ann import children
from bench.ann.measuring import Built, Contestant, Row, Run, build_index
from bench.measure import load, percentile
from memdb.index import graph_file
from memdb.index.graph_build import room_of
from memdb.index.protocol import SpaceSpec

P50_MS, P99_MS = 3.0, 10.0
LEAST_RECALL = 0.95
EFFORTS = (40, 48, 56, 64, 80, 96, 112, 120, 128, 160, 192, 256, 384)
_BUDGET = "128MiB"  # as an index has it unless told
_TOGETHER = 32
_TIMED = 200
_COUNTED = ("walked", "hops", "estimated", "scored", "pages_read", "records_read", "bytes_read",
            "reads_waited", "cache_hits", "cache_misses")  # fmt: skip


def built(run: Run, contestants: list[Contestant], hear: Callable[[Row], None]) -> Iterator[Built]:
    """The indexes that are asked; one that fails is a row with ``error``."""
    variants = [(one, variant) for one in contestants for variant in one.variants]
    run.steps, run.steps_done = len(variants), 0
    for contestant, variant in variants:
        facts = {"engine": contestant.engine.name, "label": variant.label}
        one = Built(variant, contestant, Path(), f"disk-{os.getpid()}", facts)
        try:
            build_index(run, one)
        except children.EngineFailed as error:
            hear({"label": variant.label, "part": "cold", "error": str(error)})
            continue
        yield one


@contextmanager
def opened(folder: Path, io: str, budget: str) -> Iterator[memdb.VectorIndex]:
    index = memdb.VectorIndex(
        folder, params={"io": io}, memory_budget=budget, readonly=True, threads=1
    )
    try:
        yield index
    finally:
        index.close()


def asked(
    run: Run,
    index: memdb.VectorIndex,
    effort: int,
    before_each: Callable[[], None] = lambda: None,
) -> Row:
    """Every query once; what a query did, read, took and found."""
    queries = run.data.queries
    ids = np.full((len(queries), run.k), -1, np.int64)
    millis = np.empty(len(queries))
    before, cpu = counts(index), 0.0
    for number, query in enumerate(queries):
        before_each()
        busy, started = time.process_time(), time.perf_counter()
        found, _ = index.search(query, run.k, effort=effort)
        millis[number] = (time.perf_counter() - started) * 1e3
        cpu += time.process_time() - busy
        ids[number] = found[0].view(np.int64)
    after = counts(index)
    did = {name: (after[name] - before[name]) / len(queries) for name in _COUNTED}
    return {
        "vectors": len(run.data.base),
        "recall": run.recall(ids),
        "p50_ms": percentile(millis, 50),
        "p99_ms": percentile(millis, 99),
        "cpu_ms": cpu * 1e3 / len(queries),
        "cache_bytes": int(index.stats().get("cache_bytes", 0)),
        **did,
        "load": load()["load"],
    }


def counts(index: memdb.VectorIndex) -> dict[str, int]:
    stats = index.stats()
    return {name: int(stats.get(name, 0)) for name in _COUNTED}


def files_of(index: memdb.VectorIndex) -> Any:
    """The engine behind an index, whose cache a benchmark may empty."""
    return index._shared.files


# --- cold -------------------------------------------------------------------------------------


def cold(run: Run, contestants: list[Contestant], hear: Callable[[Row], None]) -> None:
    """Rows of three ways to be cold, and of a warm one, each at the least effort with which it
    finds 95 of 100: a page that is fetched shows a walk all that lies on it."""
    for one in built(run, contestants, hear):
        folder = one.folder / "index"
        efforts = [asked["effort"] for asked in one.variant.searches if asked["effort"]]
        efforts = efforts if one.variant.fixed else list(EFFORTS)
        for way, io, empties, evicts in (
            ("disk cold, cache empty", "direct", True, False),
            ("disk cold, cache kept", "direct", False, False),
            ("page cache emptied", "read", True, True),
            ("warm, cache kept", "read", False, False),
        ):
            report.progress(f"{one.variant.label}: {way}")
            with opened(folder, io, _BUDGET) as index:
                for effort in efforts:
                    if not empties:
                        asked(run, index, effort)
                    row = asked(run, index, effort, _cooling(index, folder, empties, evicts))
                    if row["recall"] >= LEAST_RECALL:
                        break
                costs = read_costs(index, folder) if io == "direct" else {}
            hear(_judged({"part": "cold", "label": one.variant.label, "case": way,
                          "parameter": f"effort {effort}", **row, **costs}))  # fmt: skip


def read_costs(index: memdb.VectorIndex, folder: Path) -> dict[str, float]:
    """Microseconds, the median, of a read of 4 KiB past the page cache at a random place of the
    records: alone, and of one of 32 that are sent together as a search sends them."""
    rng = np.random.default_rng(1)
    engine = files_of(index)
    record_bytes, count = index.stats()["record_bytes"], len(index)
    alone = np.empty(_TIMED)
    path = next(folder.glob("refine.*"))
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECT)
    try:
        with mmap.mmap(-1, mmap.PAGESIZE) as buffer:
            for number in range(_TIMED):
                at = int(rng.integers(1, path.stat().st_size // mmap.PAGESIZE)) * mmap.PAGESIZE
                started = time.perf_counter()
                os.preadv(descriptor, [buffer], at)
                alone[number] = time.perf_counter() - started
    finally:
        os.close(descriptor)
    space, query = engine._space(), np.zeros((1, engine.spec.dim), np.float32)
    step = max(1, count // _TOGETHER - mmap.PAGESIZE // record_bytes)
    together = np.empty(_TIMED)
    for number in range(_TIMED):
        first = int(rng.integers(step))
        listed = np.arange(first, count, count // _TOGETHER, dtype=np.uint32)[:_TOGETHER]
        started = time.perf_counter()
        engine._flat.record_reads.gather(
            space, query, listed, k=len(listed), keep=len(listed), threads=1
        )
        together[number] = (time.perf_counter() - started) / len(listed)
    return {
        "read_alone_us": percentile(alone, 50) * 1e6,
        "read_of_32_us": percentile(together, 50) * 1e6,
    }


def _cooling(
    index: memdb.VectorIndex, folder: Path, empties: bool, evicts: bool
) -> Callable[[], None]:
    """What is done before each query."""

    def before_each() -> None:
        if empties:
            files_of(index).drop_cached()
        if evicts:
            children.evict(folder)

    return before_each


def enough(run: Run, folder: Path, efforts: Any) -> int:
    """The least of the efforts with which a walk finds 95 of 100; the last where none does."""
    with opened(folder, "mapped", "16GiB") as index:
        for effort in efforts:
            if asked(run, index, effort)["recall"] >= LEAST_RECALL:
                return int(effort)
    return int(efforts[-1])


def _judged(row: Row) -> Row:
    met = row["p50_ms"] < P50_MS and row["p99_ms"] < P99_MS and row["recall"] >= LEAST_RECALL
    return {**row, "verdict": "met" if met else "not met"}


# --- layout -----------------------------------------------------------------------------------


def ablation(run: Run, contestants: list[Contestant], hear: Callable[[Row], None]) -> None:
    """Rows of one graph with and without entry points by the query, in three orders of pages."""
    for one in built(run, contestants, hear):
        efforts = [asked["effort"] for asked in one.variant.searches if asked["effort"]]
        effort = enough(run, one.folder / "index", efforts if one.variant.fixed else EFFORTS)
        for entries in ("by the query", "one for all"):
            for order in ("affinity", "as inserted", "random"):
                report.progress(f"{one.variant.label}: entries {entries}, pages {order}")
                copy = run.folder / "laid-out"
                shutil.copytree(one.folder / "index", copy)
                try:
                    lay_out(copy, entries, order)
                    for row in _asked_both(run, copy, effort):
                        case = f"entries {entries}, pages {order}, {row.pop('way')}"
                        hear({"part": "layout", "label": one.variant.label, "case": case,
                              "entries": entries, "order": order,
                              "parameter": f"effort {effort}", **row})  # fmt: skip
                finally:
                    shutil.rmtree(copy)


def _asked_both(run: Run, folder: Path, effort: int) -> Iterator[Row]:
    """With an empty cache before each query, so that reads are the pages touched; and with one of
    an eighth of the graph that is kept."""
    with opened(folder, "direct", "16GiB") as index:
        engine = files_of(index)
        yield {"way": "cold", **asked(run, index, effort, engine.drop_cached)}
        stats = index.stats()
    kept = stats["memory_bytes"] + (folder / graph_file.NAME).stat().st_size // 8
    with opened(folder, "read", str(kept)) as index:
        asked(run, index, effort)
        yield {"way": "warm", **asked(run, index, effort)}


def lay_out(folder: Path, entries: str, order: str) -> None:
    """Write the graph of an index anew: the same edges, other entries, another order of pages."""
    with memdb.VectorIndex(folder, readonly=True) as index:
        spec: SpaceSpec = index._shared.spec
    graph = graph_file.GraphFile(folder, spec, writable=False)
    lists = np.zeros((graph.slots, 1 + room_of(graph.degree)), np.uint32)
    graph.fill(lists)
    chosen = graph.entries if entries == "by the query" else graph.entries[:1]
    places = graph.placed().array
    ordered = _in_order(places, graph.places[places], order)
    graph_file.write_draft(folder, spec, graph.degree, lists, ordered, chosen)
    graph.close()
    graph_file.install(folder)


def _in_order(
    slots: NDArray[np.uint32], places: NDArray[np.uint32], order: str
) -> NDArray[np.uint32]:
    if order == "affinity":
        return slots[np.argsort(places)]
    if order == "random":
        return np.random.default_rng(1).permutation(slots)
    return slots


# --- what is shown ----------------------------------------------------------------------------


def table(rows: list[Row]) -> list[Row]:
    """One line a case of either part."""
    shown = []
    for row in rows:
        if row.get("part") not in ("cold", "layout"):
            continue
        line = {
            "engine": row["label"],
            "case": row["case"],
            "asked": row["parameter"],
            "recall": f"{row['recall']:.4f}",
            "nodes": row["hops"],
            "pages read": row["pages_read"],
            "records read": row["records_read"],
            "waited for": row["reads_waited"],
            "KB read": row["bytes_read"] / 1e3,
            "p50 ms": row["p50_ms"],
            "p99 ms": row["p99_ms"],
            "cpu ms": row["cpu_ms"],
            "cache MB": row["cache_bytes"] / 1e6,
        }
        if row["part"] == "cold":
            alone, of_32 = row.get("read_alone_us"), row.get("read_of_32_us")
            line["a read us"], line["of 32 us"] = alone, of_32
            line["p50 in reads"] = None if alone is None else row["p50_ms"] * 1e3 / alone
            line["limit"] = row["verdict"]
        shown.append(line)
    return shown
