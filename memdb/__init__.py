"""memdb: the memory of a personal agent, in one directory on one device.

>>> import memdb
>>> db = memdb.open("~/.memdb")
>>> db.remember("Ana is allergic to peanuts", about=["Ana"])
>>> db.recall("what can't Ana eat?", k=3)

``open`` gives a ``Database``; ``VectorIndex`` is the index on its own. Results are values from
``memdb.types``; everything that goes wrong is a ``MemdbError`` with a hint. This file lists the
public names and nothing else.
"""

from memdb.database import Database, open
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
    StoreCorrupt,
    StoreFull,
)
from memdb.types import (
    Context,
    FileStatus,
    Forgotten,
    Hit,
    Hits,
    Memory,
    Page,
    Report,
    Space,
    SyncReport,
    Why,
    Written,
)
from memdb.vector_index import VectorIndex

__version__ = "0.1.0"

__all__ = [
    "BudgetExceeded",
    "Conflict",
    "Context",
    "Database",
    "DimensionMismatch",
    "EmbedderMismatch",
    "EmbedderUnavailable",
    "FileStatus",
    "FilterError",
    "Forgotten",
    "FormatTooNew",
    "Hit",
    "Hits",
    "InvalidArgument",
    "LockHeld",
    "Memory",
    "MemdbError",
    "MissingDependency",
    "NotFound",
    "Page",
    "PermissionDenied",
    "Report",
    "Space",
    "StoreCorrupt",
    "StoreFull",
    "SyncReport",
    "VectorIndex",
    "Why",
    "Written",
    "__version__",
    "open",
]
