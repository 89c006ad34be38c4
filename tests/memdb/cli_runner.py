"""What the tests of the command line share: running one command on one database."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest

from memdb.cli import main


class Runner:
    """Runs commands on the database at ``path`` in this process, through ``main``."""

    def __init__(
        self, path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self.path = path
        self._capsys = capsys
        self._monkeypatch = monkeypatch
        monkeypatch.setenv("COLUMNS", "100")

    def run(self, *words: str, stdin: bytes | None = None) -> tuple[int, str, str]:
        """One command: (exit status, stdout, stderr)."""
        if stdin is not None:
            self._monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        status = main(["--db", str(self.path), *words])
        captured = self._capsys.readouterr()
        return status, captured.out, captured.err

    def ask(self, *words: str, stdin: bytes | None = None) -> Any:
        """One command with ``--json`` that must succeed; what it printed."""
        status, out, err = self.run(*words, "--json", stdin=stdin)
        assert (status, err) == (0, "")
        return json.loads(out)

    def fill(self) -> None:
        """Four memories that selectors tell apart."""
        for text, *options in (
            ("Ana saw the dentist", "--kind", "event", "--at", "2023-01-19T16:30"),
            ("The dentist glued my crown", "--kind", "event", "--at", "2024-10-24"),
            ("Dentist's number is 555-0164", "--source", "app:contacts"),
            ("Theo dug up the tulips", "--at", "2024-03-02", "--source", "app:chat"),
        ):
            if text.startswith(("Ana", "Theo")):
                options += ["--about", text.split()[0]]
            if "dentist" in text:
                options += ["--tag", "health"]
            if text.startswith("Ana"):
                options += ["--tag", "ana"]
            self.ask("remember", text, *options)
