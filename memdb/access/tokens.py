"""``db.tokens``: capability tokens. Who shows a token's secret is its principal.

A secret is ``mdb_``, the token's id and 256 random bits; it is shown once, when the token is made,
and only its hash is kept. A token is found by its id and its hash compared in constant time; that
one is unknown, wrong, revoked, paused or expired is one and the same error. When it was last used
is kept to the minute, beside other work and never in the way of a request.
"""

from __future__ import annotations

import base64
import hmac
import os
import threading
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import msgspec
from msgspec.structs import replace

from memdb import validate
from memdb.access.grant import NOTHING, Grant, Principal
from memdb.engine import Engine
from memdb.errors import Conflict, InvalidArgument, MemdbError, NotFound, PermissionDenied
from memdb.storage import tokens
from memdb.storage.store import Writer
from memdb.storage.tokens import Token
from memdb.times import parse_duration
from memdb.types import from_micros, to_micros

PREFIX: Final = "mdb_"
_SECRET_CHARS: Final = 43
_USED_US: Final = 60_000_000
_CACHED: Final = 256


@dataclass(frozen=True, slots=True)
class NewToken:
    """A token that was made; its secret is nowhere else."""

    secret: str
    name: str
    id: str

    def __repr__(self) -> str:
        return f"NewToken(name={self.name!r}, id={self.id!r})"


@dataclass(frozen=True, slots=True)
class TokenInfo:
    """What is known of a token. Times are None for never."""

    name: str
    id: str
    grant: Grant
    owner: bool
    created_at: datetime
    expires_at: datetime | None
    paused: bool
    revoked_at: datetime | None
    last_used: datetime | None


