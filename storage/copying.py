"""Making the next generation of a store beside the present one: whole, synced, not yet looked at.

Knows directories and environments; who may read the copy, and from when, is for ``store`` to say.
"""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import lmdb

from memdb.errors import MemdbError
from memdb.storage import generations, tables
from memdb.storage.environment import Environment, ReadTxn, translate
from memdb.storage.generations import Generation

_COPIED_AT_ONCE = 1 << 12
_COMMITTED_AT_ONCE = 1 << 18


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
    try:
        _in_thread(lambda: copy_dense(old.env, temporary) if dense else old.env.copy(temporary))
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


def copy_dense(env: Environment, target: Path) -> None:
    """As ``Environment.copy``, with every entry entered anew in key order: full pages. Not synced.

    LMDB's compacting copy keeps pages as they are, and a table whose entries were removed here and
    there has half-empty ones for good. About a microsecond an entry, in as few commits as memory
    allows: what a commit frees is dead until the one after the next.
    """
    try:
        new = lmdb.open(
            str(target),
            map_size=env.info()["map_size"],
            max_dbs=len(tables.ALL),
            sync=False,
            lock=False,
            lib_version=0,
        )
    except lmdb.Error as error:
        raise translate(error) from error
    try:
        with env.read() as txn:
            _copy_tables(txn, new)
    except lmdb.Error as error:
        raise translate(error) from error
    finally:
        new.close()


def _copy_tables(txn: ReadTxn, new: Any) -> None:
    writing = new.begin(write=True)
    try:
        pending = 0
        for name in tables.ALL:
            if not txn.has(name):
                continue
            made = new.open_db(name.encode(), txn=writing)
            entries = txn.raw(name)
            while some := list(islice(entries, _COPIED_AT_ONCE)):
                with writing.cursor(made) as cursor:
                    cursor.putmulti(some, append=True)
                pending += len(some)
                if pending >= _COMMITTED_AT_ONCE:
                    writing.commit()
                    writing, pending = new.begin(write=True), 0
        writing.commit()
    except BaseException:
        writing.abort()
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
