"""Where the blocks of a text lie: front matter, headings, fences, tables, paragraphs.

Strategy: one pass over the lines, each block a span of character offsets, so that a chunk made
of blocks is a slice of the file and its line numbers are exact. A full Markdown parser would add
a dependency to the core, gives lines but no offsets inside them, and computes the inline
structure nobody asks for here. What differs from CommonMark 0.31, on purpose:

* a fence may be indented by any amount (fences inside list items are common); an indented one
  must be closed to count, because what would end it, the end of its list, is not seen here;
* a setext heading is one line of text (a paragraph above ``---`` is nearly always a paragraph
  above a thematic break that lacks its blank line);
* lists, quotes and HTML are paragraphs: only their extent matters.

It must not know chunks, tokens or files. Lines end with ``\\n``; the reader saw to that.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from memdb.ingest import frontmatter

BlockKind = Literal["front", "heading", "fence", "table", "text"]

# Bounds the search for the end of a fence that may turn out to be none.
_MAX_INDENTED_FENCE = 200

_ATX = re.compile(r" {0,3}(#{1,6})(?=[ \t]|$)")
_FENCE = re.compile(r"([ \t]*)(`{3,}|~{3,})([^\n]*)$")
_SETEXT = re.compile(r" {0,3}(=+|-+)[ \t]*$")
_NOT_A_TITLE = re.compile(r" {0,3}(?:[-*+>|]|\d{1,9}[.)][ \t])| {4}|\t")


@dataclass(frozen=True, slots=True)
class Block:
    """``text[start:end]``, whole lines without the last newline.

    ``level`` (1-6) and ``title`` belong to headings.
    """

    kind: BlockKind
    start: int
    end: int
    level: int = 0
    title: str = ""


def plain_blocks(text: str) -> list[Block]:
    """The paragraphs of plain text: runs of non-blank lines."""
    lines = _Lines(text)
    blocks = []
    index = 0
    while index < len(lines):
        if lines.blank(index):
            index += 1
            continue
        first = index
        while index < len(lines) and not lines.blank(index):
            index += 1
        blocks.append(lines.block("text", first, index))
    return blocks


def markdown_blocks(text: str) -> list[Block]:
    """The blocks of Markdown in file order; together they hold every non-blank line once."""
    return list(_markdown(_Lines(text)))


class _Lines:
    """A text by lines, with the offset of each."""

    __slots__ = ("_starts", "_text", "_texts")

    def __init__(self, text: str) -> None:
        self._text = text
        self._texts = text.split("\n")
        self._starts = [0]
        for line in self._texts:
            self._starts.append(self._starts[-1] + len(line) + 1)

    def __len__(self) -> int:
        return len(self._texts)

    def __getitem__(self, index: int) -> str:
        return self._texts[index]

    def blank(self, index: int) -> bool:
        line = self._texts[index]
        return not line or line.isspace()

    def block(
        self, kind: BlockKind, first: int, stop: int, level: int = 0, title: str = ""
    ) -> Block:
        """Lines first <= i < stop as a block."""
        return Block(kind, self._starts[first], self._starts[stop] - 1, level, title)

    def front_matter(self) -> int:
        """How many lines at the beginning are front matter."""
        end = frontmatter.end_of(self._text)
        return self._text.count("\n", 0, end) + 1 if end else 0


def _markdown(lines: _Lines) -> Iterator[Block]:
    index = lines.front_matter()
    if index:
        yield lines.block("front", 0, index)
    while index < len(lines):
        first = index
        if lines.blank(first):
            index += 1
        elif heading := _heading(lines, first):
            level, title, index = heading
            yield lines.block("heading", first, index, level, title)
        elif closed := _fence_end(lines, first):
            index = closed
            yield lines.block("fence", first, index)
        else:
            table = _begins_table(lines, first)
            index += 2 if table else 1
            while index < len(lines) and not _ends_paragraph(lines, index, table=table):
                index += 1
            yield lines.block("table" if table else "text", first, index)


def _heading(lines: _Lines, index: int) -> tuple[int, str, int] | None:
    """(level, title, index of the line after it)."""
    line = lines[index]
    if mark := _ATX.match(line):
        title = line[mark.end() :].strip()
        bare = title.rstrip("#")
        if not bare or bare[-1] in " \t":  # a closing sequence, not part of a word such as C#
            title = bare.rstrip()
        return len(mark[1]), title, index + 1
    if index + 1 < len(lines) and not _NOT_A_TITLE.match(line):
        underline = _SETEXT.match(lines[index + 1])
        if underline and not _is_fence(line):
            return (1 if underline[1][0] == "=" else 2), line.strip(), index + 2
    return None


def _is_fence(line: str) -> re.Match[str] | None:
    mark = _FENCE.match(line)
    if mark and mark[2][0] == "`" and "`" in mark[3]:
        return None  # inline code
    return mark


def _fence_end(lines: _Lines, index: int) -> int | None:
    """The index after the fence that opens at ``index``; None where none opens."""
    mark = _is_fence(lines[index])
    if mark is None:
        return None
    indented = bool(mark[1])
    stop = min(len(lines), index + _MAX_INDENTED_FENCE) if indented else len(lines)
    for later in range(index + 1, stop):
        line = lines[later].strip()
        if len(line) >= len(mark[2]) and not line.strip(mark[2][0]):
            return later + 1
    return None if indented else _last_line(lines, index)


def _last_line(lines: _Lines, index: int) -> int:
    """The index after the last non-blank line: where an unclosed fence ends."""
    stop = len(lines)
    while stop > index + 1 and lines.blank(stop - 1):
        stop -= 1
    return stop


def _begins_table(lines: _Lines, index: int) -> bool:
    """A GFM table: a row with a pipe, then the delimiter row."""
    if index + 1 >= len(lines) or "|" not in lines[index]:
        return False
    delimiter = lines[index + 1]
    return "|" in delimiter and "-" in delimiter and not delimiter.strip("|:- \t")


def _ends_paragraph(lines: _Lines, index: int, *, table: bool) -> bool:
    if lines.blank(index) or _ATX.match(lines[index]):
        return True
    if lines[index].lstrip().startswith(("```", "~~~")):
        return _fence_end(lines, index) is not None
    return not table and _begins_table(lines, index)
