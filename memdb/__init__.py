"""memdb: the memory of a personal agent, in one directory on one device.

>>> import memdb
>>> db = memdb.open("~/.memdb")
>>> db.remember("Ana is allergic to peanuts", about=["Ana"])
>>> db.recall("what can't Ana eat?", k=3)

``open`` gives a ``Database``, ``connect`` one behind a server; ``VectorIndex`` is the index on its
own. Results are values from ``memdb.types``; everything that goes wrong is a ``MemdbError`` with a
hint. This file lists the public names; those with machinery behind them are loaded on first use, so
that a layer below can be imported, and the command line can print its help, without all of it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from memdb.errors import (
    BudgetExceeded,
    Conflict,
    DimensionMismatch,
    EmbedderMismatch,
    EmbedderUnavailable,
    FilterError,
    FormatTooNew,
    InvalidArgument,
    LockHeld,
    MemdbError,
    MissingDependency,
    NotFound,
    PermissionDenied,
    ServerUnavailable,
    StoreCorrupt,
    StoreFull,
)
from memdb.types import (
    Context,
    ContextItem,
    Feedback,
    FileStatus,
    Forgotten,
    Hit,
    Hits,
    Memory,
    Page,
    Reembedding,
    Report,
    Space,
    SyncReport,
    Trashed,
    Why,
    Written,
)

if TYPE_CHECKING:
    from memdb.access.acting import Acting
    from memdb.access.auditing import AuditPage, AuditRow, AuditVerdict
    from memdb.access.grant import Grant, Principal
    from memdb.access.tokens import NewToken, TokenInfo
    from memdb.client import Client, connect
    from memdb.database import Database
    from memdb.index.protocol import SearchPlan
    from memdb.opening import open
    from memdb.receipt import Receipt
    from memdb.scanning import Canary, Residue, ScanReport, scan_erased
    from memdb.space_sample import SpaceSample
    from memdb.vector_filter import VectorFilter
    from memdb.vector_index import VectorIndex

__version__ = "0.1.0"

__all__ = [
    "Acting",
    "AuditPage",
    "AuditRow",
    "AuditVerdict",
    "BudgetExceeded",
    "Canary",
    "Client",
    "Conflict",
    "Context",
    "ContextItem",
    "Database",
    "DimensionMismatch",
    "EmbedderMismatch",
    "EmbedderUnavailable",
    "Feedback",
    "FileStatus",
    "FilterError",
    "Forgotten",
    "FormatTooNew",
    "Grant",
    "Hit",
    "Hits",
    "InvalidArgument",
    "LockHeld",
    "MemdbError",
    "Memory",
    "MissingDependency",
    "NewToken",
    "NotFound",
    "Page",
    "PermissionDenied",
    "Principal",
    "Receipt",
    "Reembedding",
    "Report",
    "Residue",
    "ScanReport",
    "SearchPlan",
    "ServerUnavailable",
    "Space",
    "SpaceSample",
    "StoreCorrupt",
    "StoreFull",
    "SyncReport",
    "TokenInfo",
    "Trashed",
    "VectorFilter",
    "VectorIndex",
    "Why",
    "Written",
    "__version__",
    "connect",
    "open",
    "scan_erased",
]

_LOADED_ON_USE = {
    "Acting": "memdb.access.acting",
    "AuditPage": "memdb.access.auditing",
    "AuditRow": "memdb.access.auditing",
    "AuditVerdict": "memdb.access.auditing",
    "Grant": "memdb.access.grant",
    "NewToken": "memdb.access.tokens",
    "Principal": "memdb.access.grant",
    "TokenInfo": "memdb.access.tokens",
    "Canary": "memdb.scanning",
    "Client": "memdb.client",
    "Database": "memdb.database",
    "Receipt": "memdb.receipt",
    "Residue": "memdb.scanning",
    "ScanReport": "memdb.scanning",
    "SearchPlan": "memdb.index.protocol",
    "SpaceSample": "memdb.space_sample",
    "VectorFilter": "memdb.vector_filter",
    "VectorIndex": "memdb.vector_index",
    "connect": "memdb.client",
    "open": "memdb.opening",
    "scan_erased": "memdb.scanning",
}


def __getattr__(name: str) -> Any:
    module = _LOADED_ON_USE.get(name)
    if module is None:
        raise AttributeError(f"module 'memdb' has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(module), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
