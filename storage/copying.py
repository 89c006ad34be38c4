"""Making the next generation of a store beside the present one: whole, synced, not yet looked at.

Knows directories and environments; who may read the copy, and from when, is for ``store`` to say.
"""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Callable
from pathlib import Path

import lmdb

from memdb.errors import MemdbError
from memdb.storage import generations
from memdb.storage.environment import translate
from memdb.storage.generations import Generation


def make_copy(
    kv: Path,
    old: Generation,
    number: int,
    prepare: Callable[[Path], None] | None,
    *,
    dense: bool,
) -> None:
    """Make generation ``number`` of ``old``, whose writers the caller keeps waiting.

    ``prepare`` is called with its directory before that has its name.
    """
    temporary = kv / f"{generations.name_of(number)}.tmp"
    final = kv / generations.name_of(number)
    for leftover in (temporary, final):
        if leftover.exists():
            shutil.rmtree(leftover)
    temporary.mkdir(mode=0o700)
    copy = old.env.copy_dense if dense else old.env.copy
    try:
        _in_thread(lambda: copy(temporary))
        if prepare is not None:
            prepare(temporary)
        with open(temporary / "data.mdb", "rb+") as copied:
            os.fsync(copied.fileno())
        generations.fsync_directory(temporary)
        os.rename(temporary, final)
        generations.fsync_directory(kv)
    except OSError as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise translate(lmdb.DiskError(str(error))) from error
    except MemdbError:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def _in_thread(function: Callable[[], None]) -> None:
    """Run and wait: LMDB ties a write transaction to its thread, and a copy is another one."""
    failure: list[BaseException] = []

    def run() -> None:
        try:
            function()
        except BaseException as error:  # noqa: BLE001 - raised again by the caller
            failure.append(error)

    thread = threading.Thread(target=run, name="memdb-copy")
    thread.start()
    thread.join()
    if failure:
        raise failure[0]
