"""``erase(confirm_count=)``: what a report counted is erased, or nothing."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

import memdb

DAY = datetime(2024, 5, 1, tzinfo=UTC)


def test_only_what_was_confirmed_is_erased(db: memdb.Database) -> None:
    """The number is looked at in the transaction that erases, so that nothing slips in between."""
    source = db.remember("one of Ana", about=["Ana"])
    db.remember("inferred", derived_from=[source.id])
    thrown = db.remember("thrown away", about=["Ana"])
    db.forget(thrown.id)
    sample = db.history.append("pulse", data={"bpm": 60}, event_time=DAY, stream="watch")
    known = db.report(about="Ana")
    assert known.total == 3
    db.remember("two of Ana", about=["Ana"])  # after the report was looked at
    with pytest.raises(memdb.Conflict, match="confirm_count"):
        db.erase(about="Ana", confirm_count=known.total)
    assert (db.count(), db.report(about="Ana").total, db.receipts()) == (3, 4, [])
    for wrong in (-1, True, "4"):
        with pytest.raises(memdb.InvalidArgument, match="confirm_count"):
            db.erase(about="Ana", confirm_count=wrong)  # type: ignore[arg-type]
    receipt = db.erase(about="Ana", confirm_count=4)
    assert (receipt.counts["memories"], receipt.counts["derived"]) == (3, 1)
    assert db.report(ids=sample.id).total == 1
    assert db.erase(ids=sample.id, confirm_count=1).counts["samples"] == 1
    assert db.erase(about="Ana", confirm_count=0).state == "scrubbed"
