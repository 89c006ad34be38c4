"""``memdb mcp`` as a host application runs it: a process, with a server beside it and without."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import anyio
import pytest
from mcp import Client, MCPError, StdioServerParameters

import memdb
from memdb.server.mcp.service import INSTRUCTIONS
from memdb.server.mcp.through import Through
from memdb.server.mcp.tools import TOOLS
from tests.server.mcp_calls import every_tool
from tests.server.running import Served, serving


def words(path: Path, *more: str) -> list[str]:
    return ["-m", "memdb", "--db", str(path), "mcp", *more]


def carried(served: Served) -> int:
    """How many calls came to the server over MCP."""
    found = re.search(
        r'route="mcp",status="200"} (\d+)', served.ask("GET", "/metrics").body.decode()
    )
    return 0 if found is None else int(found[1])


@pytest.mark.parametrize("beside", [True, False], ids=["through a server", "by itself"])
def test_the_sdks_client_lists_and_calls_every_tool(
    tmp_path_factory: pytest.TempPathFactory, beside: bool
) -> None:
    with serving(tmp_path_factory.mktemp("mcp") / "db") as served:
        check_every_tool(served, *([] if beside else ["--no-server"]))
        assert (carried(served) >= len(TOOLS)) if beside else (carried(served) == 0)


def check_every_tool(served: Served, *options: str) -> None:
    actions = ("read", "add", "update", "forget", "feedback")
    served.db.tokens.create("host", memdb.Grant(actions))
    given = ("--as", "host", "--purpose", "h\u00e9lp", *options)
    started = StdioServerParameters(command=sys.executable, args=words(served.db.path, *given))

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
    assert {row["purpose"] for row in told} == {"h\u00e9lp"}
    assert {row["transport"] for row in told} == {"mcp"}


def test_a_server_that_goes_away_is_missed_by_nobody(tmp_path: Path) -> None:
    found: list[dict[str, Any] | None] = []
    with serving(tmp_path / "db") as served:
        served.db.tokens.create("host")
        found.append({"url": served.url, "token": served.token, "certificate": None})
        through = Through(lambda: found[-1], "host", None, "memory")
        added = through("memory_add", {"text": "The ferry leaves at nine"})
        assert added is not None and not added.get("isError")
        refused = through("memory_forget", {"ids": ["x"], "confirmed": True})
        assert refused is not None and refused["isError"]
        served.db.tokens.revoke("host")
        late = through("memory_search", {"query": "ferry"})
        assert late is not None and "permission_denied" in str(late)
    assert through("memory_search", {"query": "ferry"}) is None
    found.append(None)
    assert through("memory_search", {"query": "ferry"}) is None


def test_only_the_owners_word_counts_about_whom_a_call_is_of(served: Served) -> None:
    secret = served.db.tokens.create("small", memdb.Grant(["read"])).secret
    served.db.tokens.create("large", memdb.Grant(["read", "add"]))
    add = {"name": "memory_add", "arguments": {"text": "as somebody else"}}
    message = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": add}
    headers = {"Accept": "application/json, text/event-stream", "Memdb-As": "large"}
    answer = served.ask("POST", "/mcp", message, token=secret, headers=headers)
    assert answer.json["result"]["isError"] and b"permission_denied" in answer.body
    answer = served.ask("POST", "/mcp", message, headers={**headers, "Memdb-As": "nobody"})
    assert answer.json["result"]["isError"] and b"permission_denied" in answer.body
    answer = served.ask("POST", "/mcp", message, headers=headers)
    assert not answer.json["result"].get("isError")
    assert served.db.audit.rows(principal="large").items[0].tool == "memory_add"


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
    memdb.open(tmp_path / "life", embedder="none").close()
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
