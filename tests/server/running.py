"""A server that really runs, in a thread of the test's process, and raw ways to talk to it."""

from __future__ import annotations

import http.client
import json
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import memdb
from memdb.server.host import Host, ServeOptions

WAIT_S = 30.0


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Served:
    """One running server and its owner's token."""

    def __init__(self, host: Host, token: str, db: memdb.Database) -> None:
        self.host = host
        self.port = host.port
        self.url = host.url
        self.token = token
        self.db = db

    def ask(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        token: str | None = "",
        headers: Mapping[str, str] | None = None,
        raw: bytes | None = None,
    ) -> Answer:
        """One request on a connection of its own; ``token=None`` sends none."""
        given = {"Content-Type": "application/json"} if body is not None or raw is not None else {}
        if token is not None:
            given["Authorization"] = f"Bearer {token or self.token}"
        sent = raw if raw is not None else None if body is None else json.dumps(body).encode()
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=WAIT_S)
        try:
            connection.request(method, path, sent, {**given, **(headers or {})})
            got = connection.getresponse()
            return Answer(got.status, {k.lower(): v for k, v in got.getheaders()}, got.read())
        finally:
            connection.close()

    def raw(self, data: bytes, *, timeout_s: float = WAIT_S) -> bytes:
        """Send these bytes, and return what comes until the server closes the connection."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=timeout_s) as connection:
            connection.sendall(data)
            return _all_of(connection)


def _all_of(connection: socket.socket) -> bytes:
    got = b""
    while part := connection.recv(65_536):
        got += part
    return got


@contextmanager
def serving(path: Path, **options: Any) -> Iterator[Served]:
    """A server over the database at ``path``, stopped and closed afterwards."""
    db = memdb.open(path, embedder="none", source="server")
    host = Host(db, ServeOptions(port=0, **options))
    thread = threading.Thread(target=host.run)
    thread.start()
    try:
        # The socket listens since Host was made: a request waits until the loop runs.
        wait = http.client.HTTPConnection("127.0.0.1", host.port, timeout=WAIT_S)
        wait.request("GET", "/v1/healthz")
        assert wait.getresponse().status == 200
        wait.close()
        yield Served(host, host.token_file.read_text("utf-8").strip(), db)
    finally:
        host.stop()
        thread.join(WAIT_S)
        assert not thread.is_alive()
