"""The tools behind the SDK's server, spoken to in this process by the SDK's client."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest
from mcp import Client

import memdb
from memdb.server.mcp.chatgpt import TOOLS as CHATGPT
from memdb.server.mcp.service import INSTRUCTIONS, service
from tests.server.mcp_calls import asked, refused


@pytest.fixture
def db(tmp_path: Path) -> Iterator[memdb.Database]:
    with memdb.open(tmp_path / "life", embedder="none", source="agent:test") as opened:
        yield opened


def test_the_handshake_of_older_clients_is_answered(db: memdb.Database) -> None:
    async def run() -> list[str]:
        async with Client(service(lambda ctx, tool: db), mode="legacy") as client:
            assert client.instructions == INSTRUCTIONS
            assert client.server_info.version == memdb.__version__
            await asked(client, "memory_add", text="The spare key is with Grace")
            found = await asked(client, "memory_search", query="key")
            return [item["text"] for item in found["items"]]

    assert anyio.run(run) == ["The spare key is with Grace"]


def test_the_surface_for_chatgpt_searches_and_fetches(db: memdb.Database) -> None:
    id = db.remember("The boiler was serviced by Mr. Kaya", source="app:mail").id

    async def run() -> None:
        async with Client(service(lambda ctx, tool: db, "chatgpt")) as client:
            tools = (await client.list_tools()).tools
            assert [tool.name for tool in tools] == [tool.name for tool in CHATGPT]
            found = await client.call_tool("search", {"query": "boiler"})
            assert found.structured_content == await asked(client, "search", query="boiler")
            (result,) = found.structured_content["results"]
            assert result["id"] == id and result["url"] and "boiler" in result["title"]
            document = (await client.call_tool("fetch", {"id": id})).structured_content
            assert document["text"] == "The boiler was serviced by Mr. Kaya"
            assert document["metadata"]["source"] == "app:mail"
            assert (await refused(client, "fetch", id="nonsense"))["code"] == "invalid_argument"

    anyio.run(run)
    with pytest.raises(memdb.InvalidArgument):
        service(lambda ctx, tool: db, "other")


def test_whose_verbs_a_call_has_is_asked_for_every_call(db: memdb.Database) -> None:
    asked_for: list[str] = []

    def acts(ctx: Any, tool: str) -> memdb.Database:
        asked_for.append(tool)
        if len(asked_for) > 1:
            raise memdb.PermissionDenied("the token was revoked")
        return db

    async def run() -> None:
        async with Client(service(acts)) as client:
            await asked(client, "memory_timeline")
            told = await refused(client, "memory_search", query="anything")
            assert told["code"] == "permission_denied" and told["hint"]

    anyio.run(run)
    assert asked_for == ["memory_timeline", "memory_search"]


def test_an_unexpected_failure_tells_the_owner_and_not_the_caller(
    db: memdb.Database, caplog: pytest.LogCaptureFixture
) -> None:
    def acts(ctx: Any, tool: str) -> memdb.Database:
        raise RuntimeError("Ana's secret")

    async def run() -> Any:
        async with Client(service(acts)) as client:
            return await refused(client, "memory_search", query="anything")

    with caplog.at_level(logging.ERROR, "memdb.server.mcp"):
        told = anyio.run(run)
    assert "secret" not in str(told) and told["code"] == "error"
    assert "Ana's secret" in caplog.text


def test_many_calls_at_once_are_all_answered(db: memdb.Database) -> None:
    async def run() -> None:
        async with (
            Client(service(lambda ctx, tool: db)) as client,
            anyio.create_task_group() as all,
        ):
            for number in range(24):
                all.start_soon(add, client, number)

    async def add(client: Client, number: int) -> None:
        await asked(client, "memory_add", text=f"errand number {number}")

    anyio.run(run)
    assert db.count() == 24
