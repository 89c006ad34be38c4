"""The command line of ``python -m bench ann``: options, parts, and what is said at the end.

Knows which part needs what; measuring is elsewhere.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import memdb
from bench import makers, report
from bench.ann import (
    against,
    big,
    churn,
    data,
    disk,
    engines,
    filtering,
    inserting,
    limits,
    mixed,
    peers,
    results,
    sharing,
)
from bench.ann.measuring import Contestant, Run, measure

ABOUT = "memdb's index beside its peers: recall, speed, memory, disk, on the same vectors"
EXAMPLES = """\
parts:
  compare   every engine on one data set (the default)
  filter    allowed sets of 100 % to 0.01 %, related to the query or not
  scale     compare at several numbers of vectors
  insert    durable inserts a second, and the time to open
  churn     a graph whose vectors are all replaced, against a fresh one
  cold      memdb ssd with nothing in the page cache: reads, bytes, how long
  layout    memdb ssd without entry points by the query, and in other orders of pages
  big       memdb ssd of millions of vectors within a budget of memory
  mixed     searches while vectors are added, replaced, removed, linked and taken out
  processes one writer, several readers, an oracle; with --kills a writer that is killed

examples:
  python -m bench ann --quick
  python -m bench ann --engines memdb hnswlib turbovec --plots plots/
  python -m bench ann --engines memdb --kernels avx2 scalar --profiles standard
  python -m bench ann scale --sizes 10k 100k 1M --engines memdb turbovec --reuse
  python -m bench ann --data vectors.npy --queries asked.npy --metric l2
  python -m bench ann --texts lines.txt --engines memdb hnswlib
  python -m bench ann filter --kinds flat
  python -m bench ann --engines memdb hnswlib --kinds flat ssd --count 200k --threads 2 --reuse
  python -m bench ann --engines memdb hnswlib --kinds ssd --budgets 16GiB 32MB --reuse
  python -m bench ann big --count 4M --reuse
  python -m bench ann --install turbovec
  python -m bench ann --from-json bench/results/ann-20260101-120000.json --plots plots/

