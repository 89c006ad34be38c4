"""Environments of peers: one each, made on demand under the cache folder, pins from ``engines``.

Knows venv and pip, and nothing of what an engine does. A peer whose package is installed here at
the pinned version runs here.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

from bench import report
from bench.ann.engines import OURS, Engine

_INSTALL_LIMIT_S = 1200


class Unavailable(Exception):
    """A peer that cannot be had here; the message is the reason, in one line."""


def cache_folder(given: Path | None) -> Path:
    """Where environments, truth and built indexes are kept: never inside the repository."""
    if given is None:
        base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        given = Path(base) / "memdb-bench"
    given.mkdir(parents=True, exist_ok=True)
    return given.resolve()


def _is_here(requirement: str) -> bool:
    name, _, version = requirement.partition("==")
    try:
        return metadata.version(name) == version
    except metadata.PackageNotFoundError:
        return False


def _folder(cache: Path, engine: Engine) -> Path:
    pins = " ".join((*engine.packages, sys.version))
    return cache / "peers" / f"{engine.name}-{hashlib.sha256(pins.encode()).hexdigest()[:10]}"


def python_of(engine: Engine, cache: Path, *, install: bool) -> Path:
    """The interpreter that can import the engine; ``Unavailable`` with the reason otherwise."""
    if engine.name == OURS or _is_here(engine.packages[0]):
        return Path(sys.executable)
    folder = _folder(cache, engine)
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    if (folder / "ready").exists():
        return python
    if not install:
        raise Unavailable(f"not installed; python -m bench ann --install {engine.name}")
    shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    log = folder.with_suffix(".log")
    report.progress(f"installing {engine.name}: {' '.join(engine.packages)}")
    with log.open("w", encoding="utf-8") as output:
        for command in (
            # This environment's pip installs for it: a pip of its own would take longer to copy
            # than most peers, and Debian splits what makes one off.
            [sys.executable, "-m", "venv", "--without-pip", str(folder)],
            [sys.executable, "-m", "pip", "--python", str(python), "install", "--no-compile",
             "--disable-pip-version-check", *engine.packages],
        ):  # fmt: skip
            try:
                done = subprocess.run(
                    command, stdout=output, stderr=output, check=False, timeout=_INSTALL_LIMIT_S
                )
            except (OSError, subprocess.TimeoutExpired) as error:
                raise Unavailable(f"{' '.join(command[1:4])}: {error}") from error
            if done.returncode:
                shutil.rmtree(folder, ignore_errors=True)
                raise Unavailable(f"{_reason(log)} (all of it in {log})")
    (folder / "ready").write_text(" ".join(engine.packages) + "\n", encoding="utf-8")
    report.progress("")
    return python


def _reason(log: Path) -> str:
    """The line of pip's output that says why."""
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    errors = [line for line in lines if line.lstrip().startswith(("ERROR:", "error:"))]
    return (errors or lines or ["pip said nothing"])[0].strip()[:200]
