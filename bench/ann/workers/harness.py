"""The child process: builds, opens and asks one engine, and says what it measured.

    python harness.py JOB.json

The job names an adapter (a file with a class ``Engine``), arrays as .npy files, a folder for the
index and a *step*: build, search, cold or filter. Answers are JSON, one object a line, on what was
standard output at the start; whatever a library prints goes to standard error instead. Found ids
are written as .npy files. The harness pins itself to one core before the library is imported, so
that thread pools see one. It knows no engine, no truth and no recall.

An adapter's class::

    Engine(folder, metric, dim, build)       nothing is read or made yet
    .build(base, threads)                    make the index and put all of it under ``folder``
    .open()                                  ready to answer, from the files alone
    .searcher(k, asked) -> query -> ids      one (dim,) float32 query at a time
    .compile(ids) -> filter                  optional: an allowed set in the engine's own form
    .filtered(k, asked, filter) -> searcher  optional
    .rows(ids) -> rows                       optional: its own ids as rows of base; not timed
    .about() -> dict                         optional: what the engine says about itself
    .touched(k, asked) -> bytes              optional: a query's, of those asked since the last call
    .close()
"""

from __future__ import annotations

import ctypes
import gc
import importlib.metadata
import importlib.util
import json
import os
import sys
import threading
import time
from pathlib import Path
from typing import Any, Self

import numpy as np


def main(job_path: str) -> int:
    """Run one job; the exit status is 0 where the last line says ``done``."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8", buffering=1)
    os.dup2(2, 1)

    def say(event: str, **fields: Any) -> None:
        answers.write(json.dumps({"event": event, **fields}) + "\n")
        answers.flush()

    job = json.loads(Path(job_path).read_text(encoding="utf-8"))
    try:
        pin(job.get("core"))
        engine = load(job)
        STEPS[job["step"]](engine, job, say)
        say("done", packages=packages(job))
    except BaseException as error:  # told to the parent, whatever it is
        say("failed", error=f"{type(error).__name__}: {error}".split("\n")[0][:300])
        raise
    return 0


def pin(core: int | None) -> None:
    """Keep this process on one core, where the system can do that."""
    if core is not None and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {core})


def load(job: dict[str, Any]) -> Any:
    """The adapter's engine; the library is imported here."""
    spec = importlib.util.spec_from_file_location("adapter", job["adapter"])
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.Engine(Path(job["folder"]), job["metric"], job["dim"], job["build"])


def packages(job: dict[str, Any]) -> dict[str, str]:
    """Versions of what the job names, where they are installed."""
    found = {}
    for name in job.get("packages", ()):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not a distribution"
    return found


# --- what the system says about this process --------------------------------------------------


def proc_fields(name: str) -> dict[str, int]:
    """Numbers of /proc/self/NAME by field, empty where there is no such file."""
    try:
        lines = Path(f"/proc/self/{name}").read_text().splitlines()
    except OSError:
        return {}
    pairs = (line.partition(":") for line in lines)
    return {key: int(rest.split()[0]) for key, _, rest in pairs if rest.split()[:1]
            and rest.split()[0].isdigit()}  # fmt: skip


def anonymous_bytes() -> int | None:
    """Private memory of this process: RssAnon."""
    kilobytes = proc_fields("status").get("RssAnon")
    return None if kilobytes is None else kilobytes * 1024


def give_back_freed_memory() -> None:
    """So that what imports left free is not mistaken for room the index did not need."""
    gc.collect()
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc has it, musl does not
        if trim is not None:
            trim(0)


