"""From what a caller passes to ``remember`` to a ``Memory`` that may be stored, or a typed error.

Every input is checked here, once, before anything is embedded or written: types, sizes, finite
numbers, valid Unicode, times. Errors name the field and the limit, never the content. It decides
nothing about storage; ids, rows and versions are given later.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, date, datetime, tzinfo
from functools import lru_cache
from operator import attrgetter
from typing import Annotated, Any, cast

import msgspec
import numpy as np
from numpy.typing import ArrayLike, NDArray

from memdb import settings
from memdb.errors import DimensionMismatch, InvalidArgument
from memdb.storage.kernels import KERNELS
from memdb.times import parse_duration, parse_time
from memdb.types import Memory, from_micros

TimeLike = str | date | datetime

_JSON = msgspec.json.Encoder()
_INT64 = (-(1 << 63), (1 << 63) - 1)
_FIELDS = frozenset(
    [
        "text",
        "data",
        "source",
        "external_id",
        "kind",
        "tags",
        "metadata",
        "namespace",
        "stream",
        "position",
        "subject",
        "key",
        "about",
        "event_time",
        "event_end",
        "valid_from",
        "valid_to",
        "importance",
        "pinned",
        "sensitivity",
        "derived_from",
        "expires_at",
        "expires_in",
        "vector",
        "space",
    ]
)


def _fail(field: str, problem: str) -> InvalidArgument:
    return InvalidArgument(f"{field} {problem}", field=field)


def string(
    value: object, field: str, limit: int = settings.MAX_NAME_BYTES, *, empty: bool = False
) -> str:
    """``value`` if it is a string of valid Unicode, at most ``limit`` bytes as UTF-8."""
    if type(value) is str and value.isascii() and 0 < len(value) <= limit:
        return value  # most are; a memory has a dozen
    if not isinstance(value, str):
        raise _fail(field, f"must be a string, not {type(value).__name__}")
    if not value and not empty:
        raise _fail(field, "must not be empty")
    if len(value) * 4 > limit or not value.isascii():
        try:
            size = len(value.encode())
        except UnicodeEncodeError:
            raise _fail(field, "is not valid Unicode (a lone surrogate)") from None
        if size > limit:
            raise _fail(field, f"is longer than {limit:,} bytes")
    return str.__str__(value)  # of a subclass, the plain string


def optional_string(value: object, field: str) -> str | None:
    return None if value is None else string(value, field)


def names(values: object, field: str) -> tuple[str, ...]:
    """A tuple of distinct names, order kept."""
    if type(values) not in (list, tuple) and (
        isinstance(values, str) or not isinstance(values, Iterable)
    ):
        raise _fail(field, "must be a list of strings")
    listed = tuple(dict.fromkeys([string(value, field) for value in cast("list[Any]", values)]))
    if len(listed) > settings.MAX_LIST_ITEMS:
        raise _fail(field, f"has more than {settings.MAX_LIST_ITEMS} entries")
    return listed


def namespace(value: object, field: str = "namespace") -> str:
    """A path of labels joined by ``/``; "" is the root (for reads)."""
    path = string(value, field, empty=True)
    if path and any(not label or label != label.strip() for label in path.split("/")):
        raise _fail(field, "must be labels joined by single slashes, such as 'home/planner'")
    return path


def json_value(value: Any, field: str, *, safe_integers: bool, depth: int = 0) -> Any:
    """``value`` with mappings and sequences normalised to dict and list."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        if type(value) is str and value.isascii() and len(value) <= settings.MAX_DATA_BYTES:
            return value
        return string(value, field, settings.MAX_DATA_BYTES, empty=True)
    if isinstance(value, int):
        value = int(value)
        if safe_integers and abs(value) > settings.MAX_SAFE_INTEGER:
            raise _fail(field, "has an integer beyond 2**53 - 1; write it as a string")
        if not _INT64[0] <= value <= _INT64[1]:
            raise _fail(field, "has an integer beyond 64 bits; write it as a string")
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            raise _fail(field, "has a number that is not finite")
        return float(value)
    if depth >= settings.MAX_JSON_DEPTH:
        raise _fail(field, f"is nested deeper than {settings.MAX_JSON_DEPTH}")
    if isinstance(value, Mapping):
        return {
            string(k, field, empty=True): json_value(
                v, field, safe_integers=safe_integers, depth=depth + 1
            )
            for k, v in value.items()
        }
    if isinstance(value, list | tuple):
        return [json_value(v, field, safe_integers=safe_integers, depth=depth + 1) for v in value]
    raise _fail(field, f"has a {type(value).__name__}, which is not JSON")


