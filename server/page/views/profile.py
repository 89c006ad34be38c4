"""The profile: what is true of a person or thing, and what was true before."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from flask import render_template, request
from werkzeug.wrappers import Response

from memdb import InvalidArgument, Memory
from memdb.server.page import door, forms, shown
from memdb.server.page.blueprint import page
from memdb.server.page.forms import Note

OWNER: Final = "user"
FORM: Final = "form"  # the source of what the owner writes here


@dataclass(frozen=True, slots=True)
class Fact:
    """A fact's values, the newest first; ``current`` is the one that is true now, if any."""

    namespace: str
    subject: str
    key: str
    values: tuple[Memory, ...]
    current: Memory | None

    @property
    def name(self) -> str:
        return shown.fact_name(self.key)

    @property
    def anchor(self) -> str:
        return f"fact-{self.values[0].id}"

    @property
    def earlier(self) -> tuple[Memory, ...]:
        return tuple(one for one in self.values if one is not self.current)

    @property
    def form_value(self) -> str:
        """The value as a form shows it and reads it back."""
        value = None if self.current is None else shown.fact_value(self.current)
        return "" if value is None else value if isinstance(value, str) else json.dumps(value)


@page.get("/profile")
def profile() -> str:
    """The facts of one subject: the owner's unless another is named."""
    acting = door.acting()
    subject = request.args.get("subject", "").strip() or OWNER
    return _render(acting, subject)


def _render(acting: Any, subject: str, problem: InvalidArgument | None = None, **given: str) -> str:
    subjects = [name for name, _ in acting.values("subject", {"key": {"$exists": True}})]
    subjects.sort(key=lambda name: (name != OWNER, name.casefold()))
    return render_template(
        "profile.html",
        subject=subject,
        subjects=subjects if OWNER in subjects else [OWNER, *subjects],
        facts=facts_of(acting.iter({"subject": subject, "key": {"$exists": True}})),
        problem=problem,
        given=given,
    )


@page.post("/profile")
def change_fact() -> Response | tuple[str, int]:
    """Set a fact's value from a day on; the value before is closed, and stays."""
    acting = door.acting()
    subject = forms.text("subject") or OWNER
    key = (forms.text("key") or "").replace(" ", "_")
    value, since = forms.text("value"), forms.text("valid_from")
    namespace = forms.text("namespace")
    try:
        if not key:
            raise InvalidArgument("name the fact, such as address or shoe size", field="key")
        if value is None:
            raise InvalidArgument("say what its value is", field="value")
        before = acting.profile.fact(key, subject=subject, namespace=namespace or "default")
        written = acting.profile.set(
            key,
            _typed(value, None if before is None else shown.fact_value(before)),
            subject=subject,
            valid_from=since,
            source=FORM,
            namespace=namespace or "default",
        )
    except InvalidArgument as error:
        shown_again = {"key": key, "value": value or "", "valid_from": since or ""}
        return _render(acting, subject, error, **shown_again), 400
    name = shown.fact_name(key)
    if written.status == "duplicate":
        note = Note(f"{name.capitalize()} is that already.")
    elif written.status == "superseded":
        note = Note(f"{name.capitalize()} changed. The value before is kept in its history.")
    else:
        note = Note(f"{name.capitalize()} is remembered.")
    return forms.go("page.profile", note, subject=subject, _anchor=f"fact-{written.id}")


@page.post("/profile/end")
def end_fact() -> Response:
    """Say that a fact has no value from this moment on; its history stays."""
    subject, key = forms.text("subject") or OWNER, forms.text("key") or ""
    door.acting().profile.delete(key, subject=subject, namespace=forms.text("namespace"))
    note = Note(f"{shown.fact_name(key).capitalize()} has ended. Its history is kept.")
    return forms.go("page.profile", note, subject=subject)


def facts_of(memories: Iterable[Memory]) -> list[Fact]:
    """The facts that these values make, those true now first, by name."""
    grouped: dict[tuple[str, str, str], list[Memory]] = {}
    for memory in memories:
        name = (memory.namespace, memory.subject or "", memory.key or "")
        grouped.setdefault(name, []).append(memory)
    now = datetime.now(UTC)
    found = []
    for (namespace, subject, key), values in grouped.items():
        values.sort(key=_began, reverse=True)
        current = next((one for one in values if _is_true(one, now)), None)
        found.append(Fact(namespace, subject, key, tuple(values), current))
    return sorted(found, key=lambda fact: (fact.current is None, fact.key, fact.namespace))


def _began(memory: Memory) -> datetime:
    began = memory.valid_from or memory.recorded_at
    return datetime.min.replace(tzinfo=UTC) if began is None else began


def _is_true(memory: Memory, now: datetime) -> bool:
    return _began(memory) <= now and (memory.valid_to is None or memory.valid_to > now)


def _typed(text: str, before: Any) -> Any:
    """The value a text means: JSON where the value before was no text, which keeps its type."""
    if before is None or isinstance(before, str):
        return text
    try:
        return json.loads(text)
    except ValueError:
        raise InvalidArgument(
            "this fact is no text: write it as JSON",
            field="value",
            hint='such as 42, true, ["a", "b"], or "a text" with its quotation marks',
        ) from None