def mapped_bytes(folder: Path) -> tuple[int, int, dict[str, int]]:
    """Of the index's files that are mapped: bytes resident, bytes allocated, and these by name.

    A file counts once, however often it is mapped; resident is the sum over its mappings.
    """
    resident: dict[str, int] = {}
    try:
        lines = Path("/proc/self/smaps").read_text().splitlines()
    except OSError:
        return 0, 0, {}
    path = ""
    for line in lines:
        if line.startswith("Rss:") and path:
            resident[path] = resident.get(path, 0) + int(line.split()[1]) * 1024
        elif line and line[0] in "0123456789abcdef" and "-" in line.split()[0]:
            named = line.split(maxsplit=5)
            path = named[5] if len(named) == 6 and within(named[5], folder) else ""
    sizes = {Path(name).name: os.stat(name).st_blocks * 512 for name in resident
             if os.path.exists(name)}  # fmt: skip
    return sum(resident.values()), sum(sizes.values()), sizes


def within(path: str, folder: Path) -> bool:
    return path.startswith(str(folder.resolve()) + os.sep)


def disk_bytes(folder: Path) -> int:
    """Allocated bytes of every file under the folder."""
    return sum(path.stat().st_blocks * 512 for path in folder.rglob("*") if path.is_file())


def faults() -> int:
    """Major page faults so far: pages of mapped files that had to be read."""
    import resource  # not on Windows

    return resource.getrusage(resource.RUSAGE_SELF).ru_majflt


class PeakMemory:
    """The most private memory during a block, beyond what there was before; looked at 20 times a
    second. None where the system does not say."""

    growth: int | None = None

    def __enter__(self) -> Self:
        self._before, self._ended = anonymous_bytes(), threading.Event()
        self._most = self._before or 0
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()
        return self

    def _look(self) -> None:
        while not self._ended.wait(0.05):
            self._most = max(self._most, anonymous_bytes() or 0)

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        if self._before is not None:
            self.growth = max(self._most, anonymous_bytes() or 0) - self._before


class Reads:
    """What a stretch of work read: bytes from storage, read calls, major page faults."""

    def __init__(self) -> None:
        self._io = proc_fields("io")
        self._faults = faults() if os.name == "posix" else 0

    def since(self, queries: int) -> dict[str, float] | None:
        """Per query; None where the system does not say."""
        now = proc_fields("io")
        if not now or not self._io:
            return None
        return {
            "storage_bytes": (now["read_bytes"] - self._io["read_bytes"]) / queries,
            "calls": (now["syscr"] - self._io["syscr"]) / queries,
            "major_faults": (faults() - self._faults) / queries,
        }


# --- steps ------------------------------------------------------------------------------------


def build(engine: Any, job: dict[str, Any], say: Any) -> None:
    base = np.load(job["base"], mmap_mode="r")
    give_back_freed_memory()
    started, cpu = time.perf_counter(), time.process_time()
    with PeakMemory() as peak:
        engine.build(base, job["threads"])
    built = {
        "seconds": time.perf_counter() - started,
        "cpu_seconds": time.process_time() - cpu,
        "peak_bytes": peak.growth,
    }
    engine.close()
    say("built", **built, threads=job["threads"], disk_bytes=disk_bytes(Path(job["folder"])))


def ask(search: Any, queries: Any, k: int, clock: Any = time.perf_counter) -> tuple[Any, Any]:
    """Ids (q, k) padded with -1, and the seconds of each query by that clock."""
    ids = np.full((len(queries), k), -1, np.int64)
    seconds = np.empty(len(queries))
    for number, query in enumerate(queries):
        started = clock()
        found = search(query)
        seconds[number] = clock() - started
        found = np.asarray(found).reshape(-1)[:k]
        # Engines pad with -1 or with the largest number of their id's type.
        ids[number, : len(found)] = found.astype(np.uint64).view(np.int64)
    return ids, seconds


