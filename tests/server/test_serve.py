"""``memdb serve`` as a process: found through server.json, private files, a graceful stop."""

from __future__ import annotations

import http.client
import json
import os
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import memdb
from memdb.server.host import Host, ServeOptions
from tests.server.running import serving
from tests.source_tree import ROOT


@contextmanager
def process(path: Path, *options: str) -> Iterator[tuple[subprocess.Popen[str], dict[str, Any]]]:
    """``memdb serve`` over ``path``, and what it said when it was ready."""
    command = [sys.executable, "-m", "memdb.cli", "--db", str(path), "--json", "--embedder", "none"]
    running = subprocess.Popen(
        [*command, "serve", "--port", "0", *options],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert running.stdout is not None and running.stderr is not None
        line = running.stdout.readline()
        yield running, json.loads(line) if line else {"error": running.stderr.read()}
    finally:
        running.kill()
        running.communicate()


def ask(said: dict[str, Any], path: str, *, body: Any = None) -> tuple[int, Any]:
    token = Path(said["token_file"]).read_text("utf-8").strip()
    port = int(said["url"].rpartition(":")[2])
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    connection.request("POST" if body else "GET", path, body and json.dumps(body), headers)
    got = connection.getresponse()
    read = got.read()
    answer = got.status, read if path == "/metrics" else json.loads(read)
    connection.close()
    return answer


def test_it_stops_when_told_so_the_moment_it_says_that_it_is_ready(tmp_path: Path) -> None:
    """Before anything listens to signals but the host itself."""
    assert threading.current_thread() is threading.main_thread()
    before = signal.getsignal(signal.SIGTERM)
    host = Host(memdb.open(tmp_path / "db", embedder="none"), ServeOptions(port=0))
    host.run(lambda: os.kill(os.getpid(), signal.SIGTERM))
    assert signal.getsignal(signal.SIGTERM) is before
    assert not (tmp_path / "db" / "server.json").exists()


def test_serve_answers_is_found_and_stops_when_told(tmp_path: Path) -> None:
    path = tmp_path / "db"
    with process(path) as (running, said):
        assert said["pid"] == running.pid
        # The first answer comes after everything is announced.
        status, written = ask(said, "/v1/memories", body={"items": [{"text": "kept"}]})
        assert status == 200
        found = json.loads((path / "server.json").read_text("utf-8"))
        assert found["pid"] == running.pid and found["url"] == said["url"]
        for name in ("server.json", "server.token", "server.lock"):
            assert stat.S_IMODE((path / name).stat().st_mode) == 0o600
        with process(path) as (second, refused):
            assert second.wait(30) == 1 and "lock_held" in refused["error"]
        running.send_signal(signal.SIGTERM)
        assert running.wait(30) == 0
    assert not (path / "server.json").exists() and not (path / "server.token").exists()
    with memdb.open(path) as db:
        assert db[written[0]["id"]].text == "kept"


def test_a_server_that_was_killed_leaves_nothing_in_the_way(tmp_path: Path) -> None:
    path = tmp_path / "db"
    with process(path) as (running, said):
        ask(said, "/v1/stats")
        os.kill(running.pid, signal.SIGKILL)
        running.wait(30)
    with process(path) as (_, said):
        assert ask(said, "/v1/stats")[0] == 200


@pytest.mark.parametrize(
    "options",
    [
        {"host": "0.0.0.0"},
        {"host": "192.168.1.20", "expose": True},
        {"host": "::", "tls_cert": "c.pem", "tls_key": "k.pem"},
        {"host": "example.org", "expose": True},
        {"tls_cert": "c.pem"},
    ],
)
def test_it_listens_to_this_device_alone_unless_exposed_with_tls(options: dict[str, Any]) -> None:
    with pytest.raises(memdb.InvalidArgument):
        ServeOptions(**options).checked()


def test_garbage_is_collected_again_once_it_has_started_but_not_what_was_there() -> None:
    """What runs the tests keeps its garbage collected: the state is that of another process."""
    program = (
        "import gc; from memdb.server.starting import collecting_later\n"
        "with collecting_later(): within = gc.isenabled()\n"
        "print(within, gc.isenabled(), gc.get_freeze_count() > 1000)"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True,
                          check=True)  # fmt: skip
    assert done.stdout.split() == ["False", "True", "True"]


def test_whoever_asks_first_for_what_is_imported_later_is_answered(tmp_path: Path) -> None:
    with process(tmp_path / "db") as (_, said):
        paths = ["/v1/stats", "/v1/namespaces", "/openapi.json", "/metrics"] * 3
        with ThreadPoolExecutor(len(paths)) as clients:
            assert {status for status, _ in clients.map(lambda p: ask(said, p), paths)} == {200}


def test_a_server_starts_without_what_hot_routes_do_not_need() -> None:
    program = (
        "import sys, tempfile, memdb; from memdb.server.host import Host, ServeOptions;"
        "db = memdb.open(tempfile.mkdtemp(), embedder='none'); Host(db, ServeOptions(port=0));"
        "print(*[name for name in ('mcp', 'starlette', 'pydantic', 'flask', 'jinja2',"
        " 'prometheus_client') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True,
                          check=True)  # fmt: skip
    assert done.stdout.strip() == ""


def command(path: Path, *words: str) -> Any:
    done = subprocess.run(
        [sys.executable, "-m", "memdb.cli", "--db", str(path), "--json", *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout)


def opened_by(*words: str) -> list[str]:
    """What a command loaded of that which only a process with an open database needs."""
    program = (
        f"import sys; from memdb.cli import main; assert main({list(words)!r}) == 0;"
        "print(*[n for n in ('numpy', 'lmdb', 'urllib.request') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True,
                          check=True)  # fmt: skip
    return done.stdout.splitlines()[-1].split()


def test_the_command_line_asks_the_server_that_runs(tmp_path: Path) -> None:
    path = tmp_path / "db"
    with serving(path) as served:
        written = command(path, "remember", "Finn sails on Sundays", "--tag", "sport")
        assert served.db[written["id"]].source == "cli"
        assert command(path, "recall", "sails", "-k", "1")["hits"][0]["id"] == written["id"]
        assert "Finn" in command(path, "context", "sails")["text"]
        counted = served.ask("GET", "/metrics").body.decode()
        for name in ("add_memories", "recall", "context"):
            assert f'route="{name}",status="200"}} 1.0' in counted
        command(path, "recall", "sails", "--no-server")
        assert served.ask("GET", "/metrics").body.decode().count('route="recall",status="200"} 1.0')
        assert not opened_by("--db", str(path), "recall", "sails")
    # What is left of a server that is gone is in nobody's way.
    assert "numpy" in opened_by("--db", str(path), "recall", "sails")
    (path / "server.json").write_text(json.dumps({**FOUND, "token_file": str(path / "FORMAT")}))
    assert command(path, "recall", "sails", "-k", "1")["hits"][0]["id"] == written["id"]


FOUND = {"url": "http://127.0.0.1:1", "version": memdb.__version__, "certificate": None}
