"""Routes of who may come in: a one-time code for the owner's page."""

from __future__ import annotations

from memdb.server import schemas_owner as schemas
from memdb.server.routing import Call, Route
from memdb.server.sessions import CODE_S


def page_code(call: Call) -> schemas.PageCode:
    """A code that opens the owner's page once, within a minute."""
    code = call.services.sessions.codes.issue()
    return schemas.PageCode(
        code=code, url=f"{call.services.url}/open?code={code}", expires_s=CODE_S
    )


ROUTES = (
    Route("POST", "/v1/ui/code", page_code, "a code that opens the owner's page once",
          schemas.PageCode, owner=True, tag="access"),
)  # fmt: skip
