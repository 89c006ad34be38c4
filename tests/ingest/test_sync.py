"""Syncing: whatever happens to a tree, the ledger ends as if it had been read afresh."""

from __future__ import annotations

import itertools
import os
import random
import shutil
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memdb.errors import Conflict, PermissionDenied, StoreCorrupt
from memdb.ingest.changes import Differ, FileChange
from memdb.ingest.chunks import Chunk, Chunker, plain_digest
from memdb.ingest.readers import Unread
from memdb.ingest.scan import Found, Rules, Scan, Stamp, scan
from memdb.ingest.sync import (
    RACY_NS,
    ChunkState,
    FileState,
    SyncPlan,
    diff,
    guard_root,
    plan,
)

MINUTE_NS = 60 * 10**9
OLD_NS = 1_700_000_000 * 10**9


def words(text: str) -> int:
    return len(text.split())


@dataclass
class Model:
    """A store of memories by id and a ledger, as ``files.sync`` keeps them."""

    root: Path
    chunker: Chunker = field(default_factory=lambda: Chunker(24, words))
    rules: Rules = field(default_factory=Rules)
    ledger: dict[str, FileState] = field(default_factory=dict)
    memories: dict[str, tuple[str, Chunk]] = field(default_factory=dict)
    embedded: int = 0
    stats: int = 0
    digested: int = 0
    now_ns: int = OLD_NS + MINUTE_NS
    ids: itertools.count[int] = field(default_factory=itertools.count)

    def _stat(self, path: str) -> os.stat_result:
        self.stats += 1
        return os.lstat(path)

    def _digest(self, data: bytes) -> bytes:
        self.digested += 1
        return plain_digest(data)

    def sync(self) -> list[FileChange]:
        self.embedded = self.stats = 0
        found = scan(str(self.root), self.rules, stat_file=self._stat)
        differ = Differ(str(self.root), self.chunker, self._digest, clock_ns=lambda: self.now_ns)
        guard_root(self.ledger, found, allow_empty=True)
        previous = dict(self.ledger)
        done = []
        for change in differ.changes(previous, differ.plan(previous, found)):
            self._apply(change)
            done.append(change)
        self.now_ns += MINUTE_NS
        return done

    def _apply(self, change: FileChange) -> None:
        for old in change.removed:
            del self.memories[old]
        for kept in change.kept:
            path, chunk = self.memories[kept.id]
            if kept.restated:
                self.memories[kept.id] = (change.path, kept.chunk)
            else:
                assert (path, chunk) == (change.path, kept.chunk)
        new = [f"m{next(self.ids)}" for _ in change.added]
        self.embedded += len(new)
        self.memories.update(
            (id_, (change.path, chunk)) for id_, chunk in zip(new, change.added, strict=True)
        )
        state = change.state_with(new)
        if change.kind == "removed":
            del self.ledger[change.path]
        elif change.kind == "moved":
            assert change.old_path is not None
            del self.ledger[change.old_path]
        if state is not None:
            self.ledger[change.path] = FileState.decode(state.encode())

    def contents(self) -> dict[str, list[Chunk]]:
        """Chunks by path, in order; the ledger and the memories must agree."""
        held = {
            path: [self.memories[chunk.id] for chunk in state.chunks]
            for path, state in self.ledger.items()
        }
        assert sum(map(len, held.values())) == len(self.memories)
        for path, chunks in held.items():
            assert [name for name, _ in chunks] == [path] * len(chunks)
            assert [c.ordinal for _, c in chunks] == list(range(len(chunks)))
            assert [c.digest for _, c in chunks] == [c.digest for c in self.ledger[path].chunks]
        return {path: [chunk for _, chunk in chunks] for path, chunks in held.items()}


def write(path: Path, text: str | bytes, time_ns: int = OLD_NS) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    os.utime(path, ns=(time_ns, time_ns))


def kinds(changes: list[FileChange]) -> dict[str, str]:
    return {change.path: change.kind for change in changes}


def note(rng: random.Random, title: str) -> str:
    parts = [f"# {title}"]
    for section in range(rng.randint(0, 3)):
        parts.append(f"## Part {section}")
        parts += [" ".join(rng.choices("abcdefgh", k=rng.randint(1, 40))) for _ in range(3)]
    return "\n\n".join(parts)


# --- the property ------------------------------------------------------------------------

OPERATIONS = ("write", "edit", "append", "move", "move and edit", "copy", "delete", "swap",
              "binary", "folder", "touch", "empty")  # fmt: skip


