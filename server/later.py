"""An ASGI app that is imported and started when it is first asked for.

The MCP SDK takes longer to import than all the rest of the server. A server that comes back after
a crash answers at once, and the first MCP client waits for that import instead. Its lifespan is
run in a task of its own and ended with the server's. It does not know what app that is.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from memdb.server.gate import App, Message, Receive, Scope, Send


class Later:
    """Makes the app by ``make``, on a thread, at the first request that is not of the lifespan."""

    def __init__(self, make: Callable[[], App]) -> None:
        self._make = make
        self._making = asyncio.Lock()
        self._over = asyncio.Event()
        self._app: App | None = None
        self._lifespan: asyncio.Task[None] | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await receive()
            await send({"type": "lifespan.startup.complete"})
            await receive()
            self._over.set()
            if self._lifespan is not None:
                await self._lifespan
            await send({"type": "lifespan.shutdown.complete"})
            return
        async with self._making:
            if self._app is None:
                self._app = await self._started(await asyncio.to_thread(self._make))
        await self._app(scope, receive, send)

    async def _started(self, app: App) -> App:
        """The app with its lifespan begun. Raises what that raises."""
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
        self._lifespan = asyncio.create_task(_run(app, scope, receive, send))
        waiting = asyncio.create_task(begun.wait())
        await asyncio.wait({self._lifespan, waiting}, return_when=asyncio.FIRST_COMPLETED)
        if not begun.is_set():
            waiting.cancel()
            await self._lifespan
            raise RuntimeError("an app that is served ended before it began")
        return app


async def _run(app: App, scope: Scope, receive: Receive, send: Send) -> None:
    await app(scope, receive, send)
