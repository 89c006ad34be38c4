"""The real server over one database, and a visitor who knows cookies and no JavaScript."""

from __future__ import annotations

import http.client
import json
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlencode, urlsplit

import memdb
from memdb.server.host import Host, ServeOptions

WAIT_S = 30.0


class Hosted:
    """A running server; ``db`` is a handle of the test's own on the whole database."""

    def __init__(self, host: Host, db: memdb.Database) -> None:
        self._host = host
        self.db = db
        self.url = host.url

    def link(self) -> str:
        """An address that signs in, once."""
        return f"{self.url}/open?code={self._host.sessions.codes.issue()}"


@contextmanager
def hosting(path: Path) -> Iterator[Hosted]:
    """Serve the database at ``path`` on a free port, and stop afterwards."""
    host = Host(memdb.open(path, create=False), ServeOptions(port=0))
    thread = threading.Thread(target=host.run)
    thread.start()
    try:
        with memdb.open(path, namespace="", create=False) as db:
            yield Hosted(host, db)
    finally:
        host.stop()
        thread.join(WAIT_S)
        assert not thread.is_alive()


class Answer(NamedTuple):
    """What came back; ``headers`` by names in lower case."""

    status: int
    headers: dict[str, str]
    text: str


class Visitor:
    """A browser without JavaScript: it keeps cookies and says where a form is from."""

    def __init__(self, host: Hosted) -> None:
        self.host = host
        self._cookies: dict[str, str] = {}

    def signed_in(self) -> Visitor:
        assert self.get(self.host.link()).status == 303
        return self

    def get(self, address: str) -> Answer:
        return self._ask("GET", address, None, {})

    def post(
        self,
        address: str,
        fields: Mapping[str, str],
        *,
        as_json: bool = False,
        body: str | None = None,
        token: str | None = None,
    ) -> Answer:
        """A form; as a script posts it with ``as_json``. ``token``: instead of the session's."""
        given = self.token() if token is None else token
        if as_json:
            headers = {"Content-Type": "application/json", "X-CSRF-Token": given}
            sent = json.dumps(dict(fields)) if body is None else body
        else:
            headers = {"Content-Type": "application/x-www-form-urlencoded"}
            sent = urlencode({"csrf": given, **fields})
        return self._ask("POST", address, sent.encode(), {**headers, "Origin": self.host.url})

    def follow(self, answer: Answer) -> Answer:
        assert answer.status == 303, answer.text
        return self.get(answer.headers["location"])

    def token(self) -> str:
        """The token that the session's forms carry."""
        found = re.search(r'name="csrf" value="([^"]+)"', self.get("/trash").text)
        assert found is not None
        return found[1]

    def _ask(
        self, method: str, address: str, body: bytes | None, headers: Mapping[str, str]
    ) -> Answer:
        at = urlsplit(self.host.url)
        to = urlsplit(address)
        path = to.path + (f"?{to.query}" if to.query else "")
        cookies = {"Cookie": "; ".join(f"{n}={v}" for n, v in self._cookies.items())}
        connection = http.client.HTTPConnection(at.hostname or "", at.port, timeout=WAIT_S)
        try:
            sent: dict[str, Any] = {**headers, **(cookies if self._cookies else {})}
            connection.request(method, path, body, sent)
            got = connection.getresponse()
            for value in got.headers.get_all("Set-Cookie") or []:
                name, _, rest = value.partition("=")
                self._cookies[name] = rest.partition(";")[0]
            named = {name.lower(): value for name, value in got.getheaders()}
            return Answer(got.status, named, got.read().decode())
        finally:
            connection.close()
