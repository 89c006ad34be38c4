"""Table ``tokens``: who may act on the database. No secret is in it, only what one is known by.

    token's id 8 -> msgpack ``Token``

The secret has 256 random bits, so that its plain BLAKE2b tells nothing and needs no stretching. The
grant is msgpack that ``memdb.access`` reads. This file knows rows, not what a grant allows.
"""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import blake2b
from typing import Final

import msgspec

from memdb.errors import StoreCorrupt
from memdb.storage import tables
from memdb.storage.environment import ReadTxn, WriteTxn

ID_BYTES: Final = 8
SECRET_BYTES: Final = 32


class Token(msgspec.Struct, array_like=True, frozen=True):
    """One token. Times are microseconds UTC; 0 stands for never."""

    id: bytes
    name: str
    hash: bytes
    owner: bool
    grant: bytes
    created_us: int
    expires_us: int = 0
    paused: bool = False
    revoked_us: int = 0
    last_used_us: int = 0


_ENCODER = msgspec.msgpack.Encoder()
_DECODER = msgspec.msgpack.Decoder(Token)


def hash_of(secret: bytes) -> bytes:
    return blake2b(secret, digest_size=32, person=b"memdb token").digest()


def put(txn: WriteTxn, token: Token) -> None:
    txn.put(tables.TOKENS, token.id, _ENCODER.encode(token))


def get(txn: ReadTxn, id: bytes) -> Token | None:
    payload = txn.get(tables.TOKENS, id) if txn.has(tables.TOKENS) else None
    return None if payload is None else _decode(payload)


def every(txn: ReadTxn) -> Iterator[Token]:
    if txn.has(tables.TOKENS):
        for _, payload in txn.scan(tables.TOKENS):
            yield _decode(payload)


def _decode(payload: bytes) -> Token:
    try:
        return _DECODER.decode(payload)
    except (msgspec.DecodeError, ValueError) as error:
        raise StoreCorrupt("a token does not decode", path="kv") from error
