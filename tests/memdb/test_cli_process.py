"""The command line as a process of its own: streams, signals, start-up."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import memdb

posix_only = pytest.mark.skipif(os.name != "posix", reason="signals and pipes of POSIX")
HEAVY = ("torch", "pyarrow", "pandas", "tokenizers", "sentence_transformers", "flask", "hnswlib")


def start(*words: str, **options: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "memdb", *words]
    return subprocess.Popen(  # type: ignore[call-overload, no-any-return]
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        **options,
    )


@pytest.fixture
def path(tmp_path: Path) -> Path:
    place = tmp_path / "db"
    with memdb.open(place, embedder="none") as db:
        db.remember_many([f"memory number {number}, " + "filler " * 40 for number in range(2000)])
    return place


def test_both_ways_to_start_it_are_the_same(path: Path) -> None:
    outputs = []
    for module in ("memdb", "memdb.cli"):
        command = [sys.executable, "-m", module, "--db", str(path), "list", "--json"]
        result = subprocess.run(command, capture_output=True, text=True, check=True)
        outputs.append(json.loads(result.stdout))
    assert outputs[0] == outputs[1]
    assert len(outputs[0]["items"]) == 50


@posix_only
def test_a_reader_that_stops_reading_ends_it_quietly(path: Path) -> None:
    process = start("--db", str(path), "export", "-")
    assert process.stdout is not None
    process.stdout.readline()
    process.stdout.close()
    assert process.stderr is not None
    assert process.stderr.read() == ""
    assert process.wait(timeout=20) == 141


@posix_only
def test_ctrl_c_ends_it_without_a_traceback(tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    notes.mkdir()
    (notes / "one.md").write_text("# One\n\nfirst\n")
    place = tmp_path / "watched"
    process = start(
        "--db", str(place), "--embedder", "none", "sync", str(notes), "--watch", "--interval", "0.1"
    )
    assert process.stderr is not None
    assert "watching" in process.stderr.readline()
    (notes / "two.md").write_text("# Two\n\nsecond\n")
    deadline_s = time.monotonic() + 20
    with memdb.open(place) as db:
        while db.count({"kind": "chunk"}) < 2 and time.monotonic() < deadline_s:
            time.sleep(0.05)
        assert db.count({"kind": "chunk"}) == 2
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 130
    assert "Traceback" not in errors


def test_output_that_the_terminal_cannot_show_is_replaced(path: Path) -> None:
    with memdb.open(path) as db:
        id = db.remember("naïve 漢字").id
    process = start("--db", str(path), "get", id, env={**os.environ, "PYTHONIOENCODING": "ascii"})
    out, errors = process.communicate(timeout=20)
    assert (process.returncode, errors) == (0, "")
    assert "na?ve ??" in out


def test_help_loads_nothing_heavy() -> None:
    program = (
        "import sys; from memdb.cli import main; main(['recall', '--help']);"
        f"print([name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)"
    )
    command = [sys.executable, "-c", program]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert result.stderr.strip() == "[]"


def test_colour_is_for_terminals_alone(path: Path) -> None:
    process = start("--db", str(path), "recall", "memory number 7", "-k", "1")
    out, _ = process.communicate(timeout=20)
    assert "\x1b" not in out


@posix_only
@pytest.mark.parametrize(("no_colour", "coloured"), [("", True), ("1", False)])
def test_a_terminal_gets_colour_unless_it_says_no(
    path: Path, no_colour: str, coloured: bool
) -> None:
    import pty

    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "memdb", "--db", str(path), "recall", "number 7", "-k", "1"]
    env = {**os.environ, "NO_COLOR": no_colour, "TERM": "xterm-256color"}
    process = subprocess.Popen(command, stdout=theirs, stderr=subprocess.PIPE, env=env)
    assert process.wait(timeout=20) == 0
    os.close(theirs)
    out = os.read(ours, 1 << 16).decode()
    os.close(ours)
    assert "memory number" in out
    assert ("\x1b[" in out) is coloured
