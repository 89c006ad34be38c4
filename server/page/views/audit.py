"""The audit: who read and wrote what, when and why; and whether the record is whole."""

from __future__ import annotations

from typing import Final

from flask import render_template, request
from werkzeug.wrappers import Response

from memdb.server.page import door, forms
from memdb.server.page.blueprint import page
from memdb.server.page.choosing import day_after
from memdb.server.page.forms import Note
from memdb.server.page.views.agents import ACTION_WORDS

SHOWN: Final = 50


@page.get("/audit")
def audit() -> str:
    """The newest rows first; by who, what, and from which day to which."""
    acting = door.acting()
    names = ("principal", "action", "since", "until")
    chosen = {name: request.args.get(name, "").strip() for name in names}
    until = chosen["until"]
    found = acting.audit.rows(
        principal=chosen["principal"] or None,
        action=chosen["action"] or None,
        since=chosen["since"] or None,
        before=(day_after(until) or until) if until else None,
        limit=SHOWN,
        cursor=request.args.get("cursor"),
    )
    return render_template(
        "audit.html",
        rows=found.items,
        next_cursor=found.next_cursor,
        chosen=chosen,
        actions=list(ACTION_WORDS),
        principals=sorted({"owner", *(token.name for token in acting.tokens.list())}),
        keeps_queries=door.database().settings.audit_query_text,
    )


@page.post("/audit/verify")
def verify_audit() -> Response:
    """Check the chains of the record from their first rows to their last."""
    verdict = door.acting().audit.verify()
    if verdict.ok:
        words = f"The record is whole: {verdict.rows:,} rows, each following from the one before."
        return forms.go("page.audit", Note(words))
    words = f"The record was changed or is damaged: {verdict.first_bad}."
    return forms.go("page.audit", Note(words, problem=True))


@page.post("/audit/questions")
def keep_questions() -> Response:
    """Whether the audit keeps what was asked, too."""
    kept = forms.text("kept") == "yes"
    door.acting().settings.audit_query_text = kept
    words = "What is asked is kept from here on." if kept else "What is asked is not kept any more."
    return forms.go("page.audit", Note(words))
