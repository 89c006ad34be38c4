"""What of a memory its words are taken from."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from memdb.query.indexed_text import MAX_DATA_CHARS
from memdb.query.tokenizer import Tokenizer, indexed_text
from memdb.types import Memory

LATE = datetime(2023, 5, 8, 23, 30, tzinfo=UTC)


def terms(**fields: Any) -> list[str]:
    return sorted(Tokenizer().terms(indexed_text(Memory(id="x", **fields))))


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"text": "We sailed"}, ["sail"]),
        ({"text": "Hi", "metadata": {"speaker": "Bo", "device": "phone"}}, ["bo", "hi"]),
        ({"text": "Hi", "about": ("Ana",), "tags": ("work trip",)}, ["ana", "hi", "trip", "work"]),
        ({"text": "Ana: hi", "about": ("Ana",)}, ["ana", "hi"]),
        ({"subject": "user", "key": "shoe_size", "data": "42"}, ["42", "shoe", "size", "user"]),
        ({"data": {"title": "Lunch", "guests": ["Bo", 3]}}, ["bo", "lunch"]),
        ({"text": "Hi", "data": {"raw": "payload"}}, ["hi"]),
        ({"text": "x1", "source": "file:///home/me/road%20map.md#L1-L9"}, ["map", "road", "x1"]),
        ({"text": "x1", "source": "app:whatsapp"}, ["x1"]),
        ({}, []),
    ],
)
def test_these_fields_give_these_terms(fields: dict[str, Any], expected: list[str]) -> None:
    assert terms(**fields) == expected


@pytest.mark.parametrize(
    ("precision", "zone", "written"),
    [
        ("exact", None, "2023-05-08"),
        ("exact", "Asia/Tokyo", "2023-05-09"),
        ("day", "+02:00", "2023-05-09"),
        ("month", None, "2023-05"),
        ("year", None, "2023"),
        ("minute", "No/Where", "2023-05-08"),
    ],
)
def test_the_date_is_indexed_as_precisely_as_it_is_known_in_its_own_zone(
    precision: str, zone: str | None, written: str
) -> None:
    got = terms(text="hi", event_time=LATE, precision=precision, time_zone=zone)
    assert got == sorted(["hi", *Tokenizer().terms(written)])


def test_the_ends_of_the_calendar_have_dates_too() -> None:
    for moment in (datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)):
        for zone in ("+14:00", "-12:00"):
            memory = Memory(id="x", text="hi", event_time=moment, time_zone=zone)
            assert indexed_text(memory).startswith("hi")


def test_a_payload_is_indexed_up_to_its_limit() -> None:
    long = indexed_text(Memory(id="x", data=["word " * 10_000]))
    assert MAX_DATA_CHARS <= len(long) <= MAX_DATA_CHARS + 100
