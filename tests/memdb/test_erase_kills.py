"""An erasure that is killed: what ``python -m bench erase --only kills`` does a hundred times."""

from __future__ import annotations

from pathlib import Path

from bench import erase


def test_an_erasure_killed_anywhere_is_finished_or_was_never_begun(tmp_path: Path) -> None:
    outcome = erase.kills(tmp_path, rounds=2, seed=11, count=8)
    assert outcome.healthy, outcome
    assert outcome.rounds == outcome.finished + outcome.not_begun == 2
    assert outcome.events > 30, "there was something to be killed in"