def operate(root: Path, rng: random.Random, operation: str, time_ns: int) -> None:
    """One thing a person does to a tree."""
    names = [f"{folder}{name}" for folder in ("", "x/", "x/y/") for name in ("a.md", "b.txt", "c")]
    files = sorted(path for path in root.rglob("*") if path.is_file())
    target = root / rng.choice(names)
    if operation == "write" or not files:
        if not target.is_dir():
            write(target, note(rng, rng.choice("PQ")), time_ns)
        return
    source = rng.choice(files)
    if operation == "edit":
        lines = source.read_bytes().split(b"\n")
        lines[rng.randrange(len(lines))] = rng.choice([b"", b"edited line", b"## Heading"])
        write(source, b"\n".join(lines), time_ns)
    elif operation == "append":
        write(source, source.read_bytes() + b"\n\nmore at the end", time_ns)
    elif operation in ("move", "move and edit") and source != target:
        target.parent.mkdir(parents=True, exist_ok=True)
        os.replace(source, target)
        if operation == "move and edit":
            write(target, target.read_bytes() + b"\n\nand then", time_ns)
    elif operation == "copy" and source != target:
        write(target, source.read_bytes(), time_ns)
    elif operation == "delete":
        source.unlink()
    elif operation == "swap":
        other = rng.choice(files)
        mine, theirs = source.read_bytes(), other.read_bytes()
        write(source, theirs, time_ns)
        write(other, mine, time_ns)
    elif operation == "binary":
        write(source, b"\0\1\2", time_ns)
    elif operation == "folder":
        folder = rng.choice(["x", "x/y"])
        if (root / folder).is_dir():
            shutil.move(str(root / folder), str(root / f"moved{time_ns}"))
    elif operation == "touch":
        os.utime(source, ns=(time_ns, time_ns))
    elif operation == "empty":
        write(source, b"", time_ns)


@settings(max_examples=60)
@given(
    st.lists(st.lists(st.sampled_from(OPERATIONS), max_size=6), min_size=1, max_size=6),
    st.integers(0, 2**32),
)
def test_after_any_edits_a_sync_gives_what_a_fresh_one_gives(
    tmp_path_factory: pytest.TempPathFactory, script: list[list[str]], seed: int
) -> None:
    root = tmp_path_factory.mktemp("tree")
    rng = random.Random(seed)
    model = Model(root)
    for operations in script:
        for operation in ("write", *operations):
            operate(root, rng, operation, model.now_ns)
        model.sync()
        fresh = Model(root)
        fresh.sync()
        assert model.contents() == fresh.contents()
        model.now_ns += MINUTE_NS
        model.sync()  # what was read in its racy moment is read again
        assert {kind for kind in kinds(model.sync()).values()} <= {"skipped"}
        assert model.contents() == fresh.contents()
    shutil.rmtree(root)


# --- what a sync costs -------------------------------------------------------------------


def test_a_second_sync_is_one_stat_a_file(tmp_path: Path) -> None:
    for number in range(30):
        write(tmp_path / f"d{number % 3}" / f"{number}.md", f"# N{number}\n\ntext")
    model = Model(tmp_path)
    assert set(kinds(model.sync()).values()) == {"added"}
    assert model.stats == 30
    model.digested = 0
    assert model.sync() == []
    assert (model.stats, model.digested) == (30, 1)  # the recipe's digest; no content was read


def test_an_edit_of_one_paragraph_embeds_only_the_chunks_that_changed(tmp_path: Path) -> None:
    sections = [f"## S{n}\n\nFirst of {n}.\n\n" + f"word{n} " * 20 for n in range(20)]
    write(tmp_path / "a.md", "\n\n".join(sections))
    model = Model(tmp_path)
    model.sync()
    ids = {chunk.digest: chunk.id for chunk in model.ledger["a.md"].chunks}
    sections[10] = sections[10].replace("First of 10.", "Line one.\n\nLine two.\n\nFirst of 10.")
    write(tmp_path / "a.md", "\n\n".join(sections), model.now_ns)
    (change,) = model.sync()
    assert change.kind == "updated"
    assert 1 <= model.embedded <= 2
    assert len(change.kept) >= 19
    moved = [kept for kept in change.kept if kept.restated]
    assert {kept.chunk.heading[0] for kept in moved} >= {f"S{n}" for n in range(11, 20)}
    assert all(ids[kept.chunk.digest] == kept.id for kept in change.kept)


