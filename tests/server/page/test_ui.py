"""``memdb ui`` as a process: it serves where nobody does, and asks the server where one runs."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tests.source_tree import ROOT

WAIT_S = 60


def command(path: Path, *words: str) -> list[str]:
    start = [sys.executable, "-m", "memdb.cli", "--db", str(path), "--embedder", "none"]
    return [*start, *words, "ui", "--no-browser"]


def status_of(url: str) -> int:
    at = urlsplit(url)
    connection = HTTPConnection(at.hostname or "", at.port, timeout=WAIT_S)
    connection.request("GET", f"{at.path}?{at.query}")
    status = connection.getresponse().status
    connection.close()
    return status


def test_ui_starts_a_server_or_asks_the_one_that_runs(tmp_path: Path) -> None:
    path = tmp_path / "db"
    first = subprocess.Popen(
        [*command(path, "--json"), "--port", "0"], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    try:
        assert first.stdout is not None
        said: dict[str, Any] = json.loads(first.stdout.readline())
        assert said["serving"] and not said["opened"]
        second = subprocess.run(
            command(path, "--json"),
            cwd=ROOT,
            capture_output=True,
            check=True,
            text=True,
            timeout=WAIT_S,
        )
        asked = json.loads(second.stdout)
        assert not asked["serving"]
        assert urlsplit(asked["url"]).netloc == urlsplit(said["url"]).netloc
        # Each address lets in once: 303 leads to the page.
        assert [status_of(one["url"]) for one in (said, asked, said)] == [303, 303, 401]
        first.send_signal(signal.SIGTERM)
        assert first.wait(WAIT_S) == 0
    finally:
        first.kill()
        first.communicate()
