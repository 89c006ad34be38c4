"""Errors as RFC 9457 problems: from the library's error tree, and those only a server has.

A problem never repeats what was sent: the library's messages name fields, limits and at times the
name of a field that does not exist, which here becomes an ellipsis. Nothing here knows a request
but as bytes and strings that must not come back.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from http import HTTPStatus
from typing import Any

import msgspec

from memdb import InvalidArgument, LockHeld, MemdbError, MissingDependency
from memdb.server import schemas

CONTENT_TYPE = "application/problem+json"
_ENCODER = msgspec.json.Encoder()
_MANY = 20_000  # strings of a request that are looked for; its size is limited before
_SHORTENED = 64  # how much of a name the library's messages show at most


class Refused(Exception):
    """A request that the server itself turns down."""

    def __init__(
        self,
        status: int,
        code: str,
        detail: str,
        hint: str,
        *,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(code)
        self.status = status
        self.code = code
        self.detail = detail
        self.hint = hint
        self.headers = dict(headers or {})


def title_of(status: int) -> str:
    """The phrase of a status."""
    return HTTPStatus(status).phrase


def of_refusal(refused: Refused) -> schemas.Problem:
    return schemas.Problem(
        type=f"urn:memdb:problem:{refused.code}",
        title=title_of(refused.status),
        status=refused.status,
        code=refused.code,
        detail=refused.detail,
        hint=refused.hint,
    )


def of_error(error: MemdbError, sent: Iterable[str] = ()) -> schemas.Problem:
    """The problem of an error of the library, without any of the strings in ``sent``."""
    without = _without(sent)
    problem = schemas.Problem(
        type=f"urn:memdb:problem:{error.code}",
        title=title_of(error.status),
        status=error.status,
        code=error.code,
        detail=without(error.message),
        hint=without(error.hint),
    )
    if isinstance(error, InvalidArgument) and error.field is not None:
        problem.field = without(error.field)
    if isinstance(error, LockHeld):
        problem.pid, problem.host = error.pid, error.host
    if isinstance(error, MissingDependency):
        problem.extra = error.extra
    return problem


def of_invalid(error: msgspec.MsgspecError | RecursionError) -> schemas.Problem:
    """The problem of a body or of parameters that are not what the schema says."""
    if isinstance(error, RecursionError):
        detail, field = "the JSON is nested too deep", None
    else:
        detail, field = _of_message(str(error))
        detail = detail if field is None else f"{field}: {detail}"
    return schemas.Problem(
        type="urn:memdb:problem:invalid_argument",
        title=title_of(400),
        status=400,
        code="invalid_argument",
        detail=detail,
        hint="see /openapi.json for what the request may hold",
        field=field,
    )


UNEXPECTED = Refused(
    500,
    "internal_error",
    "the server failed to answer",
    "its log says why; please report it",
)

# The grammar of msgspec's messages that name nothing of the content but its types.
_EXPECTED = re.compile(
    r"^(?P<what>Expected `[^`]*`[^`]*(?:, got `[a-z_]+`)?"
    r"|Object missing required field `[a-z_]+`)(?: - at `(?P<where>[^`]*)`)?$"
)
_UNKNOWN = re.compile(
    r"^Object contains unknown field `.*?`(?: - at `(?P<where>[^`]*)`)?$", re.DOTALL
)
_STEP = re.compile(r"\$|\.[a-z_]{1,40}|\[\d+\]|\[\.\.\.\]")


def _of_message(message: str) -> tuple[str, str | None]:
    """(detail, field) of a message of msgspec, with nothing in it that was sent."""
    known = _EXPECTED.match(message)
    if known is not None:
        return known["what"], _path(known["where"])
    unknown = _UNKNOWN.match(message)
    if unknown is not None:
        return "the object has a field that does not exist", _path(unknown["where"])
    if message.startswith("Invalid enum value"):
        path = message.rpartition(" - at `")[2].rstrip("`") if " - at `" in message else None
        return "the value is not one of those allowed", _path(path)
    return "the JSON cannot be read", None


def _path(where: str | None) -> str | None:
    """A path as msgspec writes it, if it is made of names of schemas and places."""
    if not where or "".join(_STEP.findall(where)) != where:
        return None
    return where.removeprefix("$").removeprefix(".") or None


def _without(sent: Iterable[str]) -> Any:
    """A function that puts an ellipsis for every string of ``sent`` in a message."""
    found = sorted(
        {one[:_SHORTENED] for one in sent if one and one not in _VOCABULARY}, key=len, reverse=True
    )

    def without(message: str) -> str:
        for one in found:
            if one in message:
                message = re.sub(rf"(?<![\w$]){re.escape(one)}(?!\w)", "…", message)
        return message

    return without


def strings_of(value: Any) -> Iterator[str]:
    """Every string of a decoded request, names of fields too, up to a number of them."""
    left = _MANY
    stack = [value]
    while stack and left:
        one = stack.pop()
        if isinstance(one, str):
            left -= 1
            yield one
        elif isinstance(one, Mapping):
            stack += [*one.keys(), *one.values()]
        elif isinstance(one, list | tuple):
            stack += one[:_MANY]
        elif isinstance(one, msgspec.Struct):
            stack += msgspec.structs.astuple(one)


_VOCABULARY = frozenset(
    [
        *schemas.FIELDS_OF_A_MEMORY,
        *schemas.MemoryObject.__struct_fields__,
        *schemas.Recall.__struct_fields__,
        *("ids", "selector", "confirm_count"),
        *"$eq $ne $gt $gte $lt $lte $in $nin $contains $all $prefix $exists $and $or $not".split(),
    ]
)


def encode(problem: schemas.Problem) -> bytes:
    return _ENCODER.encode(problem)