Peers get an environment each under the cache folder when first asked for (--engines NAME), with
pinned versions. One query is asked at a time, by a process that is kept on one core.
"""
QUICK = {"count": 10_000, "asked": 200, "rounds": 1}


def count_of(text: str) -> int:
    """A whole number; k is a thousand and M a million."""
    scale = {"k": 1000, "M": 1_000_000}.get(text[-1:], 1)
    try:
        return int(float(text.rstrip("kM")) * scale)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a count such as 100k or 1M") from None


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="python -m bench ann",
        description=ABOUT,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = made.add_argument
    add("part", nargs="?", choices=list(PARTS), default="compare")
    group = made.add_argument_group("data")
    group.add_argument(
        "--data",
        default="minilm384-100k",
        help=f"{', '.join((*data.NAMED, data.MADE))}, or a file *{', *'.join(data.SUFFIXES)}",
    )
    group.add_argument("--vectors", type=Path, default=makers.VECTORS, help="folder of named sets")
    group.add_argument("--queries", type=Path, help="file of queries, as --data or --texts")
    group.add_argument("--metric", choices=data.METRICS)
    group.add_argument("--count", type=count_of, help="use, or make, so many vectors: 100k, 1M")
    group.add_argument("--asked", type=count_of, help="how many queries")
    group.add_argument("--texts", type=Path, help="embed the lines of this file instead")
    group.add_argument("--embedder", default="static", help="for --texts (default: static)")
    group.add_argument("--seed", type=int, default=1)
    group = made.add_argument_group("engines")
    group.add_argument("--engines", nargs="+", choices=(*engines.NAMES, "all"), metavar="NAME",
                       help=f"of {', '.join(engines.NAMES)}, all (default: memdb hnswlib "
                       "turbovec)")  # fmt: skip
    group.add_argument("--variants", nargs="+", metavar="TEXT",
                       help="only variants whose name has one of these")  # fmt: skip
    group.add_argument("--kinds", nargs="+", help="of memdb (default: all it offers)")
    group.add_argument("--profiles", nargs="+", help="of memdb (default: all it offers)")
    group.add_argument("--efforts", nargs="+", type=int, help="of memdb")
    group.add_argument("--budgets", nargs="+", help="of memory, to open memdb with, each in turn")
    group.add_argument("--kernels", nargs="+", help="of memdb, each in turn: avx2, scalar, ...")
    group.add_argument("--install", nargs="+", choices=(*engines.PEERS, "all"), metavar="NAME",
                       help="make the environments of these peers and stop")  # fmt: skip
    group = made.add_argument_group("measuring")
    group.add_argument("--k", type=int, default=10)
    group.add_argument("--rounds", type=int, help="turns of each; the best counts (default: 3)")
    group.add_argument("--core", type=int, help="the core to ask on (default: the last one)")
    group.add_argument("--threads", type=int, default=os.cpu_count(), help="for building")
    group.add_argument("--limit", type=float, default=3600, help="seconds for one step of one")
    group.add_argument("--no-cold", action="store_true", help="leave out the cold start")
    group.add_argument("--sizes", nargs="+", type=count_of, help="of scale, insert")
    group.add_argument("--quick", action="store_true", help="all of it in two minutes")
    group.add_argument("--seconds", type=float, default=10.0, help="of a turn of mixed; processes")
    group.add_argument("--pace", type=count_of, default=1000, help="vectors a second: mixed")
    for name, default in (("--readers", 2), ("--kills", 0)):
        group.add_argument(name, type=int, default=default, help=f"of processes ({default})")
    group = made.add_argument_group("output")
    group.add_argument("--json", type=Path, help="where to keep the results")
    group.add_argument("--plots", type=Path, help="folder for PNG plots (needs matplotlib)")
    group.add_argument("--from-json", type=Path, help="table and plots of an earlier result")
    group.add_argument("--cache", type=Path, help="folder for environments, truth, indexes")
    group.add_argument("--reuse", action="store_true", help="keep and reuse indexes of peers")
    return made


def main(arguments: list[str]) -> int:
    options = parser().parse_args(arguments)
    if options.quick:
        for name, value in QUICK.items():
            if getattr(options, name) is None:
                setattr(options, name, value)
    try:
        if options.from_json is not None:
            return again(options)
        cache = peers.cache_folder(options.cache)
        if options.install:
            return install(options, cache)
        with termination_as_interrupt():
            return PARTS[options.part](options, cache, arguments)
    except (data.DataError, memdb.MemdbError, ValueError, OSError) as error:
        report.progress("")
        print(f"bench ann: {error}", file=sys.stderr)
        return 1


@contextlib.contextmanager
def termination_as_interrupt() -> Iterator[None]:
    """SIGTERM ends like Ctrl-C: children are ended, folders go, what was measured is told."""

    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def install(options: argparse.Namespace, cache: Path) -> int:
    """Make environments; one line each."""
    names = list(engines.PEERS) if "all" in options.install else options.install
    failed = 0
    for name in names:
        try:
            python = peers.python_of(engines.PEERS[name], cache, install=True)
            print(f"{name}: {python}")
        except peers.Unavailable as error:
            failed = 1
            print(f"{name}: cannot be had: {error}")
    return failed


def contestants_of(
    options: argparse.Namespace, cache: Path, default: Sequence[str]
) -> tuple[list[Contestant], dict[str, str]]:
    """Who takes part, and why the others that were asked for do not."""
    names = list(dict.fromkeys(options.engines or default))
    if "all" in names:
        names = list(engines.NAMES)
    found, left_out = [], {}
    for name in names:
        if name == engines.OURS:
            kinds = options.kinds or engines.KINDS
            profiles = options.profiles or engines.PROFILES
            engine, refused = engines.ours(
                kinds, profiles, options.efforts or (), options.kernels or (),
                options.budgets or (),
            )  # fmt: skip
            left_out.update(refused)
        else:
            engine = engines.PEERS[name]
        try:
            python = peers.python_of(engine, cache, install=options.engines is not None)
        except peers.Unavailable as error:
            left_out[name] = str(error)
            continue
        variants = tuple(
            variant
            for variant in engine.variants
            if not options.variants or any(text in variant.label for text in options.variants)
        )
        if variants:
            found.append(Contestant(engine, python, variants))
    report.progress("")
    for name, reason in left_out.items():
        print(f"  {name} is left out: {reason}")
    if not found:
        raise ValueError("no engine is left to measure")
    return found, left_out


@contextlib.contextmanager
def run_of(options: argparse.Namespace, cache: Path, found: data.DataSet) -> Iterator[Run]:
    """A run whose folder, on the cache's disk, goes at the end."""
    folder = Path(tempfile.mkdtemp(dir=cache, prefix="run-"))
    try:
        core = options.core
        if core is None and hasattr(os, "sched_getaffinity"):
            core = max(os.sched_getaffinity(0))
        run = Run(
            found,
            cache,
            folder,
            k=options.k,
            rounds=options.rounds or 3,
            limit_s=options.limit,
            threads=options.threads,
            core=core,
            cold_queries=0 if options.no_cold else 100,
            reuse=options.reuse,
        )
        for said in (*found.notes, *run.prepare()):
            print(f"  {said}")
        yield run
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def loaded(options: argparse.Namespace, count: int | None) -> data.DataSet:
    """The data set the options name, at ``count`` vectors."""
    report.progress("loading vectors")
    more = {"queries": options.queries, "count": count, "asked": options.asked}
    if options.texts is not None:
        found = data.embedded(options.texts, options.embedder, seed=options.seed, **more)
    else:
        found = data.load(
            options.data, folder=options.vectors, metric=options.metric, seed=options.seed, **more
        )
    report.progress("")
    print(
        f"{found.name}: {len(found.base):,} vectors of {found.dim} dimensions, "
        f"{len(found.queries):,} queries, {found.metric}"
    )
    return found


