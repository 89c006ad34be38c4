"""What the tests of a database share: a clock that is moved by hand, and small vectors."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np

NOW = datetime(2025, 3, 1, 12, tzinfo=UTC)


class Clock:
    """A clock that stands still until it is moved."""

    def __init__(self, moment: datetime = NOW) -> None:
        self.moment = moment

    def now(self) -> datetime:
        return self.moment

    def advance(self, **length: float) -> None:
        self.moment += timedelta(**length)


def unit(*values: float) -> np.ndarray:
    """``values`` and zeros up to 8 dimensions."""
    vector = np.zeros(8, np.float32)
    vector[: len(values)] = values
    return vector
