"""``db.spaces.convert`` killed, beside another process, and left to it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest

import memdb
from tests.memdb.space_conversion import (
    DIM,
    FILES,
    check_vectors,
    fill,
    job_of,
    make_small,
    records_of,
)

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    make_small(monkeypatch)


PREAMBLE = """
    import sys
    import numpy as np
    import memdb
    from memdb import settings, space_convert
    settings.FRESH_VECTORS_MAX, settings.ENCODE_AT, settings.ENCODE_DIRECTLY_AT = 32, 4, 8
    space_convert._BATCH_ROWS, space_convert._LAST_ROWS = 200, 100
    db = memdb.open(sys.argv[1], embedder="none")
"""
CONVERTER = """
    print("open", flush=True)
    db.spaces.convert("photos", sys.argv[2], progress=lambda n, of: print(n, flush=True))
    print("done", flush=True)
"""
WRITER = """
    seed = int(sys.argv[2])
    while True:
        rng = np.random.default_rng(seed)
        vectors = rng.standard_normal((int(rng.choice([1, 5, 50])), 16)).astype(np.float32)
        items = [{"text": f"{i} of {seed}", "vector": v, "space": "photos"}
            for i, v in enumerate(vectors)]
        written = db.remember_many(items)
        best = db.recall(vector=vectors[0], space="photos", mode="vector", k=1)[0]
        assert best.id == written[0].id, (best, written[0])
        print(seed, *[one.id for one in written], flush=True)
        seed += 1
"""


def run(code: str, *arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [
            sys.executable,
            "-c",
            textwrap.dedent(PREAMBLE) + textwrap.dedent(code),
            *map(str, arguments),
        ],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    )


def _told(lines: list[str]) -> dict[str, np.ndarray]:
    """The vectors of what writers acknowledged."""
    model = {}
    for line in lines:
        seed, *ids = line.split()
        rng = np.random.default_rng(int(seed))
        vectors = rng.standard_normal((int(rng.choice([1, 5, 50])), 16)).astype(np.float32)
        model.update(zip(ids, vectors, strict=True))
    return model


@pytest.mark.skipif(os.name == "nt", reason="SIGKILL")
def test_a_killed_conversion_goes_on_by_itself(tmp_path: Path) -> None:
    path = tmp_path / "db"
    with memdb.open(path, embedder="none") as db:
        db.spaces.create("photos", dim=DIM, profile="exact")
        model = fill(db, 3000, 1)
    rng = np.random.default_rng(3)
    for target in ("standard", "compact", "nano"):
        for round_number in range(2):
            process = run(CONVERTER, path, target)
            assert process.stdout is not None
            for _ in range(int(rng.integers(2, 8))):
                process.stdout.readline()
            time.sleep(float(rng.random()) * 0.01)
            process.send_signal(signal.SIGKILL)
            process.communicate()
            with memdb.open(path, embedder="none") as db:
                check_vectors(db, model, target)
                model.update(fill(db, 9, round_number + 10 * len(target)))
        with memdb.open(path, embedder="none") as db:
            _until(lambda db=db: job_of(db) is None)  # nobody calls convert
            assert db.stats()["profiles"] == {"photos": target}
            check_vectors(db, model, target)
            assert db.check()["ok"]
            db.spaces.convert("photos", target)  # type: ignore[arg-type]
            assert records_of(db) == {FILES[target]}


def _until(condition, timeout_s: float = 60) -> None:  # type: ignore[no-untyped-def]
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize("holder", ["here", "there"])
def test_another_process_reads_and_writes_all_the_while(tmp_path: Path, holder: str) -> None:
    """``here``: this process converts; ``there``: the writer has the lease and does it for us."""
    path = tmp_path / "db"
    with memdb.open(path, embedder="none") as db:
        db.spaces.create("photos", dim=DIM, profile="exact")
        model = fill(db, 3000, 1)
        assert db._maintenance.drain()
        if holder == "here":
            writer = run(WRITER, path, 1000)
    if holder == "there":
        writer = run(WRITER, path, 1000)
    assert writer.stdout is not None
    lines = [writer.stdout.readline()]
    with memdb.open(path, embedder="none") as db:
        if holder == "there":
            assert not db._engine.store.lease.held
        for profile in ("standard", "compact"):
            db.spaces.convert("photos", profile)  # type: ignore[arg-type]
            lines.append(writer.stdout.readline())
        writer.terminate()
        lines += writer.stdout.read().splitlines(keepends=True)
        writer.wait()
        model.update(_told([line for line in lines if line.endswith("\n")]))
        assert len(lines) > 3
        assert db._maintenance.drain()
        check_vectors(db, model, "compact")
        assert db.check()["ok"]
        db.spaces.convert("photos", "compact")
        assert records_of(db) == {"refine.5"}


def test_a_holder_that_does_nothing_is_named(
    db: memdb.Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("memdb.spaces._PATIENCE_S", 0.2)
    db.spaces.create("photos", dim=DIM)
    fill(db, 100, 1)
    assert db._maintenance.drain()
    program = "import sys\nsys.stdin.readline()\n"
    db._maintenance.stop()
    db._engine.store.lease.release()
    holding = (
        "import sys, pathlib\nfrom memdb.storage.lease import Lease\n"
        "lease = Lease(pathlib.Path(sys.argv[1]) / 'lease')\nlease.acquire()\n"
        "print('held', flush=True)\n" + program
    )
    other = subprocess.Popen(
        [sys.executable, "-c", holding, str(db.path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert other.stdout is not None and other.stdout.readline() == "held\n"
    with pytest.raises(memdb.LockHeld, match=str(other.pid)):
        db.spaces.convert("photos", "nano")
    assert job_of(db) is not None  # wanted still
    other.communicate("\n", timeout=30)
    assert db.spaces.convert("photos", "nano").profile == "nano"
