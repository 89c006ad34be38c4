"""Running one job in a child process: the job's file, its answers, its limits, its last words.

Knows the harness's protocol and processes; what a job measures it does not know. Only children
started here are ever ended.
"""

from __future__ import annotations

import json
import os
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench.ann.engines import WORKERS

Event = dict[str, Any]


class EngineFailed(Exception):
    """A child that did not finish; the message is the reason, in one line."""


def run(
    python: Path,
    job: dict[str, Any],
    folder: Path,
    *,
    limit_s: float,
    environment: dict[str, str] | None = None,
    hear: Callable[[Event], None] = lambda event: None,
) -> list[Event]:
    """All answers of one job; each is given to ``hear`` as soon as it is there.

    Raises ``EngineFailed``; what was heard before that stays heard.
    """
    path = folder / f"{job['name']}-{job['step']}.json"
    path.write_text(json.dumps(job), encoding="utf-8")
    log = path.with_suffix(".log")
    events: list[Event] = []
    with (
        log.open("w", encoding="utf-8") as errors,
        _started(python, path, errors, environment or {}) as child,
        _limited(child, limit_s) as late,
    ):
        assert child.stdout is not None
        for line in child.stdout:
            event = json.loads(line)
            events.append(event)
            hear(event)
        status = child.wait()
    if late.is_set():
        raise EngineFailed(f"not done after {limit_s:,.0f} s, the limit for one step")
    failure = next((event["error"] for event in events if event["event"] == "failed"), None)
    if failure:
        raise EngineFailed(failure)
    if status or not events or events[-1]["event"] != "done":
        raise EngineFailed(f"ended with status {status}: {_last_line(log)}")
    return events


@contextmanager
def _started(
    python: Path, job: Path, errors: Any, environment: dict[str, str]
) -> Iterator[subprocess.Popen[str]]:
    command = [str(python), str(WORKERS / "harness.py"), str(job)]
    child = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=errors,
        text=True,
        encoding="utf-8",
        # The adapters' folder must not come first on the path: its files are not packages.
        env={**os.environ, "PYTHONSAFEPATH": "1", **environment},
    )
    try:
        yield child
    finally:
        if child.poll() is None:  # an exception or Ctrl-C here: nobody waits for it any more
            child.kill()
        child.wait()


@contextmanager
def _limited(child: subprocess.Popen[str], limit_s: float) -> Iterator[threading.Event]:
    """An event that is set when the child was ended for taking too long."""
    late = threading.Event()

    def end() -> None:
        late.set()
        child.kill()

    timer = threading.Timer(limit_s, end)
    timer.daemon = True
    timer.start()
    try:
        yield late
    finally:
        timer.cancel()


def _last_line(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").split("\n")
    said = [line.strip() for line in lines if line.strip()]
    return said[-1][:200] if said else "it said nothing"


def evict(folder: Path) -> bool:
    """Put the folder's files out of the page cache; False where the system cannot."""
    if not hasattr(os, "posix_fadvise"):
        return False
    for path in folder.rglob("*"):
        if path.is_file():
            handle = os.open(path, os.O_RDONLY)
            try:
                os.fsync(handle)
                os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
            finally:
                os.close(handle)
    return True
