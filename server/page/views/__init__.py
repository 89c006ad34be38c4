"""The views: one noun a file. Importing this registers all of them on the blueprint."""

from __future__ import annotations

from memdb.server.page.views import (
    agents,
    audit,
    erase,
    export,
    forgetting,
    map,
    memory,
    profile,
    search,
    session,
    storage,
    timeline,
    trash,
)

__all__ = [
    "agents",
    "audit",
    "erase",
    "export",
    "forgetting",
    "map",
    "memory",
    "profile",
    "search",
    "session",
    "storage",
    "timeline",
    "trash",
]