def test_a_moved_file_keeps_its_memories_and_embeds_nothing(tmp_path: Path) -> None:
    write(tmp_path / "a.md", "# A\n\ntext\n\n# B\n\nmore")
    model = Model(tmp_path)
    model.sync()
    ids = [chunk.id for chunk in model.ledger["a.md"].chunks]
    (tmp_path / "sub").mkdir()
    os.rename(tmp_path / "a.md", tmp_path / "sub" / "b.md")
    (change,) = model.sync()
    assert (change.kind, change.old_path, change.path) == ("moved", "a.md", "sub/b.md")
    assert [chunk.id for chunk in model.ledger["sub/b.md"].chunks] == ids
    assert model.embedded == 0


def test_a_file_copied_to_a_new_place_and_deleted_is_a_move(tmp_path: Path) -> None:
    write(tmp_path / "a.md", "# A\n\ntext")
    write(tmp_path / "keep.md", "unused")
    model = Model(tmp_path)
    model.sync()
    shutil.copy(tmp_path / "a.md", tmp_path / "b.md")  # another inode
    (tmp_path / "a.md").unlink()
    assert kinds(model.sync()) == {"b.md": "moved"}


def test_of_two_copies_of_a_vanished_file_one_is_moved_and_one_is_new(tmp_path: Path) -> None:
    write(tmp_path / "x" / "a.md", "# A\n\ntext")
    model = Model(tmp_path)
    model.sync()
    for folder in ("w", "y"):
        write(tmp_path / folder / "b.md", "# A\n\ntext")
    write(tmp_path / "z" / "a.md", "# A\n\ntext")
    (tmp_path / "x" / "a.md").unlink()
    # the copy that has the old name is the moved one
    assert kinds(model.sync()) == {"z/a.md": "moved", "w/b.md": "added", "y/b.md": "added"}
    assert len(model.contents()) == 3


def test_two_links_to_one_moved_file_are_one_move_and_one_new_file(tmp_path: Path) -> None:
    write(tmp_path / "a.md", "# A\n\ntext")
    model = Model(tmp_path)
    model.sync()
    os.link(tmp_path / "a.md", tmp_path / "c.md")
    os.rename(tmp_path / "a.md", tmp_path / "b.md")
    write(tmp_path / "b.md", "# A\n\ntext\n\n# B\n\nedited", model.now_ns)  # both: one inode
    assert sorted(kinds(model.sync()).values()) == ["added", "moved"]
    assert len(model.contents()) == 2


def test_a_move_with_an_edit_keeps_the_chunks_that_stayed(tmp_path: Path) -> None:
    write(tmp_path / "a.md", "# A\n\ntext\n\n# B\n\nmore")
    model = Model(tmp_path)
    model.sync()
    os.rename(tmp_path / "a.md", tmp_path / "b.md")
    write(tmp_path / "b.md", "# A\n\ntext\n\n# B\n\nmore and more", model.now_ns)
    assert kinds(model.sync()) == {"b.md": "moved"}
    assert model.embedded == 1


def test_a_change_of_tags_restates_every_chunk_and_embeds_the_front_matter(tmp_path: Path) -> None:
    body = "# A\n\ntext\n\n# B\n\nmore"
    write(tmp_path / "a.md", f"---\ntags: [x]\n---\n{body}")
    model = Model(tmp_path)
    model.sync()
    write(tmp_path / "a.md", f"---\ntags: [y]\n---\n{body}", model.now_ns)
    (change,) = model.sync()
    assert change.document is not None and change.document.tags == ("y",)
    assert model.embedded == 1
    assert [kept.restated for kept in change.kept] == [True, True]


def test_a_touched_file_costs_a_row_of_the_ledger(tmp_path: Path) -> None:
    write(tmp_path / "a.md", "text")
    model = Model(tmp_path)
    model.sync()
    write(tmp_path / "a.md", "text", OLD_NS + 1)
    assert kinds(model.sync()) == {"a.md": "touched"}
    assert model.sync() == []


def test_another_recipe_reads_everything_again(tmp_path: Path) -> None:
    write(tmp_path / "a.md", "one two three. " * 20)
    model = Model(tmp_path)
    model.sync()
    model.chunker = Chunker(12, words)
    assert kinds(model.sync()) == {"a.md": "updated"}
    assert model.sync() == []


def test_a_change_in_the_moment_of_the_sync_is_not_missed(tmp_path: Path) -> None:
    """Same size, same times, same inode: only the time of reading tells."""
    write(tmp_path / "a.md", "one", OLD_NS)
    status = os.stat(tmp_path / "a.md")
    stamp = Stamp(3, OLD_NS, status.st_ctime_ns, status.st_ino, status.st_dev)
    read_at_once = FileState(path="a.md", stamp=(3, OLD_NS, *_rest(stamp)), read_ns=OLD_NS + 1)
    read_later = FileState(
        path="a.md", stamp=(3, OLD_NS, *_rest(stamp)), read_ns=OLD_NS + RACY_NS + 1
    )
    found = Scan((Found("a.md", stamp),))
    assert plan({"a.md": read_at_once}, found).changed == found.files
    assert plan({"a.md": read_later}, found) == SyncPlan(unchanged=("a.md",))


