"""``erase``: what it reaches, that it is invisible at once, and that nothing brings it back."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import memdb
from memdb.retention import leaving
from memdb.storage import lookups, tables
from memdb.storage.ids import require_id
from tests.memdb.clock import Clock
from tests.memdb.full_store import small_steps

DAY = datetime(2024, 5, 1, tzinfo=UTC)


def vector(number: int) -> Any:
    return np.random.default_rng(number).standard_normal(16).astype(np.float32)


def raw(path: Path) -> bytes:
    """Every byte of every file below ``path``."""
    return b"".join(one.read_bytes() for one in sorted(path.rglob("*")) if one.is_file())


def test_what_is_erased_is_gone_from_every_face_at_once(db: memdb.Database) -> None:
    kept = db.remember("the garden gate is green", vector=vector(1))
    gone = db.remember(
        "quixotic plans of Ana",
        about=["Ana"],
        external_id="x1",
        stream="diary",
        tags=["plan"],
        event_time=DAY,
        vector=vector(2),
    )
    with db._maintenance.paused():  # nothing below depends on the scrub
        receipt = db.erase(about="Ana")
        assert receipt.state == "hidden"
        assert db.get(gone.id) is None
        assert db.get(external_id="x1") is None
        assert db.versions(gone.id) == []
        assert [m.id for m in db.iter()] == [kept.id]
        assert [m.id for m in db.list()] == [kept.id]
        assert db.count({"tags": "plan"}) == 0
        assert db.values("tags") == []
        assert not db.recall("quixotic", mode="lexical")
        assert [h.id for h in db.recall(vector=vector(2), mode="vector")] == [kept.id]
        assert [h.id for h in db.recall_within(9.0, vector=vector(2))] == [kept.id]
        assert list(db.history.range(stream="diary")) == []
        assert db.context("quixotic").items == ()
        assert db.check()["ok"]
    assert receipt.wait().state == "scrubbed"
    assert db.get(kept.id) is not None
    assert db.check()["ok"]


def test_derived_memories_versions_facts_and_the_trash_go_with_it(
    db: memdb.Database, clock: Clock
) -> None:
    source = db.remember("zzfirst of Ana", about=["Ana"])
    db.update(source.id, text="zzsecond of Ana")
    inferred = db.remember("zzthird", derived_from=[source.id])
    further = db.remember("zzfourth", derived_from=[inferred.id])
    fact = db.profile.set("birthday", "zzfifth", subject="Ana")
    thrown = db.remember("zzsixth", about=["Ana"])
    db.forget(thrown.id)
    over = db.remember("zzseventh", about=["Ana"], expires_in="1h")
    clock.advance(hours=2)
    mention = db.remember("Ana called zzeighth")
    report = db.report(about="Ana")
    assert {m.id for m in report.items} == {source.id, fact.id}
    assert {m.id for m in report.hidden} == {thrown.id, over.id}
    assert {m.id for m in report.derived} == {inferred.id, further.id}
    assert [m.id for m in report.mentions] == [mention.id]
    receipt = db.erase(about="Ana")
    assert dict(receipt.counts) == dict(report.counts)
    assert receipt.counts["memories"] == 4
    assert (receipt.counts["derived"], receipt.counts["versions"]) == (2, 1)
    receipt.wait()
    assert [m.id for m in db.iter()] == [mention.id]
    assert db.trash() == []
    with pytest.raises(memdb.NotFound):
        db.restore(thrown.id)
    assert db.profile.get("birthday", subject="Ana") is None
    assert db.check()["ok"]
    left = raw(db.path)
    for word in (
        b"zzfirst",
        b"zzsecond",
        b"zzthird",
        b"zzfourth",
        b"zzfifth",
        b"zzsixth",
        b"zzsev",
    ):
        assert word not in left
    assert b"zzeighth" in left


def test_only_a_selector_that_names_something_erases(db: memdb.Database) -> None:
    db.remember("kept")
    for words in ({}, {"where": {}}):
        with pytest.raises(memdb.InvalidArgument):
            db.erase(**words)
    receipt = db.erase(where={"tags": "nobody"})
    assert receipt.state == "scrubbed"
    assert receipt.counts["memories"] == 0
    assert db.count() == 1


def test_no_table_of_the_store_names_an_erased_row_or_id(db: memdb.Database) -> None:
    ids = [
        db.remember(
            f"word{n}", external_id=f"e{n}", stream="s", tags=[f"t{n}"], vector=vector(n)
        ).id
        for n in range(20)
    ]
    db.remember("to be kept", stream="s", tags=["t3"], vector=vector(99))
    db.erase(ids).wait()
    with db._engine.store.read() as txn:
        for name in (tables.RECORDS, tables.IDS, tables.FORWARD, tables.VECTORS, tables.STREAMS):
            assert txn.count(name) == 1, name
        assert txn.count(tables.EXTERNAL) == 1  # the content key of what was kept
        assert txn.count(tables.POSTINGS) + txn.count(tables.FRESH_FORWARD) >= 1
        rows = db._engine.filters.get_set(txn, "live")
        assert rows == db._engine.filters.present(txn, "namespace")
        assert db._engine.filters.equals(txn, "tags", "t3") == rows
    assert db.values("tags") == [("t3", 1)]


def test_an_erased_external_id_stays_taken(db: memdb.Database) -> None:
    db.remember("first", external_id="x")
    db.erase(where={"external_id": "x"}).wait()
    with pytest.raises(memdb.Conflict, match="erased"):
        db.remember("again", external_id="x")
    for policy in ("skip", "replace"):
        written = db.remember("again", external_id="x", on_conflict=policy)
        assert written.status == "erased"
    assert db.count() == 0
    assert db.remember("again", external_id="y").status == "inserted"
    assert db.remember("first").status == "inserted", (
        "the same words, told anew, are another memory"
    )


def test_an_import_does_not_bring_back_memories_or_samples(
    db: memdb.Database, tmp_path: Path
) -> None:
    gone, kept = db.remember("gone"), db.remember("kept")
    samples = [
        db.history.append("pulse", data={"bpm": n}, event_time=DAY + timedelta(minutes=n)).id
        for n in range(3)
    ]
    db.export(tmp_path / "life.jsonl")
    db.erase([gone.id, samples[1]]).wait()
    assert db.import_(tmp_path / "life.jsonl") == 0
    assert [m.id for m in db.iter()] == [kept.id]
    assert [m.data for m in db.history.range("pulse")] == [{"bpm": 0}, {"bpm": 2}]


def test_samples_are_erased_from_sealed_blocks_and_fresh_rows(db: memdb.Database) -> None:
    db.history.append_many("pulse", [(DAY + timedelta(seconds=n), {"bpm": n}) for n in range(2500)])
    ids = [m.id for m in db.history.range("pulse")]
    picked = [ids[5], ids[1500], ids[2499]]
    db.forget(ids[1500])
    receipt = db.erase(picked)
    assert receipt.counts["samples"] == 3
    receipt.wait()
    assert [m.data["bpm"] for m in db.history.range("pulse")] == [
        n for n in range(2500) if n not in (5, 1500, 2499)
    ]
    assert db.trash() == []
    assert db.check()["ok"]


def test_a_sync_does_not_bring_erased_chunks_back(db: memdb.Database, tmp_path: Path) -> None:
    root = tmp_path / "notes"
    root.mkdir()
    (root / "a.md").write_text("# One\n\nfirst zzword here.\n\n# Two\n\nsecond word here.\n")
    (root / "zzsecret.md").write_text("# Three\n\nonly zzthing here.\n")
    db.files.sync(root)
    before = db.count()
    receipt = db.erase([h.id for h in db.recall("zzword", mode="lexical")])
    assert receipt.counts["chunks"] == 1
    receipt.wait()
    db.erase([h.id for h in db.recall("zzthing", mode="lexical")]).wait()
    assert db.count() == before - 2
    (root / "a.md").write_text((root / "a.md").read_text() + "\n# Four\n\nnew words.\n")
    report = db.files.sync(root)
    assert report.updated == ("a.md",)
    assert [(s.path, s.reason) for s in report.skipped] == [
        ("zzsecret.md", "its content was erased")
    ]
    assert db.count() == before - 1
    assert not db.recall("zzword", mode="lexical")
    assert b"zzsecret" not in raw(db.path)
    assert b"zzthing" not in raw(db.path)
    assert db.check()["ok"]


def test_a_record_frozen_and_written_again_leaves_nothing_in_its_block(
    db: memdb.Database, clock: Clock
) -> None:
    written = db.remember_many([{"text": f"old{n} zztext", "tags": ["zzold"]} for n in range(64)])
    clock.advance(days=40)
    db.compact()
    db.update(written[7].id, tags=["new"])  # hot again, with its former bytes in the block
    db.erase(written[7].id).wait()
    with db._engine.store.read() as txn:
        blocks = list(txn.scan(tables.COLD))
        held = db._engine.records.get_many(txn, range(64))
    from memdb.storage import cold

    texts = [m.text for _, block in blocks for m in cold.decode(block) if m is not None]
    assert len(texts) == 63
    assert "old7 zztext" not in texts
    assert len(held) == 63
    assert db.check()["ok"]


def test_a_blob_goes_unless_another_memory_holds_the_same_text(db: memdb.Database) -> None:
    text = " ".join(f"word{n}" for n in range(12_000))
    first = db.remember(text, external_id="a")
    second = db.remember(text, external_id="b")
    db.erase(first.id).wait()
    assert db[second.id].text == text
    db.erase(second.id).wait()
    assert list((db.path / "blob").iterdir()) == []
    assert db.check()["ok"]


def test_receipts_are_a_chain_that_check_verifies(db: memdb.Database) -> None:
    for n in range(3):
        db.erase(db.remember(f"secret{n}").id).wait()
    found = db.receipts()
    assert [one.state for one in found] == ["scrubbed"] * 3
    assert [one.previous for one in found[1:]] == [one.hash for one in found[:-1]]
    assert all("secret" not in str(one.to_dict()) for one in found)
    key = b"receipt/" + (3).to_bytes(4, "big")

    def forge(txn: Any) -> None:
        payload = txn.get(tables.META, key)
        txn.put(tables.META, key, payload.replace(b"memories\x01", b"memories\x02"))

    db._engine.store.write(forge)
    with pytest.raises(memdb.StoreCorrupt):
        db.receipts()
    assert not db.check()["ok"]


def test_an_interrupted_erase_is_finished_by_the_next_open(tmp_path: Path, clock: Clock) -> None:
    db = memdb.open(tmp_path / "db", embedder="none", clock=clock)
    gone = db.remember("zzgone", vector=vector(1))
    with db._maintenance.paused():
        receipt = db.erase(gone.id)
        db._maintenance._stopping = True  # as if killed right after the commit
    db.close()
    assert receipt.id
    with memdb.open(tmp_path / "db", embedder="none", clock=clock) as again:
        (found,) = again.receipts()
        assert found.wait().state == "scrubbed"
        assert b"zzgone" not in raw(tmp_path / "db")


@pytest.mark.parametrize("restore", ["in place", "elsewhere", "unregistered"])
def test_a_snapshot_is_erased_in_too_however_it_is_restored(
    tmp_path: Path, clock: Clock, restore: str
) -> None:
    path, copy, moved = tmp_path / "db", tmp_path / "copy", tmp_path / "moved"
    with memdb.open(path, embedder="none", clock=clock) as db:
        gone = db.remember("zzgone of Ana", vector=vector(1), external_id="g")
        kept = db.remember("kept", vector=vector(2))
        db.snapshot(copy)
        if restore == "unregistered":  # out of reach while the erasure is done
            copy.rename(moved)
        receipt = db.erase(gone.id).wait()
        unreached = [text for text in receipt.out_of_reach if "snapshot" in text]
        assert bool(unreached) == (restore == "unregistered")
    target = {"in place": copy, "elsewhere": copy, "unregistered": moved}[restore]
    if restore == "elsewhere":
        copy.rename(moved)
        target = moved
    if restore != "unregistered":
        assert b"zzgone" not in raw(target)
    else:
        assert b"zzgone" in raw(target)
        with pytest.raises(memdb.PermissionDenied):
            memdb.open(target, embedder="none", clock=clock, readonly=True)
    with memdb.open(target, embedder="none", clock=clock) as restored:
        assert restored.get(gone.id) is None, "before its first read"
        assert [h.id for h in restored.recall(vector=vector(1), mode="vector")] == [kept.id]
        for one in restored.receipts():
            one.wait()
        with pytest.raises(memdb.Conflict):
            restored.remember("zzagain", external_id="g")
        assert restored.check()["ok"]
    assert b"zzgone" not in raw(target)


def test_a_snapshot_that_comes_within_reach_later_is_erased_in_by_the_next_open(
    tmp_path: Path, clock: Clock
) -> None:
    path, copy, away = tmp_path / "db", tmp_path / "copy", tmp_path / "away"
    with memdb.open(path, embedder="none", clock=clock) as db:
        gone = db.remember("zzgone", vector=vector(1))
        db.snapshot(copy)
        copy.rename(away)
        receipt = db.erase(gone.id).wait()
        assert any("snapshot" in text for text in receipt.out_of_reach)
    away.rename(copy)
    with memdb.open(path, embedder="none", clock=clock) as db:
        db._maintenance.drain()
        (found,) = db.receipts()
        assert not any("snapshot" in text for text in found.out_of_reach)
        assert db.check()["ok"]
    assert b"zzgone" not in raw(copy)


def test_an_update_under_way_does_not_bring_back_what_was_erased(db: memdb.Database) -> None:
    written = db.remember("zzgone")
    prepare = db._writer.prepare

    def erase_first(drafts: Any, now: Any) -> Any:
        db.erase(written.id)
        return prepare(drafts, now)

    db._writer.prepare = erase_first  # type: ignore[method-assign]
    with pytest.raises((memdb.NotFound, memdb.Conflict)):
        db.update(written.id, text="zzgone and more")
    db.receipts()[0].wait()
    assert db.count() == 0
    assert b"zzgone" not in raw(db.path)


def test_what_retention_evicted_goes_with_an_erasure_to_the_last_slot(
    db: memdb.Database,
) -> None:
    engine = db._engine
    with small_steps():
        written = db.remember_many(
            [{"text": f"zzword{n} of it", "vector": vector(n), "about": ["Ana"]} for n in range(80)]
        )
        db._maintenance.drain()
        with db._maintenance.paused():
            with engine.store.read() as txn:
                rows = [lookups.row_of(txn, require_id(one.id)) or 0 for one in written]
            _evict(db, rows[:5])
            while leaving.step(engine):
                pass  # removed from LMDB; their vectors are in their slots
            _evict(db, rows[5:10])  # not removed yet
            files = raw(db.path / "space")
            # A vector that was rounded before it was encoded may differ in a bit.
            patterns = [one for one in (_record(db, vector(n)) for n in range(80)) if one in files]
            assert len(patterns) > 40
            assert any(_record(db, vector(n)) in files for n in range(5)), "evicted, and there"
            report = db.report(about="Ana")
            assert {m.id for m in report.hidden} == {one.id for one in written[5:10]}
            receipt = db.erase(about="Ana")
            assert receipt.counts["memories"] == 75
        receipt.wait()
    assert not any(one in raw(db.path / "space") for one in patterns)
    assert b"zzword" not in raw(db.path)
    assert db.check()["ok"]


def _evict(db: memdb.Database, rows: list[int]) -> None:
    engine = db._engine

    def hide(txn: Any) -> None:
        leaving.hide(txn, engine, list(engine.records.get_many(txn, rows).items()))

    engine.store.write(hide)


def _record(db: memdb.Database, given: Any) -> bytes:
    """The bytes at which a space keeps a vector, without slot, scale and norm."""
    engine = db._engine
    with engine.store.read() as txn:
        space = engine.space_named(txn, None)
        assert space is not None
        files = engine.vectors(space).layout_view(txn).files
    assert files is not None
    return bytes(files.encode(given[None, :]).records[0, 12:-4].tobytes())


def test_what_resembled_it_does_not_name_it_any_more(db: memdb.Database, clock: Clock) -> None:
    gone = db.remember("zzgone", vector=vector(1))
    kept = db.remember("resembles it", vector=vector(2))
    engine = db._engine
    row = _row(db, kept.id)

    def link(txn: Any) -> None:
        memory = engine.records.get(txn, row)
        assert memory is not None
        engine.records.put(txn, row, memory.replace(links=(gone.id,)))

    engine.store.write(link)
    db.update(kept.id, tags=["now"])  # its version names it too
    db.erase(gone.id).wait()
    assert db[kept.id].links == ()
    assert gone.id.encode() not in raw(db.path)
    assert db.check()["ok"]


def _row(db: memdb.Database, id: str) -> int:
    with db._engine.store.read() as txn:
        row = lookups.row_of(txn, require_id(id))
    assert row is not None
    return row


def test_erasing_again_and_again_keeps_the_store_small(db: memdb.Database) -> None:
    for n in range(3):
        ids = [w.id for w in db.remember_many([{"text": f"zz{n} word{m}"} for m in range(40)])]
        db.erase(ids).wait()
    assert db.count() == 0
    assert [one.name for one in (db.path / "kv").iterdir() if one.is_dir()] == [
        f"g{db.stats()['generation']:010d}"
    ]
    assert db.check()["ok"]


def test_without_the_lease_the_holder_does_the_work_and_is_named_when_it_does_not(
    tmp_path: Path,
) -> None:
    path = tmp_path / "db"
    code = "import sys, memdb\nwith memdb.open(sys.argv[1], embedder='none') as db:\n"
    code += (
        "    assert db._maintenance.drain()\n    print('held', flush=True)\n    sys.stdin.read()\n"
    )
    memdb.open(path, embedder="none").close()
    holder = subprocess.Popen(
        [sys.executable, "-c", code, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    with memdb.open(path, embedder="none") as db:
        gone = db.remember("zzgone")
        holder.send_signal(signal.SIGSTOP)
        try:
            receipt = db.erase(gone.id)
            assert db.get(gone.id) is None
            with pytest.raises(memdb.LockHeld) as caught:
                receipt.wait(0.1)
            assert caught.value.pid == holder.pid
        finally:
            holder.send_signal(signal.SIGCONT)
        assert receipt.wait().state == "scrubbed"
        assert not db._engine.store.lease.held
    holder.communicate()
    assert b"zzgone" not in raw(path)


def test_a_snapshot_taken_while_an_erasure_waits_finishes_it(
    db: memdb.Database, tmp_path: Path
) -> None:
    gone = db.remember("zzgone", vector=vector(1))
    with db._engine.store.read():  # keeps the generation, and so the erasure from its end
        receipt = db.erase(gone.id)
        _until(lambda: db._engine.store.others() != [])
        db.snapshot(tmp_path / "copy")
        assert receipt.state == "hidden"
        with pytest.raises(memdb.LockHeld) as caught:
            receipt.wait(0.05)
        assert caught.value.pid > 0
    receipt.wait()
    assert b"zzgone" not in raw(tmp_path / "copy")
    assert b"zzgone" not in raw(db.path)


def _until(true: Callable[[], bool]) -> None:
    import time

    stop = time.monotonic() + 30
    while not true():
        assert time.monotonic() < stop
        time.sleep(0.002)
