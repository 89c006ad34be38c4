"""Linking where nobody else wants the core changes what is linked in nothing."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from memdb.index import graph_file
from memdb.index.slots import SlotSet
from tests.index.test_graph import clustered, link_all, made
from tests.index.test_graph_live import live_of


def test_changes_are_the_same_with_patience_in_vain_and_without(tmp_path: Path) -> None:
    vectors, files = clustered(900), []
    for patience_ms in (0, 60_000, 1):
        folder = tmp_path / str(patience_ms)
        folder.mkdir()
        index = made(folder, vectors)
        link_all(index, SlotSet.all(600))
        live = live_of(index)
        live.patience_ms = patience_ms
        for first in range(600, 900, 100):
            live.link(np.arange(first, first + 100, dtype=np.uint32))
        live.unlink(np.arange(0, 64, dtype=np.uint32))
        live.flush()
        live.close()
        files.append((folder / graph_file.NAME).read_bytes())
        index.close()
    assert files[0] == files[1] == files[2]


@pytest.mark.skipif(sys.platform != "linux", reason="Linux has threads that run when it is idle")
def test_a_change_that_waits_in_vain_is_made_by_who_asked(tmp_path: Path) -> None:
    """Of a hundred slots a change takes longer than the millisecond it may wait."""
    index = made(tmp_path, clustered(900, dim=64), "cosine")
    link_all(index, SlotSet.all(600))
    live = live_of(index)
    live.patience_ms = 1
    waits = [live._in_vain]  # type: ignore[attr-defined]
    for first in (600, 700):
        live.link(np.arange(first, first + 100, dtype=np.uint32))
        waits.append(live._in_vain)  # type: ignore[attr-defined]
    assert waits[0] == 0 and waits[1] == waits[2] + 1 > 1
    placed = live.is_placed(np.arange(800, dtype=np.uint32))
    assert placed.all()
    live.close()
    index.close()