def _rest(stamp: Stamp) -> tuple[int, int, int]:
    return stamp.ctime_ns, stamp.inode, stamp.device


# --- what must not happen ----------------------------------------------------------------


def test_an_empty_root_does_not_delete_everything(tmp_path: Path) -> None:
    write(tmp_path / "root" / "a.md", "text")
    model = Model(tmp_path / "root")
    model.sync()
    (tmp_path / "root" / "a.md").unlink()
    found = scan(str(tmp_path / "root"), Rules())
    with pytest.raises(Conflict) as caught:
        guard_root(model.ledger, found, allow_empty=False)
    assert "allow_empty" in caught.value.hint
    guard_root(model.ledger, found, allow_empty=True)
    guard_root({}, found, allow_empty=False)
    assert kinds(model.sync()) == {"a.md": "removed"}


def test_a_root_that_cannot_be_listed_is_an_error() -> None:
    with pytest.raises(PermissionDenied):
        guard_root({}, Scan((), (("", "permission denied"),)), allow_empty=True)


def test_files_in_a_folder_that_cannot_be_listed_stay() -> None:
    states = {path: FileState(path=path, stamp=(0, 0, 0, 0, 0)) for path in ("x/a.md", "b.md")}
    todo = plan(states, Scan((), (("x/", "permission denied"),)))
    assert (todo.hidden, todo.removed) == (("x/a.md",), ("b.md",))


def test_a_file_that_fails_keeps_its_memories_and_is_tried_again(tmp_path: Path) -> None:
    write(tmp_path / "a.md", "text")
    model = Model(tmp_path)
    model.sync()
    before = model.contents()
    differ = Differ(str(tmp_path), model.chunker, plain_digest)
    failing = Scan((Found("a.md", unread=Unread("failed", "input/output error")),))
    (change,) = differ.changes(model.ledger, differ.plan(model.ledger, failing))
    assert (change.kind, change.removed) == ("failed", ())
    model._apply(change)
    assert model.ledger["a.md"].reason == "input/output error"
    assert model.contents() == before
    (again,) = differ.changes(model.ledger, differ.plan(model.ledger, failing))
    assert again.state is None
    assert kinds(model.sync()) == {"a.md": "touched"}
    assert model.ledger["a.md"].state == "indexed"


def test_a_file_that_became_binary_loses_its_memories(tmp_path: Path) -> None:
    write(tmp_path / "a.md", "text")
    model = Model(tmp_path)
    model.sync()
    write(tmp_path / "a.md", b"\0\0", model.now_ns)
    (change,) = model.sync()
    assert (change.kind, change.reason) == ("skipped", "binary")
    assert model.contents() == {"a.md": []}
    write(tmp_path / "a.md", "text again", model.now_ns)
    assert kinds(model.sync()) == {"a.md": "added"}


def test_a_reused_inode_is_not_a_move(tmp_path: Path) -> None:
    write(tmp_path / "a.md", "# A\n\ntext")
    model = Model(tmp_path)
    model.sync()
    os.rename(tmp_path / "a.md", tmp_path / "b.md")
    write(tmp_path / "b.md", "nothing of the kind", model.now_ns)
    changes = model.sync()
    assert [(change.kind, change.path) for change in changes] == [
        ("removed", "a.md"),
        ("added", "b.md"),
    ]


def test_a_damaged_row_is_a_typed_error() -> None:
    with pytest.raises(StoreCorrupt):
        FileState.decode(b"\x93\x01")


@given(st.lists(st.integers(0, 4), max_size=12), st.lists(st.integers(0, 4), max_size=12))
def test_chunks_are_matched_with_multiplicity(old: list[int], new: list[int]) -> None:
    states = [ChunkState(bytes([n]), f"id{place}", 1, 1) for place, n in enumerate(old)]
    chunks = [Chunk("", (), "", 1, 1, place, bytes([n])) for place, n in enumerate(new)]
    found = diff(states, chunks)
    common = Counter(old) & Counter(new)
    assert Counter(chunk.digest[0] for _, chunk in found.kept) == common
    assert Counter(chunk.digest[0] for chunk in found.added) == Counter(new) - common
    assert Counter(state.digest[0] for state in found.removed) == Counter(old) - common
    assert all(state.digest == chunk.digest for state, chunk in found.kept)
    assert len({state.id for state, _ in found.kept}) == len(found.kept)
