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
from pathlib import Path
from typing import Final

from memdb import Acting, Database, Principal

TOKEN_FILE: Final = "server.token"


class Identities:
    """Tokens of one running server, over one database."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self.owner: Principal = db.tokens.owner()  # whom a session of the page stands for
        self._digest: bytes | None = None
        self._file: Path | None = None

    def issue_file(self) -> Path:
        """Make the owner's token of this run; the file that has it (0600)."""
        secret = secrets.token_urlsafe(32)
        path = self._db.path / TOKEN_FILE
        write_private(path, secret + "\n")
        self._digest, self._file = hashlib.sha256(secret.encode()).digest(), path
        return path

    def withdraw_file(self) -> None:
        """The token of this run is worth nothing from here on, and its file is gone."""
        self._digest = None
        if self._file is not None:
            self._file.unlink(missing_ok=True)

    def authenticate(self, secret: str) -> Principal:
        """Whose token it is; ``PermissionDenied``, the same for whatever is wrong with it."""
        if self._digest is not None:
            given = hashlib.sha256(secret.encode()).digest()
            if hmac.compare_digest(given, self._digest):
                return self.owner
        return self._db.tokens.authenticate(secret)

    def acting(
        self,
        principal: Principal,
        *,
        purpose: str | None,
        tool: str,
        transport: str = "http",
    ) -> Acting:
        """The database as the principal may see and change it, for one request."""
        return self._db.acting(principal, purpose=purpose, transport=transport, tool=tool)


def write_private(path: Path, text: str) -> None:
    """Write a file that only its user can read, whole or not at all."""
    temporary = path.with_name(path.name + ".new")
    temporary.unlink(missing_ok=True)
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(text)
    os.replace(temporary, path)
