"""MCP over streamable HTTP: a running server, spoken to on its socket by the SDK's client."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import httpx2
import pytest
from mcp import Client, MCPError
from mcp.client.streamable_http import streamable_http_client

import memdb
from memdb.server.mcp.chatgpt import TOOLS as CHATGPT
from memdb.server.mcp.service import INSTRUCTIONS
from memdb.server.mcp.tools import TOOLS
from tests.server.mcp_calls import asked, every_tool, refused
from tests.server.running import Served

INITIALIZE = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "initialize",
    "params": {
        "protocolVersion": "2025-06-18",
        "capabilities": {},
        "clientInfo": {"name": "raw", "version": "0"},
    },
}
ACCEPT = {"Accept": "application/json, text/event-stream"}


@asynccontextmanager
async def client(
    served: Served, path: str = "/mcp", *, mode: Any = "auto", token: str | None = None
) -> AsyncIterator[Client]:
    headers = {"Authorization": f"Bearer {token or served.token}", "Memdb-Purpose": "a test"}
    async with (
        httpx2.AsyncClient(headers=headers) as http,
        Client(streamable_http_client(served.url + path, http_client=http), mode=mode) as found,
    ):
        yield found


def test_the_sdks_client_lists_and_calls_every_tool(served: Served) -> None:
    async def run() -> set[str]:
        async with client(served) as found:
            assert found.instructions == INSTRUCTIONS
            assert [tool.name for tool in (await found.list_tools()).tools] == [
                tool.name for tool in TOOLS
            ]
            return await every_tool(found)

    assert anyio.run(run) == {tool.name for tool in TOOLS}
    assert served.db.profile["city"] == "Porto"


def test_older_clients_and_chatgpts_surface_are_answered(served: Served) -> None:
    served.db.remember("The boiler was serviced by Mr. Kaya")

    async def run() -> None:
        async with client(served, "/mcp/chatgpt", mode="legacy") as found:
            assert [tool.name for tool in (await found.list_tools()).tools] == [
                tool.name for tool in CHATGPT
            ]
            results = (await asked(found, "search", query="boiler"))["results"]
            document = await asked(found, "fetch", id=results[0]["id"])
            assert document["text"] == "The boiler was serviced by Mr. Kaya"

    anyio.run(run)


def test_a_token_has_its_grant_until_it_is_revoked(served: Served) -> None:
    secret = served.db.tokens.create("http-agent").secret
    hidden = served.db.remember("the owner's own errand").id

    async def run() -> str:
        async with client(served, token=secret) as found:
            added = await asked(found, "memory_add", text="an errand of the agent")
            items = (await asked(found, "memory_search", query="errand"))["items"]
            assert [item["id"] for item in items] == [added["id"]]
            assert items[0]["source"] == "agent:http-agent"
            told = await refused(found, "memory_get", id=hidden)
            assert told["code"] == "not_found"
            told = await refused(found, "memory_forget", ids=[added["id"]], confirmed=True)
            assert told["code"] == "permission_denied"
            served.db.tokens.revoke("http-agent")
            with pytest.raises(MCPError):
                await found.call_tool("memory_search", {"query": "errand"})
            return str(added["id"])

    id = anyio.run(run)
    rows = served.db.audit.rows(principal="http-agent").items
    assert {(row.tool, row.transport, row.purpose) for row in rows} >= {
        ("memory_add", "mcp", "a test"),
        ("memory_search", "mcp", "a test"),
        ("memory_forget", "mcp", "a test"),
    }
    assert any(id in row.ids for row in rows) and served.db.audit.verify().ok


def test_many_agents_at_once_are_all_answered(served: Served) -> None:
    async def agent(number: int) -> None:
        async with client(served) as found:
            for step in range(3):
                await asked(found, "memory_add", text=f"parcel {number} of day {step}")

    async def run() -> None:
        async with anyio.create_task_group() as agents:
            for number in range(6):
                agents.start_soon(agent, number)

    anyio.run(run)
    assert len(served.db.recall("parcel", 50, mode="lexical")) == 18


def test_the_gate_stands_before_it(served: Served) -> None:
    def ask(**changes: Any) -> int:
        headers = {**ACCEPT, **changes.pop("headers", {})}
        return served.ask("POST", "/mcp", INITIALIZE, headers=headers, **changes).status

    assert ask() == 200
    assert ask(token=None) == 401
    assert ask(token="mdb_wrong") == 401
    assert ask(headers={"Host": "evil.example"}) == 421
    assert ask(headers={"Origin": "https://evil.example"}) == 403
    assert ask(headers={"Sec-Fetch-Site": "cross-site"}) == 403


def test_answers_are_json_and_there_is_no_stream_and_no_session(served: Served) -> None:
    answer = served.ask("POST", "/mcp", INITIALIZE, headers=ACCEPT)
    assert answer.headers["content-type"] == "application/json"
    assert "mcp-session-id" not in answer.headers
    assert answer.json["result"]["serverInfo"]["version"] == memdb.__version__
    for method in ("GET", "DELETE", "PUT"):
        assert served.ask(method, "/mcp", headers=ACCEPT).status == 405
    assert served.ask("POST", "/mcp/other", INITIALIZE, headers=ACCEPT).status == 404


def test_what_is_no_message_is_an_error_of_the_protocol(served: Served) -> None:
    for raw in (b"{", b"[]", b"null", json.dumps({"jsonrpc": "2.0", "id": 1}).encode()):
        answer = served.ask("POST", "/mcp", raw=raw, headers=ACCEPT)
        assert answer.status == 400 and b"error" in answer.body
