"""Whether one memory meets a filter, looked at directly.

The slow twin of the planner: what the index cannot decide is decided here, row by row, and so
are the samples of series, which have no index. This file knows no index.
"""

from __future__ import annotations

from memdb.query.filters.ast import (
    And,
    Between,
    Equals,
    Exists,
    Filter,
    Not,
    Or,
    Prefix,
    Scalar,
    Within,
)
from memdb.storage.filters import JsonScalar, field_values
from memdb.types import Memory

__all__ = ["matches"]


def matches(condition: Filter, memory: Memory) -> bool:
    """Whether ``memory`` meets ``condition``; a field it lacks meets nothing but a ``Not``."""
    if isinstance(condition, And):
        return all(matches(part, memory) for part in condition.parts)
    if isinstance(condition, Or):
        return any(matches(part, memory) for part in condition.parts)
    if isinstance(condition, Not):
        return not matches(condition.part, memory)
    if not isinstance(condition, Equals | Between | Within | Prefix | Exists):
        raise TypeError(f"not a filter: {type(condition).__name__}")
    values = field_values(memory, condition.field)
    if values is None:
        return False
    if isinstance(condition, Exists):
        return True
    if isinstance(condition, Equals):
        return any(_typed(value) in condition.values for value in values)
    if isinstance(condition, Prefix):
        return any(isinstance(v, str) and v.startswith(condition.text) for v in values)
    if isinstance(condition, Between):
        return any(_is_between(value, condition) for value in values)
    return any(
        (span.start is None or span.start <= value) and (span.end is None or value < span.end)
        for value in values
        if isinstance(value, int)
        for span in condition.spans
    )


def _typed(value: JsonScalar) -> Scalar:
    if isinstance(value, str):
        return Scalar("string", value)
    if isinstance(value, bool):
        return Scalar("bool", value)
    return Scalar("null", None) if value is None else Scalar("number", value)


def _is_between(value: JsonScalar, bounds: Between) -> bool:
    if isinstance(value, bool) or value is None:
        return False
    return _above(value, bounds.low, bounds.include_low) and _below(
        value, bounds.high, bounds.include_high
    )


def _above(value: str | float, low: str | float | None, include: bool) -> bool:
    if low is None:
        return True
    if isinstance(value, str):
        return isinstance(low, str) and (value >= low if include else value > low)
    return not isinstance(low, str) and (value >= low if include else value > low)


def _below(value: str | float, high: str | float | None, include: bool) -> bool:
    if high is None:
        return True
    if isinstance(value, str):
        return isinstance(high, str) and (value <= high if include else value < high)
    return not isinstance(high, str) and (value <= high if include else value < high)
