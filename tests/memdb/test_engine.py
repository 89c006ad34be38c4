"""What an engine shares among handles and threads: its caches must never outlive the truth."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest

import memdb
from memdb.query.tokenizer import TOKENIZER_VERSION
from memdb.storage.store import Writer


def test_what_an_aborted_write_saw_is_not_remembered(tmp_path: Path) -> None:
    with memdb.open(tmp_path / "db", embedder="none") as db:
        db.remember("kept")
        engine, writer = db._engine, db._writer
        insertion = writer.insertion([db._draft({"text": "never written"})])

        def fail(txn: Writer) -> None:
            insertion(txn)
            assert len(engine.live(txn)) == 2
            assert len(engine.subtree(txn, "default")) == 2
            raise ValueError("no")

        with pytest.raises(ValueError, match="no"):
            engine.store.write(fail)
        assert db.count() == 1
        db.remember("another")
        assert sorted(m.text or "" for m in db.iter()) == ["another", "kept"]


def test_readers_see_whole_writes_while_many_threads_write(tmp_path: Path) -> None:
    """Every batch is ten memories of one tag with vectors: a count that is no multiple of ten,
    or a vector search that misses one, is a torn read."""
    with memdb.open(tmp_path / "db", embedder="none") as db:
        stop = threading.Event()
        problems: list[str] = []

        def write(number: int) -> None:
            rng = np.random.default_rng(number)
            for batch in range(15):
                vectors = rng.standard_normal((10, 8))
                tag = f"t{number}-{batch}"
                db.remember_many(
                    [
                        {"text": f"{tag} n{i}", "vector": v, "tags": [tag]}
                        for i, v in enumerate(vectors)
                    ]
                )
                for vector in vectors[:2]:
                    hits = db.recall(vector=vector, mode="vector", k=10, where={"tags": tag})
                    if len(hits) != 10 or hits[0].why.cosine < 0.99:  # type: ignore[operator]
                        problems.append(f"own write not found: {len(hits)}")

        def read() -> None:
            while not stop.is_set():
                if db.count() % 10:
                    problems.append("a batch was seen in part")
                found = db.recall("n1", mode="lexical", k=1000)
                if len(found) * 10 > db.count():
                    problems.append("more matches than batches")

        readers = [threading.Thread(target=read) for _ in range(2)]
        writers = [threading.Thread(target=write, args=(n,)) for n in range(4)]
        for thread in (*readers, *writers):
            thread.start()
        for thread in writers:
            thread.join()
        stop.set()
        for thread in readers:
            thread.join()
        assert problems == []
        assert db.count() == 600
        assert db.check()["ok"]


def test_the_version_of_the_terms_is_kept_with_them(tmp_path: Path) -> None:
    with memdb.open(tmp_path / "db", embedder="none") as db:
        with db._engine.store.read() as txn:
            assert txn.state.tokenizer == 0
        db.remember("words to be found")
        with db._engine.store.read() as txn:
            assert txn.state.tokenizer == TOKENIZER_VERSION


def test_what_can_wait_does_so_while_a_batch_is_written(tmp_path: Path) -> None:
    seen: list[bool] = []
    opened: list[memdb.Database] = []

    class Watching:
        """An embedder that looks whether background work thinks nobody writes."""

        name, revision, dim, max_tokens = "watching", "1", 4, 100

        def count_tokens(self, text: str) -> int:
            return len(text.split())

        def embed(self, texts: list[str], role: str = "document") -> np.ndarray:
            if opened:
                seen.append(opened[0]._maintenance._is_quiet(float("inf")))
            return np.ones((len(texts), self.dim), np.float32)

    with memdb.open(tmp_path / "db", embedder=Watching()) as db:
        opened.append(db)
        db.remember_many(["one", "two", "three"], batch=2)
        assert seen == [False, False]
        assert db._maintenance._is_quiet(float("inf"))
        with pytest.raises(memdb.InvalidArgument):
            db.remember_many([""])
        assert db._maintenance._is_quiet(float("inf")), "a batch that failed is over too"
