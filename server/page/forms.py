"""What forms bring in, and what a page says after one was handled.

A form is posted as JSON with the CSRF token in a header where JavaScript runs, and as a plain form
with the token in a hidden field where it does not; a view sees the same fields. Afterwards the
browser is sent to a page to look at, with a message that waits there and is shown once.
"""

from __future__ import annotations

import hmac
import secrets
import threading
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlencode

from flask import g, redirect, request, url_for
from werkzeug.datastructures import MultiDict
from werkzeug.wrappers import Response

from memdb import InvalidArgument, PermissionDenied

CSRF_HEADER: Final = "X-CSRF-Token"
CSRF_FIELD: Final = "csrf"
MAX_KEPT: Final = 256
MAX_FIELD_CHARS: Final = 1 << 20


def fields() -> MultiDict[str, str]:
    """The fields of a post, whichever way it came; texts, or several of a name."""
    if not request.is_json:
        return request.form
    given = request.get_json(silent=True)
    if not isinstance(given, Mapping):
        raise InvalidArgument("a form is a JSON object of texts", field="body")
    found: MultiDict[str, str] = MultiDict()
    for name, value in given.items():
        for one in value if isinstance(value, list) else [value]:
            if not isinstance(one, str) or len(one) > MAX_FIELD_CHARS:
                raise InvalidArgument("a form is a JSON object of texts", field=str(name)[:64])
            found.add(str(name), one)
    return found


def text(name: str) -> str | None:
    """A field without the space around it; None where it is empty or absent."""
    return fields().get(name, "").replace("\r\n", "\n").strip() or None


def require_csrf() -> None:
    """Raises ``PermissionDenied`` unless the post carries the session's token."""
    given = request.headers.get(CSRF_HEADER) or fields().get(CSRF_FIELD, "")
    expected = g.csrf
    if not expected or not hmac.compare_digest(given.encode(), str(expected).encode()):
        raise PermissionDenied(
            "this form is not from an open page of yours", hint="load the page again, then retry"
        )


# --- what waits until the next page ---------------------------------------------------------------


class Kept:
    """A few values by a random name, the oldest dropped first; for one process."""

    def __init__(self, limit: int = MAX_KEPT) -> None:
        self._limit = limit
        self._values: OrderedDict[str, Any] = OrderedDict()
        self._guard = threading.Lock()

    def put(self, value: Any) -> str:
        name = secrets.token_urlsafe(12)
        with self._guard:
            self._values[name] = value
            while len(self._values) > self._limit:
                self._values.popitem(last=False)
        return name

    def get(self, name: str) -> Any:
        with self._guard:
            return self._values.get(name)

    def take(self, name: str) -> Any:
        with self._guard:
            return self._values.pop(name, None)


@dataclass(frozen=True, slots=True)
class Note:
    """What a page says after a form: a sentence, perhaps a form that undoes it, or a link."""

    text: str
    undo: str = ""  # the address of a form that takes it back
    undo_fields: tuple[tuple[str, str], ...] = ()
    link: str = ""
    link_text: str = ""
    problem: bool = False


_notes = Kept()


def go(endpoint: str, note: Note | None = None, **values: Any) -> Response:
    """Send the browser to a page, which shows ``note`` once."""
    return leave_for(url_for(endpoint, **values), note)


def leave_for(address: str, note: Note | None = None) -> Response:
    if note is not None:
        address, _, anchor = address.partition("#")
        joint = "&" if "?" in address else "?"
        address += joint + urlencode({"said": _notes.put(note)}) + (f"#{anchor}" if anchor else "")
    # 303: the browser asks for the page with GET, whatever the form was sent with.
    return redirect(address, 303)


def waiting_note() -> Note | None:
    """The message for this page, which is then gone."""
    name = request.args.get("said")
    found = _notes.take(name) if name else None
    return found if isinstance(found, Note) else None
