"""The agents: what each may see and do, what it last read, pausing and revoking, and new tokens."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from flask import render_template
from werkzeug.wrappers import Response

from memdb import AuditRow, Conflict, Grant, InvalidArgument, MemdbError, Memory, TokenInfo
from memdb.server.page import door, forms, shown
from memdb.server.page.blueprint import page
from memdb.server.page.forms import Note

ACTION_WORDS: Final[Mapping[str, str]] = {
    "read": "read memories",
    "add": "add memories",
    "update": "change memories",
    "forget": "forget and bring back",
    "feedback": "say what was of use",
    "sync": "read files in",
    "report": "list all that is known",
    "erase": "erase for good",
    "retention": "plan and do forgetting",
    "export": "export",
    "audit": "read the audit",
    "admin": "keep house",
}
OFFERED: Final = ("read", "add", "update", "forget", "feedback")
CHECKED: Final = ("read", "add")
EVERYTHING: Final = {"namespace": {"$exists": True}}
LOOKED_AT: Final = 2_000  # rows of the audit, for what each did last
SHOWN: Final = 5  # memories of what it last read


@dataclass(frozen=True, slots=True)
class Agent:
    """A token, the newest row of what it did, and the memories it last read."""

    token: TokenInfo
    last: AuditRow | None
    last_read: AuditRow | None
    memories: tuple[Memory, ...]

    @property
    def state(self) -> str:
        if self.token.revoked_at is not None:
            return "revoked"
        return "paused" if self.token.paused else "active"

    @property
    def sees(self) -> str:
        """What its filter lets it see, in words where there are some."""
        where = self.token.grant.where
        if where is None:
            return f"what is in {self.namespace}"
        if where == EVERYTHING:
            return "everything"
        kinds = where.get("kind", {}).get("$in") if len(where) == 1 else None
        if kinds:
            return ", ".join(shown.kind_word(kind, 2) for kind in kinds) + ", in every namespace"
        return json.dumps(where, ensure_ascii=False, default=str)

    @property
    def namespace(self) -> str:
        return self.token.grant.namespace or self.token.name


@page.get("/agents")
def agents() -> str:
    """Every token: those that count first."""
    return _render()


def _render(problem: MemdbError | None = None, secret: Any = None, **given: Any) -> str:
    acting = door.acting()
    found = agents_of(acting)
    return render_template(
        "agents.html",
        agents=[one for one in found if one.state != "revoked"],
        revoked=[one for one in found if one.state == "revoked"],
        action_words=ACTION_WORDS,
        offered=OFFERED,
        checked=given.get("actions", CHECKED),
        problem=problem,
        secret=secret,
        given=given,
        namespaces=list(acting.namespaces()),
        kinds=[kind for kind, _ in acting.values("kind")],
    )


def agents_of(acting: Any) -> list[Agent]:
    """The tokens by name, with what each did last as far as the newest rows of the audit tell."""
    last: dict[str, AuditRow] = {}
    last_read: dict[str, AuditRow] = {}
    for row in acting.audit.rows(limit=LOOKED_AT).items:
        last.setdefault(row.principal, row)
        if row.action == "read" and row.ids:
            last_read.setdefault(row.principal, row)
    found = []
    for token in sorted(acting.tokens.list(), key=lambda token: token.name.casefold()):
        read = last_read.get(token.name)
        ids = () if read is None or token.revoked_at is not None else read.ids[:SHOWN]
        memories = acting.get_many(list(ids)) if ids else []
        known = tuple(one for one in memories if one is not None)
        found.append(Agent(token, last.get(token.name), read, known))
    return found


@page.post("/agents")
def add_agent() -> str | tuple[str, int]:
    """Make a token; its secret is on the page that answers, and nowhere else."""
    given = forms.fields()
    name = forms.text("name")
    actions = [one for one in given.getlist("actions") if one in OFFERED]
    try:
        if name is None:
            raise InvalidArgument("give the agent a name", field="name")
        if not actions:
            raise InvalidArgument("choose at least one thing it may do", field="actions")
        made = door.acting().tokens.create(
            name, _grant(actions), expires_in=forms.text("expires_in")
        )
    except (InvalidArgument, Conflict) as error:
        kept = {one: given.get(one, "") for one in ("namespace", "expires_in", "sees")}
        return _render(error, name=name or "", actions=actions, **kept), error.status
    return _render(secret=made)


def _grant(actions: list[str]) -> Grant:
    sees, kinds = forms.text("sees"), forms.fields().getlist("kinds")
    where: Mapping[str, Any] | None = None
    if sees == "everything":
        where = EVERYTHING
    elif sees == "kinds":
        if not kinds:
            raise InvalidArgument("choose the kinds it may see", field="kinds")
        where = {"kind": {"$in": kinds}}
    return Grant(actions=actions, where=where, namespace=forms.text("namespace"))


@page.post("/agents/state")
def change_agent() -> Response:
    """Pause, resume or revoke one token."""
    tokens = door.acting().tokens
    name, action = forms.text("name") or "", forms.text("action")
    if action == "pause":
        tokens.pause(name)
        words = f"{name} is paused: it can neither read nor write until you resume it."
    elif action == "resume":
        tokens.resume(name)
        words = f"{name} may do again what its grant says."
    elif action == "revoke":
        tokens.revoke(name)
        words = f"The token of {name} is revoked. It will never work again."
    else:
        raise InvalidArgument("action is pause, resume or revoke", field="action")
    return forms.go("page.agents", Note(words))


@page.post("/agents/remembering")
def switch_remembering() -> Response:
    """The one switch: whether anybody may remember anything."""
    paused = forms.text("paused") == "yes"
    door.acting().settings.remembering_paused = paused
    words = "Paused. Agents can read, and store nothing." if paused else "Remembering goes on."
    return forms.go("page.agents", Note(words))
