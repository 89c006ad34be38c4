"""Routes of who may come in and what was done: tokens, grants, the audit, a code for the page."""

from __future__ import annotations

from typing import Any

import msgspec

from memdb import Grant
from memdb.server import schemas_owner as schemas
from memdb.server.routing import Call, Route
from memdb.server.sessions import CODE_S


def make_token(call: Call) -> schemas.MadeToken:
    """Make a token; without a grant it may read and add in its own namespace."""
    body: schemas.MakeToken = call.body
    grant = None if body.grant is None else Grant.from_dict(msgspec.structs.asdict(body.grant))
    made = call.acting.tokens.create(body.name, grant, owner=body.owner, expires_in=body.expires_in)
    return schemas.MadeToken(secret=made.secret, name=made.name, id=made.id)


def _token(info: Any) -> schemas.TokenObject:
    fields = {name: getattr(info, name) for name in schemas.TokenObject.__struct_fields__}
    return schemas.TokenObject(**{**fields, "grant": info.grant.to_dict()})


def list_tokens(call: Call) -> schemas.TokenList:
    """Every token, revoked and expired ones too."""
    return schemas.TokenList(items=[_token(one) for one in call.acting.tokens.list()])


def revoke_token(call: Call) -> schemas.TokenObject:
    """End a token for good, at once."""
    return _token(call.acting.tokens.revoke(call.path["name"]))


def pause_token(call: Call) -> schemas.TokenObject:
    """Refuse a token until it is resumed."""
    return _token(call.acting.tokens.pause(call.path["name"]))


def resume_token(call: Call) -> schemas.TokenObject:
    """Accept a paused token again."""
    return _token(call.acting.tokens.resume(call.path["name"]))


def list_grants(call: Call) -> schemas.GrantList:
    """What each principal may do and see whose token is neither revoked nor paused."""
    return schemas.GrantList(
        items=[
            schemas.NamedGrant(name=one.name, owner=one.owner, grant=one.grant.to_dict())
            for one in call.acting.tokens.list()
            if one.revoked_at is None and not one.paused
        ]
    )


def own_grant(call: Call) -> schemas.NamedGrant:
    """What the token of this request may do and see."""
    who = call.principal
    return schemas.NamedGrant(name=who.name, owner=who.owner, grant=who.grant.to_dict())


def audit_rows(call: Call) -> schemas.AuditRows:
    """What was done, the latest first."""
    page = call.acting.audit.rows(**msgspec.structs.asdict(call.query))
    return schemas.AuditRows(items=list(page.items), next_cursor=page.next_cursor)


def audit_verify(call: Call) -> schemas.Verdict:
    """Whether anybody changed what is written about what was done."""
    return schemas.Verdict(verdict=call.acting.audit.verify())


def page_code(call: Call) -> schemas.PageCode:
    """A code that opens the owner's page once, within a minute."""
    code = call.services.sessions.codes.issue()
    return schemas.PageCode(
        code=code, url=f"{call.services.url}/open?code={code}", expires_s=CODE_S
    )


ROUTES = (
    Route("POST", "/v1/tokens", make_token, "make a token", schemas.MadeToken,
          body=schemas.MakeToken, tag="access", secret=True),
    Route("GET", "/v1/tokens", list_tokens, "every token", schemas.TokenList, tag="access"),
    Route("DELETE", "/v1/tokens/{name}", revoke_token, "end a token for good",
          schemas.TokenObject, tag="access"),
    Route("POST", "/v1/tokens/{name}/pause", pause_token, "refuse a token for now",
          schemas.TokenObject, tag="access"),
    Route("POST", "/v1/tokens/{name}/resume", resume_token, "accept a paused token again",
          schemas.TokenObject, tag="access"),
    Route("GET", "/v1/grants", list_grants, "what each agent may do and see",
          schemas.GrantList, tag="access"),
    Route("GET", "/v1/grants/own", own_grant, "what this token may do and see",
          schemas.NamedGrant, tag="access"),
    Route("GET", "/v1/audit", audit_rows, "what was done, the latest first",
          schemas.AuditRows, query=schemas.AuditQuery, tag="access"),
    Route("GET", "/v1/audit/verify", audit_verify, "whether the audit is as it was written",
          schemas.Verdict, limit_s=600.0, tag="access"),
    Route("POST", "/v1/ui/code", page_code, "a code that opens the owner's page once",
          schemas.PageCode, owner=True, tag="access", secret=True),
)  # fmt: skip
