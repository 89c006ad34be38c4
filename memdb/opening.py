"""``memdb.open``: from a directory and a few choices to a ``Database``.

Checks what is given, joins the engine that this process may have of the directory already, and
names the program as the source of what a handle writes. It does not know what a database does.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from memdb import settings, sharing, validate
from memdb.database import Database
from memdb.sizes import parse_bytes
from memdb.times import Clock


def open(
    path: str | os.PathLike[str] = settings.DEFAULT_PATH,
    *,
    embedder: Any = None,
    namespace: str = settings.DEFAULT_NAMESPACE,
    source: str | None = None,
    memory_budget: int | str = settings.DEFAULT_MEMORY_BUDGET,
    readonly: bool = False,
    create: bool = True,
    clock: Clock | None = None,
) -> Database:
    """Open (or make) the database in directory ``path``.

    ``embedder``: None for the recorded one ("static" in a new database), "none", "st:NAME",
    "st:/path", "openai:URL#model", or an object with ``embed``. ``namespace`` is where writes go
    and what reads cover, with everything under it ("" reads everything). ``source`` is recorded on
    what this handle writes when a call names none. ``clock`` replaces the system's.

    Raises ``NotFound`` (absent and not ``create``), ``InvalidArgument``, ``PermissionDenied``,
    ``EmbedderMismatch``, ``FormatTooNew``, ``StoreCorrupt``.
    """
    checked_namespace = validate.namespace(namespace)
    checked_source = validate.string(_default_source() if source is None else source, "source")
    shared = sharing.acquire(
        Path(path).expanduser(),
        embedder=embedder,
        readonly=readonly,
        create=create,
        memory_budget=parse_bytes(memory_budget, "memory_budget"),
        clock=clock,
    )
    return Database(shared, namespace=checked_namespace, source=checked_source)


def _default_source() -> str:
    program = Path(sys.argv[0]).name if sys.argv and sys.argv[0] else ""
    return f"app:{program or 'python'}"[:200]
