"""SIGKILL under load, a few dozen times: what ``python -m bench faults`` does five hundred."""

from __future__ import annotations

from pathlib import Path

from bench import faults


def test_nothing_acknowledged_is_lost_and_the_database_always_opens() -> None:
    outcome = faults.run(24, seed=7)
    assert outcome.healthy, outcome.messages
    assert outcome.kills >= 24
    assert outcome.operations > outcome.rounds, "the processes wrote before they were killed"


def test_a_process_killed_while_it_compacts_costs_nothing() -> None:
    """Rounds whose first process folds, merges, encodes and compacts all the time."""
    outcome = faults.run(6, seed=3, maintain_every=1)
    assert outcome.healthy, outcome.messages
    assert outcome.killed_compacting, "a kill fell into a compaction"


def test_a_log_says_what_a_database_must_hold(tmp_path: Path) -> None:
    """The judge itself: what it takes for lost, it finds."""
    import memdb

    path, log = tmp_path / "db", tmp_path / "w.log"
    with memdb.open(path, embedder="none") as db:
        db.remember("kept", external_id="a", vector=faults.vector_of("kept"))
    log.write_text('["begin", [["a", "kept"]]]\n["ack"]\n')
    outcome = faults.Outcome()
    faults.verify(path, [log], outcome, full_check=True)
    assert outcome.healthy
    log.write_text('["begin", [["a", "newer"]]]\n["ack"]\n["begin", [["a", "half')
    faults.verify(path, [log], outcome, full_check=False)
    assert outcome.lost == 1
    log.write_text('["begin", [["a", "newer"], ["b", "other"]]]\n')
    outcome = faults.Outcome()
    faults.verify(path, [log], outcome, full_check=False)
    assert outcome.lost == 1, "neither the text before nor the one in flight"
