"""A part that is made later: once, for all who ask, and again where that failed."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import MutableMapping
from typing import Any

import pytest

from memdb.server.gate import App, Receive, Scope, Send
from memdb.server.later import Later


class Part:
    """An app that counts; ``make`` waits until ``go`` and fails ``failures`` times."""

    def __init__(self, failures: int = 0) -> None:
        self.go = threading.Event()
        self.made = 0
        self.answered = 0
        self.lived: list[str] = []
        self._failures = failures

    def make(self) -> App:
        assert self.go.wait(30)
        self.made += 1
        if self.made <= self._failures:
            raise RuntimeError("not this time")
        return self.app

    async def app(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            for answer in ("startup", "shutdown"):
                self.lived.append((await receive())["type"])
                await send({"type": f"lifespan.{answer}.complete"})
            return
        self.answered += 1


async def nothing() -> MutableMapping[str, Any]:
    return {"type": "http.request"}


async def nowhere(message: MutableMapping[str, Any]) -> None:
    return None


def test_it_is_made_once_for_all_who_ask_and_ends_with_the_server() -> None:
    async def scenario(part: Part) -> None:
        later = Later(part.make)
        later.begin()
        asking = [asyncio.create_task(later({"type": "http"}, nothing, nowhere)) for _ in range(9)]
        await asyncio.sleep(0)
        impatient = asking.pop()
        impatient.cancel()
        part.go.set()
        await asyncio.gather(*asking)
        with pytest.raises(asyncio.CancelledError):
            await impatient
        await later({"type": "http"}, nothing, nowhere)
        await later.end()

    part = Part()
    asyncio.run(scenario(part))
    assert part.made == 1 and part.answered == 9
    assert part.lived == ["lifespan.startup", "lifespan.shutdown"]


def test_where_making_it_failed_the_next_who_asks_tries_again() -> None:
    async def scenario(part: Part) -> None:
        part.go.set()
        later = Later(part.make)
        with pytest.raises(RuntimeError):
            await later({"type": "http"}, nothing, nowhere)
        await later({"type": "http"}, nothing, nowhere)
        await later.end()

    part = Part(failures=1)
    asyncio.run(scenario(part))
    assert part.made == 2 and part.answered == 1


def test_it_is_made_unasked_after_a_while_or_never() -> None:
    async def scenario(part: Part, unasked_s: float | None) -> None:
        part.go.set()
        later = Later(part.make, unasked_s=unasked_s)
        later.begin()
        if unasked_s is not None:
            async with asyncio.timeout(30):
                while not part.lived:
                    await asyncio.sleep(0.001)
        await later.end()

    asked, never = Part(), Part()
    asyncio.run(scenario(asked, 0.001))
    asyncio.run(scenario(never, None))
    assert asked.made == 1 and asked.lived == ["lifespan.startup", "lifespan.shutdown"]
    assert never.made == 0
