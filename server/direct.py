"""The short way for hot routes: from ASGI to the table's function on a thread, without Flask.

Measured (bench/serve.py): Flask through a2wsgi adds about a millisecond of processor time to a
request, most of it hops between threads. Routes without a name in their path are answered here by
the same ``routing.answer``, with the same schemas and checks; Flask has them as well.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from memdb.server import problems
from memdb.server.gate import Scope, Send
from memdb.server.routing import Reply, Route, Sent, Services, answer, of_problem

HOT: Final = frozenset(
    ["/v1/memories", "/v1/recall", "/v1/search", "/v1/context", "/v1/feedback", "/v1/healthz"]
)
log = logging.getLogger("memdb.server")


class Direct:
    """Answers the hot routes."""

    def __init__(
        self, routes: Iterable[Route], services: Services, executor: ThreadPoolExecutor
    ) -> None:
        self._routes = {(one.method, one.path): one for one in routes if one.path in HOT}
        self._services = services
        self._executor = executor

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
            reply = await loop.run_in_executor(self._executor, self._answer, route, sent)
        headers = [
            (b"content-type", reply.content_type.encode()),
            (b"content-length", str(len(reply.body)).encode()),
            *((name.lower().encode(), value.encode()) for name, value in reply.headers),
        ]
        await send({"type": "http.response.start", "status": reply.status, "headers": headers})
        await send({"type": "http.response.body", "body": reply.body})

    def _answer(self, route: Route, sent: Sent) -> Reply:
        try:
            return answer(route, self._services, sent)
        except Exception as error:
            log.error("a request failed", exc_info=error)
            return of_problem(problems.of_refusal(problems.UNEXPECTED))
