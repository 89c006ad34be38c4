"""What was found: rows as they come, kept as JSON at once, and the table a person reads.

Every row that is heard is on disk before the next is measured, so that neither Ctrl-C nor a
failing engine loses one.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench import report

Row = dict[str, Any]
_IDENTITY = ("part", "vectors", "label", "parameter", "case")


class Results:
    """Rows by what they are about; a later row about the same takes the place of the earlier."""

    def __init__(self, path: Path | None, arguments: Sequence[str], context: Row) -> None:
        if path is None:
            report.RESULTS.mkdir(exist_ok=True)
            path = report.RESULTS / f"ann-{time.strftime('%Y%m%d-%H%M%S')}.json"
        self.path = path
        self.context = context
        self._arguments = list(arguments)
        self._rows: dict[tuple[Any, ...], Row] = {}
        self._printed: set[tuple[Any, ...]] = set()

    @property
    def rows(self) -> list[Row]:
        return list(self._rows.values())

    def hear(self, row: Row) -> None:
        key = tuple(row.get(name) for name in _IDENTITY)
        self._rows[key] = row
        if key not in self._printed:
            self._printed.add(key)
            report.progress("")
            print(one_line(row), flush=True)
        self.save()

    def save(self) -> None:
        """Beside its destination first, so that what is there is always whole."""
        part = self.path.with_name(f".{self.path.name}-{os.getpid()}")
        report.save(part, "ann", self._arguments, {**self.context, "rows": self.rows})
        part.replace(self.path)


def load(path: Path) -> Row:
    """The results that ``path`` holds. Raises ``ValueError`` naming the file."""
    try:
        found: Row = json.loads(path.read_text(encoding="utf-8"))["results"]
        found["rows"] = [dict(row) for row in found["rows"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: not a result of python -m bench ann ({error!r})") from error
    return found


def one_line(row: Row) -> str:
    """A row as it comes, before the table."""
    if "error" in row:
        return f"  {row['label']}: {row['error']}"
    if "recall" not in row or "p50_ms" not in row:
        shown = " ".join(f"{k} {report.number(v)}" for k, v in row.items() if isinstance(v, float))
        return f"  {row['label']} {row.get('case', '')}: {shown}"
    where = row.get("case") or row["parameter"]
    return (
        f"  {row['label']}, {where}: recall {row['recall']:.4f}"
        f", p50 {row['p50_ms']:.3f} ms, p99 {row['p99_ms']:.3f} ms"
        + (f", {row['qps']:,.0f} QPS" if "qps" in row else "")
    )


def comparison(rows: Sequence[Row]) -> list[Row]:
    """The table of engines: one line a set of parameters, what is unknown left open."""
    shown = []
    for row in rows:
        cold = row.get("cold") or {}
        reads = cold.get("reads") or {}
        shown.append(
            {
                "engine": row["label"],
                "asked": row["parameter"],
                "vectors": row["vectors"],
                "recall": f"{row['recall']:.4f}",
                "QPS": row["qps"],
                "QPS cpu": row["qps_cpu"],
                "p50 ms": row["p50_ms"],
                "p99 ms": row["p99_ms"],
                "build s": row["build_s"],
                "build peak MB": _mega(row.get("build_peak_bytes")),
                "private MB": _mega(row["anonymous_bytes"]),
                "mapped MB": _mega(row["mapped_bytes"]),
                "memory B/v": _whole(row["bytes_per_vector"]),
                "kept B/v": _whole(row.get("kept_per_vector")),
                "disk B/v": _whole(row["disk_bytes_per_vector"]),
                "touched KB/q": _kilo(row.get("touched_bytes")),
                "open ms": row["open_ms"],
                "cold open ms": cold.get("open_ms"),
                "cold p50 ms": cold.get("p50_ms"),
                "cold KB/q": _kilo(reads.get("storage_bytes")),
            }
        )
    return shown


def failures(rows: Sequence[Row]) -> list[str]:
    return [f"{row['label']}: {row['error']}" for row in rows if "error" in row]


def _mega(value: float | None) -> float | None:
    return None if value is None else value / 1e6


def _kilo(value: float | None) -> float | None:
    return None if value is None else value / 1e3


def _whole(value: float | None) -> int | None:
    return None if value is None else round(value)