def json_data(value: Any) -> Any:
    checked = json_value(value, "data", safe_integers=False)
    if not isinstance(checked, str | list | dict):
        return checked
    if len(_JSON.encode(checked)) > settings.MAX_DATA_BYTES:
        raise _fail("data", f"is longer than {settings.MAX_DATA_BYTES:,} bytes as JSON")
    return checked


def json_metadata(value: object) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise _fail("metadata", "must be a mapping")
    if len(value) > settings.MAX_METADATA_KEYS:
        raise _fail("metadata", f"has more than {settings.MAX_METADATA_KEYS} keys")
    for name in value:
        string(name, "metadata")
    checked: dict[str, Any] = json_value(value, "metadata", safe_integers=True)
    if checked and len(_JSON.encode(checked)) > settings.MAX_METADATA_BYTES:
        raise _fail("metadata", f"is longer than {settings.MAX_METADATA_BYTES:,} bytes as JSON")
    return checked


def integer(value: object, field: str, low: int, high: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise _fail(field, "must be an integer")
    if not low <= int(value) <= high:
        raise _fail(field, f"must lie between {low:,} and {high:,}")
    return int(value)


def optional_integer(value: object, field: str) -> int | None:
    return None if value is None else integer(value, field, *_INT64)


def unit_interval(value: object, field: str) -> float | None:
    """A number in [0, 1], or None."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise _fail(field, "must be a number between 0 and 1")
    return float(value)


def boolean(value: object, field: str) -> bool:
    if not isinstance(value, bool):
        raise _fail(field, "must be True or False")
    return value


def moment(value: TimeLike | None, field: str, zone: tzinfo) -> datetime | None:
    """The first instant of what a caller gave as a time."""
    if value is None:
        return None
    return from_micros(parse_time(value, zone=zone, field=field).start_us)


def instant_of(value: TimeLike, field: str, zone: tzinfo) -> datetime:
    """The *last* instant covered by ``value``: ``as_of="2024"`` asks for the end of 2024."""
    span = parse_time(value, zone=zone, field=field)
    return from_micros(max(span.start_us, span.end_us - 1))


def one_vector(value: ArrayLike, dim: int | None, field: str = "vector") -> NDArray[np.float32]:
    """(dim,) float32, finite. ``DimensionMismatch`` when it is not the space's ``dim``."""
    try:
        vector = np.ascontiguousarray(value, dtype=np.float32)
    except (TypeError, ValueError) as error:
        raise _fail(field, "must be a sequence of numbers") from error
    if vector.ndim != 1 or not vector.size:
        raise _fail(field, "must have one dimension")
    if vector.size > settings.MAX_DIM:
        raise _fail(field, f"has more than {settings.MAX_DIM} numbers")
    if dim is not None and vector.size != dim:
        raise DimensionMismatch(f"{field} has {vector.size} numbers, the space {dim}", field=field)
    # A sum of squares is finite if every number is; where it overflows, look at each.
    if not math.isfinite(vector.dot(vector)) and not np.isfinite(vector).all():
        raise _fail(field, "has a number that is not finite")
    return vector


class Draft(msgspec.Struct):
    """A checked memory on its way in: everything but its id, row and time of record."""

    memory: Memory
    vector: Any = None  # (dim,) float32, or None: embed the text
    says: str | None = None  # what to embed in place of the text, such as a chunk below its titles


def draft(
    fields: Mapping[str, Any],
    *,
    zone: tzinfo,
    now: datetime,
    default_namespace: str,
    default_source: str,
) -> Draft:
    """Check the fields of one ``remember``; a vector's dimension is checked by the writer."""
    plain = _plain(fields)
    if plain is None:
        return _draft_by_field(fields, zone, now, default_namespace, default_source)
    checked = _checked_plain(plain)
    checked["namespace"] = _written_namespace(plain.namespace or default_namespace)
    checked["source"] = plain.source or string(default_source, "source")
    _check_times(checked, fields, zone, now)
    vector = None if plain.vector is None else one_vector(plain.vector, None)
    return Draft(Memory(**checked), vector)


# --- the plain ones -------------------------------------------------------------------------------
# Nearly every memory has short names and flat metadata. C checks those, by bounds within the limits
# above; whatever it does not let pass is looked at field by field, which decides and says why.

_Name = Annotated[str, msgspec.Meta(min_length=1, max_length=settings.MAX_NAME_BYTES // 4)]
_Names = Annotated[tuple[_Name, ...], msgspec.Meta(max_length=settings.MAX_LIST_ITEMS)]
_Text = Annotated[str, msgspec.Meta(min_length=1, max_length=settings.MAX_TEXT_BYTES // 4)]
_Int64 = Annotated[int, msgspec.Meta(ge=_INT64[0], le=_INT64[1])]
_Unit = Annotated[float, msgspec.Meta(ge=0, le=1)]
_Finite = Annotated[float, msgspec.Meta(ge=-sys.float_info.max, le=sys.float_info.max)]
_Safe = Annotated[int, msgspec.Meta(ge=-settings.MAX_SAFE_INTEGER, le=settings.MAX_SAFE_INTEGER)]
_Flat = Annotated[
    dict[_Name, _Safe | str | _Finite | bool | None],
    msgspec.Meta(max_length=settings.MAX_METADATA_KEYS),
]


class _Plain(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """The fields of ``remember``; those of type Any are checked elsewhere."""

    text: _Text | None = None
    data: Any = None
    source: _Name | None = None
    external_id: _Name | None = None
    kind: _Name | None = None
    tags: _Names = ()
    metadata: _Flat | None = None
    namespace: _Name | None = None
    stream: _Name | None = None
    position: _Int64 | None = None
    subject: _Name | None = None
    key: _Name | None = None
    about: _Names = ()
    event_time: Any = None
    event_end: Any = None
    valid_from: Any = None
    valid_to: Any = None
    importance: _Unit | None = None
    pinned: bool = False
    sensitivity: _Name | None = None
    derived_from: _Names = ()
    expires_at: Any = None
    expires_in: Any = None
    vector: Any = None
    space: _Name | None = None


_NAMES = ("kind", "external_id", "stream", "subject", "key", "sensitivity", "space")
_LISTS = 3
_strings_of = attrgetter("text", "source", "namespace", *_NAMES, "tags", "about", "derived_from")
_OPTIONAL = (*_NAMES, "position", "importance")
_optional_of = attrgetter(*_OPTIONAL)


def _plain(fields: Mapping[str, Any]) -> _Plain | None:
    """The fields if all of them are plain; None says nothing yet."""
    try:
        plain = msgspec.convert(fields, _Plain)
    except Exception:  # noqa: BLE001 - odd objects raise what they like; by field they are named
        return None
    text = plain.text
    if text is None:
        if plain.vector is None and plain.data is None:
            return None
    elif text.isspace():
        return None
    strings = _strings_of(plain)
    if not KERNELS.plain_strings(strings):
        return None
    for listed in strings[-_LISTS:]:
        if len(listed) > 1 and len(set(listed)) < len(listed):
            return None
    try:  # what cannot be encoded is not valid Unicode, or a string of a class of its own
        if plain.metadata and len(_JSON.encode(plain.metadata)) > settings.MAX_METADATA_BYTES:
            return None
    except (UnicodeEncodeError, TypeError):
        return None
    return plain


def _checked_plain(plain: _Plain) -> dict[str, Any]:
    """The arguments of ``Memory``; namespace, source and times come after."""
    checked: dict[str, Any] = {
        "id": "",
        "text": plain.text,
        "tags": plain.tags,
        "about": plain.about,
        "derived_from": plain.derived_from,
        "pinned": plain.pinned,
        "metadata": plain.metadata or {},
    }
    for name, value in zip(_OPTIONAL, _optional_of(plain), strict=True):
        if value is not None:
            checked[name] = value
    if plain.data is not None:
        checked["data"] = json_data(plain.data)
    if plain.key is not None and checked.get("kind", "note") == "note":
        checked["kind"] = "profile"
    return checked


@lru_cache(256)
def _written_namespace(path: str) -> str:
    """A namespace that a write may go to."""
    if not namespace(path):
        raise _fail("namespace", "must name one namespace in a write")
    return path


# --- field by field -------------------------------------------------------------------------------


def _draft_by_field(
    fields: Mapping[str, Any],
    zone: tzinfo,
    now: datetime,
    default_namespace: str,
    default_source: str,
) -> Draft:
    if not fields.keys() <= _FIELDS:
        unknown = min(map(str, fields.keys() - _FIELDS))
        raise InvalidArgument(f"unknown field: {unknown:.64}", field="items", hint="see `remember`")
    get = fields.get
    text, vector = get("text"), get("vector")
    if text is None and vector is None and get("data") is None:
        raise InvalidArgument("one of text, data and vector is needed", field="text")
    if text is not None:
        string(text, "text", settings.MAX_TEXT_BYTES)
        if text.isspace():
            raise _fail("text", "must not be blank")
    checked: dict[str, Any] = {"id": "", "text": text}
    for name, value in fields.items():
        check = _CHECKS.get(name)
        if check is not None and (value is not None or name in _NEVER_NONE):
            checked[name] = check(value, name)
    if vector is not None:
        vector = one_vector(vector, None)
    if "key" in checked and checked.get("kind", "note") == "note":
        checked["kind"] = "profile"
    where, source = get("namespace"), get("source")
    checked["namespace"] = path = namespace(default_namespace if where is None else where)
    if not path:
        raise _fail("namespace", "must name one namespace in a write")
    checked["source"] = string(default_source if source is None else source, "source")
    _check_times(checked, fields, zone, now)
    return Draft(Memory(**checked), vector)


def _kind(value: Any, field: str) -> str:
    return string(value or "note", field)


def _metadata(value: Any, _field: str) -> dict[str, Any]:
    return json_metadata(value or {})


# What a field must be, for those that depend on nothing but themselves.
_CHECKS: dict[str, Callable[[Any, str], Any]] = {
    "kind": _kind,
    "stream": string,
    "position": optional_integer,
    "tags": names,
    "metadata": _metadata,
    "data": lambda value, _: json_data(value),
    "subject": string,
    "key": string,
    "about": names,
    "external_id": string,
    "importance": unit_interval,
    "pinned": boolean,
    "sensitivity": string,
    "derived_from": names,
    "space": string,
}
_NEVER_NONE = frozenset(["tags", "about", "pinned", "derived_from"])


def _check_times(
    checked: dict[str, Any], fields: Mapping[str, Any], zone: tzinfo, now: datetime
) -> None:
    """Check the times of ``fields`` and put those given into ``checked``."""
    get = fields.get
    given = get("event_time")
    if type(given) is datetime and given.tzinfo is UTC:
        checked["event_time"], checked["time_zone"] = given, "UTC"  # as the span below says it
    elif given is not None:
        span = parse_time(given, zone=zone, field="event_time")
        checked["event_time"] = from_micros(span.start_us)
        checked["time_zone"], checked["precision"] = span.zone, span.precision
    for name in ("event_end", "valid_from", "valid_to"):
        if get(name) is not None:
            checked[name] = moment(get(name), name, zone)
    expires = _expiry(get("expires_at"), get("expires_in"), zone, now)
    if expires is not None:
        checked["expires_at"] = expires
    valid_from, valid_to = checked.get("valid_from"), checked.get("valid_to")
    if valid_from is not None and valid_to is not None and valid_to <= valid_from:
        raise _fail("valid_to", "must be after valid_from")
    event_time, event_end = checked.get("event_time"), checked.get("event_end")
    if event_end is not None and (event_time is None or event_end < event_time):
        raise _fail("event_end", "must not be before event_time")


def _expiry(at: Any, after: Any, zone: tzinfo, now: datetime) -> datetime | None:
    if after is None:
        return moment(at, "expires_at", zone)
    if at is not None:
        raise _fail("expires_in", "and expires_at exclude each other")
    duration = parse_duration(after, field="expires_in")
    try:
        return now + duration
    except OverflowError:
        raise _fail("expires_in", "reaches beyond the year 9999") from None