def context_of(options: argparse.Namespace, found: data.DataSet) -> dict[str, Any]:
    """What the JSON says besides rows."""
    return {
        "part": options.part,
        "data": {
            "name": found.name,
            "vectors": len(found.base),
            "queries": len(found.queries),
            "dim": found.dim,
            "metric": found.metric,
            "sha256": found.sha256,
            "notes": list(found.notes),
        },
        "seed": options.seed,
        "k": options.k,
        "counted": COUNTED,
    }


COUNTED = {
    "recall": "results no farther than the true k-th, plus a relative 1e-6, of the true k",
    "qps": "queries / wall seconds, one at a time on one core, the best round",
    "qps_cpu": "queries / processor seconds of all threads, the same round",
    "anonymous_bytes": "growth of RssAnon from before opening to after the last query",
    "mapped_bytes": "allocated bytes of the index's files that are mapped, resident or not",
    "memory_bytes": "the sum of the two",
    "kept_per_vector": "private memory and mapped codes; other mapped files are page cache",
    "touched_bytes": "per query: codes, graph and records looked at; planned of a scan, counted of "
    "a walk",
    "build_peak_bytes": "the most RssAnon while building, beyond what there was before",
    "reads": "per query: bytes fetched from storage and read calls (/proc/self/io), major faults",
    "cold": "a new process; the index's files put out of the page cache, the library's are not",
}


def compare(options: argparse.Namespace, cache: Path, arguments: list[str]) -> int:
    """Every engine on one data set."""
    return _compared(options, cache, arguments, [options.count])


def scale(options: argparse.Namespace, cache: Path, arguments: list[str]) -> int:
    """The same at several sizes."""
    sizes = options.sizes or ([2000, 10_000] if options.quick else [10_000, 100_000, 1_000_000])
    return _compared(options, cache, arguments, sizes)


def _compared(
    options: argparse.Namespace, cache: Path, arguments: list[str], sizes: Sequence[int | None]
) -> int:
    chosen, left_out = contestants_of(options, cache, (engines.OURS, "hnswlib", "turbovec"))
    with kept_results(options, arguments, left_out) as kept:
        for size in sizes:
            found = kept.loaded(options, size)
            with run_of(options, cache, found) as run:
                measure(run, chosen, kept.hear)
    return kept.status


def filtered(options: argparse.Namespace, cache: Path, arguments: list[str]) -> int:
    """Allowed sets of every size."""
    options.asked, options.rounds = options.asked or 100, options.rounds or 5
    wanted = set(options.engines or ()) - set(filtering.ADAPTERS)
    if wanted:
        raise ValueError(
            f"filter asks {', '.join(filtering.ADAPTERS)}; not {', '.join(sorted(wanted))}"
        )
    chosen, left_out = contestants_of(options, cache, (engines.OURS,))
    with kept_results(options, arguments, left_out) as kept:
        found = kept.loaded(options, options.count)
        with run_of(options, cache, found) as run:
            filtering.measure(run, chosen, options.seed, kept.hear)
    return kept.status


def _from_disk(
    measured: Callable[[Run, list[Contestant], Callable[[results.Row], None]], None],
    options: argparse.Namespace,
    cache: Path,
    arguments: list[str],
) -> int:
    """A part that asks memdb's ssd alone."""
    options.engines, options.kinds = [engines.OURS], ["ssd"]
    options.profiles, options.asked = options.profiles or ["standard"], options.asked or 200
    chosen, left_out = contestants_of(options, cache, (engines.OURS,))
    with kept_results(options, arguments, left_out) as kept:
        found = kept.loaded(options, options.count)
        with run_of(options, cache, found) as run:
            measured(run, chosen, kept.hear)
    return kept.status


def cold(options: argparse.Namespace, cache: Path, arguments: list[str]) -> int:
    """Searches that find nothing in the page cache. memdb ssd only."""
    return _from_disk(disk.cold, options, cache, arguments)


def laid_out(options: argparse.Namespace, cache: Path, arguments: list[str]) -> int:
    """What entry points and the order of pages are worth. memdb ssd only."""
    return _from_disk(disk.ablation, options, cache, arguments)


