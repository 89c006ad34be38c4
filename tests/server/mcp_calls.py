"""One call of every tool through the SDK's client: shared by the tests of both transports."""

from __future__ import annotations

import json
from typing import Any

from mcp import Client


async def asked(client: Client, tool: str, **arguments: Any) -> Any:
    """The decoded last text of a tool's result, which must not be an error."""
    result = await client.call_tool(tool, arguments)
    assert not result.is_error, result.content
    return json.loads(result.content[-1].text)  # type: ignore[union-attr]


async def refused(client: Client, tool: str, **arguments: Any) -> Any:
    """What a tool says when it refuses."""
    result = await client.call_tool(tool, arguments)
    assert result.is_error
    return json.loads(result.content[0].text)["error"]  # type: ignore[union-attr]


async def every_tool(client: Client) -> set[str]:
    """Call each tool with what the ones before gave; the names of those called."""
    called: list[str] = []

    async def use(tool: str, **arguments: Any) -> Any:
        called.append(tool)
        return await asked(client, tool, **arguments)

    added = await use("memory_add", text="Ana is allergic to peanuts", about=["Ana"])
    assert added["status"] == "inserted"
    found = await use("memory_search", query="peanuts", k=3)
    assert [item["id"] for item in found["items"]] == [added["id"]]
    used = await use("memory_feedback", search_id=found["search_id"], used=[added["id"]])
    assert used["counted"] == [added["id"]]
    await use("memory_update", id=added["id"], text="Ana is allergic to peanuts and sesame")
    got = await use("memory_get", id=added["id"])
    assert got["memory"]["text"] == "Ana is allergic to peanuts and sesame"
    assert got["memory"]["version"] == 2
    packed = await use("memory_context", query="dinner for Ana", tokens=300)
    assert packed["items"] == 1
    past = await use("memory_timeline", limit=5)
    assert [item["id"] for item in past["items"]] == [added["id"]]
    await use("memory_profile_set", key="city", value="Porto")
    facts = await use("memory_profile_get", key="city")
    assert facts["items"][0]["value"] == "Porto"
    preview = await use("memory_forget", about="Ana")
    assert preview["would_forget"] == 1
    done = await use("memory_forget", about="Ana", confirmed=True)
    assert done["ids"] == [added["id"]]
    assert (await refused(client, "memory_get", id=added["id"]))["code"] == "not_found"
    assert (await refused(client, "memory_add", text="x", source="y"))["field"] == "source"
    return set(called)
