"""The audit: every call leaves a row, no row can be changed unseen, and an erasure reaches it."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import memdb
from memdb import Grant, NotFound, PermissionDenied, Principal, StoreFull
from memdb.access.grant import ACTIONS
from memdb.storage import audit, audit_log, tables


@pytest.fixture
def db(tmp_path: Path) -> Iterator[memdb.Database]:
    with memdb.open(tmp_path / "life", embedder="none", namespace="home") as opened:
        yield opened


def agent(db: memdb.Database, **call: Any) -> memdb.Acting:
    return db.acting(Principal("planner", Grant(actions=ACTIONS, namespace="home")), **call)


def rows(db: memdb.Database, **wanted: Any) -> list[memdb.AuditRow]:
    """Oldest first."""
    return list(reversed(db.audit.rows(**wanted).items))


def log_files(db: memdb.Database) -> list[Path]:
    return [one.path for one in audit_log.files(db.path)]


def reopened(db: memdb.Database) -> memdb.Database:
    path = db.path
    db.close()
    return memdb.open(path, embedder="none", namespace="home")


# --- what a row tells -----------------------------------------------------------------------


def test_a_row_says_who_did_what_when_why_and_how(db: memdb.Database) -> None:
    made = db.tokens.create("planner", Grant(actions=["read", "add"], namespace="home"))
    principal = db.tokens.authenticate(made.secret)
    acting = db.acting(principal, purpose="dinner", transport="mcp", tool="memory_search")
    written = acting.remember("Ana is allergic to peanuts", about=["Ana"])
    acting.recall("what can Ana eat?", where={"about": "Ana"})
    with pytest.raises(PermissionDenied):
        acting.forget(written.id)
    add, read, refused = rows(db)
    for row in (add, read, refused):
        assert (row.principal, row.purpose, row.transport) == ("planner", "dinner", "mcp")
        assert row.rule == f"grant of token {made.id}"
        assert row.tool == "memory_search"
    assert (add.writer, add.action, add.ids, add.where) == ("store", "add", (written.id,), None)
    assert (read.action, read.ids, read.count) == ("read", (written.id,), 1)
    assert read.where == '{"where":{"about":"Ana"}}'
    assert (refused.action, refused.outcome, refused.ids) == ("forget", "permission_denied", ())


def test_what_was_asked_in_words_is_kept_only_where_the_owner_says_so(db: memdb.Database) -> None:
    acting = agent(db)
    acting.recall("where are the keys")
    acting.settings.audit_query_text = True
    acting.recall("where is the wallet")
    assert [row.query for row in rows(db) if row.tool == "recall"] == [None, "where is the wallet"]
    for file in log_files(db):
        assert b"keys" not in file.read_bytes()


def test_every_verb_leaves_one_row(db: memdb.Database, tmp_path: Path) -> None:
    acting = agent(db)
    first = acting.remember("one", about=["Ana"])
    other = acting.remember("two")
    folder = tmp_path / "notes"
    folder.mkdir()
    (folder / "a.md").write_text("# A\n\na note\n", encoding="utf-8")
    calls = {
        "remember_many": lambda: acting.remember_many(["three", "four"]),
        "get": lambda: acting.get(first.id),
        "get_many": lambda: acting.get_many([first.id, other.id]),
        "update": lambda: acting.update(first.id, tags=["x"]),
        "versions": lambda: acting.versions(first.id),
        "count": lambda: acting.count(),
        "iter": lambda: list(acting.iter()),
        "list": lambda: acting.list(),
        "values": lambda: acting.values("kind"),
        "namespaces": lambda: acting.namespaces(),
        "recall": lambda: acting.recall("one"),
        "context": lambda: acting.context("one"),
        "timeline": lambda: acting.timeline(),
        "stats": lambda: acting.stats(),
        "feedback": lambda: acting.feedback(acting.recall("one").search_id or "", [first.id]),
        "forget": lambda: acting.forget(other.id),
        "trash": lambda: acting.trash(),
        "restore": lambda: acting.restore(other.id),
        "report": lambda: acting.report(about="Ana"),
        "export": lambda: acting.export(tmp_path / "out.jsonl"),
        "profile.set": lambda: acting.profile.set("city", "Rome"),
        "profile.fact": lambda: acting.profile.get("city"),
        "profile.items": lambda: acting.profile.items(),
        "profile.versions": lambda: acting.profile.versions("city"),
        "profile.delete": lambda: acting.profile.delete("city"),
        "history.append": lambda: acting.history.append("pulse", data=61),
        "history.range": lambda: list(acting.history.range("pulse")),
        "files.sync": lambda: acting.files.sync(folder),
        "files.status": lambda: acting.files.status(),
        "spaces.list": lambda: acting.spaces.list(),
        "retention.status": lambda: acting.retention.status(),
        "settings.to_dict": lambda: acting.settings.to_dict(),
        "tokens.list": lambda: acting.tokens.list(),
        "audit.rows": lambda: acting.audit.rows(),
        "erase": lambda: acting.erase(other.id),
    }
    for verb, call in calls.items():
        before = len(rows(db, limit=1000))
        call()
        new = rows(db, limit=1000)[before:]
        assert verb in [row.tool for row in new], verb
        assert len(new) == (2 if verb == "feedback" else 1), verb
        assert all(row.outcome == "ok" for row in new), verb
    assert db.audit.verify().ok


def test_a_row_of_a_write_is_committed_with_it_or_not_at_all(db: memdb.Database) -> None:
    acting = agent(db)
    acting.remember("mine", external_id="x-1")
    with pytest.raises(memdb.Conflict):
        acting.remember("mine again", external_id="x-1")
    with pytest.raises(NotFound):
        acting.update("01M8G343ZR8T9BNTV8SZNTP2JT", tags=["x"])
    assert [(row.writer == "store", row.outcome) for row in rows(db)] == [
        (True, "ok"),
        (False, "conflict"),
        (False, "not_found"),
    ]


def test_an_iteration_is_told_before_it_is_given(db: memdb.Database) -> None:
    ids = [written.id for written in db.remember_many([f"memory {n}" for n in range(300)])]
    found = agent(db).iter()
    assert rows(db) == []
    next(found)
    assert [row.ids for row in rows(db)] == [tuple(ids[:256])]
    list(found)
    assert [row.count for row in rows(db)] == [256, 44]


def test_rows_are_filtered_and_paged_the_latest_first(db: memdb.Database) -> None:
    acting, owner = agent(db), db.acting(db.tokens.owner())
    for number in range(5):
        acting.remember(f"memory {number}")
        owner.count()
    everything = db.audit.rows(limit=100).items
    assert [row.at for row in everything] == sorted((row.at for row in everything), reverse=True)
    assert {row.action for row in db.audit.rows(principal="owner").items} == {"read"}
    assert len(db.audit.rows(action="add").items) == 5
    assert db.audit.rows(before="2020").items == ()
    paged, cursor = [], None
    while True:
        page = db.audit.rows(limit=3, cursor=cursor)
        paged += page.items
        cursor = page.next_cursor
        if cursor is None:
            break
    assert tuple(paged) == everything


def test_where_no_row_can_be_left_nothing_is_answered(
    db: memdb.Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    acting = agent(db)
    acting.remember("a memory")
    acting.count()

    def full(file: int, data: bytes) -> int:
        os.pwrite(file, data[: len(data) // 2], os.fstat(file).st_size)
        raise OSError(errno.ENOSPC, "no space")

    with monkeypatch.context() as patched:
        patched.setattr(audit_log.os, "write", full)
        with pytest.raises(StoreFull):
            acting.recall("memory")
        with pytest.raises(StoreFull):
            acting.get("01M8G343ZR8T9BNTV8SZNTP2JT")
    assert acting.count() == 1
    assert db.audit.verify() == memdb.AuditVerdict(ok=True, rows=3)


def test_a_file_that_cannot_be_begun_is_tried_again(
    db: memdb.Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(file: int, data: bytes) -> int:
        raise OSError(errno.ENOSPC, "no space")

    with monkeypatch.context() as patched:
        patched.setattr(audit_log.os, "write", full)
        with pytest.raises(StoreFull):
            agent(db).count()
    assert log_files(db) == []
    assert agent(db).count() == 0
    assert db.audit.verify() == memdb.AuditVerdict(ok=True, rows=1)


def test_a_database_that_is_open_read_only_answers_nobody(tmp_path: Path) -> None:
    memdb.open(tmp_path / "life", embedder="none").close()
    with memdb.open(tmp_path / "life", readonly=True) as db:
        with pytest.raises(PermissionDenied):
            db.acting(db.tokens.owner()).count()
        assert db.audit.verify().ok
        assert db.tokens.list() == []


# --- the chain --------------------------------------------------------------------------------


@pytest.fixture
def told(db: memdb.Database) -> memdb.Database:
    """A database with ten rows of reads in a file, all of them anchored."""
    db.remember("a memory")
    for _ in range(10):
        agent(db).count()
    return reopened(db)


def test_any_changed_byte_is_found_and_its_row_named(told: memdb.Database) -> None:
    with told:
        (path,) = log_files(told)
        content = path.read_bytes()
        offsets = [offset for offset, _ in audit_log.rows_in(content)]
        start, size = offsets[4], offsets[5] - offsets[4]
        for at in (0, 2, 7, 15, size // 3, size // 2, 2 * size // 3, size - 1):
            changed = bytearray(content)
            changed[start + at] ^= 0x40
            path.write_bytes(changed)
            verdict = told.audit.verify()
            assert not verdict.ok
            assert f"{path.name}: row 5 " in str(verdict.first_bad), at
        path.write_bytes(content)
        assert told.audit.verify().ok


def test_a_row_taken_out_swapped_or_written_anew_is_found(told: memdb.Database) -> None:
    with told:
        (path,) = log_files(told)
        content = path.read_bytes()
        found = [raw for _, raw in audit_log.rows_in(content)]
        head = content[: audit_log.HEADER_BYTES]
        forged = list(found)
        link = audit.unpack(found[8]).link
        row = audit.unpack(found[9])
        assert row.what is not None
        forged[9], _ = audit.pack(link, 10, row.at_us, audit.encode(row.who), b"\x97\xc4\x00")
        for other in (
            found[:4] + found[5:],
            [*found[:4], found[5], found[4], *found[6:]],
            found[1:],
            forged,
        ):
            path.write_bytes(head + b"".join(other))
            assert not told.audit.verify().ok
        path.write_bytes(content)
        assert told.audit.verify() == memdb.AuditVerdict(ok=True, rows=10)


def test_a_log_cut_off_before_its_anchor_or_gone_is_found(told: memdb.Database) -> None:
    with told:
        (path,) = log_files(told)
        content = path.read_bytes()
        last = [offset for offset, _ in audit_log.rows_in(content)][-1]
        path.write_bytes(content[:last])
        assert "row 10 is missing" in str(told.audit.verify().first_bad)
        path.write_bytes(content[: last + 20])
        assert "row 10 is missing" in str(told.audit.verify().first_bad)
        path.unlink()
        assert "row 1 is missing" in str(told.audit.verify().first_bad)


def test_a_last_row_that_a_crash_cut_off_is_told_and_harmless(told: memdb.Database) -> None:
    with told:
        (path,) = log_files(told)
        content = path.read_bytes()
        _, last = list(audit_log.rows_in(content))[-1]
        for torn in (last[:10], last[:-1], bytes(300)):
            path.write_bytes(content + torn)
            assert told.audit.verify() == memdb.AuditVerdict(ok=True, rows=10, lost_tail=1)
            assert len(told.audit.rows().items) == 10


def test_rows_of_writes_are_a_chain_too(db: memdb.Database) -> None:
    for number in range(4):
        agent(db).remember(f"memory {number}")
    store = db._engine.store
    key = (2).to_bytes(8, "big")
    with store.read() as txn:
        kept = txn.get(tables.AUDIT, key)
    assert kept is not None
    changed = kept[:-3] + bytes((kept[-3] ^ 1,)) + kept[-2:]
    store.write(lambda txn: txn.put(tables.AUDIT, key, changed))
    assert "row 2 was changed" in str(db.audit.verify().first_bad)
    assert not db.check()["ok"]
    store.write(lambda txn: txn.delete(tables.AUDIT, key))
    assert "row 2 is missing" in str(db.audit.verify().first_bad)
    store.write(lambda txn: txn.put(tables.AUDIT, key, kept))
    assert db.audit.verify().ok
    store.write(lambda txn: txn.delete(tables.AUDIT, (4).to_bytes(8, "big")))
    assert "row 4 is missing" in str(db.audit.verify().first_bad)


def test_a_full_file_is_followed_by_the_next_in_one_chain(
    db: memdb.Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit_log, "ROTATE_BYTES", 1_000)
    for _ in range(20):
        agent(db).count()
    with reopened(db) as again:
        files = log_files(again)
        assert len(files) > 2
        assert again.audit.verify() == memdb.AuditVerdict(ok=True, rows=20)
        content = files[1].read_bytes()
        files[1].unlink()
        assert "row" in str(again.audit.verify().first_bad)
        files[1].write_bytes(content)
        assert again.audit.verify().ok


def test_heads_are_anchored_every_thousand_rows(
    db: memdb.Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit_log, "ANCHOR_ROWS", 50)
    anchored = threading.Event()
    recorder = db._shared.access.recorder
    commit = recorder._anchor

    def told(writer: str, head: audit.Head) -> None:
        commit(writer, head)
        if head.seq >= 50:
            anchored.set()

    monkeypatch.setattr(recorder, "_anchor", told)
    for _ in range(60):
        agent(db).namespaces()
    assert anchored.wait(40)
    with db._engine.store.read() as txn:
        (head,) = [one for name, one in audit.heads(txn).items() if name != audit.STORE]
    assert head.seq >= 50


_READER = """
import sys, memdb
from memdb import Principal, Grant
db = memdb.open(sys.argv[1], embedder="none", namespace="home")
acting = db.acting(Principal("planner", Grant(namespace="home")))
print("ready", flush=True)
number = 0
while True:
    acting.count()
    number += 1
    if number % 20 == 0:
        acting.remember(f"memory {number}")
    print(number, flush=True)
