"""``db.files`` on a real database: what is on disk is what is recalled."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

import memdb
from memdb import file_ledger, files, settings
from memdb.file_writer import source_uri
from memdb.ingest import scan as scanning
from memdb.storage import lookups, tables
from memdb.storage.values import obeys_size_rule
from tests.memdb.file_tree import OLD_NS, Counting, touch_up, write


@pytest.fixture
def embedder() -> Counting:
    return Counting()


@pytest.fixture
def db(tmp_path: Path, embedder: Counting) -> Iterator[memdb.Database]:
    with memdb.open(tmp_path / "db", embedder=embedder) as opened:
        yield opened


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "notes"
    folder.mkdir()
    return folder.resolve()


def chunks(db: memdb.Database, path: Path) -> list[memdb.Memory]:
    found = [m for m in db.iter({"stream": path.as_posix()})]
    return sorted(found, key=lambda memory: memory.position or 0)


NOTE = """\
---
title: Holiday
tags: [travel, family]
date: 2024-06-01
---
# Lisbon

Ana wants grilled sardines by the river.

## Packing

Passport, charger and the blue raincoat. Do not forget the sunscreen this time, please.
"""


def test_a_file_becomes_chunks_with_their_place_and_facts(
    db: memdb.Database, root: Path, embedder: Counting
) -> None:
    write(root / "trips" / "lisbon.md", NOTE)
    report = db.files.sync(root)
    assert report == memdb.SyncReport(added=("trips/lisbon.md",))
    found = chunks(db, root / "trips" / "lisbon.md")
    assert [m.position for m in found] == [0, 1, 2]
    lines = NOTE.split("\n")
    for memory in found:
        uri, _, place = memory.source.partition("#L")
        first, last = (int(n) for n in place.split("-L"))
        assert uri == (root / "trips" / "lisbon.md").as_uri()
        assert memory.text == "\n".join(lines[first - 1 : last])
        assert (memory.kind, memory.tags) == ("chunk", ("travel", "family"))
        assert memory.event_time is not None
        assert (memory.event_time.year, memory.precision) == (2024, "day")
    assert f"Holiday > Lisbon\n{found[2].text}" in embedder.embedded
    assert found[2].metadata == {
        "path": "trips/lisbon.md",
        "title": "Holiday",
        "heading": ["Lisbon", "Packing"],
    }


def test_a_chunk_is_found_by_its_words_its_heading_and_its_filter(
    db: memdb.Database, root: Path
) -> None:
    write(root / "lisbon.md", NOTE)
    write(root / "other.txt", "The bicycle needs a new chain.\n\nNothing else.")
    db.files.sync(root)
    for mode in ("lexical", "vector", "hybrid"):
        (hit,) = db.recall("blue raincoat", k=1, mode=mode)
        assert hit.text is not None and "raincoat" in hit.text
    (hit,) = db.recall("packing", k=1, where={"metadata.heading": "Packing"})
    assert hit.memory.metadata["heading"] == ["Lisbon", "Packing"]
    assert db.count({"source": {"$prefix": root.as_uri()}}) == db.count() == 4


def test_a_second_sync_embeds_reads_and_writes_nothing(
    db: memdb.Database, root: Path, embedder: Counting, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(25):
        write(root / f"d{number % 3}" / f"{number}.md", f"# Note {number}\n\nText of it.")
    db.files.sync(root)
    before = db.stats()
    embedder.embedded.clear()
    stats: list[str] = []
    real = os.lstat

    def counting(path: str) -> os.stat_result:
        stats.append(path)
        return real(path)

    def scan(folder: str, rules: scanning.Rules) -> scanning.Scan:
        return scanning.scan(folder, rules, stat_file=counting)

    monkeypatch.setattr(files, "scan", scan)
    written = content_seq(db)
    assert db.files.sync(root) == memdb.SyncReport(unchanged=25)
    assert (len(stats), embedder.embedded, content_seq(db)) == (25, [], written)
    assert db.stats().keys() == before.keys()


def content_seq(db: memdb.Database) -> int:
    with db._engine.store.read() as txn:
        return int(txn.state.content_seq)


def test_an_edit_embeds_only_what_changed_and_moves_the_lines_of_the_rest(
    db: memdb.Database, root: Path, embedder: Counting
) -> None:
    parts = [f"## Part {n}\n\nSentence about topic{n} and nothing more." for n in range(12)]
    write(root / "a.md", "\n\n".join(parts))
    db.files.sync(root)
    before = {m.text: m for m in chunks(db, root / "a.md")}
    embedder.embedded.clear()
    parts[5] = "## Part 5\n\nA line.\n\nAnother, rewritten."
    touch_up(root / "a.md", "\n\n".join(parts))
    assert db.files.sync(root).updated == ("a.md",)
    assert embedder.embedded == [parts[5]]
    after = chunks(db, root / "a.md")
    assert [m.text for m in after] == parts
    assert [m.position for m in after] == list(range(12))
    for memory in after:
        if memory.text in before:
            old = before[memory.text]
            assert (memory.id, memory.version) == (old.id, 1)
    assert after[6].source.endswith("#L27-L29")
    assert before[parts[6]].source.endswith("#L25-L27")
    assert db.count({"source": before[parts[6]].source}) == 0
    (hit,) = db.recall("topic11", k=1)
    assert hit.source == after[11].source


def test_a_renamed_file_keeps_its_memories_and_is_found_by_its_new_name(
    db: memdb.Database, root: Path, embedder: Counting
) -> None:
    write(root / "alpha.md", "# One\n\ntext here\n\n# Two\n\nmore text")
    db.files.sync(root)
    ids = [m.id for m in chunks(db, root / "alpha.md")]
    embedder.embedded.clear()
    (root / "sub").mkdir()
    os.rename(root / "alpha.md", root / "sub" / "zebra.md")
    assert db.files.sync(root).moved == (("alpha.md", "sub/zebra.md"),)
    assert [m.id for m in chunks(db, root / "sub" / "zebra.md")] == ids
    assert chunks(db, root / "alpha.md") == []
    assert embedder.embedded == []
    assert {hit.id for hit in db.recall("zebra", mode="lexical")} == set(ids)
    assert len(db.recall("alpha", mode="lexical")) == 0
    assert db.check()["ok"]


def test_what_is_gone_from_the_disk_is_forgotten_and_can_be_restored(
    db: memdb.Database, root: Path
) -> None:
    write(root / "a.md", "# One\n\nkept text")
    write(root / "b.md", "# Two\n\nlost text")
    db.files.sync(root)
    lost = chunks(db, root / "b.md")
    (root / "b.md").unlink()
    assert db.files.sync(root).removed == ("b.md",)
    assert len(db.recall("lost", mode="lexical")) == 0
    assert [m.text for m in db.iter()] == ["# One\n\nkept text"]
    assert list(db.restore([m.id for m in lost])) == [m.id for m in lost]
    assert db.files.sync(root) == memdb.SyncReport(unchanged=1)


def test_a_chunk_the_owner_forgot_stays_forgotten(db: memdb.Database, root: Path) -> None:
    write(root / "a.md", "# One\n\nfirst\n\n# Two\n\nsecond")
    db.files.sync(root)
    (secret, _) = chunks(db, root / "a.md")
    db.forget(secret.id)
    touch_up(root / "a.md", "\n\n# One\n\nfirst\n\n# Two\n\nsecond\n\n# Three\n\nthird")
    assert db.files.sync(root).updated == ("a.md",)
    assert [m.text for m in chunks(db, root / "a.md")] == ["# Two\n\nsecond", "# Three\n\nthird"]


def test_files_that_cannot_be_indexed_are_reported_with_the_reason(
    db: memdb.Database, root: Path
) -> None:
    write(root / "good.md", "text")
    write(root / "latin.txt", b"caf\xe9")
    write(root / "binary.md", b"\0\1")
    write(root / "photo.jpg", b"\xff\xd8")
    (root / "folder.md").mkdir()
    write(root / "dated.md", "---\ndate: someday\ntags: [" + "x" * 600 + "]\n---\nbody")
    report = db.files.sync(root)
    reasons = {status.path: status.reason for status in report.skipped}
    assert reasons == {
        "binary.md": "binary",
        "latin.txt": "not valid UTF-8 (byte 3)",
        "photo.jpg": "no reader for this kind of file",
    }
    assert report.added == ("dated.md", "good.md")
    assert {m.event_time for m in chunks(db, root / "dated.md")} == {None}
    states = {Path(status.path).name: status.state for status in db.files.status()}
    assert states == {
        "binary.md": "skipped",
        "dated.md": "indexed",
        "good.md": "indexed",
        "latin.txt": "skipped",
    }
    assert db.files.sync(root).skipped == report.skipped


def test_a_path_too_long_for_a_source_is_skipped_not_an_error(
    db: memdb.Database, root: Path
) -> None:
    deep = root.joinpath(*["folder-with-a-name-of-some-length"] * 16)
    write(deep / "a.md", "text")
    write(root / "b.md", "text")
    report = db.files.sync(root)
    assert report.added == ("b.md",)
    assert [(s.state, "512 bytes" in (s.reason or "")) for s in report.skipped] == [
        ("skipped", True)
    ]
    assert db.files.sync(root).unchanged == 1


def test_an_empty_folder_where_files_were_is_a_conflict(db: memdb.Database, root: Path) -> None:
    write(root / "a.md", "text")
    db.files.sync(root)
    (root / "a.md").unlink()
    with pytest.raises(memdb.Conflict) as caught:
        db.files.sync(root)
    assert "allow_empty" in caught.value.hint
    assert db.count() == 1
    assert db.files.sync(root, allow_empty=True).removed == ("a.md",)
    assert db.count() == 0


@pytest.mark.parametrize(
    ("make", "error"),
    [("missing", memdb.NotFound), ("file", memdb.InvalidArgument)],
)
def test_a_root_that_is_no_folder_is_a_typed_error(
    db: memdb.Database, root: Path, make: str, error: type[Exception]
) -> None:
    if make == "file":
        write(root / make, "text")
    with pytest.raises(error):
        db.files.sync(root / make)
    assert db.files.status() == []


def test_patterns_are_remembered_until_others_are_given(db: memdb.Database, root: Path) -> None:
    for name in ("a.md", "b.txt", "private/c.md"):
        write(root / name, f"text of {name}")
    assert db.files.sync(root, exclude=["private"]).added == ("a.md", "b.txt")
    assert db.files.sync(root) == memdb.SyncReport(unchanged=2)
    assert db.files.sync(root, include=["*.md"]).removed == ("b.txt",)
    assert db.files.sync(root, exclude=[]).added == ("private/c.md",)
    with pytest.raises(memdb.InvalidArgument):
        db.files.sync(root, include=["[z-a]"])


def test_a_folder_inside_a_synced_one_is_refused_and_one_around_it_leaves_it_out(
    db: memdb.Database, root: Path
) -> None:
    write(root / "in" / "a.md", "inner")
    write(root / "b.md", "outer")
    db.files.sync(root / "in")
    assert db.files.sync(root).added == ("b.md",)
    with pytest.raises(memdb.Conflict):
        db.files.sync(root / "in")


def test_the_database_may_lie_inside_the_folder(tmp_path: Path, embedder: Counting) -> None:
    write(tmp_path / "a.md", "text")
    with memdb.open(tmp_path / "store", embedder=embedder) as db:
        assert db.files.sync(tmp_path).added == ("a.md",)
        assert db.files.sync(tmp_path) == memdb.SyncReport(unchanged=1)


def test_namespaces_have_ledgers_of_their_own(
    tmp_path: Path, db: memdb.Database, root: Path, embedder: Counting
) -> None:
    write(root / "a.md", "text")
    db.files.sync(root)
    with memdb.open(tmp_path / "db", embedder=embedder, namespace="work") as other:
        assert other.files.status() == []
        assert other.files.sync(root).added == ("a.md",)
        assert [m.namespace for m in other.iter()] == ["work"]
    assert len(db.files.status(root)) == 1
    with pytest.raises(memdb.NotFound):
        db.files.status(root / "never")


def test_without_an_embedder_files_are_found_by_words(tmp_path: Path, root: Path) -> None:
    write(root / "a.txt", "The bicycle needs a new chain. " * 80)
    with memdb.open(tmp_path / "db", embedder="none") as db:
        db.files.sync(root)
        assert db.count() > 1
        assert len(db.recall("bicycle chain", mode="lexical")) > 1
        assert all(files.approximate_tokens(m.text or "") <= 256 for m in db.iter())


def test_no_key_of_the_ledger_holds_a_path_and_values_obey_the_size_rule(
    db: memdb.Database, root: Path
) -> None:
    big = "\n\n".join(f"# Heading {n}\n\nBody of heading number {n}." for n in range(200))
    write(root / "findable-name.md", big)
    db.files.sync(root)
    with db._engine.store.read() as txn:
        stored = list(txn.raw(tables.FILES))
        assert [r.path for _, r in file_ledger.roots(txn)] == [str(root)]
    assert len(stored) == 2
    assert all(len(key) == 16 and b"findable" not in key for key, _ in stored)
    assert all(obeys_size_rule(value) for _, value in stored)
    assert max(len(value) for _, value in stored) > settings.MAX_NAME_BYTES


def test_random_edits_leave_what_a_new_database_would_hold(
    tmp_path: Path, db: memdb.Database, root: Path
) -> None:
    rng = random.Random(11)
    names = ["a.md", "b.txt", "x/c.md", "x/y/d.md", "e.org"]
    clock = OLD_NS
    for step in range(8):
        for _ in range(rng.randint(1, 4)):
            clock += 60 * 10**9
            path = root / rng.choice(names)
            kind = rng.choice(["write", "edit", "delete", "move"])
            if kind == "delete" and path.exists():
                path.unlink()
            elif kind == "move" and path.exists():
                os.replace(path, root / f"moved{step}.md")
            elif kind == "edit" and path.exists():
                path.write_text(path.read_text() + f"\n\nAdded in step {step}.")
            else:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(
                    "\n\n".join(
                        f"# Part {n}\n\n" + "word " * rng.randint(1, 40)
                        for n in range(rng.randint(1, 4))
                    )
                )
            if path.exists():
                os.utime(path, ns=(clock, clock))
        db.files.sync(root, allow_empty=True)
        assert streams(db) == {(m.stream, m.position): m.id for m in db.iter()}
        with memdb.open(tmp_path / f"fresh{step}", embedder=Counting()) as fresh:
            fresh.files.sync(root)
            assert place(db) == place(fresh)
    assert db.check()["ok"]


def streams(db: memdb.Database) -> dict[tuple[str | None, int | None], str]:
    """Every place of every stream and who stands there."""
    found = {}
    with db._engine.store.read() as txn:
        for key, payload in txn.scan(tables.STREAMS):
            memory = db._engine.records.get(txn, int.from_bytes(payload, "little"))
            assert memory is not None and memory.position is not None
            prefix = lookups.stream_prefix(txn, memory.namespace, memory.stream or "")
            assert lookups.row_at(txn, prefix, memory.position) is not None
            assert key.startswith(prefix)
            found[memory.stream, int.from_bytes(key[8:], "big") - 2**63] = memory.id
    return found


def place(db: memdb.Database) -> list[tuple[object, ...]]:
    return sorted((m.source, m.position, m.text, str(m.metadata)) for m in db.iter())


@pytest.mark.parametrize(
    ("root", "path", "uri"),
    [
        ("/data/notes", "a.md", "file:///data/notes/a.md"),
        ("/", "x#1?.md", "file:///x%231%3F.md"),
        ("/n", "100% \u6587.md", "file:///n/100%25 \u6587.md"),
        ("C:\\notes", "a.md", "file:///C:/notes/a.md"),
    ],
)
def test_sources_are_file_uris(root: str, path: str, uri: str) -> None:
    assert source_uri(root, path) == uri