class Tokens:
    """The tokens of one database."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._principals: dict[bytes, Principal] = {}
        self._used: dict[bytes, int] = {}
        self._noting = threading.Lock()

    def owner(self) -> Principal:
        """The owner in person, for programs that run as the owner: no token is asked for."""
        return _OWNER

    def create(
        self,
        name: str,
        grant: Grant | None = None,
        *,
        owner: bool = False,
        expires_in: Any = None,
    ) -> NewToken:
        """Make a token of that name. Its ``secret`` is in the result and nowhere else.

        Without a ``grant`` it may read and add in its own namespace, which has its name; with
        ``owner`` it may do everything. ``expires_in``: a duration such as "90d". Raises
        ``Conflict`` where a token of that name is neither revoked nor expired.
        """
        given = Grant() if grant is None else grant
        if not isinstance(given, Grant):
            raise InvalidArgument("grant must be a memdb.Grant", field="grant")
        Principal(name, given)
        if owner and grant is not None:
            raise InvalidArgument("an owner's token has no grant: it may everything", field="grant")
        engine = self._engine
        now = engine.now()
        expires_us = 0
        if expires_in is not None:
            expires_us = to_micros(now + parse_duration(expires_in, field="expires_in"))
        id, secret = os.urandom(tokens.ID_BYTES), os.urandom(tokens.SECRET_BYTES)
        token = Token(
            id=id,
            name=name,
            hash=tokens.hash_of(secret),
            owner=bool(owner),
            grant=msgspec.json.encode(given.to_dict(), enc_hook=str),
            created_us=to_micros(now),
            expires_us=expires_us,
        )

        def make(txn: Writer) -> None:
            if any(one.name == name and _is_current(one, now) for one in tokens.every(txn)):
                raise Conflict(
                    "there is a token of that name", hint="revoke it first, or choose another name"
                )
            tokens.put(txn, token)

        engine.store.write(make)
        text = PREFIX + id.hex() + base64.urlsafe_b64encode(secret).decode().rstrip("=")
        return NewToken(text, name, id.hex())

    def list(self) -> list[TokenInfo]:
        """Every token, revoked and expired ones too, in the order they were made."""
        with self._engine.store.read() as txn:
            found = sorted(tokens.every(txn), key=lambda one: (one.created_us, one.id))
        return [_info(one) for one in found]

    def revoke(self, name: str) -> TokenInfo:
        """End a token for good, at once and in every process. Raises ``NotFound``."""
        return self._change(name, revoked_us=to_micros(self._engine.now()))

    def pause(self, name: str) -> TokenInfo:
        """Refuse a token until it is resumed. Raises ``NotFound``."""
        return self._change(name, paused=True)

    def resume(self, name: str) -> TokenInfo:
        """Accept a paused token again. Raises ``NotFound``."""
        return self._change(name, paused=False)

    def _change(self, name: str, **fields: Any) -> TokenInfo:
        validate.string(name, "name")
        now = self._engine.now()

        def change(txn: Writer) -> Token:
            for one in tokens.every(txn):
                if one.name == name and _is_current(one, now):
                    changed = replace(one, **fields)
                    tokens.put(txn, changed)
                    return changed
            raise NotFound("no token has that name", hint="`memdb token list` shows them")

        return _info(self._engine.store.write(change))

    def authenticate(self, secret: str) -> Principal:
        """Who shows this secret. Raises ``PermissionDenied``, always the same."""
        id, raw = _parts(secret)
        with self._engine.store.read() as txn:
            token = tokens.get(txn, id)
        known = _UNKNOWN if token is None else token
        right = hmac.compare_digest(tokens.hash_of(raw), known.hash)
        return self._accepted(known if right else None)

    def named(self, name: str) -> Principal:
        """Whose token has that name, for programs that run as the owner and act as one of the
        agents. Raises ``PermissionDenied`` as ``authenticate`` does."""
        now = self._engine.now()
        with self._engine.store.read() as txn:
            found = [one for one in tokens.every(txn) if one.name == name]
        current = [one for one in found if _is_current(one, now)]
        return self._accepted(current[0] if current else None)

    def _accepted(self, token: Token | None) -> Principal:
        now = self._engine.now()
        if token is None or token.paused or not _is_current(token, now):
            raise PermissionDenied("the token is not valid", hint="ask the owner for a new one")
        self._note_use(token, to_micros(now))
        return self._principal(token)

    def _principal(self, token: Token) -> Principal:
        """Made once for each grant: it is asked for with every request."""
        key = token.id + token.hash
        found = self._principals.get(key)
        if found is None:
            if len(self._principals) >= _CACHED:
                self._principals.clear()
            grant = _grant(token)
            found = Principal(token.name, grant, owner=token.owner, token_id=token.id.hex())
            self._principals[key] = found
        return found

    def _note_use(self, token: Token, now_us: int) -> None:
        """Keep the time in memory; a thread of its own writes it, once a minute at most."""
        last = self._used.get(token.id, token.last_used_us)
        if now_us - last < _USED_US or self._engine.store.readonly:
            return
        self._used[token.id] = now_us
        threading.Thread(target=self._flush, name="memdb-tokens", daemon=True).start()

    def _flush(self) -> None:
        """Write down when tokens were last used."""
        with self._noting:
            used = dict(self._used)

            def note(txn: Writer) -> None:
                for id, at in used.items():
                    token = tokens.get(txn, id)
                    if token is not None and token.last_used_us < at:
                        tokens.put(txn, replace(token, last_used_us=at))

            try:
                self._engine.store.write(note)
            except MemdbError:
                return  # closed or full meanwhile: the next use is noted


_OWNER: Final = Principal("owner", Grant(), owner=True)
_UNKNOWN: Final = Token(b"", "", bytes(32), False, b"", 0)


def _parts(secret: object) -> tuple[bytes, bytes]:
    """(id, secret); what is malformed is as one that is unknown."""
    nothing = bytes(tokens.ID_BYTES), b""
    if not isinstance(secret, str) or not secret.startswith(PREFIX):
        return nothing
    id, coded = secret[len(PREFIX) :][: 2 * tokens.ID_BYTES], secret[len(PREFIX) + 16 :]
    if len(coded) != _SECRET_CHARS:
        return nothing
    try:
        return bytes.fromhex(id), base64.urlsafe_b64decode(coded + "=")
    except ValueError:
        return nothing


def _is_current(token: Token, now: datetime) -> bool:
    expired = token.expires_us and token.expires_us <= to_micros(now)
    return not token.revoked_us and not expired


def _grant(token: Token) -> Grant:
    """What a token may; nothing where that cannot be read, be it that a later memdb wrote it."""
    try:
        return Grant.from_dict(msgspec.json.decode(token.grant))
    except (MemdbError, msgspec.DecodeError, TypeError):
        return NOTHING


def _info(token: Token) -> TokenInfo:
    def moment(micros: int) -> datetime | None:
        return from_micros(micros) if micros else None

    return TokenInfo(
        name=token.name,
        id=token.id.hex(),
        grant=_grant(token),
        owner=token.owner,
        created_at=from_micros(token.created_us),
        expires_at=moment(token.expires_us),
        paused=token.paused,
        revoked_at=moment(token.revoked_us),
        last_used=moment(token.last_used_us),
    )
