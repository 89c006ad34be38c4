"""Who is asking, and what they may do: the one seam between requests and the library.

The gate asks ``authenticate`` who a token stands for; a route gets an ``acting`` with the verbs of
a database. Nothing else in the server looks at a token or chooses what a principal may see.

The running server has a token of the owner for the command line of the same user: 256 random bits
in a file that only that user can read, gone when the server stops.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from memdb import Database, PermissionDenied
from memdb import open as open_database

TOKEN_FILE: Final = "server.token"
MOST_SECRET_BYTES: Final = 512


@dataclass(frozen=True, slots=True)
class Principal:
    """Who asks. ``owner``: everything is theirs."""

    name: str
    owner: bool = False
    token_id: str | None = None
    grant: Any = None


OWNER = Principal("owner", owner=True)


class Identities:
    """Tokens of one running server, over one database."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._whole = open_database(db.path, namespace="", create=False)
        self._digest: bytes | None = None
        self._file: Path | None = None

    @property
    def owner(self) -> Principal:
        """The person whose memory it is: what a session of the page stands for."""
        return OWNER

    def issue_file(self) -> Path:
        """Make the owner's token of this run; the file that has it (0600)."""
        secret = secrets.token_urlsafe(32)
        path = self._db.path / TOKEN_FILE
        write_private(path, secret + "\n")
        self._digest, self._file = hashlib.sha256(secret.encode()).digest(), path
        return path

    def close(self) -> None:
        """Let go of what it opened beside the database it was given."""
        self._whole.close()

    def withdraw_file(self) -> None:
        """The token of this run is worth nothing from here on, and its file is gone."""
        self._digest = None
        if self._file is not None:
            self._file.unlink(missing_ok=True)

    def authenticate(self, secret: str) -> Principal:
        """Whose token it is; ``PermissionDenied``, the same for whatever is wrong with it."""
        if self._digest is not None and len(secret) <= MOST_SECRET_BYTES:
            given = hashlib.sha256(secret.encode()).digest()
            if hmac.compare_digest(given, self._digest):
                return OWNER
        raise PermissionDenied("the token is not valid", hint="memdb token create NAME makes one")

    def acting(
        self,
        principal: Principal,
        *,
        purpose: str | None,
        tool: str,
        transport: str = "http",
        everything: bool = False,
    ) -> Any:
        """The database as the principal may see and change it, for one request.

        ``everything``: the owner's reads cover every namespace, as on the page.
        """
        return self._whole if everything and principal.owner else self._db


def write_private(path: Path, text: str) -> None:
    """Write a file that only its user can read, whole or not at all."""
    temporary = path.with_name(path.name + ".new")
    temporary.unlink(missing_ok=True)
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(text)
    os.replace(temporary, path)
