"""Every error memdb raises on purpose: one tree, stable codes, a remedy in each.

This file knows nothing of storage, vectors or HTTP libraries. Each class carries

* ``code``    a stable machine-readable name; it never changes once released,
* ``status``  the HTTP status the server answers with,
* ``hint``    one sentence that names the remedy; an instance may give a better one.

The tree::

    MemdbError
    ├── InvalidArgument        a parameter is out of its documented range; names field and limit
    │   ├── FilterError        a ``where`` that does not compile; names the path inside it
    │   └── DimensionMismatch  a vector of another length than its space
    ├── NotFound               no such memory, key, space or file (also a KeyError)
    ├── Conflict               a write that contradicts what is stored
    │   └── EmbedderMismatch   another embedding model than the one the space was made with
    ├── PermissionDenied       a grant, or the file system, does not allow it
    ├── LockHeld               another process holds what this call needs; has .pid and .host
    ├── StoreFull              no room left: the disk, the map or a limit
    ├── StoreCorrupt           bytes on disk fail their checksum; names the file
    ├── FormatTooNew           written by a later memdb
    ├── BudgetExceeded         a byte or memory budget cannot hold what was asked
    ├── EmbedderUnavailable    the recorded embedding model cannot be loaded or reached
    ├── ServerUnavailable      a memdb server that was named does not answer
    └── MissingDependency      an optional extra is not installed; has .extra

Messages never contain the text of a memory.
"""

from __future__ import annotations

from typing import ClassVar

__all__ = [
    "BudgetExceeded",
    "Conflict",
    "DimensionMismatch",
    "EmbedderMismatch",
    "EmbedderUnavailable",
    "FilterError",
    "FormatTooNew",
    "InvalidArgument",
    "LockHeld",
    "MemdbError",
    "MissingDependency",
    "NotFound",
    "PermissionDenied",
    "ServerUnavailable",
    "StoreCorrupt",
    "StoreFull",
]


class MemdbError(Exception):
    """Base of every error memdb raises on purpose."""

    code: ClassVar[str] = "error"
    status: ClassVar[int] = 500
    default_hint: ClassVar[str] = "run `memdb check` and report this with its output"

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint if hint is not None else self.default_hint

    def __str__(self) -> str:
        return self.message


class InvalidArgument(MemdbError, ValueError):
    """A parameter is outside its documented range. ``field`` names it."""

    code = "invalid_argument"
    status = 400
    default_hint = "correct the named argument; its limits are in the documentation of the call"

    def __init__(self, message: str, *, field: str | None = None, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.field = field


class FilterError(InvalidArgument):
    """A ``where`` filter does not compile. ``field`` is the path inside the filter."""

    code = "filter_error"
    default_hint = "see the list of filterable fields and operators in the README, section Filters"


class DimensionMismatch(InvalidArgument):
    """A vector has another number of dimensions than the space it is meant for."""

    code = "dimension_mismatch"
    default_hint = "pass vectors of the space's dimension, or name another space"


class NotFound(MemdbError, KeyError):
    """No such memory, profile key, space or file."""

    code = "not_found"
    status = 404
    default_hint = "check the id or name; forgotten memories are listed by `memdb list --trash`"

    def __str__(self) -> str:  # KeyError would print the repr
        return self.message


class Conflict(MemdbError):
    """A write contradicts what is stored."""

    code = "conflict"
    status = 409
    default_hint = "read the stored value, then choose on_conflict='replace' or 'skip'"


class EmbedderMismatch(Conflict):
    """The embedder is not the one whose vectors the space holds."""

    code = "embedder_mismatch"
    default_hint = "open with the recorded embedder, or move to another: memdb reembed EMBEDDER"


class PermissionDenied(MemdbError, PermissionError):
    """A grant or the file system does not allow the operation."""

    code = "permission_denied"
    status = 403
    default_hint = "check the permissions of the database directory"


class LockHeld(MemdbError):
    """Another process holds what this call needs."""

    code = "lock_held"
    status = 423
    default_hint = "wait for the named process to finish, or stop it"

    def __init__(self, message: str, *, pid: int, host: str, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.pid = pid
        self.host = host


class StoreFull(MemdbError):
    """There is no room for the write; the database stays readable and nothing was written."""

    code = "store_full"
    status = 507
    default_hint = "free disk space; `memdb compact` gives back what is no longer used"


class StoreCorrupt(MemdbError):
    """Bytes on disk fail their checksum or grammar. ``path`` names the file."""

    code = "store_corrupt"
    status = 500
    default_hint = "run `memdb check --repair`, or restore a snapshot"

    def __init__(self, message: str, *, path: str = "", hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.path = path


class FormatTooNew(MemdbError):
    """The database was written by a later version of memdb."""

    code = "format_too_new"
    status = 500
    default_hint = "install a newer personal-memdb, or open a snapshot made by this version"


class BudgetExceeded(MemdbError):
    """A byte or memory budget cannot hold what was asked for."""

    code = "budget_exceeded"
    status = 507
    default_hint = "raise the budget, unpin memories or lower the profile"


class EmbedderUnavailable(MemdbError):
    """The embedding model cannot be loaded or reached; lexical recall still works."""

    code = "embedder_unavailable"
    status = 503
    default_hint = "install the model or start its server; mode='lexical' works without it"


class ServerUnavailable(MemdbError):
    """The server does not answer, or has too much to do; raised by a client of one."""

    code = "server_unavailable"
    status = 503
    default_hint = "start it with `memdb serve`, or ask again in a moment"


class MissingDependency(MemdbError, ImportError):
    """An optional extra is not installed."""

    code = "missing_dependency"
    status = 501
    default_hint = "install the extra that is named: pip install 'personal-memdb[EXTRA]'"

    def __init__(self, message: str, *, extra: str, hint: str | None = None) -> None:
        super().__init__(message, hint=hint or f"pip install 'personal-memdb[{extra}]'")
        self.extra = extra
