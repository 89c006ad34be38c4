"""Killing a process at the n-th thing it does to the disk: before it, or just after it.

What is counted are the steps that make something last: a commit of the store, a sync, a rename, a
removal, a write at a place. Numbered one after the other, two for each (before and after), they
reach every point between two lasting states of an operation. A victim is forked from a server that
has imported memdb and opened nothing.
"""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import memdb
from memdb import settings

_PRELOADED = ["bench.erase", "bench.forgetting.kills", "memdb.database", "memdb.opening"]
_BEGUN, _FAILED = -1, -2
_CALLS = ("fsync", "fdatasync", "rename", "replace", "unlink", "pwrite", "rmdir")


def small_steps() -> None:
    """Thresholds at which a few dozen memories lie in every structure."""
    small = {
        "FRESH_POSTINGS_MAX": 8,
        "FRESH_FILTERS_MAX": 8,
        "FRESH_VECTORS_MAX": 32,
        "ENCODE_AT": 8,
    }
    for name, value in small.items():
        setattr(settings, name, value)


def count_or_die(db: memdb.Database, at: int) -> Callable[[], int]:
    """Count what this process does to the disk from now on, and end it with SIGKILL at half-step
    ``at`` (0: never). Calling what is returned gives the steps so far."""
    seen = 0

    def tick() -> None:
        nonlocal seen
        seen += 1
        if seen == at:
            os.kill(os.getpid(), signal.SIGKILL)

    def wrap(owner: Any, name: str) -> None:
        original = getattr(owner, name)

        def counted(*arguments: Any, **named: Any) -> Any:
            tick()
            done = original(*arguments, **named)
            tick()
            return done

        setattr(owner, name, counted)

    for name in filter(partial(hasattr, os), _CALLS):
        wrap(os, name)
    wrap(type(db._engine.store._writes), "_commit_group")
    return lambda: seen


def run(
    victim: Callable[..., int], template: Path, folder: Path, at: int, after_s: float | None = None
) -> int | None:
    """Run ``victim(folder, at)`` on a copy of ``template``: the half-steps it took, or None when it
    was killed, by itself at half-step ``at`` or from here ``after_s`` after it began.
    """
    shutil.copytree(template, folder)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_PRELOADED)
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_told, args=(victim, folder, at, sender), daemon=True)
    process.start()
    sender.close()
    taken: int | None = None
    try:
        taken = receiver.recv()
        if taken == _BEGUN:
            if after_s is not None:
                time.sleep(after_s)  # the instant is the experiment
                process.kill()
            taken = None
            taken = receiver.recv()
    except EOFError:
        taken = None
    process.join()
    receiver.close()
    if taken is None and process.exitcode != -signal.SIGKILL:
        raise RuntimeError(f"the victim ended with {process.exitcode}")
    if taken is not None and taken < 0:
        raise RuntimeError("the victim failed")
    return taken


def _told(victim: Callable[..., int], folder: Path, at: int, sender: Any) -> None:
    try:
        sender.send(victim(folder, at, lambda: sender.send(_BEGUN)))
    except BaseException:
        sender.send(_FAILED)
        raise
