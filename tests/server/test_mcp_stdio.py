"""``memdb mcp`` as a host application runs it: a process, with a server beside it and without."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import anyio
import pytest
from mcp import Client, MCPError, StdioServerParameters

import memdb
from memdb.server.mcp.service import INSTRUCTIONS
from memdb.server.mcp.tools import TOOLS
from tests.server.mcp_calls import every_tool
from tests.server.running import Served


def words(path: Path, *more: str) -> list[str]:
    return ["-m", "memdb", "--db", str(path), "--embedder", "none", "mcp", *more]


def test_the_sdks_client_lists_and_calls_every_tool_beside_a_server(served: Served) -> None:
    actions = ("read", "add", "update", "forget", "feedback")
    served.db.tokens.create("host", memdb.Grant(actions))
    started = StdioServerParameters(
        command=sys.executable, args=words(served.db.path, "--as", "host", "--purpose", "help")
    )

    async def run() -> set[str]:
        async with Client(started) as client:
            assert client.instructions == INSTRUCTIONS
            tools = (await client.list_tools()).tools
            assert [tool.name for tool in tools] == [tool.name for tool in TOOLS]
            with pytest.raises(MCPError):
                await client.call_tool("memory_erase", {})
            return await every_tool(client)

    assert anyio.run(run) == {tool.name for tool in TOOLS}
    with memdb.open(served.db.path, namespace="host") as db:
        (fact,) = db.list().items
        assert (fact.source, fact.data) == ("agent:host", "Porto")
    told = served.ask("GET", "/v1/audit?principal=host").json["items"]
    assert {row["tool"] for row in told} == {tool.name for tool in TOOLS}
    assert {row["purpose"] for row in told} == {"help"}


def test_without_a_server_it_speaks_the_protocol_alone_until_its_input_ends(
    tmp_path: Path,
) -> None:
    hello = {
        "protocolVersion": "2025-06-18",
        "capabilities": {},
        "clientInfo": {"name": "raw", "version": "0"},
    }
    add = {"name": "memory_add", "arguments": {"text": "The spare key is with Grace"}}
    sent = [
        {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": hello},
        {"jsonrpc": "2.0", "method": "notifications/initialized"},
        {"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": add},
    ]
    process = subprocess.Popen(
        [sys.executable, *words(tmp_path / "life")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    with process:
        assert process.stdin is not None and process.stdout is not None
        for message in sent:
            process.stdin.write(json.dumps(message).encode() + b"\n")
        process.stdin.flush()
        answers = [json.loads(process.stdout.readline()) for _ in range(2)]
        rest, complaints = process.communicate(timeout=60)
    assert [answer["id"] for answer in answers] == [1, 2]
    assert not answers[1]["result"].get("isError")
    assert (process.returncode, rest, complaints) == (0, b"", b"")
    with memdb.open(tmp_path / "life") as db:
        (memory,) = db.list().items
        assert (memory.text, memory.source) == ("The spare key is with Grace", "agent:mcp")