def search(engine: Any, job: dict[str, Any], say: Any) -> None:
    """Open, warm up, then every set of parameters in turn, as often as the job says."""
    queries, k = np.load(job["queries"]), job["k"]
    give_back_freed_memory()
    before = anonymous_bytes()
    started = time.perf_counter()
    engine.open()
    opened = time.perf_counter() - started
    searchers = [engine.searcher(k, asked) for asked in job["searches"]]
    for searcher in searchers:
        for query in queries[: job["warm_up"]]:
            searcher(query)
    for turn in range(job["rounds"]):
        for number, searcher in enumerate(searchers):
            if hasattr(engine, "touched"):
                engine.touched(k, job["searches"][number])
            reads, cpu = Reads(), time.process_time()
            ids, seconds = ask(searcher, queries, k)
            cpu = time.process_time() - cpu
            touched = None
            if hasattr(engine, "touched"):
                touched = engine.touched(k, job["searches"][number])
            counted = reads.since(len(queries))
            resident, allocated, files = mapped_bytes(Path(job["folder"]))
            after = anonymous_bytes()
            if hasattr(engine, "rows"):
                ids = engine.rows(ids)
            results = f"{job['results']}/{job['name']}-{number}-{turn}.npz"
            np.savez(results, ids=ids, seconds=seconds)
            say(
                "searched",
                number=number,
                results=results,
                open_seconds=opened,
                cpu_seconds=cpu,
                anonymous_bytes=None if None in (before, after) else max(0, after - before),
                mapped_resident_bytes=resident,
                mapped_bytes=allocated,
                mapped_files=files,
                reads=counted,
                touched_bytes=touched,
                about=engine.about() if hasattr(engine, "about") else {},
            )
    engine.close()


def cold(engine: Any, job: dict[str, Any], say: Any) -> None:
    """The parent has put the index's files out of the page cache: open, then ask once."""
    queries = np.load(job["queries"])[: job["cold_queries"]]
    reads, started = Reads(), time.perf_counter()
    engine.open()
    opened = time.perf_counter() - started
    opening = reads.since(1)
    searcher = engine.searcher(job["k"], job["searches"][0])
    reads = Reads()
    _, seconds = ask(searcher, queries, job["k"])
    say("cold", open_seconds=opened, opening=opening, seconds=seconds.tolist(),
        reads=reads.since(len(queries)))  # fmt: skip
    engine.close()


def filtered(engine: Any, job: dict[str, Any], say: Any) -> None:
    """Each case: queries with an allowed set each, in turn with the same query without one."""
    engine.open()
    k = job["k"]
    for case in job["cases"]:
        queries, sets = np.load(case["queries"]), np.load(case["sets"], mmap_mode="r")
        free = engine.searcher(k, case["asked"])
        compiling = np.empty(len(sets))
        searchers = []
        for number in range(len(sets)):
            allowed = np.array(sets[number])
            started = time.perf_counter()
            compiled = engine.compile(allowed)
            compiling[number] = time.perf_counter() - started
            searchers.append(engine.filtered(k, case["asked"], compiled))
        for searcher in searchers[:3]:
            searcher(queries[0])
        unfiltered = np.full(len(queries), np.inf)
        within_set = np.full(len(queries), np.inf)
        busy = np.full((2, len(queries)), np.inf)  # this thread's processor time
        ids = np.empty((len(queries), k), np.int64)
        for _ in range(job["rounds"]):
            for number in range(len(queries)):
                one = queries[number : number + 1]
                _, seconds = ask(free, one, k)
                unfiltered[number] = min(unfiltered[number], seconds[0])
                ids[number : number + 1], seconds = ask(searchers[number % len(sets)], one, k)
                within_set[number] = min(within_set[number], seconds[0])
                for at, one_search in enumerate((free, searchers[number % len(sets)])):
                    _, seconds = ask(one_search, one, k, time.thread_time)
                    busy[at, number] = min(busy[at, number], seconds[0])
        results = f"{job['results']}/{job['name']}-{case['name']}.npz"
        np.savez(
            results,
            ids=ids,
            seconds=within_set,
            unfiltered=unfiltered,
            compiling=compiling,
            free_cpu=busy[0],
            cpu=busy[1],
        )
        say("filtered", name=case["name"], results=results)
    engine.close()


STEPS = {"build": build, "search": search, "cold": cold, "filter": filtered}

if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1]))
