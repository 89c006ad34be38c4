"""HTTP/1.1 on one connection: uvicorn's protocols, and what they leave out.

A head must come in time, so that a slow one holds no connection for ever; it must not be longer
than anybody would send; and what is no HTTP/1.1 is refused with a problem, as all else is. Of
uvicorn's two protocols the one over llhttp (the package ``httptools``) takes a third of the
processor time, and h11 is there wherever Python is: ``protocol`` takes the first that is installed.
What a request means is the gate's to say; this file knows bytes, states and timers.
"""

from __future__ import annotations

import asyncio
import importlib.util
from typing import Final

from memdb.server import problems
from memdb.server.limits import Limits
from memdb.server.problems import Refused

NO_HTTP: Final = Refused(
    400, "bad_request", "the request is no HTTP/1.1, or its head is too long", "shorten it"
)


def protocol(limits: Limits, *, name: str | None = None) -> type[asyncio.Protocol]:
    """The class of what speaks on a connection; ``name``: "httptools" or "h11", else the best."""
    if name is None:
        name = "httptools" if importlib.util.find_spec("httptools") is not None else "h11"
    base = _over_h11() if name == "h11" else _over_httptools()
    made: type[asyncio.Protocol] = type(
        base.__name__, (base,), {"head_s": limits.head_s, "head_bytes": limits.head_bytes}
    )
    return made


class _Timed:
    """The time that a head may take."""

    head_s: float
    head_bytes: int
    loop: asyncio.AbstractEventLoop
    transport: asyncio.Transport
    _late: asyncio.TimerHandle | None = None

    def _wait(self) -> None:
        if self._late is None:
            self._late = self.loop.call_later(self.head_s, self._drop)

    def _stop_waiting(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None

    def _drop(self) -> None:
        self._late = None
        if not self.transport.is_closing():
            self.transport.close()


def _refusal() -> tuple[list[tuple[bytes, bytes]], bytes]:
    """Headers and body of the answer to what is no request."""
    body = problems.encode(problems.of_refusal(NO_HTTP))
    headers = [
        (b"content-type", problems.CONTENT_TYPE.encode()),
        (b"content-length", str(len(body)).encode()),
        (b"connection", b"close"),
    ]
    return headers, body


def _over_h11() -> type[_Timed]:
    import h11  # a third of a server's start goes to imports, and llhttp needs none of these
    from uvicorn.protocols.http.h11_impl import H11Protocol

    class Pure(_Timed, H11Protocol):
        """In Python alone."""

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            self._wait()

        def data_received(self, data: bytes) -> None:
            waiting = self.conn.their_state is h11.IDLE
            super().data_received(data)
            if self.conn.their_state is not h11.IDLE:
                self._stop_waiting()
            elif waiting:
                self._wait()

        def send_400_response(self, msg: str) -> None:
            headers, body = _refusal()
            answer = h11.Response(
                status_code=NO_HTTP.status, headers=headers, reason=b"Bad Request"
            )
            for event in (answer, h11.Data(data=body), h11.EndOfMessage()):
                self.transport.write(self.conn.send(event) or b"")
            self.transport.close()

        def connection_lost(self, exc: Exception | None) -> None:
            self._stop_waiting()
            super().connection_lost(exc)

    return Pure


def _over_httptools() -> type[_Timed]:
    from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

    class Compiled(_Timed, HttpToolsProtocol):
        """llhttp sets no bound to a head, to trailers, or to what stands around chunks: whatever
        comes without a head being whole or a part of a body being there is counted."""

        _in_body = False  # from the end of a head to the end of its body
        _unread = 0

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            self._wait()

        def data_received(self, data: bytes) -> None:
            self._unread += len(data)
            super().data_received(data)
            if self.transport.is_closing():
                return
            if self._unread > self.head_bytes:
                self.send_400_response("")
            elif self._in_body or (self.cycle is not None and not self.cycle.response_complete):
                self._stop_waiting()
            else:
                self._wait()

        def on_header(self, name: bytes, value: bytes) -> None:
            super().on_header(name, value.strip(b" \t"))

        def on_headers_complete(self) -> None:
            self._in_body, self._unread = True, 0
            if not self.url.startswith(b"/") or b"#" in self.url:
                raise ValueError("the target is no path")  # told as what is no HTTP
            super().on_headers_complete()
            if self.parser.should_upgrade():  # nobody does: the parser reads nothing after it
                self.cycle.keep_alive = False

        def on_body(self, body: bytes) -> None:
            self._unread = 0
            super().on_body(body)

        def on_message_complete(self) -> None:
            self._in_body, self._unread = False, 0
            super().on_message_complete()

        def send_400_response(self, msg: str) -> None:
            headers, body = _refusal()
            lines = b"".join(b"%s: %s\r\n" % pair for pair in headers)
            self.transport.write(b"HTTP/1.1 400 Bad Request\r\n%s\r\n%s" % (lines, body))
            self.transport.close()

        def connection_lost(self, exc: Exception | None) -> None:
            self._stop_waiting()
            super().connection_lost(exc)

    return Compiled


__all__ = ["NO_HTTP", "protocol"]
