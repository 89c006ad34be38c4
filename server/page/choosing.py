"""Which memories a page is about: the fields of a filter form as a ``where``, and as links.

The same names everywhere: ``kind``, ``source``, ``about``, ``tag``, ``namespace``, ``since``,
``before``. A source that ends in ``*`` matches what follows. It reads a query string; it asks no
database.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any, Final

from memdb.server.page import shown

NAMES: Final = ("kind", "about", "source", "tag", "namespace", "stream", "since", "before")
_LABELS: Final = {
    "kind": "",
    "about": "about ",
    "source": "from ",
    "tag": "tagged ",
    "namespace": "in ",
    "stream": "in ",
    "since": "since ",
    "before": "before ",
}


@dataclass(frozen=True, slots=True)
class Chosen:
    """What was chosen, by name; only what is there."""

    values: Mapping[str, str]

    @classmethod
    def of(cls, given: Mapping[str, str]) -> Chosen:
        found = {name: given.get(name, "").strip() for name in NAMES}
        return cls({name: value for name, value in found.items() if value})

    def __bool__(self) -> bool:
        return bool(self.values)

    def get(self, name: str) -> str:
        return self.values.get(name, "")

    @property
    def where(self) -> dict[str, Any] | None:
        """The filter of ``recall`` and ``list`` without the times; None where nothing is chosen."""
        parts = self._parts()
        return {"$and": parts} if len(parts) > 1 else parts[0] if parts else None

    def where_with_times(self, field: str = "event_time") -> dict[str, Any] | None:
        """The same, and ``since`` and ``before`` as conditions on a field."""
        parts = self._parts()
        span = {
            operator: self.values[name]
            for name, operator in (("since", "$gte"), ("before", "$lt"))
            if name in self.values
        }
        if span:
            parts.append({field: span})
        return {"$and": parts} if len(parts) > 1 else parts[0] if parts else None

    def _parts(self) -> list[dict[str, Any]]:
        parts: list[dict[str, Any]] = []
        for name, value in self.values.items():
            if name in ("kind", "stream"):
                parts.append({name: value})
            elif name == "namespace":
                parts.append({"namespace": {"$prefix": value}})
            elif name == "tag":
                parts.append({"tags": value})
            elif name == "about":
                parts.append({"$or": [{"about": value}, {"subject": value}]})
            elif name == "source":
                ends = value.endswith("*")
                parts.append({"source": {"$prefix": value[:-1]} if ends else value})
        return parts

    def without(self, name: str) -> dict[str, str]:
        """The other fields: the link that takes one away."""
        return {key: value for key, value in self.values.items() if key != name}

    @property
    def chips(self) -> list[tuple[str, str]]:
        """(name, words) of each, as a person reads them."""
        return [(name, _LABELS[name] + _words(name, value)) for name, value in self.values.items()]


def _words(name: str, value: str) -> str:
    if name == "kind":
        return shown.kind_word(value, 2)
    if name in ("source", "stream"):
        return shown.source_words(value)
    return value


def day_after(day: str) -> str | None:
    """The day after an ISO date; None where it is none."""
    try:
        return (date.fromisoformat(day) + timedelta(days=1)).isoformat()
    except (ValueError, OverflowError):
        return None
