"""Erase: first everything that is known and would go, then the number typed, then the receipt."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from flask import render_template, request
from werkzeug.wrappers import Response

from memdb import InvalidArgument
from memdb.server.page import door, forms, shown
from memdb.server.page.blueprint import page
from memdb.server.page.choosing import Chosen
from memdb.server.page.forms import Note
from memdb.server.page.views.search import choices

LISTED: Final = 50
COUNT_WORDS: Final = {
    "memories": ("memory", "memories"),
    "derived": ("memory inferred from them", "memories inferred from them"),
    "versions": ("earlier version", "earlier versions"),
    "samples": ("sample of a series", "samples of series"),
    "vectors": ("stored meaning", "stored meanings"),
    "blobs": ("long text", "long texts"),
}


@page.get("/erase")
def erase() -> str:
    """The form; and with something chosen, the report of what erasing it would reach."""
    acting = door.acting()
    return _render(acting, request.args)


def _render(acting: Any, given: Mapping[str, str], problem: InvalidArgument | None = None) -> str:
    chosen, selector = selected(given)
    report = acting.report(**selector) if selector else None
    receipts = acting.receipts()
    return render_template(
        "erase.html",
        chosen=chosen,
        id=given.get("id", ""),
        report=report,
        number=None if report is None else report.total,
        listed=LISTED,
        count_words=COUNT_WORDS,
        problem=problem,
        receipts=list(reversed(receipts))[:20],
        choices=choices(acting),
    )


@page.post("/erase")
def erase_for_good() -> Response | tuple[str, int]:
    """Erase what the report showed, if the number typed is the number it reaches."""
    acting = door.acting()
    given = forms.fields()
    _, selector = selected(given)
    if not selector:
        raise InvalidArgument("nothing is chosen to be erased", field="where")
    number = acting.report(**selector).total
    typed = (forms.text("count") or "").replace(",", "").replace(" ", "")
    if typed != str(number) or not number:
        wrong = InvalidArgument(
            f"type {number:,} to confirm: that is how many would go", field="count"
        )
        return _render(acting, given, wrong), 400
    receipt = acting.erase(**selector, confirm_count=number)
    words = f"Erased {shown.memories(number)}. The last bytes are being overwritten."
    return forms.go("page.receipt", Note(words), id=receipt.id)


@page.get("/erase/receipt/<id>")
def receipt(id: str) -> str:
    """What one erasure removed, and how far it is."""
    from memdb import NotFound

    for one in door.acting().receipts():
        if one.id == id:
            return render_template("receipt.html", receipt=one, count_words=COUNT_WORDS)
    raise NotFound("no receipt has that id", hint="all receipts are listed on the page Erase")


def selected(given: Mapping[str, str]) -> tuple[Chosen, dict[str, Any]]:
    """What a form chose, and the arguments of ``report`` and ``erase``; empty for nothing."""
    chosen = Chosen.of(given)
    selector: dict[str, Any] = {}
    if given.get("id", "").strip():
        selector["ids"] = [given["id"].strip()]
    if chosen.get("about"):
        selector["about"] = chosen.get("about")
    where = Chosen(chosen.without("about")).where_with_times()
    if where is not None:
        selector["where"] = where
    return chosen, selector
