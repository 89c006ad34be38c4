"""Nothing that a grant hides leaves a trace: a store without it answers to the byte the same.

``bench.grants`` asks ten thousand pairs in the same way; this is the short run of it, and the proof
that it would notice.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pyroaring import BitMap

from bench import grants
from memdb.access.view import View
from memdb.engine import Engine


def test_a_store_with_only_what_a_grant_shows_answers_to_the_byte_the_same(tmp_path: Path) -> None:
    asked, leaks = grants.leaks(tmp_path, 11, 300, (45,), each=25)
    assert asked == 300
    assert not leaks, leaks[0]


@pytest.mark.parametrize(
    "part, broken",
    [
        ("visible", lambda view, txn, now: None),
        ("shown_many", lambda view, txn, memories: list(memories)),
        ("shows", lambda view, memory: True),
        ("seen", lambda view, txn, rows: BitMap(rows)),
    ],
)
def test_the_comparison_notices_a_grant_that_is_not_kept(
    part: str, broken: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(View, part, broken)
    _, leaks = grants.leaks(tmp_path, 3, 40, (45,), each=8)
    assert leaks


def test_a_view_answers_all_that_an_engine_is_asked_of_who_looks() -> None:
    asked = [name for name, own in vars(View).items() if callable(own) and name in vars(Engine)]
    assert {"live", "seen", "shows", "shown", "visible", "documents"} <= set(asked)
