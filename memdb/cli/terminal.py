"""What is written to a terminal, and how: colour, widths, tables and progress.

Colour only where a person looks: on a terminal, without NO_COLOR (https://no-color.org). Stored
text is data: control characters in it never reach the terminal. Knows nothing of memories.
"""

from __future__ import annotations

import os
import shutil
import sys
import threading
import unicodedata
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import IO, Final

MIN_WIDTH: Final = 40
MAX_WIDTH: Final = 120

_CODES: Final = {
    "bold": "1",
    "dim": "2",
    "red": "31",
    "green": "32",
    "yellow": "33",
    "blue": "34",
    "cyan": "36",
}


def colour_wanted(stream: IO[str]) -> bool:
    """Whether escape sequences may be written to ``stream``."""
    if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return False
    # The console of Windows shows escape sequences as they are; its Terminal obeys them.
    if os.name == "nt" and not (os.environ.get("WT_SESSION") or os.environ.get("TERM")):
        return False
    return stream.isatty()


class Style:
    """Paints words for one stream, or leaves them as they are."""

    def __init__(self, stream: IO[str]) -> None:
        self.colour = colour_wanted(stream)

    def __call__(self, text: str, *styles: str) -> str:
        if not self.colour or not text or not styles:
            return text
        codes = ";".join(_CODES[name] for name in styles)
        return f"\x1b[{codes}m{text}\x1b[0m"


def width() -> int:
    """Columns to use: the terminal's (or COLUMNS), within what still reads well."""
    columns = shutil.get_terminal_size((100, 24)).columns
    return max(MIN_WIDTH, min(columns, MAX_WIDTH))


def printable(text: str) -> str:
    """``text`` on one line, without anything a terminal would obey."""
    joined = " ".join(text.split())
    if joined.isascii() and joined.isprintable():
        return joined
    return "".join(char if _harmless(char) else "\N{REPLACEMENT CHARACTER}" for char in joined)


def printable_lines(text: str) -> str:
    """``text`` with its line breaks, each line as ``printable`` but for leading spaces."""
    lines = []
    for line in text.expandtabs(4).splitlines():
        indent = len(line) - len(line.lstrip(" "))
        lines.append(" " * indent + printable(line))
    return "\n".join(lines)


def _harmless(char: str) -> bool:
    """Neither a control character nor one that turns the direction of writing."""
    category = unicodedata.category(char)
    return category not in ("Cc", "Cs") and char not in _BIDI


_BIDI: Final = frozenset(map(chr, (*range(0x202A, 0x202F), *range(0x2066, 0x206A))))


def cells(text: str) -> int:
    """How many columns ``text`` takes (UAX 11: wide and fullwidth characters take two)."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(char) else 1 + (unicodedata.east_asian_width(char) in "WF")
        for char in text
    )


def fit(text: str, columns: int) -> str:
    """``text`` cut to at most ``columns`` columns, with an ellipsis where it was cut."""
    if cells(text) <= columns:
        return text
    kept, used = [], 1
    for char in text:
        used += cells(char)
        if used > columns:
            break
        kept.append(char)
    return "".join(kept).rstrip() + "…"


def wrap(text: str, columns: int, *, limit: int | None = None) -> list[str]:
    """``text`` broken between words into lines of at most ``columns``; the last of ``limit`` cut.

    A word longer than a line is cut with an ellipsis.
    """
    lines: list[str] = []
    line = ""
    for word in text.split():
        longer = f"{line} {word}" if line else word
        if cells(longer) <= columns:
            line = longer
            continue
        if line:
            lines.append(line)
        if limit is not None and len(lines) >= limit:
            return [*lines[: limit - 1], fit(lines[limit - 1] + " " + word, columns)]
        line = fit(word, columns)
    return [*lines, line] if line else lines


def table(
    headers: Sequence[str], rows: Sequence[Sequence[str]], style: Style, *, columns: int
) -> list[str]:
    """Lines of a table; the last column takes what the others leave of ``columns``."""
    texts = [[printable(cell) for cell in row] for row in rows]
    widths = [
        max([cells(header), *(cells(row[place]) for row in texts)])
        for place, header in enumerate(headers)
    ]
    taken = sum(widths[:-1]) + 2 * (len(widths) - 1)
    widths[-1] = max(8, min(widths[-1], columns - taken))
    lines = [style(_line(headers, widths), "bold")]
    lines += [_line(row, widths) for row in texts]
    return lines


def _line(row: Sequence[str], widths: Sequence[int]) -> str:
    padded = []
    for cell, columns in zip(row, widths, strict=True):
        cut = fit(cell, columns)
        padded.append(cut + " " * (columns - cells(cut)))
    return "  ".join(padded).rstrip()


@contextmanager
def working(label: str, stream: IO[str] | None = None) -> Iterator[None]:
    """``label`` and the seconds so far on stderr, for work that takes more than one; then gone.

    For work that cannot say how far it is. Shows nothing where the stream is not a terminal.
    """
    shown_on = sys.stderr if stream is None else stream
    if not shown_on.isatty():
        yield
        return
    done = threading.Event()

    def show() -> None:
        seconds, text = 0, ""
        while not done.wait(1.0):
            seconds += 1
            text = f"{label} … {seconds} s"
            shown_on.write(f"\r{text}")
            shown_on.flush()
        if text:
            shown_on.write(f"\r{' ' * len(text)}\r")
            shown_on.flush()

    thread = threading.Thread(target=show, name="memdb-progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
