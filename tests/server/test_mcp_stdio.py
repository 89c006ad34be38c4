"""``memdb mcp`` as a host application runs it: a real process, spoken to by the SDK's client."""

from __future__ import annotations

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


def host(path: Path, *more: str) -> StdioServerParameters:
    words = ["-m", "memdb", "--db", str(path), "--embedder", "none", "mcp", *more]
    return StdioServerParameters(command=sys.executable, args=words)


def test_the_sdks_client_lists_and_calls_every_tool(tmp_path: Path) -> None:
    async def run() -> set[str]:
        async with Client(host(tmp_path / "life")) as client:
            assert client.instructions == INSTRUCTIONS
            tools = (await client.list_tools()).tools
            assert [tool.name for tool in tools] == [tool.name for tool in TOOLS]
            with pytest.raises(MCPError):
                await client.call_tool("memory_erase", {})
            return await every_tool(client)

    assert anyio.run(run) == {tool.name for tool in TOOLS}
    with memdb.open(tmp_path / "life") as db:
        assert db.profile["city"] == "Porto"
        assert {memory.source for memory in db.list()} == {"agent:mcp"}


def test_the_process_ends_with_its_input_and_says_nothing(tmp_path: Path) -> None:
    words = host(tmp_path / "life")
    done = subprocess.run(
        [words.command, *words.args],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
        timeout=60,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
