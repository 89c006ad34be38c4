"""Every route of ``/v1``, one noun a file; what they share is in ``routing`` and ``schemas``."""

from __future__ import annotations

from dataclasses import replace

import msgspec

from memdb.server.routes import (
    access,
    asking,
    files,
    forgetting,
    history,
    house,
    mem0,
    memories,
    profile,
)
from memdb.server.routing import Route

ROUTES: tuple[Route, ...] = tuple(
    replace(route, decoder=msgspec.json.Decoder(route.body)) if route.body else route
    for module in (memories, asking, profile, history, files, forgetting, house, access, mem0)
    for route in module.ROUTES
)
