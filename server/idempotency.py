"""``Idempotency-Key``: a write that is sent again is done once, and answered the same.

Kept in memory, for a day and up to a number of replies: what is sent again after a restart meets
the library's own guards (exact duplicates are stored once, external ids and erasures conflict).
Replies lie here by principal, route and key with a digest of the request, so that nobody gets
another's, and a key that comes with another request is an error. An erasure empties it.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

from memdb.server.problems import Refused

if TYPE_CHECKING:
    from memdb import Principal
    from memdb.server.routing import Reply

KEEP_S: Final = 24 * 3600
MOST_REPLIES: Final = 10_000
MOST_BYTES: Final = 32 << 20
KEY_BYTES: Final = 255
REPLAYED: Final = ("Idempotency-Replayed", "true")

_Slot = tuple[str, str, str]


class _Kept:
    """One key: in work until ``reply`` is there."""

    __slots__ = ("digest", "reply", "until")

    def __init__(self, digest: bytes) -> None:
        self.digest = digest
        self.reply: Reply | None = None
        self.until = 0.0


class Replays:
    """What was answered to whom under which key."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._kept: OrderedDict[_Slot, _Kept] = OrderedDict()
        self._bytes = 0

    def claim(
        self, principal: Principal, route: str, key: str, path: Mapping[str, str], body: bytes
    ) -> Reply | Claim:
        """The reply that was given under the key, or the right to give the first one.

        Raises ``Refused``: 400 for a malformed key, 409 while the first is in work, 422 where the
        key came with another request.
        """
        if not key.isascii() or not key.isprintable() or not 0 < len(key) <= KEY_BYTES:
            raise Refused(
                400,
                "invalid_argument",
                "Idempotency-Key must be 1 to 255 visible ASCII characters",
                "a UUID is a good one",
            )
        digest = hashlib.sha256("\0".join([*path.values(), ""]).encode() + body).digest()
        slot = (str(principal.token_id or principal.name), route, key)
        with self._lock:
            self._drop_old()
            kept = self._kept.get(slot)
            if kept is None:
                self._kept[slot] = _Kept(digest)
                return Claim(self, slot)
            if kept.digest != digest:
                raise Refused(
                    422,
                    "idempotency_key_reused",
                    "the Idempotency-Key came with another request before",
                    "use a new key for a new request",
                )
            if kept.reply is None:
                raise Refused(
                    409,
                    "conflict",
                    "the request with this Idempotency-Key is still in work",
                    "send it again in a moment",
                    headers={"Retry-After": "1"},
                )
            return _replayed(kept.reply)

    def clear(self) -> None:
        """Forget every reply that was given; those in work go on."""
        with self._lock:
            self._kept = OrderedDict((s, k) for s, k in self._kept.items() if k.reply is None)
            self._bytes = 0

    def _drop_old(self) -> None:
        now = self._clock()
        for slot, kept in list(self._kept.items()):
            full = len(self._kept) > MOST_REPLIES or self._bytes > MOST_BYTES
            if kept.reply is None or not (kept.until < now or full):
                break
            del self._kept[slot]
            self._bytes -= len(kept.reply.body)

    def _finish(self, slot: _Slot, reply: Reply | None) -> None:
        with self._lock:
            kept = self._kept.get(slot)
            if kept is None:
                return
            if reply is None or reply.status >= 500:
                del self._kept[slot]
                return
            kept.reply, kept.until = reply, self._clock() + KEEP_S
            self._bytes += len(reply.body)


class Claim:
    """The right to answer first under a key; given back where nothing was answered."""

    def __init__(self, replays: Replays, slot: _Slot) -> None:
        self._replays = replays
        self._slot = slot
        self._reply: Reply | None = None

    def keep(self, reply: Reply) -> None:
        self._reply = reply

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._replays._finish(self._slot, self._reply)


def _replayed(reply: Reply) -> Reply:
    from dataclasses import replace

    return replace(reply, headers=(*reply.headers, REPLAYED))
