"""What is kept under a byte budget, and what that costs.

    python -m bench forgetting [policies|year|protected|size|levels|kills ...] [--plots FOLDER]

* ``policies``: memdb's value of a memory beside random, FIFO, LRU, LFU, an oracle and others;
  shares of the bytes from 5 % to all; asked at a uniform lag or at the end (``simulation.py``).
* ``protected``: how many pinned memories and facts a budget cost the library itself: must be none.
* ``size``: a directory with everything compressed and nothing forgotten, beside text and float32
  vectors; and what is found in it, beside what was found as it was written (``sizes.py``).
* ``levels``: recall at each level of the ladder of fidelity.
* ``year``: a hundred memories a day for a year under a fixed ``disk_budget``; ``du`` all the time.
* ``kills``: plan, apply, demotion, compaction and erasure, killed at every step of them; not run
  unless named.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

from bench import measure, report
from bench.recall import DEFAULT_DATA

PARTS = ("policies", "protected", "size", "levels", "year")
_FILE = "locomo-dev.jsonl"
_OVERHEAD, _PER_BYTE = 420.0, 1.2
"""Bytes of a compressed chat memory beside its text, and per byte of it: what ``size`` measures."""


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m bench forgetting",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(_PART)}")
    parser.add_argument("--data", type=Path, default=DEFAULT_DATA, help="folder of *.jsonl files")
    parser.add_argument(
        "--embedder", help="of size (none: bytes alone), levels and year (default: static)"
    )
    parser.add_argument("--file", action="append", metavar="PART[:N]", help="of size: only files of"
                        " that name, the first N conversations")  # fmt: skip
    parser.add_argument("--profile", action="append", help="of size (default: pico and nano)")
    parser.add_argument("--reembed-top", type=int, default=0, help="of size: ask once more with the"
                        " closest so many embedded again")  # fmt: skip
    parser.add_argument("--days", type=int, default=365, help="of year")
    parser.add_argument("--seconds", type=float, default=600.0, help="of year, at most")
    parser.add_argument("--kills", type=int, default=200, help="of kills, of each operation")
    parser.add_argument("--operations", nargs="+", help="of kills (default: all)")
    parser.add_argument("--budget", default="16MB", help="of year")
    parser.add_argument("--plots", type=Path, help="draw policies and year into this folder")
    parser.add_argument("--json", type=Path, help="write the figures to this file as well")
    options = parser.parse_args(arguments)
    unknown = [part for part in options.parts if part not in _PART]
    if unknown:
        parser.error(f"there is no part {unknown[0]}")
    if not (options.data / _FILE).exists():
        print(f"no {_FILE} in {options.data}; name a folder with --data", file=sys.stderr)
        return 2
    results: dict[str, Any] = {"load": measure.load()}
    for part in options.parts or PARTS:
        results[part] = _PART[part](options)
    report.save(options.json, "forgetting", arguments, results)
    return 0


def _policies(options: argparse.Namespace) -> dict[str, Any]:
    from bench.forgetting import policies

    rows, judged = policies.measure(options.data / _FILE, policies.SHARES, _OVERHEAD, _PER_BYTE)
    report.table(policies.by_policy(rows))
    report.table(judged)
    if options.plots is not None:
        from bench.forgetting import plotting

        for path in plotting.draw(rows, options.plots):
            print(path)
    return {"recall": rows, "judged": judged}


def _protected(options: argparse.Namespace) -> list[dict[str, Any]]:
    from bench.forgetting import library

    rows = library.protected(options.data / _FILE, options.embedder)
    report.table(rows)
    return rows


def _size(options: argparse.Namespace) -> dict[str, Any]:
    from bench.forgetting import sizes

    everything = sizes.read(options.data, options.file)
    profiles = options.profile or sizes.PROFILES
    beside = sizes.vectors_beside(options.data)
    taken, recalled = sizes.measure(
        everything, options.embedder, profiles, options.reembed_top, beside
    )
    report.table(taken)
    report.table(recalled)
    return {"bytes": taken, "recall": recalled}


def _levels(options: argparse.Namespace) -> list[dict[str, Any]]:
    from bench.forgetting import library

    rows = library.levels(options.data / _FILE, options.embedder)
    report.table(rows)
    return rows


def _year(options: argparse.Namespace) -> dict[str, Any]:
    from bench.forgetting import year

    found = year.measure_year(
        options.data, options.budget, options.days, options.embedder, options.seconds
    )
    report.table(year.judged(found))
    for name, one in found["readers"].items():
        pauses = [
            {"pauses over 10 ms": name, "during": during, "count": count, "longest ms": longest}
            for during, (count, longest) in sorted(one["during"].items(), key=lambda d: -d[1][1])
        ]
        if pauses:
            report.table(pauses[:12])
    report.table([{"operation": name, **one} for name, one in found["operations"].items()])
    if options.plots is not None:
        from bench.forgetting import plotting

        print(plotting.draw_year(found, options.plots))
    return found


def _kills(options: argparse.Namespace) -> dict[str, Any]:
    from bench.forgetting import kills

    with tempfile.TemporaryDirectory(prefix="memdb-kills-") as folder:
        outcomes = kills.measure(Path(folder) / "kills", options.kills, 1, options.operations)
    report.table(kills.rows_of(outcomes))
    for one in outcomes:
        for message in one.messages[:20]:
            print(message)
    return {one.operation: vars(one) for one in outcomes}


_PART = {
    "policies": _policies,
    "protected": _protected,
    "size": _size,
    "levels": _levels,
    "year": _year,
    "kills": _kills,
}
