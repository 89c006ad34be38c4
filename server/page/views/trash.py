"""The trash: what was forgotten, and bringing it back."""

from __future__ import annotations

from flask import render_template
from werkzeug.wrappers import Response

from memdb.server.page import door, forms, shown
from memdb.server.page.blueprint import page
from memdb.server.page.forms import Note
from memdb.server.page.views.session import own_address


@page.get("/trash")
def trash() -> str:
    """What can be brought back, the latest first."""
    return render_template("trash.html", batches=door.acting().trash())


@page.post("/trash/restore")
def restore() -> Response:
    """Bring back one memory (``id``) or everything that was forgotten at once (``batch``)."""
    id, batch = forms.text("id"), forms.text("batch")
    found = door.acting().restore(id, batch=None if id else batch)
    note = Note(f"Brought back {shown.memories(len(found))}.")
    back = own_address(forms.text("back"))
    if back != "/":
        return forms.leave_for(back, note)
    return forms.go("page.trash", note)
