"""Making the next generation of a store beside the present one: whole, synced, not yet looked at.

Knows directories and environments; who may read the copy, and from when, is for ``store`` to say.
"""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Callable, Iterable
from itertools import islice
from pathlib import Path
from typing import Any

import lmdb

from memdb.errors import MemdbError
from memdb.storage import generations, packing, tables
from memdb.storage.environment import Environment, ReadTxn, translate
from memdb.storage.generations import Generation
from memdb.storage.packing import Pair
from memdb.storage.values import seal_many

_COPIED_AT_ONCE = 1 << 12
_COMMITTED_AT_ONCE = 1 << 18


def make_copy(
    kv: Path,
    old: Generation,
    number: int,
    prepare: Callable[[Path], None] | None,
    *,
    dense: bool,
    packed: bool,
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
        _in_thread(lambda: copy_into(old.env, temporary, dense=dense, packed=packed))
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


def copy_into(env: Environment, target: Path, *, dense: bool = False, packed: bool = False) -> None:
    """A copy of the last committed state into an existing empty directory, not synced.

    LMDB's compacting one, or ``copy_dense``: where that is asked for, or packed structures hold
    what was removed, or with ``packed``, which packs where most records are cold.
    """
    with env.read() as txn:
        gone = packing.holds_removed(txn)
        packs = packed and packing.is_worth(txn)
    if dense or packed or gone:
        copy_dense(env, target, packed=packs)
    else:
        env.copy(target)


def copy_dense(env: Environment, target: Path, *, packed: bool) -> None:
    """As ``Environment.copy``, with every entry entered anew in key order: full pages. Not synced.

    LMDB's compacting copy keeps pages as they are, and a table whose entries were removed here and
    there has half-empty ones for good. About a microsecond an entry, in as few commits as memory
    allows: what a commit frees is dead until the one after the next. ``packed``: with what takes
    the least room in the place of what is written fastest (``packing``).
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
            gone = packing.holds_removed(txn)
            replaced = packing.replaced(txn, whole=packed) if packed or gone else {}
            _copy_tables(txn, new, replaced)
    except lmdb.Error as error:
        raise translate(error) from error
    finally:
        new.close()


def _copy_tables(txn: ReadTxn, new: Any, replaced: dict[str, Iterable[Pair]]) -> None:
    writing = new.begin(write=True)
    try:
        pending = 0
        for name in tables.ALL:
            if name not in replaced and not txn.has(name):
                continue
            made = new.open_db(name.encode(), txn=writing)
            entries = iter(replaced[name]) if name in replaced else txn.raw(name)
            while some := list(islice(entries, _COPIED_AT_ONCE)):
                with writing.cursor(made) as cursor:
                    cursor.putmulti(seal_many(some) if name in replaced else some, append=True)
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
