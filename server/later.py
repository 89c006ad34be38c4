"""An ASGI app that is imported and started when it is first asked for, or when there is time.

Flask and the MCP SDK take longer to import than all the rest of the server. A server that comes
back after a crash answers at once; whoever first asks for what they serve waits for that import,
and all who ask meanwhile wait for the same one. The app's lifespan is run in a task of its own and
ended with the server's. It does not know what app that is.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from memdb.server.gate import App, Message, Receive, Scope, Send

log = logging.getLogger("memdb.server")


class Later:
    """Makes the app by ``make``, on a thread. All its state belongs to the event loop.

    ``unasked_s``: so long after ``begin`` it is made without being asked for; None: never.
    """

    def __init__(self, make: Callable[[], App], *, unasked_s: float | None = None) -> None:
        self._make = make
        self._unasked_s = unasked_s
        self._timer: asyncio.TimerHandle | None = None
        self._making: asyncio.Task[App] | None = None
        self._app: App | None = None
        self._lifespan: asyncio.Task[None] | None = None
        self._over = asyncio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await (self._app or await self._made())(scope, receive, send)

    def begin(self) -> None:
        """The server has started."""
        if self._unasked_s is not None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(self._unasked_s, self._make_it)

    async def end(self) -> None:
        """The server stops: so does the app, if there is one."""
        if self._timer is not None:
            self._timer.cancel()
        if self._making is not None:
            await asyncio.wait([self._making])
        self._over.set()
        if self._lifespan is not None:
            await self._lifespan

    async def _made(self) -> App:
        # Who asks may give up; the others, and the app, do not.
        return await asyncio.shield(self._make_it())

    def _make_it(self) -> asyncio.Task[App]:
        """The one task that makes it; begun anew where the last one failed."""
        making = self._making
        if making is None or (making.done() and making.exception() is not None):
            making = self._making = asyncio.create_task(self._begun())
            making.add_done_callback(_said)
        return making

    async def _begun(self) -> App:
        """The app with its lifespan begun. Raises what making and beginning it raise."""
        app = await asyncio.to_thread(self._make)
        begun = asyncio.Event()
        told = False

        async def receive() -> Message:
            nonlocal told
            if told:
                await self._over.wait()
                return {"type": "lifespan.shutdown"}
            told = True
            return {"type": "lifespan.startup"}

        async def send(message: Message) -> None:
            if message["type"] == "lifespan.startup.complete":
                begun.set()

        scope: Scope = {"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}}
        lifespan = asyncio.create_task(_run(app, scope, receive, send))
        waiting = asyncio.create_task(begun.wait())
        await asyncio.wait({lifespan, waiting}, return_when=asyncio.FIRST_COMPLETED)
        if not begun.is_set():
            waiting.cancel()
            await lifespan
            raise RuntimeError("an app that is served ended before it began")
        self._app, self._lifespan = app, lifespan
        return app


async def _run(app: App, scope: Scope, receive: Receive, send: Send) -> None:
    await app(scope, receive, send)


def _said(making: asyncio.Task[App]) -> None:
    """Say why it could not be made: nobody may be waiting for it."""
    if not making.cancelled() and making.exception() is not None:
        log.error("a part of the server could not be started", exc_info=making.exception())
