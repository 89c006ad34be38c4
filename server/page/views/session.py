"""Coming in with a one-time code, going out, and light or dark."""

from __future__ import annotations

from urllib.parse import urlsplit

from flask import current_app, render_template, request
from werkzeug.wrappers import Response

from memdb.server.page import door, forms
from memdb.server.page.blueprint import THEMES, page


@page.post("/theme")
def choose_theme() -> Response:
    """Light, dark, or as the system has it; kept in a cookie that says nothing else."""
    chosen = forms.text("theme")
    answer = forms.leave_for(own_address(forms.text("back")))
    if chosen in THEMES:
        answer.set_cookie(
            "theme", chosen, max_age=60 * 60 * 24 * 365, samesite="Strict", httponly=True
        )
    return answer


@page.get("/open")
def open_with_code() -> Response | tuple[str, int]:
    """Exchange the code that ``memdb ui`` printed for a session, once."""
    exchange = current_app.extensions["memdb_exchange"]
    signed_in = exchange(request.args.get("code", ""))
    if signed_in is None:
        return render_template("locked.html", spent=True), 401
    answer = forms.go("page.search")
    signed_in(answer)
    return answer


@page.post("/sign-out")
def sign_out() -> Response:
    """End this session: its cookie is worth nothing from here on."""
    answer = forms.go("page.signed_out")
    current_app.extensions["memdb_sign_out"](answer)
    return answer


@page.get("/signed-out")
def signed_out() -> str | Response:
    """What is seen afterwards."""
    if door.is_owner():
        return forms.go("page.search")
    return render_template("locked.html", signed_out=True)


def own_address(back: str | None) -> str:
    """``back`` where it is a path of this host, else the first page."""
    if not back or not back.startswith("/") or back.startswith("//") or "\\" in back:
        return "/"
    parts = urlsplit(back)
    return "/" if parts.scheme or parts.netloc else back
