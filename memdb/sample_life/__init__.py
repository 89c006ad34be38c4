"""Two years in the life of an invented person, as items that ``remember_many`` takes.

It ships with the package so that the demonstration, the tests and a newcomer's first experiments
have something worth asking about. The files beside this one are the data, written to be read:
notes in Markdown, one JSON object a line for messages, appointments, contacts and facts, and a
month a line for the watch. Everybody in them is made up. This file reads them and knows nothing
of databases.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import date, timedelta
from importlib.resources import files
from pathlib import Path
from typing import Any

__all__ = [
    "PERSON",
    "TIME_ZONE",
    "calendar",
    "contacts",
    "copy_notes",
    "heart_rate",
    "messages",
    "profile",
]

PERSON = "Tilda Marwen"
TIME_ZONE = "Europe/London"

Item = dict[str, Any]

# Who or what an appointment or a message is about, by the word that shows it.
_NAMES = {
    "Ana": "Ana",
    "Theo": "Theo",
    "Biscuit": "Biscuit",
    "Felix": "Felix",
    "Rui": "Rui",
    "Mum": "Ingrid",
    "Sam": "Sam",
    "Grace": "Grace",
    "Priya": "Priya",
}
_WORD = re.compile(r"\w+")


def messages() -> Iterator[Item]:
    """Chat messages, oldest first in each stream, with their places in it."""
    positions: dict[str, int] = {}
    for line in _lines("chat.jsonl"):
        stream, sender = line["stream"], line["from"]
        position = positions[stream] = positions.get(stream, -1) + 1
        yield {
            "kind": "message",
            "text": f"{sender}: {line['text']}",
            "stream": stream,
            "position": position,
            "event_time": line["at"],
            "source": "app:chat",
            "about": _about(line["text"]),
            "metadata": {"from": sender},
        }


def calendar() -> Iterator[Item]:
    """Appointments with their beginnings, ends and places."""
    for line in _lines("calendar.jsonl"):
        yield {
            "kind": "event",
            "text": line["text"],
            "stream": "calendar",
            "event_time": line["start"],
            "event_end": line["end"],
            "source": "app:calendar",
            "tags": line["tags"],
            "about": _about(line["text"]),
            "metadata": {"place": line["place"]},
        }


def profile() -> Iterator[Item]:
    """Facts as arguments of ``profile.set``, earlier values before later ones."""
    yield from _lines("profile.jsonl")


def contacts() -> Iterator[Item]:
    """What the address book says of each person, one fact each, as ``profile.set`` takes them."""
    for line in _lines("contacts.jsonl"):
        subject = line.pop("subject")
        for key, value in line.items():
            yield {"subject": subject, "key": key, "value": value, "source": "app:contacts"}


def heart_rate() -> Iterator[tuple[date, Item]]:
    """The resting pulse of every day in beats a minute, for ``history.append_many``."""
    for line in _text("heart_rate.txt").splitlines():
        if line.startswith("#"):
            continue
        month, *values = line.split()
        first = date.fromisoformat(month + "-01")
        for day, value in enumerate(values):
            yield first + timedelta(days=day), {"bpm": int(value)}


def copy_notes(folder: str | Path) -> int:
    """Copy the notes into ``folder``, which is made if need be; how many there are."""
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    notes = sorted(files(__name__).joinpath("notes").iterdir(), key=lambda note: note.name)
    for note in notes:
        (target / note.name).write_bytes(note.read_bytes())
    return len(notes)


def _text(name: str) -> str:
    return files(__name__).joinpath(name).read_text(encoding="utf-8")


def _lines(name: str) -> Iterator[Item]:
    return (json.loads(line) for line in _text(name).splitlines())


def _about(text: str) -> list[str]:
    words = set(_WORD.findall(text))
    return [name for word, name in _NAMES.items() if word in words]