"""


def test_a_process_killed_while_it_tells_leaves_a_chain_that_holds(db: memdb.Database) -> None:
    child = subprocess.Popen(
        [sys.executable, "-c", _READER, str(db.path)], stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    answered = 0
    for line in child.stdout:
        if line.strip().isdigit():
            answered = int(line)
        if answered == 150:
            break
    child.send_signal(signal.SIGKILL)
    rest = child.stdout.read().split()
    child.wait()
    answered = max(answered, *(int(word) for word in rest if word.isdigit()), answered)
    verdict = db.audit.verify()
    assert verdict.ok
    counts = sum(row.tool == "count" for row in db.audit.rows(limit=10_000).items)
    assert counts >= answered
    assert sum(row.action == "add" for row in db.audit.rows(limit=10_000).items) >= answered // 20


def test_rewriting_the_store_keeps_the_rows_of_writes_and_tokens(db: memdb.Database) -> None:
    secret = db.tokens.create("planner").secret
    agent(db).remember("a memory")
    before = rows(db)
    db.compact()
    assert rows(db) == before
    assert db.audit.verify().ok
    assert db.tokens.authenticate(secret).name == "planner"


# --- erasing ------------------------------------------------------------------------------------


def test_an_erasure_takes_what_it_is_about_out_of_the_audit(
    db: memdb.Database, tmp_path: Path
) -> None:
    db.settings.audit_query_text = True
    acting = agent(db, purpose="dinner")
    secret = "the heliotrope marmoset sleeps at noon"
    gone = acting.remember(secret, tags=["zoological"], about=["Quirinius"])
    kept = acting.remember("plain words that stay")
    acting.get(gone.id)
    acting.get(kept.id)
    acting.recall("where is the marmoset")
    acting.recall("which plain words stay")
    acting.count({"about": "Quirinius"})
    acting.count({"tags": "zoological"})
    acting.list({"kind": "note"})
    copy = db.snapshot(tmp_path / "copy")
    acting.erase(about="Quirinius").wait(30)
    canaries = [
        memdb.Canary(secret, id=gone.id),
        memdb.Canary("Quirinius"),
        memdb.Canary("zoological"),
        memdb.Canary("marmoset"),
    ]
    found = memdb.scan_erased(db.path, canaries)
    assert found.clean, found.found
    verdict = db.audit.verify()
    assert verdict.ok
    assert verdict.blanked == 6
    assert verdict.rows == len(rows(db)) == 10
    left = rows(db)
    assert [row.tool for row in left if row.blanked] == [
        "remember",
        "get",
        "recall",
        "count",
        "count",
        "list",
    ]
    assert all(row.principal == "planner" for row in left)
    assert all(row.ids == () and row.query is None for row in left if row.blanked)
    assert [row.query for row in left if row.query] == ["which plain words stay"]
    with memdb.open(copy, readonly=True) as snapshot:
        assert snapshot.audit.verify().ok
        assert snapshot.audit.verify().blanked == 6
    assert db.check()["ok"]


def test_a_row_that_is_told_late_of_something_erased_is_blanked_with_it(
    db: memdb.Database,
) -> None:
    from memdb.access import blanking
    from memdb.access.auditing import Called, Told

    acting = agent(db)
    gone = acting.remember("a memory")
    acting.erase(gone.id).wait(30)
    called = Called("planner", "", "read", "get", "library", "grant", None, None)
    db._shared.access.recorder.note(called, Told([gone.id]))
    assert rows(db)[-1].ids == (gone.id,)
    assert blanking.blank_erased(db._engine, 0) == 1
    assert rows(db)[-1].blanked
    assert db.audit.verify().ok


def test_a_blanking_that_was_cut_off_is_finished(told: memdb.Database) -> None:
    from memdb.access import blanking

    with told:
        (path,) = log_files(told)
        content = bytearray(path.read_bytes())
        offset, raw = list(audit_log.rows_in(bytes(content)))[3]
        content[offset + audit.mark_at(raw)] = audit.BLANKED
        path.write_bytes(content)
        assert not told.audit.verify().ok
        blanking.blank_erased(told._engine, 0)
        assert told.audit.verify() == memdb.AuditVerdict(ok=True, rows=10, blanked=1)
