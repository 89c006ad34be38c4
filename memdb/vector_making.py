"""How the directory of a ``VectorIndex`` comes to be, whatever cuts it short.

LMDB makes its file in steps, and does not make its name durable. So until the index's state is
committed and the names last, a directory counts as not made: whoever opens it for writing makes it
again, under a lock that the kernel frees. The engine's files are made after that, and are a sign of
it: a book that is damaged beside them is damaged, and nothing is made in its place.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from memdb import vector_book
from memdb.errors import InvalidArgument, NotFound, PermissionDenied
from memdb.storage import generations, pages
from memdb.storage.environment import Environment
from memdb.storage.lease import CreationLock
from memdb.vector_book import State
from memdb.vector_wanted import Wanted

_FIRST_STATE: Final = 2  # the transaction that can hold it: the one before makes the tables


@contextmanager
def opening(path: Path, kv: Path, *, readonly: bool) -> Iterator[None]:
    """The block opens the environment in ``kv``, and commits the state where there is none.

    Raises ``InvalidArgument`` where there is a database, ``NotFound`` (``readonly``),
    ``PermissionDenied``.
    """
    if _is_made(path, kv):
        yield
        return
    if readonly:
        raise NotFound(f"there is no index at {path}")
    if (path / "FORMAT").exists():
        raise InvalidArgument("the directory is a memdb database", field="path")
    try:
        generations.make_folder(kv)
    except OSError as error:
        raise PermissionDenied("the index's directory cannot be made there") from error
    with CreationLock(kv / "creating"):
        if not _is_made(path, kv):  # another process may have made it meanwhile
            for name in ("data.mdb", "lock.mdb"):
                (kv / name).unlink(missing_ok=True)
        yield
        for folder in (kv, path, path.parent):
            with suppress(PermissionError):  # who may write in a folder need not be able to read it
                generations.fsync_directory(folder)


def _is_made(path: Path, kv: Path) -> bool:
    if any(path.glob("refine.*")):
        return True
    try:
        metas = pages.read_metas(kv / "data.mdb")
    except (FileNotFoundError, NotADirectoryError, pages.Unsound):
        return False
    except OSError as error:
        raise PermissionDenied("the index's directory cannot be read") from error
    return max(meta.transaction for meta in metas) >= _FIRST_STATE


def load_or_make(env: Environment, wanted: Wanted, path: Path) -> State:
    """The state that is there, or a new one, committed. ``NotFound`` where none may be made."""
    with env.read() as txn:
        state = vector_book.load_state(txn)
    if state is not None:
        return state
    if env.readonly:
        raise NotFound(f"there is no index at {path}")
    new = wanted.new_state()
    with env.write() as txn:
        state = vector_book.load_state(txn)  # another process may have been first
        if state is None:
            state = new
            vector_book.save_state(txn, state)
    return state
