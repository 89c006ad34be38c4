"""Sessions of the owner's page: a one-time code becomes a cookie, the cookie stands for the owner.

A code is 256 random bits, good once and for a minute. A session is a cookie that scripts cannot
read (HttpOnly) and other sites cannot send (SameSite=Strict), and beside it a CSRF token that a
page must send as a header with whatever changes something. Both are kept as hashes, in memory:
when the server stops, everybody is signed out. This file knows no HTTP but the cookie's attributes.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from memdb import PermissionDenied, Principal
from memdb.server.identity import Identities

COOKIE_NAME: Final = "memdb_session"
CSRF_HEADER: Final = "X-CSRF-Token"
CODE_S: Final = 60
SESSION_S: Final = 12 * 3600  # since it was last used
MOST: Final = 64  # codes, and sessions: the oldest go


@dataclass(slots=True)
class _Session:
    csrf: str
    until: float


class Codes:
    """One-time codes: ``issue`` makes one, ``exchange`` turns it into a session."""

    def __init__(self, sessions: Sessions, clock: Callable[[], float]) -> None:
        self._sessions = sessions
        self._clock = clock
        self._lock = threading.Lock()
        self._until: dict[bytes, float] = {}

    def issue(self) -> str:
        """A code that opens the page once, within a minute."""
        code = secrets.token_urlsafe(32)
        with self._lock:
            while len(self._until) >= MOST:
                self._until.pop(next(iter(self._until)))
            self._until[_hash(code)] = self._clock() + CODE_S
        return code

    def exchange(self, code: str) -> str:
        """The new session's id; ``PermissionDenied`` for a code that is used, old or unknown."""
        with self._lock:
            until = self._until.pop(_hash(code), None)
        if until is None or until < self._clock():
            raise PermissionDenied("the code is not valid", hint="memdb ui opens the page")
        return self._sessions.begin()


class Sessions:
    """Who is signed in to the page."""

    def __init__(self, identities: Identities, clock: Callable[[], float] = time.monotonic) -> None:
        self._identities = identities
        self._clock = clock
        self._lock = threading.Lock()
        self._sessions: dict[bytes, _Session] = {}
        self.codes = Codes(self, clock)

    def begin(self) -> str:
        """A new session's id: the value of its cookie."""
        id = secrets.token_urlsafe(32)
        with self._lock:
            while len(self._sessions) >= MOST:
                self._sessions.pop(next(iter(self._sessions)))
            until = self._clock() + SESSION_S
            self._sessions[_hash(id)] = _Session(secrets.token_urlsafe(32), until)
        return id

    def principal(self, id: str) -> Principal | None:
        """The owner, if the cookie's session is there; its time begins again."""
        return None if self._alive(id) is None else self._identities.owner

    def csrf_of(self, id: str) -> str:
        """The token that the session's pages send as ``X-CSRF-Token``; ``PermissionDenied``."""
        session = self._alive(id)
        if session is None:
            raise PermissionDenied("the session is over", hint="memdb ui opens the page")
        return session.csrf

    def csrf_matches(self, id: str, given: str) -> bool:
        session = self._alive(id)
        if session is None or not given.isascii():
            return False
        return hmac.compare_digest(session.csrf, given)

    def end(self, id: str) -> None:
        """Sign out."""
        with self._lock:
            self._sessions.pop(_hash(id), None)

    def _alive(self, id: str) -> _Session | None:
        with self._lock:
            key = _hash(id)
            session = self._sessions.get(key)
            if session is None:
                return None
            if session.until < self._clock():
                del self._sessions[key]
                return None
            session.until = self._clock() + SESSION_S
            return session


def cookie(id: str, *, secure: bool) -> str:
    """The value of ``Set-Cookie`` for a session; an empty id takes the cookie away."""
    age = "" if id else "; Max-Age=0"
    safe = "; Secure" if secure else ""
    return f"{COOKIE_NAME}={id}; Path=/; HttpOnly; SameSite=Strict{safe}{age}"


def _hash(secret: str) -> bytes:
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).digest()
