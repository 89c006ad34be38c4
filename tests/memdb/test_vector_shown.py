"""How searches meet the commits of their own process."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from memdb import VectorIndex, vector_book
from memdb.vector_shown import Shown


def test_searches_beside_writes_of_their_process_read_no_book_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((400, 8)).astype(np.float32)
    read: list[int] = []
    load = vector_book.load_book

    def counted(*given: Any) -> Any:
        read.append(1)
        return load(*given)

    with VectorIndex(tmp_path / "ix", dim=8, metric="l2") as index:
        index.add(np.arange(200), vectors[:200])
        monkeypatch.setattr(vector_book, "load_book", counted)
        written = threading.Event()
        wrong: list[tuple[int, object]] = []

        def search() -> None:
            while not written.is_set():
                least = added[0]
                ids, _ = index.search(vectors[least], 1)
                if ids.tolist() != [[least]]:
                    wrong.append((least, ids.tolist()))

        added = [0]
        threads = [threading.Thread(target=search) for _ in range(2)]
        for thread in threads:
            thread.start()
        for at in range(200, 300):
            index.add([at], vectors[at : at + 1])
            added[0] = at  # acknowledged: the next search finds it
        written.set()
        for thread in threads:
            thread.join()
        assert not wrong
        assert not read


def test_who_waits_for_a_commit_goes_on_when_it_fails() -> None:
    shown, began, ended = Shown(), threading.Event(), threading.Event()

    def wait() -> None:
        began.set()
        shown.wait_for(7)
        ended.set()

    with pytest.raises(OSError, match="full"), shown.committing() as coming:
        coming(7)
        thread = threading.Thread(target=wait)
        thread.start()
        began.wait()
        shown.wait_for(6)  # another commit is nobody's to wait for
        assert not ended.is_set()
        raise OSError("full")
    thread.join(timeout=60)
    assert ended.is_set()
    shown.wait_for(7)
    assert shown.book is None and not shown.is_past(0)
