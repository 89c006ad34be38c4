"""What a filter means, read off the documentation and evaluated the slow way.

Shares no code with ``memdb.query.filters``: mappings are interpreted as typed by the user. Also
makes the random memories and filters that the planner is compared on, here and in the tests.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from memdb import Memory

ZONE = ZoneInfo("Europe/Vienna")
TIMES = ("event_time", "valid_to", "recorded_at", "expires_at")
LISTS = ("tags", "about", "derived_from")

Row = dict[str, list[Any] | None]


# --- meaning ---------------------------------------------------------------------------------


def flatten(memory: Memory) -> Row:
    """Field -> its values; a field that is not there is not in the mapping."""
    row: Row = {}
    for name in memory.__struct_fields__:
        value = getattr(memory, name)
        if name in LISTS:
            if value:
                row[name] = list(value)
        elif value is not None:
            row[name] = [value]
    work = [("metadata." + key, value) for key, value in memory.metadata.items()]
    while work:
        path, value = work.pop()
        values = row.setdefault(path, [])
        assert values is not None
        if isinstance(value, dict):
            work += [(f"{path}.{key}", inner) for key, inner in value.items()]
        elif isinstance(value, list):
            values += [v for v in value if not isinstance(v, dict | list)]
        else:
            values.append(value)
    return row


def same(a: Any, b: Any) -> bool:
    if isinstance(a, bool) or isinstance(b, bool):
        return a is b
    if a is None or b is None:
        return a is b
    return isinstance(a, str) == isinstance(b, str) and bool(a == b)


def interval(literal: Any) -> tuple[datetime, datetime]:
    """First instant and the one after the last of a time as typed."""
    if isinstance(literal, datetime):
        moment = literal if literal.tzinfo else literal.replace(tzinfo=ZONE)
        moment = moment.astimezone(UTC)
        return moment, moment + timedelta(microseconds=1)
    digits = [int(part) for part in str(literal).split("-")]
    following = list(digits)
    following[-1] += 1
    if len(digits) == 3:
        day = datetime(digits[0], digits[1], digits[2]) + timedelta(days=1)
        following = [day.year, day.month, day.day]
    elif len(digits) == 2 and following[1] == 13:
        following = [digits[0] + 1, 1]
    first, second = ([*parts, 1, 1][:3] for parts in (digits, following))
    start = datetime(first[0], first[1], first[2], tzinfo=ZONE).astimezone(UTC)
    end = datetime(second[0], second[1], second[2], tzinfo=ZONE).astimezone(UTC)
    return start, end


def holds(field: str, operator: str, operand: Any, values: list[Any] | None) -> bool:
    if operator == "$exists":
        return (values is not None) is operand
    if operator == "$ne":
        return not holds(field, "$eq", operand, values)
    if operator == "$nin":
        return not holds(field, "$in", operand, values)
    if operator == "$not":
        return not all(holds(field, op, x, values) for op, x in operand.items())
    if values is None:
        return False
    if operator == "$in":
        return any(holds(field, "$eq", x, values) for x in operand)
    if operator == "$all":
        return bool(operand) and all(holds(field, "$eq", x, values) for x in operand)
    if operator == "$prefix":
        return any(isinstance(v, str) and v[: len(operand)] == operand for v in values)
    if field in TIMES:
        start, end = interval(operand)
        tests: dict[str, Callable[[Any], bool]] = {
            "$eq": lambda v: start <= v < end,
            "$gt": lambda v: v >= end,
            "$gte": lambda v: v >= start,
            "$lt": lambda v: v < start,
            "$lte": lambda v: v < end,
        }
        return any(tests[operator](v) for v in values)
    if operator in ("$eq", "$contains"):
        return any(same(v, operand) for v in values)
    comparable = [
        v
        for v in values
        if v is not None
        and not isinstance(v, bool)
        and isinstance(v, str) == isinstance(operand, str)
    ]
    if operator == "$gt":
        return any(v > operand for v in comparable)
    if operator == "$gte":
        return any(v >= operand for v in comparable)
    if operator == "$lt":
        return any(v < operand for v in comparable)
    if operator == "$lte":
        return any(v <= operand for v in comparable)
    raise AssertionError(operator)


def means(where: dict[str, Any], row: Row) -> bool:
    for key, value in where.items():
        if key == "$and":
            good = all(means(part, row) for part in value)
        elif key == "$or":
            good = any(means(part, row) for part in value)
        elif key == "$not":
            good = not means(value, row)
        elif isinstance(value, dict):
            good = all(holds(key, op, x, row.get(key)) for op, x in value.items())
        else:
            good = holds(key, "$eq", value, row.get(key))
        if not good:
            return False
    return True


# --- random memories and filters -------------------------------------------------------------

_WORDS = ["", "a", "ab", "abc", "b", "family", "fam", "ünï", "Z", "a/b", "a/b:c", "x" * 40]
_SOURCES = ["app:whatsapp", "app:mail", "file:///n/a.md#L1", "file:///n/b.md#L9", "agent:p", "x"]
_NAMES = ["home", "home/a", "home/a/b", "homely", "work", "w"]
_NUMBERS: list[float] = [0, 1, -1, 1.0, 2, 2.5, -0.0, 1e9, 3, 2**53 - 1, -7.25]
_PATHS = ["n", "s", "mix", "list", "deep.x", "deep", "deep.y.z", "deep.list", "dot.ted", "none"]
_STARTS = [datetime(2023, 12, 31, 22, 30, tzinfo=UTC), datetime(2024, 3, 31, tzinfo=UTC)]
TIME_LITERALS = ["2023", "2024", "2023-12", "2024-03", "2023-12-31", "2024-01-01", "2024-03-31"]


def _scalar(rng: random.Random) -> Any:
    kind = rng.randrange(6)
    if kind < 2:
        return rng.choice(_WORDS)
    if kind < 4:
        return rng.choice(_NUMBERS)
    return rng.choice([True, False, None])


def _moment(rng: random.Random) -> datetime:
    start = rng.choice(_STARTS)
    if rng.random() < 0.2:
        return start
    return start + timedelta(minutes=rng.randrange(-90_000, 90_000), microseconds=rng.randrange(3))


def random_memory(rng: random.Random, number: int) -> Memory:
    def maybe(value: Any, missing: Any = None) -> Any:
        return missing if rng.random() < 0.3 else value

    metadata: dict[str, Any] = {}
    if rng.random() < 0.8:
        metadata["n"] = rng.choice(_NUMBERS) if rng.random() < 0.5 else rng.random() * 10
    if rng.random() < 0.6:
        metadata["s"] = rng.choice([*_WORDS, f"id-{rng.randrange(300)}", "long" * 200])
    if rng.random() < 0.6:
        metadata["mix"] = _scalar(rng)
    if rng.random() < 0.6:
        metadata["list"] = [_scalar(rng) for _ in range(rng.randrange(4))]
        if rng.random() < 0.1:
            metadata["list"].append({"inner": 1})
    if rng.random() < 0.5:
        metadata["deep"] = maybe(
            {"x": _scalar(rng), "y": maybe({"z": _scalar(rng)}, {}), "list": [1, _scalar(rng)]},
            _scalar(rng),
        )
    if rng.random() < 0.3:
        metadata["dot.ted"] = _scalar(rng)
    if rng.random() < 0.2:
        metadata["dot"] = {"ted": _scalar(rng)}
    return Memory(
        id=str(number),
        kind=rng.choice(["note", "event", "chunk"]),
        source=rng.choice(_SOURCES),
        namespace=rng.choice(_NAMES),
        recorded_at=_moment(rng),
        event_time=maybe(_moment(rng)),
        valid_to=maybe(_moment(rng)),
        stream=maybe(rng.choice(["whatsapp/fam", "whatsapp/ana", "cal"])),
        position=maybe(rng.randrange(5)),
        importance=maybe(rng.choice([0.0, 0.5, 1.0])),
        pinned=rng.random() < 0.2,
        tags=tuple(rng.sample(_WORDS[1:], rng.randrange(4))),
        about=tuple(rng.sample(["Ana", "Bo"], rng.randrange(3))),
        metadata=metadata,
    )


def random_condition(rng: random.Random, operators: list[str] | None = None) -> dict[str, Any]:
    """One field and what is asked of it, valid by the documented types."""
    name = rng.choice(
        ["kind", "source", "namespace", "stream", "tags", "about", "position", "importance"]
        + ["pinned", "event_time", "valid_to", "recorded_at", "expires_at"]
        + ["metadata." + path for path in _PATHS] * 2
    )
    common = ["$eq", "$ne", "$in", "$nin", "$exists", "$not"]
    ranges = ["$gt", "$gte", "$lt", "$lte"]
    if name in TIMES or name in ("position", "importance"):
        allowed = common + ranges
    elif name == "pinned":
        allowed = common
    elif name in LISTS or name.startswith("metadata."):
        allowed = [*common, *ranges, "$prefix", "$contains", "$all"]
    else:
        allowed = [*common, *ranges, "$prefix"]
    chosen = [op for op in allowed if operators is None or op in operators]
    if not chosen:
        return random_condition(rng, operators)
    if rng.random() < 0.1 and operators is None:
        return {name: _literal(rng, name, "$eq")}
    wanted = rng.sample(chosen, min(len(chosen), 2 if rng.random() < 0.2 else 1))
    if "$gt" in chosen and "$lt" in chosen and rng.random() < 0.15:
        wanted = ["$gt", "$lt"]
    return {name: {op: _operand(rng, name, op, allowed) for op in wanted}}


def _operand(rng: random.Random, name: str, operator: str, allowed: list[str]) -> Any:
    if operator == "$exists":
        return rng.random() < 0.5
    if operator == "$not":
        inner = rng.choice([op for op in allowed if op != "$not"])
        return {inner: _operand(rng, name, inner, allowed)}
    if operator in ("$in", "$nin", "$all"):
        return [_literal(rng, name, "$eq") for _ in range(rng.randrange(4))]
    return _literal(rng, name, operator)


def _literal(rng: random.Random, name: str, operator: str) -> Any:
    if operator == "$prefix":
        return rng.choice(["", "a", "app:", "file:///n/", "file:", "whatsapp/", "ho", "id-1", "lo"])
    if name in TIMES:
        if rng.random() < 0.3:
            moment = _moment(rng)
            return moment if rng.random() < 0.5 else moment.replace(tzinfo=None)
        return rng.choice(TIME_LITERALS)
    if name in ("position", "importance"):
        return rng.choice([0, 1, 0.5, 3, 4])
    if name == "pinned":
        return rng.random() < 0.5
    if name.startswith("metadata."):
        if operator in ("$gt", "$gte", "$lt", "$lte"):
            return rng.choice([*_NUMBERS, *_WORDS, "id-15", "long" * 200])
        return rng.choice([_scalar(rng), f"id-{rng.randrange(300)}", "long" * 200])
    return rng.choice(
        {
            "kind": ["note", "event", "none"],
            "source": _SOURCES,
            "namespace": _NAMES,
            "stream": ["whatsapp/fam", "cal"],
            "about": ["Ana", "Bo", "Cy"],
        }.get(name, _WORDS)
    )


def random_filter(rng: random.Random, depth: int = 3) -> dict[str, Any]:
    kind = rng.random()
    if depth == 0 or kind < 0.45:
        where: dict[str, Any] = {}
        for _ in range(1 if rng.random() < 0.7 else 2):
            where |= random_condition(rng)
        return where
    if kind < 0.60:
        return {"$not": random_filter(rng, depth - 1)}
    if kind < 0.62:
        return {}
    parts = [random_filter(rng, depth - 1) for _ in range(rng.randrange(1, 4))]
    return {"$and" if kind < 0.81 else "$or": parts}
