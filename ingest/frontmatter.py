"""The YAML block some notes begin with: where it ends, and the three facts memdb uses from it.

Strategy: not a YAML parser. Title, tags and date are written as plain scalars, flow lists or
block lists in practice; those are read, and any other key or construct is left in the text,
where the words are searchable all the same. It must not know files or chunks.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_MAX_LINES = 400
_KEY = re.compile(r"([A-Za-z_][\w -]{0,63}):(?:[ \t]+(.*))?$")
_ITEM = re.compile(r"[ \t]*-[ \t]+(.*)$")
_COMMENT = re.compile(r"(?:^|[ \t])#.*$")

TITLE_KEYS = ("title",)
TAG_KEYS = ("tags", "tag", "keywords")
DATE_KEYS = ("date", "created")


@dataclass(frozen=True, slots=True)
class FrontMatter:
    """``date`` is the text as written; whoever stores it parses and may reject it."""

    title: str | None = None
    tags: tuple[str, ...] = ()
    date: str | None = None


def end_of(text: str) -> int:
    """Offset just past the closing line of the front matter ``text`` begins with, or 0.

    The block is ``---``, lines of which the first non-blank one is a key, then ``---`` or
    ``...``. Anything else that begins with ``---`` is a thematic break.
    """
    if not text.startswith("---"):
        return 0
    offset = 0
    opened = keyed = False
    for _ in range(_MAX_LINES):
        stop = text.find("\n", offset)
        line = text[offset : stop if stop >= 0 else len(text)].rstrip()
        if not opened:
            if line != "---":
                return 0
            opened = True
        elif line in ("---", "..."):
            return (offset + len(line)) if keyed else 0
        elif not keyed and line and not line.startswith("#"):
            if not _KEY.match(line):
                return 0
            keyed = True
        if stop < 0:
            return 0
        offset = stop + 1
    return 0


def parse(block: str) -> FrontMatter:
    """The facts of a block that ``end_of`` found; duplicates of a key: the first counts."""
    values: dict[str, list[str]] = {}
    current: list[str] | None = None
    for line in block.split("\n")[1:-1]:
        if item := _ITEM.match(line):
            if current is not None:
                current.append(_scalar(item[1]))
        elif pair := _KEY.match(line):
            name = pair[1].strip().lower()
            current = _values(pair[2] or "")
            values.setdefault(name, current)
        elif line.strip() and not line.lstrip().startswith("#"):
            current = None  # a construct this file does not read
    return FrontMatter(
        title=_first(values, TITLE_KEYS),
        tags=_tags(values),
        date=_first(values, DATE_KEYS),
    )


def _values(written: str) -> list[str]:
    written = written.strip()
    if written.startswith("["):
        inner = _COMMENT.sub("", written).strip().removeprefix("[").removesuffix("]")
        return [part for part in map(_scalar, inner.split(",")) if part]
    value = _scalar(written)
    return [value] if value else []


def _scalar(written: str) -> str:
    written = written.strip()
    if len(written) >= 2 and written[0] in "\"'":
        close = written.find(written[0], 1)
        if close > 0:
            return written[1:close].strip()
    value = _COMMENT.sub("", written).strip()
    return "" if value in ("null", "~", "|", ">", "|-", ">-") else value


def _first(values: dict[str, list[str]], names: tuple[str, ...]) -> str | None:
    for name in names:
        if values.get(name):
            return values[name][0]
    return None


def _tags(values: dict[str, list[str]]) -> tuple[str, ...]:
    for name in TAG_KEYS:
        if values.get(name):
            parts = [part for value in values[name] for part in value.split(",")]
            cleaned = (part.strip().lstrip("#").strip() for part in parts)
            return tuple(dict.fromkeys(tag for tag in cleaned if tag))
    return ()
