"""A ``where`` mapping compiled, or refused with the path of what is wrong in it.

The list of top-level fields is closed, because a typo inside ``$not`` would otherwise match
everything; only ``metadata.*`` is open. This file knows no index and no memory.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import tzinfo
from difflib import get_close_matches
from numbers import Integral, Real

from memdb import settings
from memdb.errors import FilterError, InvalidArgument
from memdb.query.filters.ast import (
    NOTHING,
    Between,
    Equals,
    Exists,
    Filter,
    Prefix,
    Scalar,
    Span,
    Within,
    all_of,
    any_of,
    negated,
    union_of,
)
from memdb.storage.filters import FIELDS, METADATA, Field
from memdb.times import TimeSpan, parse_time

__all__ = ["OPERATORS", "parse"]

_COMPARISONS = ("$gt", "$gte", "$lt", "$lte")
_ON_FIELDS = (
    "$eq",
    "$ne",
    *_COMPARISONS,
    "$in",
    "$nin",
    "$contains",
    "$all",
    "$prefix",
    "$exists",
    "$not",
)
OPERATORS = (*_ON_FIELDS, "$and", "$or")
_TYPE_NAMES = {
    "string": "a string",
    "number": "a number",
    "bool": "true or false",
    "time": "a time",
}


def parse(where: Mapping[str, object], *, zone: tzinfo) -> Filter:
    """Compile a filter. Times that name no offset are in ``zone``; ``{}`` is everything.

    Raises ``FilterError``, whose ``field`` is the path inside ``where``: an unknown field (with the
    nearest name) or operator, a literal of the wrong type, more than 32 levels, 1,024 conditions
    or 4,096 values in one list.
    """
    return _Parser(zone).mapping(where, "where", 1)


@dataclass(slots=True)
class _Parser:
    zone: tzinfo
    nodes: int = 0

    def mapping(self, where: object, path: str, depth: int) -> Filter:
        if not isinstance(where, Mapping):
            raise FilterError(f"{path} must be a mapping of fields to conditions", field=path)
        self._enter(path, depth)
        return all_of([self._entry(key, value, path, depth) for key, value in where.items()])

    def _entry(self, key: object, value: object, path: str, depth: int) -> Filter:
        if not isinstance(key, str):
            raise FilterError(f"{path} has a key that is not a string", field=path)
        inner = _shown(key) if path == "where" else f"{path}.{_shown(key)}"
        if key in ("$and", "$or"):
            if not isinstance(value, list | tuple) or not value:
                raise FilterError(f"{inner} takes a list of at least one filter", field=inner)
            parts = [self.mapping(part, f"{inner}[{i}]", depth + 1) for i, part in enumerate(value)]
            return all_of(parts) if key == "$and" else any_of(parts)
        if key == "$not":
            return negated(self.mapping(value, inner, depth + 1))
        if key.startswith("$"):
            raise _unknown_operator(key, inner, ("$and", "$or", "$not"))
        return self._field(_field_named(key, inner), key, value, inner, depth)

    def _field(
        self, field: Field | None, name: str, value: object, path: str, depth: int
    ) -> Filter:
        """``field`` is None for metadata."""
        if not isinstance(value, Mapping):
            self._enter(path, depth)
            return self._condition(field, name, "$eq", value, path, depth)
        if not value:
            raise FilterError(f"{path} has no operator", field=path)
        self._enter(path, depth)
        parts = []
        for operator, operand in value.items():
            inner = f"{path}.{_shown(str(operator))}"
            if not isinstance(operator, str) or operator not in _ON_FIELDS:
                raise _unknown_operator(str(operator), inner, _ON_FIELDS)
            self._enter(inner, depth)
            parts.append(self._condition(field, name, operator, operand, inner, depth))
        return all_of(parts)

    def _condition(
        self, field: Field | None, name: str, operator: str, operand: object, path: str, depth: int
    ) -> Filter:
        kind = None if field is None else field.type
        if operator == "$not":
            if not isinstance(operand, Mapping):
                raise FilterError(f"{path} takes a mapping of operators", field=path)
            return negated(self._field(field, name, operand, path, depth + 1))
        if operator == "$exists":
            if not isinstance(operand, bool):
                raise FilterError(f"{path} takes true or false", field=path)
            return Exists(name) if operand else negated(Exists(name))
        if operator in ("$contains", "$all") and field is not None and not field.many:
            raise FilterError(
                f"{path}: {name} holds a single value",
                field=path,
                hint="$contains and $all are for tags, about, derived_from and metadata; "
                "use $eq, $in or $prefix here",
            )
        if operator == "$prefix":
            if kind not in (None, "string") or not isinstance(operand, str):
                raise FilterError(f"{path} takes a string, on a field of strings", field=path)
            return Prefix(name, str(_scalar(field, operand, path).value))
        if operator == "$all":
            values = [Equals(name, (_scalar(field, v, p),)) for v, p in _items(operand, path)]
            return all_of(values) if values else NOTHING
        if kind == "time":
            return self._time(name, operator, operand, path)
        if operator in ("$in", "$nin"):
            scalars = {_scalar(field, v, p) for v, p in _items(operand, path)}
            found: Filter = Equals(name, tuple(sorted(scalars, key=repr)))
            return negated(found) if operator == "$nin" else found
        scalar = _scalar(field, operand, path)
        if operator in _COMPARISONS:
            return _comparison(name, operator, scalar, path)
        equal = Equals(name, (scalar,))
        return negated(equal) if operator == "$ne" else equal

    def _time(self, name: str, operator: str, operand: object, path: str) -> Filter:
        if operator in ("$in", "$nin"):
            spans = [self._span(v, p) for v, p in _items(operand, path)]
        else:
            spans = [self._span(operand, path)]
        if operator in ("$eq", "$ne", "$in", "$nin"):
            found = Within(name, union_of(Span(s.start_us, s.end_us) for s in spans))
            return negated(found) if operator in ("$ne", "$nin") else found
        (span,) = spans
        bounds = {
            "$gt": Span(span.end_us, None),
            "$gte": Span(span.start_us, None),
            "$lt": Span(None, span.start_us),
            "$lte": Span(None, span.end_us),
        }
        return Within(name, (bounds[operator],))

    def _span(self, value: object, path: str) -> TimeSpan:
        try:
            return parse_time(value, zone=self.zone, field=path)
        except InvalidArgument as error:
            raise FilterError(error.message, field=path, hint=error.hint) from error

    def _enter(self, path: str, depth: int) -> None:
        if depth > settings.MAX_FILTER_DEPTH:
            raise FilterError(
                f"{path} is nested deeper than {settings.MAX_FILTER_DEPTH} levels", field=path
            )
        self.nodes += 1
        if self.nodes > settings.MAX_FILTER_NODES:
            raise FilterError(
                f"the filter has more than {settings.MAX_FILTER_NODES} conditions", field=path
            )


def _field_named(name: str, path: str) -> Field | None:
    """The field; None for a metadata path."""
    field = FIELDS.get(name)
    if field is not None:
        return field
    if name.startswith(METADATA) and len(name) > len(METADATA):
        _require_text(name, path)
        return None
    nearest = get_close_matches(name[:100], FIELDS, 1, 0.5)
    if name in ("id", "ids"):
        hint = (
            "ids are no field to filter by: pass them to get, get_many, forget(ids=), report(ids=)"
        )
    elif name in ("metadata", METADATA) or name.startswith("metadata"):
        hint = "name one key of it, as in 'metadata.chat'"
    elif nearest:
        hint = f"did you mean {nearest[0]!r}?"
    else:
        hint = f"the fields are {', '.join(FIELDS)} and metadata.*"
    raise FilterError(f"{path}: no such field", field=path, hint=hint)


def _shown(key: str) -> str:
    """A key as part of a path that can be printed, whatever it was."""
    return key[:100].encode("utf-8", "replace").decode()


def _unknown_operator(name: str, path: str, allowed: tuple[str, ...]) -> FilterError:
    nearest = get_close_matches(name[:100], allowed, 1, 0.4)
    if name in OPERATORS:
        hint = f"here one of {', '.join(allowed)} may stand"
    elif nearest:
        hint = f"did you mean {nearest[0]}?"
    else:
        hint = f"the operators are {', '.join(OPERATORS)}"
    return FilterError(f"{path}: no such operator here", field=path, hint=hint)


def _items(operand: object, path: str) -> Iterator[tuple[object, str]]:
    if not isinstance(operand, list | tuple | set | frozenset):
        raise FilterError(f"{path} takes a list of values", field=path)
    if len(operand) > settings.MAX_FILTER_VALUES:
        raise FilterError(f"{path} has more than {settings.MAX_FILTER_VALUES} values", field=path)
    return ((value, f"{path}[{i}]") for i, value in enumerate(operand))


def _scalar(field: Field | None, value: object, path: str) -> Scalar:
    """A literal of the field's type; of any JSON type for metadata (``field`` None)."""
    scalar = _literal(value, path)
    if field is None or scalar.type == field.type:
        return scalar
    if value is None:
        raise FilterError(
            f"{path}: {field.name} is never null",
            field=path,
            hint=f"write {{'{field.name}': {{'$exists': false}}}} for memories that lack it",
        )
    raise FilterError(f"{path} must be {_TYPE_NAMES[field.type]}", field=path)


def _literal(value: object, path: str) -> Scalar:
    if isinstance(value, str):
        return Scalar("string", _require_text(value, path))
    if isinstance(value, bool):
        return Scalar("bool", value)
    if value is None:
        return Scalar("null", None)
    if isinstance(value, Integral):
        number = int(value)
        if abs(number) > settings.MAX_SAFE_INTEGER:
            raise FilterError(f"{path} is beyond 2^53 - 1", field=path)
        return Scalar("number", number)
    if isinstance(value, Real) and math.isfinite(value):
        return Scalar("number", float(value))
    raise FilterError(f"{path} takes a string, a finite number, true, false or null", field=path)


def _require_text(text: str, path: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise FilterError(f"{path} is not valid Unicode", field=path) from error
    return text


def _comparison(name: str, operator: str, scalar: Scalar, path: str) -> Filter:
    value = scalar.value
    if isinstance(value, bool) or value is None:
        raise FilterError(f"{path} takes a number, a string or a time", field=path)
    return {
        "$gt": Between(name, value, None, include_low=False),
        "$gte": Between(name, value, None),
        "$lt": Between(name, None, value),
        "$lte": Between(name, None, value, include_high=True),
    }[operator]
