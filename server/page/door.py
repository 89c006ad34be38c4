"""What the page asks of whoever hosts it: whose memory, who is looking, and the session's token.

The one place that knows how the host hands these over; the views call it and know no session.
"""

from __future__ import annotations

from typing import Any

from flask import g

from memdb import Database, PermissionDenied


def is_owner() -> bool:
    """Whether the owner is looking: nobody else sees the page."""
    principal = getattr(g, "principal", None)
    return principal is not None and bool(getattr(principal, "owner", False))


def acting() -> Any:
    """The owner's verbs over the whole memory; each call is audited."""
    found = getattr(g, "acting", None)
    if found is None:
        raise PermissionDenied("nobody is signed in", hint="open the page with `memdb ui`")
    return found


def database() -> Database:
    """The database itself, for what is no verb of memories: tokens, settings, the audit."""
    found: Database = g.memdb
    return found
