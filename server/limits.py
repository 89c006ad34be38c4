"""The limits on what a client may ask of the server, and keeping count of them.

Data and arithmetic: sizes, seconds, how many at once, how many a minute. Who is refused is the
gate's decision. Limits on what a memory or a question may be are the library's.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from memdb import PermissionDenied, Principal

MOST_BUCKETS: Final = 4_096


@dataclass(frozen=True, slots=True)
class Limits:
    """Units are in the names; a route may have a time and a size of its own."""

    body_bytes: int = 8 << 20
    body_s: float = 20.0  # from the head of a request to the end of its body
    head_s: float = 10.0  # from the first byte of a request to the end of its head
    request_s: float = 30.0  # from the end of the body to the end of the answer
    idle_s: int = 60  # a connection that asks nothing
    stop_s: int = 10  # what a stop leaves to requests in work
    at_once: int = 64  # requests in work
    at_once_each: int = 48  # of one principal
    buffered_bytes: int = 512 << 20  # bodies of all requests in work
    connections: int = 512
    workers: int = 16
    header_bytes: int = 32 << 10
    target_bytes: int = 8 << 10

    @property
    def head_bytes(self) -> int:
        """Of a whole head, before it is read."""
        return self.header_bytes + self.target_bytes


class Rates:
    """Token buckets: each principal has a number of requests a minute, a sixth of it at once."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._buckets: dict[str, tuple[float, float]] = {}

    def check(self, principal: Principal) -> None:
        """Count a call of a principal; ``PermissionDenied`` where its grant had its minute's."""
        per_minute = principal.grant.rate_per_minute
        if per_minute is None or principal.owner:
            return
        wait_s = self.wait_s(str(principal.token_id or principal.name), per_minute)
        if wait_s:
            raise PermissionDenied(
                "the token has had its calls of this minute",
                hint=f"wait {math.ceil(wait_s)} seconds",
            )

    def wait_s(self, who: str, per_minute: float) -> float:
        """0 if the request may go on, else the seconds until one may."""
        most = max(1.0, per_minute / 6)
        with self._lock:
            now = self._clock()
            left, at = self._buckets.pop(who, (most, now))
            left = min(most, left + (now - at) * per_minute / 60)
            wait = 0.0 if left >= 1 else (1 - left) * 60 / per_minute
            self._buckets[who] = (left if wait else left - 1, now)
            if len(self._buckets) > MOST_BUCKETS:
                self._buckets.pop(next(iter(self._buckets)))
        return wait


class InWork:
    """How many requests are in work, in all and of each principal, and their bytes."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._each: dict[str, int] = {}
        self.count = 0
        self.buffered = 0

    def enter(self, who: str, size: int) -> bool:
        """Whether one more may be done; ``leave`` it then. Called by one thread only."""
        limits = self._limits
        if (
            self.count >= limits.at_once
            or self._each.get(who, 0) >= limits.at_once_each
            or self.buffered + size > limits.buffered_bytes
        ):
            return False
        self.count += 1
        self.buffered += size
        self._each[who] = self._each.get(who, 0) + 1
        return True

    def leave(self, who: str, size: int) -> None:
        self.count -= 1
        self.buffered -= size
        left = self._each[who] - 1
        if left:
            self._each[who] = left
        else:
            del self._each[who]
