"""How benchmarks speak: a progress line, a table a person can read, and the same as JSON.

The JSON names the command, the versions and the machine, so that a figure can be made again.
"""

from __future__ import annotations

import json
import os
import platform
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"

_BAR = 24  # characters

_VECTOR_SETS = (
    *("sse4_2", "avx", "avx2", "fma", "f16c"),
    *("avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512_vpopcntdq", "avx512_vnni"),
    *("asimd", "asimddp", "sve"),
)


def progress(text: str) -> None:
    """Show where the work is, on a terminal only."""
    if sys.stderr.isatty():
        sys.stderr.write(f"\r\x1b[K{text}")
        sys.stderr.flush()


@contextmanager
def ticking(text: str, done: int, total: int) -> Iterator[None]:
    """A bar, what is being done and for how long, renewed every second; on a terminal only."""
    if not sys.stderr.isatty():
        yield
        return
    filled = round(_BAR * done / max(1, total))
    bar = "█" * filled + "░" * (_BAR - filled)
    started, over = time.monotonic(), threading.Event()

    def renew() -> None:
        while True:
            elapsed = time.monotonic() - started
            progress(f"{bar} {done}/{total}  {text}, {elapsed:,.0f} s")
            if over.wait(1.0):
                return

    thread = threading.Thread(target=renew, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        progress("")


def table(rows: Sequence[dict[str, Any]]) -> None:
    """Print rows as an aligned table; columns in the order of the first row that has them."""
    progress("")
    columns = list(dict.fromkeys(name for row in rows for name in row))
    shown = [[_show(row.get(name)) for name in columns] for row in rows]
    widths = [max(len(name), *(len(row[i]) for row in shown)) for i, name in enumerate(columns)]
    print("  ".join(name.ljust(width) for name, width in zip(columns, widths, strict=True)))
    for row in shown:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)))


def number(value: float) -> str:
    """A figure as a person reads it: three decimals below a hundred, thousands apart above."""
    if type(value) is int:
        return f"{value:,}"
    return f"{value:.3f}" if abs(value) < 100 else f"{value:,.0f}"


def _show(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return number(value)
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def save(path: Path | None, name: str, arguments: Sequence[str], results: Any) -> Path:
    """Keep the figures with what made them; under bench/results when no path is given."""
    if path is None:
        RESULTS.mkdir(exist_ok=True)
        path = RESULTS / f"{name}-{time.strftime('%Y%m%d-%H%M%S')}.json"
    content = {
        "command": " ".join(["python", "-m", "bench", name, *arguments]),
        "when": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "machine": machine(),
        "results": results,
    }
    path.write_text(json.dumps(content, indent=2, default=str) + "\n")
    return path


def machine() -> dict[str, Any]:
    """What the figures depend on."""
    versions = {}
    for package in ("numpy", "lmdb", "pyroaring", "zstandard", "personal-memdb"):
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = "from the checkout"
    return {
        "cores": os.cpu_count(),
        "processor": _processor(),
        "instruction_sets": _instruction_sets(),
        "python": platform.python_version(),
        "system": platform.system(),
        "versions": versions,
    }


def _processor() -> str:
    return _cpuinfo("model name") or platform.processor() or platform.machine()


def _instruction_sets() -> list[str]:
    """Of those that vector kernels use, the ones this processor has; empty where it is not said."""
    flags = set((_cpuinfo("flags") or _cpuinfo("Features")).split())
    return [name for name in _VECTOR_SETS if name in flags]


def _cpuinfo(field: str) -> str:
    """What Linux says about the first processor."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            name, _, value = line.partition(":")
            if name.strip() == field:
                return value.strip()
    return ""
