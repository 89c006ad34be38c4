"""One engine's variants on one data set: built, asked in turns, judged against the truth.

Knows children and truth; prints nothing but progress, and hands over each row as soon as it is
there. A row is a flat mapping that fits JSON.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

import memdb
from bench import report
from bench.ann import children, truth
from bench.ann.data import DataSet
from bench.ann.engines import OURS, Engine, Variant
from bench.measure import load, percentile

Row = dict[str, Any]
_TRUE = 100


@dataclass
class Run:
    """What all measurements of one call share."""

    data: DataSet
    cache: Path
    folder: Path
    k: int = 10
    rounds: int = 3
    limit_s: float = 3600
    threads: int = field(default_factory=lambda: os.cpu_count() or 1)
    core: int | None = None
    cold_queries: int = 100
    reuse: bool = False

    true_distances: Any = None
    steps_done: int = 0
    steps: int = 0

    def prepare(self) -> list[str]:
        """Write the arrays that children read, find the truth; returns what to tell a person."""
        np.save(self.folder / "base.npy", self.data.base)
        np.save(self.folder / "queries.npy", self.data.queries)
        depth = min(len(self.data.base), max(_TRUE, self.k))
        path = self.cache / "truth" / f"{self.data.sha256[:32]}-{self.data.metric}-{depth}.npz"
        _, self.true_distances = truth.kept(
            path,
            lambda: truth.exact(self.data.base, self.data.queries, self.data.metric, depth),
            (len(self.data.queries), depth),
        )
        if self.data.given_truth is None:
            return []
        agreed = self.recall(self.data.given_truth)
        said = (
            f"the truth file agrees with the exact search here: {agreed:.4f} of its first {self.k}"
        )
        return [said] if agreed > 0.999 else [f"WARNING: {said}"]

    def recall(self, found: Any) -> float:
        data = self.data
        return truth.recall(
            found, data.base, data.queries, data.metric, self.true_distances, self.k
        )


@dataclass(frozen=True)
class Contestant:
    """An engine, the interpreter that has it, and which of its variants are wanted."""

    engine: Engine
    python: Path
    variants: tuple[Variant, ...]


def measure(run: Run, contestants: list[Contestant], hear: Callable[[Row], None]) -> None:
    """Build and ask each variant, then ask all of them again in turns, round by round.

    ``hear`` gets a row for every variant and set of parameters, again where a later round was
    better, and one with ``error`` where something failed. Turns alternate between all engines, so
    that a slow minute of the machine touches all alike; the best round of each is its row.
    """
    built: list[Built] = []
    variants = sum(len(contestant.variants) for contestant in contestants)
    run.steps, run.steps_done = variants * (1 + bool(run.cold_queries) + run.rounds), 0
    try:
        for contestant in contestants:
            for variant in contestant.variants:
                name = f"{contestant.engine.name}-{len(built)}-{os.getpid()}"
                facts = {"engine": contestant.engine.name, "label": variant.label}
                one = Built(variant, contestant, Path(), name, facts)
                built.append(one)
                with _failures_of(one, hear):
                    build_index(run, one)
                    _ask_cold(run, one)
                    _ask(run, one, 0, hear)
        for turn in range(1, run.rounds):
            for one in built:
                if one.error is None:
                    with _failures_of(one, hear):
                        _ask(run, one, turn, hear)
    finally:
        for one in built:
            if one.folder.is_relative_to(run.folder):
                shutil.rmtree(one.folder, ignore_errors=True)


@contextmanager
def _failures_of(one: Built, hear: Callable[[Row], None]) -> Iterator[None]:
    """A failed engine is a row like any other, and the rest goes on."""
    try:
        yield
    except children.EngineFailed as error:
        one.error = str(error)
        hear({"engine": one.facts["engine"], "label": one.facts["label"], "error": one.error})


@dataclass
class Built:
    """An index on disk and what is known about it so far."""

    variant: Variant
    contestant: Contestant
    folder: Path
    name: str
    facts: Row
    best: dict[int, Row] = field(default_factory=dict)
    error: str | None = None


def job_of(run: Run, one: Built, step: str, **more: Any) -> dict[str, Any]:
    """A job for the harness."""
    opening = {} if step == "build" else one.variant.opening
    return {
        "step": step,
        "name": one.name,
        "adapter": str(one.contestant.engine.adapter),
        "packages": [package.partition("==")[0] for package in one.contestant.engine.packages],
        "folder": str(one.folder),
        "results": str(run.folder),
        "metric": run.data.metric,
        "dim": run.data.dim,
        "build": {**one.variant.build, **({"opening": opening} if opening else {})},
        "base": str(run.folder / "base.npy"),
        "queries": str(run.folder / "queries.npy"),
        "k": run.k,
        "threads": run.threads,
        "core": None if step == "build" else run.core,
        "searches": list(one.variant.searches),
        "rounds": 1,
        "warm_up": min(50, len(run.data.queries)),
        "cold_queries": run.cold_queries,
        **more,
    }


def build_index(run: Run, one: Built) -> None:
    """Build, or find what an earlier call with ``reuse`` built of the same vectors.

    Ours is known by its source as well, since its code changes while its version does not.
    """
    kept = run.reuse
    if kept:
        what: list[Any] = [
            run.data.base_sha256,
            run.data.metric,
            one.contestant.engine.packages,
            one.variant.build,
            run.threads,
        ]
        if one.contestant.engine.name == OURS:
            what.append([sources_sha256(), one.variant.environment])
        key = hashlib.sha256(json.dumps(what).encode()).hexdigest()[:24]
        one.folder = run.cache / "indexes" / f"{one.contestant.engine.name}-{key}"
        facts = one.folder.with_suffix(".json")
        if facts.exists() and one.folder.is_dir():
            one.facts.update(json.loads(facts.read_text(encoding="utf-8")), reused=True)
            return
        shutil.rmtree(one.folder, ignore_errors=True)
        one.folder.mkdir(parents=True)
    else:
        one.folder = Path(tempfile.mkdtemp(dir=run.folder, prefix="index-"))
    events = child_of(run, one, "build")
    told = next(event for event in events if event["event"] == "built")
    found = {
        "build_s": told["seconds"],
        "build_cpu_s": told["cpu_seconds"],
        "build_threads": told["threads"],
        "build_peak_bytes": told["peak_bytes"],
        "disk_bytes": told["disk_bytes"],
        "packages": events[-1]["packages"],
    }
    one.facts.update(found)
    if kept:
        facts.write_text(json.dumps(found), encoding="utf-8")


@functools.cache
def sources_sha256() -> str:
    """Of what makes an index: the package, its kernels, and what orders its changes."""
    package = Path(memdb.__file__).parent
    paths = [*(package / "index").rglob("*.py"), *(package / "index" / "native").glob("*.[ch]*")]
    digest = hashlib.sha256()
    for path in sorted((*paths, *package.glob("vector_*.py"))):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _ask_cold(run: Run, one: Built) -> None:
    """Open and first answers with the index's files out of the page cache."""
    if not run.cold_queries or not children.evict(one.folder):
        return
    middle = one.variant.searches[len(one.variant.searches) // 2]
    told = child_of(run, one, "cold", searches=[middle])[0]
    millis = [second * 1e3 for second in told["seconds"]]
    one.facts["cold"] = {
        "asked": middle,
        "open_ms": told["open_seconds"] * 1e3,
        "opening_reads": told["opening"],
        "first_ms": millis[0],
        "p50_ms": percentile(millis, 50),
        "p99_ms": percentile(millis, 99),
        "queries": len(millis),
        "reads": told["reads"],
    }


def _ask(run: Run, one: Built, turn: int, hear: Callable[[Row], None]) -> None:
    """One round of one variant; each of its rows is heard as soon as it is there."""

    def searched(event: children.Event) -> None:
        if event["event"] != "searched":
            return
        number = event["number"]
        row, known = _row(run, one, one.variant.searches[number], event), one.best.get(number)
        if known is not None and known["qps"] >= row["qps"]:
            row = known
        row["rounds"] = turn + 1
        one.best[number] = row
        hear(row)

    child_of(run, one, "search", hear=searched)


def child_of(
    run: Run,
    one: Built,
    step: str,
    hear: Callable[[children.Event], None] = lambda event: None,
    **more: Any,
) -> list[children.Event]:
    """One step of one variant in a process of its own."""
    text = f"{one.variant.label}, {len(run.data.base):,} vectors: {step}"
    with report.ticking(text, run.steps_done, run.steps):
        run.steps_done = min(run.steps, run.steps_done + 1)
        return children.run(
            one.contestant.python,
            job_of(run, one, step, **more),
            run.folder,
            limit_s=run.limit_s,
            environment=one.variant.environment,
            hear=hear,
        )


def _row(run: Run, one: Built, asked: dict[str, Any], event: children.Event) -> Row:
    """What one set of parameters gave in one round."""
    path = Path(event["results"])
    with np.load(path) as results:
        ids, seconds = results["ids"], results["seconds"]
    path.unlink()
    count = len(run.data.base)
    anonymous, mapped = event["anonymous_bytes"], event["mapped_bytes"]
    memory = None if anonymous is None else anonymous + mapped
    kept = None if anonymous is None else anonymous + _codes(event["mapped_files"])
    return {
        **one.facts,
        "asked": asked,
        "parameter": " ".join(
            f"{name} {'default' if value is None else value}" for name, value in asked.items()
        ),
        "vectors": count,
        "recall": run.recall(ids),
        "qps": len(seconds) / float(seconds.sum()),
        "qps_cpu": len(seconds) / max(event["cpu_seconds"], 1e-9),
        "p50_ms": percentile(seconds, 50) * 1e3,
        "p99_ms": percentile(seconds, 99) * 1e3,
        "open_ms": event["open_seconds"] * 1e3,
        "memory_bytes": memory,
        "anonymous_bytes": anonymous,
        "mapped_bytes": mapped,
        "mapped_resident_bytes": event["mapped_resident_bytes"],
        "mapped_files": event["mapped_files"],
        "bytes_per_vector": None if memory is None else memory / count,
        "kept_per_vector": None if kept is None else kept / count,
        "disk_bytes_per_vector": one.facts["disk_bytes"] / count,
        "reads": event["reads"],
        "touched_bytes": event["touched_bytes"],
        "about": event["about"],
        "load": load()["load"],
    }


def _codes(mapped_files: dict[str, int]) -> int:
    """Bytes of the codes that are mapped, which no search can do without."""
    return mapped_files.get("codes.bin", 0)
