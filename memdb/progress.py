"""Progress of long work: a callable the caller gives, or a bar on a terminal.

Standard library only; writes to standard error, only if it is a terminal, and only once the work
has taken a second.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO

Progress = bool | Callable[[int, int | None], None] | None

_PATIENCE_S = 1.0
_EVERY_S = 0.1
_WIDTH = 30


class Bar:
    """One line that is rewritten in place."""

    def __init__(self, label: str, total: int | None, stream: TextIO) -> None:
        self._label = label
        self._total = total
        self._stream = stream
        self._started = self._shown = time.monotonic()
        self._visible = False

    def __call__(self, done: int) -> None:
        now = time.monotonic()
        if now - self._started < _PATIENCE_S or now - self._shown < _EVERY_S:
            return
        self._shown, self._visible = now, True
        rate = done / max(now - self._started, 1e-9)
        if self._total:
            filled = round(_WIDTH * min(1.0, done / self._total))
            bar = "█" * filled + "░" * (_WIDTH - filled)
            left = (self._total - done) / rate if rate else 0
            text = f"{self._label} {bar} {done:,}/{self._total:,}  {rate:,.0f}/s  {left:.0f} s left"
        else:
            text = f"{self._label} {done:,}  {rate:,.0f}/s"
        self._stream.write("\r\x1b[K" + text)
        self._stream.flush()

    def close(self) -> None:
        if self._visible:
            self._stream.write("\r\x1b[K")
            self._stream.flush()


@contextmanager
def reporting(progress: Progress, total: int | None, label: str) -> Iterator[Callable[[int], None]]:
    """A function to call with the amount done so far."""
    if callable(progress):
        yield lambda done: progress(done, total)
    elif progress and sys.stderr.isatty():
        bar = Bar(label, total, sys.stderr)
        try:
            yield bar
        finally:
            bar.close()
    else:
        yield lambda done: None
