"""One memory: what it says, where it is from, what is beside it; to edit, pin and forget."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from flask import render_template
from werkzeug.wrappers import Response

from memdb import InvalidArgument, Memory, NotFound
from memdb.server.page import door, forms, shown
from memdb.server.page.blueprint import page
from memdb.server.page.forms import Note
from memdb.server.page.views.session import own_address

BESIDE: Final = 3
EDITABLE: Final = ("text", "kind", "tags", "about", "event_time", "importance", "expires_at")


@dataclass(frozen=True, slots=True)
class Change:
    """What one version changed: (field, before, after), for what a person would notice."""

    memory: Memory
    fields: tuple[tuple[str, str, str], ...]


@page.get("/memory/<id>")
def memory(id: str) -> str:
    """The memory of that id."""
    acting = door.acting()
    found = _get(acting, id)
    return render_template(
        "memory.html",
        memory=found,
        changes=changes(acting.versions(id)),
        beside=beside(acting, found),
        linked=_named(acting, found.links),
        inferred_from=_named(acting, found.derived_from),
        details=details(found),
    )


@page.get("/memory/<id>/edit")
def edit_memory(id: str) -> str:
    """The form that changes it."""
    return render_template("edit.html", memory=_get(door.acting(), id), problem=None, given={})


@page.post("/memory/<id>/edit")
def save_memory(id: str) -> Response | tuple[str, int]:
    """Change what differs from what is stored; the version before stays."""
    acting = door.acting()
    found = _get(acting, id)
    given = {name: forms.text(name) or "" for name in EDITABLE}
    try:
        wanted = _changed(found, given)
        if wanted:
            acting.update(id, **wanted)
    except InvalidArgument as error:
        return render_template("edit.html", memory=found, problem=error, given=given), 400
    words = "Saved. What it said before is kept below." if wanted else "Nothing was changed."
    return forms.go("page.memory", Note(words), id=id)


@page.post("/memory/<id>/pin")
def pin_memory(id: str) -> Response:
    """Pin it, so that no policy forgets it, or let it go."""
    pinned = forms.text("pinned") == "yes"
    door.acting().update(id, pinned=pinned)
    words = (
        "Pinned: nothing will forget it by itself."
        if pinned
        else "No longer pinned: your rules of forgetting count for it again."
    )
    return forms.go("page.memory", Note(words), id=id)


@page.post("/memory/<id>/forget")
def forget_memory(id: str) -> Response:
    """Hide it; the message offers to bring it back."""
    done = door.acting().forget(ids=[id])
    note = Note(
        f"Forgotten {shown.memories(len(done.ids))}. It stays in the trash for seven days.",
        undo="page.restore",
        undo_fields=(("batch", done.batch), ("back", f"/memory/{id}")),
    )
    back = own_address(forms.text("back"))
    return forms.go("page.trash", note) if back == "/" else forms.leave_for(back, note)


def _get(acting: Any, id: str) -> Memory:
    found: Memory | None = acting.get(id)
    if found is None:
        raise NotFound("there is no memory with that id", hint="it may be in the trash, or erased")
    return found


def _named(acting: Any, ids: tuple[str, ...]) -> list[Memory]:
    return [one for one in acting.get_many(list(ids)) if one is not None] if ids else []


def beside(acting: Any, memory: Memory) -> list[Memory]:
    """What stands around it in its stream, itself among it; empty where nothing does."""
    if memory.stream is None or memory.position is None:
        return []
    low, high = memory.position - BESIDE, memory.position + BESIDE
    where = {"stream": memory.stream, "position": {"$gte": low, "$lte": high},
             "namespace": memory.namespace}  # fmt: skip
    found = list(acting.list(where=where, limit=50))
    found.sort(key=lambda one: one.position or 0)
    return found if len(found) > 1 else []


def details(memory: Memory) -> list[tuple[str, Any]]:
    """What else is known of it, as (name, value) that are there."""
    found: list[tuple[str, Any]] = [
        ("Kind", shown.kind_word(memory.kind).capitalize()),
        ("Source", memory.source),
        ("Namespace", memory.namespace),
    ]
    if memory.stream and not memory.stream.startswith("/"):
        found.append(("Conversation", memory.stream))
    for name, value in (
        ("Importance", None if memory.importance is None else f"{memory.importance:.2g}"),
        ("Sensitivity", memory.sensitivity),
        ("Your id", memory.external_id),
        ("Used", f"{memory.use_count} times" if memory.use_count else None),
    ):
        if value is not None:
            found.append((name, value))
    found += [
        (key.replace("_", " ").capitalize(), shown.value_words(value))
        for key, value in memory.metadata.items()
    ]
    if memory.data is not None and memory.key is None:
        found.append(("Data", shown.value_words(memory.data)))
    return found


def changes(versions: list[Memory]) -> list[Change]:
    """Each version with what it changed, newest first."""
    found = []
    for place, after in enumerate(versions):
        before = versions[place - 1] if place else None
        found.append(Change(after, () if before is None else _difference(before, after)))
    return found[::-1]


def _difference(before: Memory, after: Memory) -> tuple[tuple[str, str, str], ...]:
    names = ("text", "data", "kind", "tags", "about", "event_time", "valid_to", "importance",
             "pinned", "sensitivity", "expires_at", "metadata")  # fmt: skip
    return tuple(
        (name.replace("_", " "), _shown(getattr(before, name)), _shown(getattr(after, name)))
        for name in names
        if getattr(before, name) != getattr(after, name)
    )


def _shown(value: Any) -> str:
    return "nothing" if value in (None, (), {}) else shown.value_words(value)


def _changed(memory: Memory, given: dict[str, str]) -> dict[str, Any]:
    """The arguments of ``update`` that differ from what is stored."""
    wanted: dict[str, Any] = {}
    if memory.text is not None and given["text"] != (memory.text or "").strip():
        wanted["text"] = given["text"]
    if given["kind"] and given["kind"] != memory.kind:
        wanted["kind"] = given["kind"]
    for name in ("tags", "about"):
        listed = list(
            dict.fromkeys(part.strip() for part in given[name].split(",") if part.strip())
        )
        if listed != list(getattr(memory, name)):
            wanted[name] = listed
    for name in ("event_time", "expires_at"):
        if given[name] != shown_time(getattr(memory, name)):
            wanted[name] = given[name] or None
    importance = "" if memory.importance is None else f"{memory.importance:g}"
    if given["importance"] != importance:
        wanted["importance"] = _number(given["importance"])
    return wanted


def _number(text: str) -> float | None:
    if not text:
        return None
    try:
        return float(text.replace(",", "."))
    except ValueError:
        raise InvalidArgument("importance is a number from 0 to 1", field="importance") from None


@page.app_template_filter("form_time")
def shown_time(moment: Any) -> str:
    """A time as a form shows it and reads it back, in the database's zone."""
    from memdb.server.page.blueprint import zone

    return "" if moment is None else moment.astimezone(zone()).isoformat(timespec="seconds")
