"""The timeline: what happened, in order, grouped by day."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import date
from itertools import groupby
from typing import Final

from flask import render_template, request

from memdb import Memory
from memdb.server.page import door, shown
from memdb.server.page.blueprint import page, zone
from memdb.server.page.choosing import Chosen, day_after
from memdb.server.page.views.search import choices

SHOWN: Final = 60


@page.get("/timeline")
def timeline() -> str:
    """Newest first unless ``order=oldest``; ``since`` and ``until`` are days, both included."""
    acting = door.acting()
    chosen = Chosen.of(request.args)
    until = request.args.get("until", "").strip()
    oldest_first = request.args.get("order") == "oldest"
    found = acting.timeline(
        start=chosen.get("since") or None,
        end=(day_after(until) or until) if until else None,
        where=chosen.where,
        descending=not oldest_first,
        limit=SHOWN,
        cursor=request.args.get("cursor"),
    )
    return render_template(
        "timeline.html",
        months=list(months(found.items)),
        next_cursor=found.next_cursor,
        chosen=chosen,
        until=until,
        oldest_first=oldest_first,
        choices=choices(acting),
    )


Day = tuple[str, list[tuple[str, Memory]]]


def months(memories: Iterable[Memory]) -> Iterator[tuple[str, list[Day]]]:
    """(``February 2024``, its days); a day is (heading, its (time, memory))."""
    placed = [(local, memory) for memory in memories if (local := _local(memory)) is not None]
    for (year, month), of_month in groupby(placed, lambda one: (one[0][0].year, one[0][0].month)):
        days: list[Day] = []
        for (day, rough), of_day in groupby(of_month, lambda one: (one[0][0], one[0][2])):
            heading = rough or shown.day_heading(day)
            days.append((heading, [(place[1], memory) for place, memory in of_day]))
        yield f"{date(year, month, 1):%B} {year}", days


def _local(memory: Memory) -> tuple[date, str, str] | None:
    """(day, clock, heading instead of the day) of a memory in the database's zone."""
    found = shown.moment_of(memory)
    if found is None:
        return None
    moment, precision = found
    local = moment.astimezone(zone())
    if precision in ("year", "month"):
        rough = str(local.year) if precision == "year" else f"{local:%B} {local.year}"
        return local.date(), "", f"Some time in {rough}"
    return local.date(), "" if precision == "day" else f"{local:%H:%M}", ""
