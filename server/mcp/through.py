"""Calls of tools carried from ``memdb mcp`` to the server that runs for the same database.

That one has its embedding model loaded and its pages warm. It is asked over MCP with the owner's
token of its run, and told as whom: the token that was named has its grant, its rate and its rows
of the audit there as here. Where no server takes the call, the process does it itself. It does not
know what tools there are.
"""

from __future__ import annotations

import http.client
import json
import ssl
from collections.abc import Callable, Mapping
from typing import Any, Final
from urllib.parse import quote, urlsplit

from memdb import MemdbError, ServerUnavailable

AS: Final = "Memdb-As"  # whose grant holds; the owner's word alone
PURPOSE: Final = "Memdb-Purpose"
TIMEOUT_S: Final = 60.0
_VERSION: Final = "2025-06-18"  # of the protocol, that of the message below
_PATHS: Final = {"memory": "/mcp", "chatgpt": "/mcp/chatgpt"}

Found = Callable[[], Mapping[str, Any] | None]


class Through:
    """``found``: what ``server.json`` says, with the ``token``; None where there is no server."""

    def __init__(self, found: Found, name: str, purpose: str | None, surface: str) -> None:
        self._found = found
        self._path = _PATHS[surface]
        self._headers: dict[str, str | bytes] = {
            "Content-Type": "application/json",
            "Accept": "application/json, text/event-stream",
            "MCP-Protocol-Version": _VERSION,
            AS: quote(name, safe=""),
        }
        if purpose is not None:
            self._headers[PURPOSE] = purpose.encode()

    def __call__(self, tool: str, arguments: Mapping[str, Any]) -> dict[str, Any] | None:
        """The result of ``tools/call`` as JSON; None where no server took the call.

        Raises ``ServerUnavailable`` where one took it and did not answer: it may be done.
        """
        said = self._found()
        if said is None:
            return None
        connection = _connection(said)
        try:
            connection.connect()
        except OSError:
            return None  # what is left of a server that is gone
        message = {
            "jsonrpc": "2.0",
            "id": 1,
            "method": "tools/call",
            "params": {"name": tool, "arguments": dict(arguments)},
        }
        headers = {**self._headers, "Authorization": f"Bearer {said['token']}"}
        try:
            connection.request("POST", self._path, json.dumps(message).encode(), headers)
            got = connection.getresponse()
            data = got.read()
        except (OSError, http.client.HTTPException):
            raise ServerUnavailable(
                "the server stopped before it answered", hint="look whether it is done; ask again"
            ) from None
        finally:
            connection.close()
        if got.status == 401:
            return None  # its token is of another run
        return _result(got.status, data)


def _connection(said: Mapping[str, Any]) -> http.client.HTTPConnection:
    at = urlsplit(said["url"])
    if at.scheme == "http":
        return http.client.HTTPConnection(at.hostname or "", at.port, timeout=TIMEOUT_S)
    trusted = ssl.create_default_context(cafile=said["certificate"])
    return http.client.HTTPSConnection(
        at.hostname or "", at.port, timeout=TIMEOUT_S, context=trusted
    )


def _result(status: int, data: bytes) -> dict[str, Any]:
    try:
        answer = json.loads(data)
    except ValueError:
        answer = {}
    result = answer.get("result") if isinstance(answer, dict) else None
    if isinstance(result, dict):
        return result
    hint = answer.get("hint") if isinstance(answer, dict) else None
    raise MemdbError(f"the server refused the call ({status})", hint=hint or "look at its log")
