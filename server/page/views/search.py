"""Search: a question, what was found, and why; without a question, what is chosen or new."""

from __future__ import annotations

from typing import Any, Final

from flask import render_template, request

from memdb import Hit
from memdb.server.page import door
from memdb.server.page.blueprint import page
from memdb.server.page.choosing import Chosen

FOUND: Final = 10
MORE: Final = 50
NEWEST: Final = 6
LISTED: Final = 30


@page.get("/")
def search() -> str:
    """The first page. ``q`` is the question, the other fields narrow it."""
    acting = door.acting()
    query = request.args.get("q", "").strip()
    chosen = Chosen.of(request.args)
    shared: dict[str, Any] = {"query": query, "chosen": chosen, "choices": choices(acting)}
    if query:
        count = MORE if "more" in request.args else FOUND
        as_of = request.args.get("as_of", "").strip() or None
        where = chosen.where_with_times()
        hits = acting.recall(query, k=count, where=where, explain=True, as_of=as_of)
        found = list(hits)
        return render_template(
            "search.html",
            hits=found,
            strong=strong(found),
            degraded=hits.degraded,
            took_ms=hits.plan.get("times_ms", {}).get("total"),
            looked_at=hits.plan.get("allowed"),
            more=count == FOUND and len(found) == FOUND,
            as_of=as_of or "",
            **shared,
        )
    cursor = request.args.get("cursor")
    newest = acting.list(
        where=chosen.where_with_times("recorded_at"),
        order_by="recorded_at",
        limit=LISTED if chosen else NEWEST,
        cursor=cursor,
    )
    return render_template("search.html", newest=newest, as_of="", **shared)


def choices(acting: Any) -> dict[str, list[tuple[str, int]]]:
    """What the filter form offers: kinds, people and things, sources, each with a number."""
    return {
        "kind": acting.values("kind"),
        "about": acting.values("about")[:40],
        "source": [one for one in acting.values("source") if not one[0].startswith("file:")][:40],
    }


def strong(hits: list[Hit]) -> int:
    """How many of the first hits stand out, so that a page can say where guesses begin."""
    return sum(1 for hit in hits if hit.score >= 0.5)
