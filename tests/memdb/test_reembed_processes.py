"""``db.reembed`` killed, beside another process that writes, and left to that one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

import memdb
from tests.memdb.reembedding_words import Words, check_space, sentences, space_names, vectors_of

ROOT = Path(__file__).parents[2]
PREAMBLE = """
    import sys
    import memdb
    from memdb import reembedding, settings
    from tests.memdb.reembedding_words import Words, sentences
    settings.FRESH_VECTORS_MAX, settings.ENCODE_AT = 32, 4
    reembedding._ROWS_FIRST = reembedding._ROWS_MOST = 20
    db = memdb.open(sys.argv[1], embedder=Words("old"))
"""
EMBEDDER = """
    db.reembed(Words("new"), wait=True, progress=lambda n, of: print(n, flush=True))
    print("done", flush=True)
"""
WRITER = """
    seed = 100
    while True:
        (text,) = sentences(1, seed)
        id = db.remember(text).id
        best = db.recall(text, mode="vector", k=1)[0]
        assert best.id == id, (best.text, text)
        print(seed, *[s.embedder for s in db.spaces.list() if s.name == "default"], flush=True)
        seed += 1
"""


def run(code: str, path: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(PREAMBLE) + textwrap.dedent(code), str(path)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    )


def until(condition, timeout_s: float = 60) -> None:  # type: ignore[no-untyped-def]
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def is_done(db: memdb.Database) -> bool:
    return bool(db.stats()["reembedding"]["state"] == "done")


@pytest.mark.skipif(os.name == "nt", reason="SIGKILL")
def test_killed_again_and_again_it_goes_on_where_the_database_is_opened_next(
    tmp_path: Path,
) -> None:
    path = tmp_path / "db"
    with memdb.open(path, embedder=Words("old")) as db:
        db.remember_many(sentences(300))
        gone = [one.id for one in db.iter()][::7]
    reached = []
    for lines in (3, 9):
        process = run(EMBEDDER, path)
        assert process.stdout is not None
        for _ in range(lines):
            line = process.stdout.readline()
        process.send_signal(signal.SIGKILL)
        process.communicate()
        reached.append(int(line))
        with memdb.open(path, embedder=Words("old")) as db:
            check_space(db, Words("old"))
            assert db.stats()["reembedding"]["state"] == "running"
            assert "object" in (db.reembed().waiting or "object")  # nobody here has the new model
            db.forget(gone[len(reached) :: 2])
            db.remember_many(sentences(5, len(reached)))
    assert 0 < reached[0] < reached[1]
    with memdb.open(path, embedder=Words("new")) as db:  # nobody calls reembed
        until(lambda: is_done(db))
        check_space(db, Words("new"))
        assert space_names(db) == ["default"] and db.check()["ok"]


@pytest.mark.parametrize("holder", ["here", "there"])
def test_another_process_writes_and_asks_all_the_while(tmp_path: Path, holder: str) -> None:
    """``here``: this process embeds; ``there``: the writer has the lease and does it for us."""
    path = tmp_path / "db"
    with memdb.open(path, embedder=Words("old")) as db:
        db.remember_many(sentences(300))
        if holder == "here":
            assert db._maintenance.drain()
            _beside(db, run(WRITER, path))
    if holder == "there":
        writer = run(WRITER, path)
        assert writer.stdout is not None and writer.stdout.readline()
        with memdb.open(path, embedder=Words("old")) as db:
            assert not db._engine.store.lease.held
            _beside(db, writer)


def _beside(db: memdb.Database, writer: subprocess.Popen[str]) -> None:
    assert writer.stdout is not None
    lines = [writer.stdout.readline()]
    assert db.reembed("static", wait=True).state in ("ending", "done")
    while "static-minilm-256" not in lines[-1]:  # it has followed, and writes on
        lines.append(writer.stdout.readline())
        assert lines[-1]
    writer.terminate()
    writer.communicate()
    until(lambda: db._maintenance.drain() and is_done(db))
    texts = {one.text for one in db.iter()}
    assert {sentences(1, int(line.split()[0]))[0] for line in lines} <= texts
    assert len(vectors_of(db)) == db.count()
    assert {space.embedder for space in db.spaces.list()} == {lines[-1].split()[1]}
    assert db.check()["ok"]