def bigger(options: argparse.Namespace, cache: Path, arguments: list[str]) -> int:
    """Millions of vectors within a budget. memdb ssd only."""
    options.asked = options.asked or 200
    count = options.count or (20_000 if options.quick else 4_000_000)
    with kept_results(options, arguments, {}) as kept:
        found = kept.loaded(options, None)
        big.measure(
            found,
            count,
            cache,
            k=options.k,
            seed=options.seed,
            threads=options.threads,
            reuse=options.reuse,
            budget=(options.budgets or [big.BUDGET])[0],
            efforts=tuple(options.efforts or big.EFFORTS),
            hear=kept.hear,
        )
    return kept.status


def insert(options: argparse.Namespace, cache: Path, arguments: list[str]) -> int:
    """Durable inserts a second, then opening at the given sizes. memdb only."""
    if options.kernels:
        raise ValueError("insert runs in this process: set MEMDB_KERNELS instead of --kernels")
    options.engines, options.asked = [engines.OURS], options.asked or 100
    options.rounds, options.efforts = options.rounds or 1, options.efforts or [200]
    chosen, left_out = contestants_of(options, cache, (engines.OURS,))
    sizes = options.sizes or ([QUICK["count"]] if options.quick else [10_000, 100_000, 1_000_000])
    with kept_results(options, arguments, left_out) as kept:
        for size in sizes:
            found = kept.loaded(options, size)
            with run_of(options, cache, found) as run:
                if size == max(sizes):
                    variants = [variant for one in chosen for variant in one.variants]
                    limit_s = 3.0 if options.quick else 15.0
                    inserting.measure(found, variants, run.folder, limit_s, kept.hear)
                measure(run, chosen, kept.hear)
    return kept.status


def lived(options: argparse.Namespace, cache: Path, arguments: list[str]) -> int:
    """A graph that is kept up to date in place: churn and mixed. memdb only."""
    part = {"churn": churn, "mixed": mixed}[options.part]
    options.asked, options.count = options.asked or 200, options.count or 40_000
    with kept_results(options, arguments, {}) as kept:
        found = kept.loaded(options, options.count)
        with tempfile.TemporaryDirectory(dir=cache, prefix="run-") as folder:
            for profile in options.profiles or ("standard",):
                part.measure(found, profile, Path(folder) / profile, options, kept.hear)
    return kept.status


class Kept(results.Results):
    """The results of one call, told at its end."""

    status = 1

    def loaded(self, options: argparse.Namespace, count: int | None) -> data.DataSet:
        """The data set that rows which follow are of."""
        found = loaded(options, count)
        self.context.update(context_of(options, found))
        self.context.setdefault("sizes", []).append(self.context["data"])
        return found


@contextlib.contextmanager
def kept_results(
    options: argparse.Namespace, arguments: list[str], left_out: dict[str, str]
) -> Iterator[Kept]:
    """Results that are on disk whatever happens; Ctrl-C ends measuring, what there is is told."""
    kept = Kept(options.json, arguments, {"left_out": left_out})
    stopped = ""
    try:
        yield kept
    except KeyboardInterrupt:
        stopped = " (stopped early)"
    if not kept.rows:
        return
    kept.save()
    tell(kept.rows, kept.context, options.plots)
    print(f"\n{kept.path}{stopped}")
    if stopped:
        kept.status = 130
    elif any("error" not in row for row in kept.rows):
        kept.status = 0


def tell(rows: Sequence[results.Row], context: results.Row, plots: Path | None) -> None:
    """Tables, failures and, where a folder is given, plots."""
    measured = [row for row in rows if "error" not in row]
    compared = [row for row in measured if "part" not in row]
    shown = results.comparison(compared)
    if context.get("part") == "insert":
        shown, compared = inserting.openings(compared), []
    told = [part.table(measured) for part in (filtering, inserting, churn, mixed, disk, big)]
    for lines in (*told, shown, against.ratios(compared), limits.table(compared)):
        if lines:
            print()
            report.table(lines)
    for line in results.failures(rows):
        print(f"failed: {line}")
    if plots is not None:
        from bench.ann import plotting

        for path in plotting.draw(rows, context, plots):
            print(path)


def again(options: argparse.Namespace) -> int:
    """Tables and plots of results measured before."""
    kept = results.load(options.from_json)
    tell(kept["rows"], kept, options.plots)
    return 0


PARTS = {
    "compare": compare,
    "filter": filtered,
    "scale": scale,
    "insert": insert,
    "churn": lived,
    "cold": cold,
    "layout": laid_out,
    "big": bigger,
    "mixed": lived,
    "processes": sharing.part,
}
