"""The short way for hot routes: from ASGI to the table's function on a thread, without Flask.

Measured (bench/serve.py): Flask through a2wsgi adds about a millisecond of processor time to a
request, most of it hops between threads. Routes without a name in their path are answered here by
the same ``routing.answer``, with the same schemas and checks; Flask has them as well.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Iterable
from functools import partial
from typing import Final

from memdb.server import problems
from memdb.server.gate import Scope, Send
from memdb.server.routing import Reply, Route, Sent, Services, answer, of_problem
from memdb.server.workers import Workers, useful_at_once

HOT: Final = frozenset(
    ["/v1/memories", "/v1/recall", "/v1/search", "/v1/context", "/v1/feedback", "/v1/healthz"]
)
WRITES: Final = frozenset([("POST", "/v1/memories"), ("POST", "/v1/feedback")])
log = logging.getLogger("memdb.server")


class Direct:
    """Answers the hot routes; ``most``: threads that read, and as many that write.

    Writers are apart: most of their time they wait for the disk, and those that wait together are
    synced together, so that they neither wait for those who compute nor hold them up.
    """

    def __init__(self, routes: Iterable[Route], services: Services, most: int) -> None:
        self._routes = {(one.method, one.path): one for one in routes if one.path in HOT}
        self._services = services
        self._readers = Workers("memdb-read", at_once=useful_at_once(), most=most)
        self._writers = Workers("memdb-write", at_once=most, most=most)

    def close(self) -> None:
        """End the threads, once the loop has ended."""
        self._readers.close()
        self._writers.close()

    def route_of(self, method: str, path: str) -> Route | None:
        return self._routes.get((method, path))

    async def __call__(self, route: Route, scope: Scope, send: Send) -> None:
        state = scope["state"]
        state["route"] = route.name
        sent = Sent(
            state["principal"],
            {},
            state["query"],
            state["body"],
            state["purpose"],
            state["idempotency_key"],
        )
        if route.open:
            reply = self._answer(route, sent)
        else:
            loop = asyncio.get_running_loop()
            answered: asyncio.Future[Reply] = loop.create_future()
            by = self._writers if (route.method, route.path) in WRITES else self._readers
            by.submit(partial(self._work, route, sent, loop, answered))
            reply = await answered
        headers = [
            (b"content-type", reply.content_type.encode()),
            (b"content-length", str(len(reply.body)).encode()),
            *((name.lower().encode(), value.encode()) for name, value in reply.headers),
        ]
        await send({"type": "http.response.start", "status": reply.status, "headers": headers})
        await send({"type": "http.response.body", "body": reply.body})

    def _work(
        self,
        route: Route,
        sent: Sent,
        loop: asyncio.AbstractEventLoop,
        answered: asyncio.Future[Reply],
    ) -> None:
        """On a thread: the answer, for who waits for it in the loop."""
        if answered.done():  # given up while it waited for its turn
            return
        reply = self._answer(route, sent)
        with contextlib.suppress(RuntimeError):  # the loop has ended, and nobody waits
            loop.call_soon_threadsafe(_tell, answered, reply)

    def _answer(self, route: Route, sent: Sent) -> Reply:
        try:
            return answer(route, self._services, sent)
        except Exception as error:
            log.error("a request failed", exc_info=error)
            return of_problem(problems.of_refusal(problems.UNEXPECTED))


def _tell(answered: asyncio.Future[Reply], reply: Reply) -> None:
    if not answered.done():
        answered.set_result(reply)
