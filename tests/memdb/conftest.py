"""A database without an embedder, in UTC, whose clock stands still."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import memdb
from tests.memdb.clock import Clock


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def db(tmp_path: Path, clock: Clock) -> Iterator[memdb.Database]:
    with memdb.open(tmp_path / "db", embedder="none", clock=clock) as opened:
        opened.settings.time_zone = "UTC"
        yield opened
