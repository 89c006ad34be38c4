"""The twin of the native code that puts samples together: see ``reference``, which has the others.

storage/series_codec.py has the grammar of shapes. This file knows lists alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

__all__ = ["build_rows"]


def build_rows(shape: Any, leaves: list[list[Any]]) -> list[Any]:
    """The values that have a shape, from their leaves: a list a leaf, with an item a value.

    A shape is None for a leaf, [list of keys, list of shapes] for a mapping, [length, list of
    shapes] for a list; leaves come in the order in which they stand in it. ``ValueError`` where
    there are more or fewer leaves than the shape has, or none, or they are not of one length.
    """
    if not leaves:
        raise ValueError("a shape has a leaf")
    return [_built(shape, row) for row in zip(*leaves, strict=True)]


def _built(shape: Any, row: tuple[Any, ...]) -> Any:
    items = iter(row)
    try:
        made = _build(shape, items)
    except StopIteration:
        raise ValueError("a shape has more leaves than are given") from None
    if next(items, _built) is not _built:
        raise ValueError("a shape has fewer leaves than are given")
    return made


def _build(shape: Any, items: Iterator[Any]) -> Any:
    if shape is None:
        return next(items)
    outer, inner = shape
    if isinstance(outer, list):
        made = {}
        for key, child in zip(outer, inner, strict=True):
            made[key] = _build(child, items)
        return made
    return [_build(child, items) for child in inner]
