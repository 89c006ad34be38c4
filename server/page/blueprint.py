"""The blueprint: who may look, what every page knows, what every answer says to the browser.

Views are in ``views``; each shows one thing. This file decides nothing about memories.
"""

from __future__ import annotations

from datetime import UTC, datetime, tzinfo
from typing import Any, Final

from flask import Blueprint, g, render_template, request, url_for
from werkzeug.wrappers import Response

from memdb import MemdbError, Memory
from memdb.server.page import door, forms, shown, why

SECURITY_HEADERS: Final = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:;"
        " connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
}
OPEN_TO_ALL: Final = frozenset({"page.static", "page.open_with_code", "page.signed_out"})
THEMES: Final = ("auto", "light", "dark")

# What the navigation lists: (group, ((endpoint, name), ...)).
NAVIGATION: Final = (
    (
        "Remembered",
        (
            ("page.search", "Search"),
            ("page.timeline", "Timeline"),
            ("page.map", "Map"),
            ("page.profile", "Profile"),
            ("page.trash", "Trash"),
        ),
    ),
    ("Who may know", (("page.agents", "Agents"), ("page.audit", "Audit"))),
    (
        "Keeping",
        (
            ("page.storage", "Storage"),
            ("page.forgetting", "Forgetting"),
            ("page.export", "Export"),
            ("page.erase", "Erase"),
        ),
    ),
)

# Pages that belong to one of those.
PART_OF: Final = {
    "page.plan": "page.forgetting",
    "page.receipt": "page.erase",
    "page.change_fact": "page.profile",
    "page.erase_for_good": "page.erase",
    "page.set_budget": "page.forgetting",
    "page.add_agent": "page.agents",
}

page = Blueprint(
    "page",
    __name__,
    template_folder="templates",
    static_folder="static",
    static_url_path="/static/page",
)


@page.before_request
def only_the_owner() -> Response | tuple[str, int] | None:
    """Nobody but the owner sees a page, and nothing is done without the session's token."""
    if request.endpoint in OPEN_TO_ALL:
        return None
    if not door.is_owner():
        return render_template("locked.html"), 401
    if request.method not in ("GET", "HEAD"):
        forms.require_csrf()
    return None


@page.after_request
def headers(response: Response) -> Response:
    """What the browser may do with a page: run our own files, ask this host, and keep nothing."""
    for name, value in SECURITY_HEADERS.items():
        response.headers.setdefault(name, value)
    if request.endpoint == "page.static":
        response.headers["Cache-Control"] = "no-cache"  # asked again, by its tag: 304
    else:
        response.headers.setdefault("Cache-Control", "no-store")
    if request.is_json and response.status_code == 303:
        # The script that posted the form follows itself: a followed redirect eats the message.
        answer = Response(status=204, headers={"X-Memdb-Location": response.headers["Location"]})
        answer.headers.extend(
            [(name, value) for name, value in response.headers if name == "Set-Cookie"]
        )
        for name in (*SECURITY_HEADERS, "Cache-Control"):
            answer.headers[name] = response.headers[name]
        return answer
    return response


@page.errorhandler(MemdbError)
def problem(error: MemdbError) -> tuple[str, int]:
    """An error as a page: what went wrong and what to do about it."""
    return render_template("problem.html", error=error), error.status


# --- what templates know --------------------------------------------------------------------------


def zone() -> tzinfo:
    """The database's time zone, looked up once a request."""
    if "zone" not in g:
        g.zone = shown.zone_of(str(door.database().settings.time_zone))
    found: tzinfo = g.zone
    return found


def when(moment: datetime, precision: str = "exact") -> shown.When:
    return shown.when(moment, zone(), datetime.now(UTC), precision)


def when_of(memory: Memory) -> shown.When | None:
    """The moment of a memory, in words."""
    found = shown.moment_of(memory)
    return None if found is None else when(*found)


def theme() -> str:
    chosen = request.cookies.get("theme", "auto")
    return chosen if chosen in THEMES else "auto"


@page.context_processor
def common() -> dict[str, Any]:
    """What every template may use."""
    owner = door.is_owner()
    return {
        "navigation": NAVIGATION,
        "section": PART_OF.get(request.endpoint or "", request.endpoint),
        "themes": THEMES,
        "theme": theme(),
        "csrf": getattr(g, "csrf", ""),
        "csrf_field": forms.CSRF_FIELD,
        "note": forms.waiting_note() if owner else None,
        "paused": owner and door.database().settings.remembering_paused,
        "here": request.full_path.rstrip("?")
        if request.method == "GET"
        else url_for("page.search"),
        "when": when,
        "when_of": when_of,
        "shown": shown,
        "why": why,
    }


for _name in ("plain", "marked", "size", "counted", "memories", "snippet", "source_words",
              "subject_words", "words_of", "value_words", "fact_name", "kind_word",
              "level_word", "as_time"):  # fmt: skip
    page.add_app_template_filter(getattr(shown, _name), _name)
