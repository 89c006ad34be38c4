"""JSON schemas of tools' arguments, from one line each, and the check of what comes in.

A line is ``name`` ``!`` (required) or ``:`` and a kind: ``s`` a string, ``1-50`` a whole number in
that range, ``time``, ``filter``, ``share`` (0 to 1), ``flag``, ``list`` of strings, ``object``,
``any``. Schemas are sent to a model with every conversation, so they are small; what a value may be
beyond its type the library says, in an error that names the argument. Knows no tool.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from memdb import InvalidArgument

_KINDS: Final[dict[str, dict[str, Any]]] = {
    "s": {"type": "string"},
    "time": {"type": "string", "description": "ISO 8601 date or time"},
    "filter": {
        "type": "object",
        "description": 'such as {"kind": "event", "tags": {"$contains": "work"}, '
        '"event_time": {"$gte": "2024-01-01"}}',
    },
    "share": {"type": "number", "minimum": 0, "maximum": 1},
    "flag": {"type": "boolean"},
    "list": {"type": "array", "items": {"type": "string"}},
    "object": {"type": "object"},
    "any": {},
}
_TYPES: Final[dict[str, tuple[type, ...]]] = {
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "array": (list,),
    "object": (dict,),
}


def parameters(line: str, **descriptions: str) -> dict[str, Any]:
    """The schema of a tool's arguments; a description replaces that of the kind."""
    properties: dict[str, Any] = {}
    required: list[str] = []
    for part in line.split():
        name, mark, kind = part.partition("!" if "!" in part else ":")
        properties[name] = dict(_KINDS[kind]) if kind in _KINDS else _range(kind)
        if name in descriptions:
            properties[name]["description"] = descriptions[name]
        if mark == "!":
            required.append(name)
    schema: dict[str, Any] = {"type": "object", "properties": properties}
    if required:
        schema["required"] = required
    return schema


def _range(kind: str) -> dict[str, Any]:
    low, _, high = kind.partition("-")
    found: dict[str, Any] = {"type": "integer", "minimum": int(low)}
    return {**found, "maximum": int(high)} if high else found


def checked(arguments: Mapping[str, Any], schema: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments that were given; null counts as not given. Raises ``InvalidArgument``."""
    properties = schema["properties"]
    given = {name: value for name, value in arguments.items() if value is not None}
    for name, value in given.items():
        if name not in properties:
            known = ", ".join(properties)
            raise InvalidArgument(
                f"there is no argument {name!s:.40}", field=name[:40], hint=f"there are: {known}"
            )
        _check(name, value, properties[name])
    for name in schema.get("required", ()):
        if name not in given:
            raise InvalidArgument(f"{name} is needed", field=name)
    return given


def _check(name: str, value: Any, schema: Mapping[str, Any]) -> None:
    kind = schema.get("type")
    if kind is None:
        return
    is_flag = isinstance(value, bool)
    if not isinstance(value, _TYPES[kind]) or (is_flag and kind != "boolean"):
        raise InvalidArgument(f"{name} must be of type {kind}", field=name)
    if isinstance(value, list) and not all(isinstance(one, str) for one in value):
        raise InvalidArgument(f"{name} must hold strings", field=name)
    low, high = schema.get("minimum"), schema.get("maximum")
    if (low is not None and value < low) or (high is not None and value > high):
        span = f"{low} or more" if high is None else f"between {low} and {high}"
        raise InvalidArgument(f"{name} must be {span}", field=name)
