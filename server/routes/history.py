"""Routes of history: append what happened, and read it back by time."""

from __future__ import annotations

import base64
from datetime import datetime, timedelta
from itertools import islice

import msgspec

from memdb import InvalidArgument, Memory
from memdb.server import schemas
from memdb.server.routes.memories import wrote
from memdb.server.routing import Call, Route, json_filter
from memdb.server.schemas import memory_object

_MICROSECOND = timedelta(microseconds=1)


def append_history(call: Call) -> schemas.Appended:
    """Record that something happened; or many samples of a series."""
    body: schemas.AppendHistory = call.body
    place = {"stream": body.stream, "source": body.source, "namespace": body.namespace}
    if body.samples is not None:
        if body.text is not None or body.data is not None or body.event_time is not None:
            raise InvalidArgument("samples go alone", field="samples", hint="one event, or samples")
        count = call.acting.history.append_many(body.kind, body.samples, **place)
        return schemas.Appended(count=count)
    written = call.acting.history.append(
        body.kind, body.text, data=body.data, event_time=body.event_time, **place
    )
    return schemas.Appended(count=1, item=wrote(written, body.full))


class _Place(msgspec.Struct, array_like=True):
    """Where a page ended: the time of its last memory, and how many of that time were given."""

    at: datetime
    given: int
    reverse: bool


def history_range(call: Call) -> schemas.PageOfMemories:
    """Memories from ``start`` up to before ``end``, in order of time."""
    query: schemas.HistoryQuery = call.query
    start: str | datetime | None = query.start
    end: str | datetime | None = query.end
    given = 0
    last: _Place | None = None
    if query.cursor is not None:
        last = _place(query.cursor, query.reverse)
        given = last.given
        start, end = (start, last.at + _MICROSECOND) if query.reverse else (last.at, end)
    found = call.acting.history.range(
        query.kind,
        start,
        end,
        stream=query.stream,
        where=json_filter(query.where),
        limit=given + query.limit + 1,
        reverse=query.reverse,
        namespace=query.namespace,
    )
    memories = list(islice(found, given, None))
    page = memories[: query.limit]
    cursor = None
    if len(memories) > query.limit:
        cursor = _cursor(page, last, query.reverse)
    return schemas.PageOfMemories(items=[memory_object(one) for one in page], next_cursor=cursor)


def _cursor(page: list[Memory], before: _Place | None, reverse: bool) -> str:
    at = page[-1].event_time
    assert at is not None, "what history gives has a time"
    count = sum(one.event_time == at for one in page)
    if before is not None and before.at == at:
        count += before.given
    raw = msgspec.msgpack.encode(_Place(at, count, reverse))
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def _place(cursor: str, reverse: bool) -> _Place:
    try:
        raw = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))
        place = msgspec.msgpack.decode(raw, type=_Place)
    except (ValueError, msgspec.MsgspecError):
        raise InvalidArgument("cursor is none that a page gave", field="cursor") from None
    fits = place.at.tzinfo is not None and 0 < place.given <= 1 << 30
    if not fits or place.reverse != reverse or place.at.year > 9998:
        raise InvalidArgument("cursor is of another question", field="cursor")
    return place


ROUTES = (
    Route("POST", "/v1/history", append_history, "record what happened", schemas.Appended,
          body=schemas.AppendHistory, tag="history"),
    Route("GET", "/v1/history", history_range, "what happened, by time",
          schemas.PageOfMemories, query=schemas.HistoryQuery, tag="history"),
)  # fmt: skip
