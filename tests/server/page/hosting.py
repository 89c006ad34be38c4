"""A host for the page in one process: the blueprint in an application, with sessions of its own."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from flask import Flask, g, request
from werkzeug.serving import make_server
from werkzeug.wrappers import Response

import memdb
from memdb.server.page import blueprint

COOKIE = "memdb_session"


class Host:
    """The page of one database on a free port of the loopback."""

    def __init__(self, db: memdb.Database) -> None:
        self.db = db
        self.app = Flask("memdb")
        self.app.register_blueprint(blueprint)
        self.app.before_request(self._who)
        self.app.extensions["memdb_exchange"] = self._exchange
        self._codes: set[str] = set()
        self._sessions: dict[str, str] = {}
        self._server = make_server("127.0.0.1", 0, self.app, threaded=True)
        self.url = f"http://127.0.0.1:{self._server.port}"
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()

    def link(self) -> str:
        """An address that signs in, once."""
        code = secrets.token_urlsafe()
        self._codes.add(code)
        return f"{self.url}/open?code={code}"

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def _who(self) -> None:
        g.csrf = self._sessions.get(request.cookies.get(COOKIE, ""), "")
        g.memdb = self.db
        g.principal = SimpleNamespace(owner=True) if g.csrf else None
        g.acting = self.db if g.csrf else None

    def _exchange(self, code: str) -> Callable[[Response], Any] | None:
        if code not in self._codes:
            return None
        self._codes.discard(code)
        session = secrets.token_urlsafe()
        self._sessions[session] = secrets.token_urlsafe()

        def sign_in(answer: Response) -> None:
            answer.set_cookie(COOKIE, session, httponly=True, samesite="Strict")

        return sign_in
