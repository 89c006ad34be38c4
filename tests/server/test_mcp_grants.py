"""What a token's grant allows over MCP, what it hides, and what the audit tells of it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import memdb
from memdb.cli import main
from memdb.server.mcp.stdio import acting_as
from memdb.server.mcp.tools import TOOLS

BY_NAME = {tool.name: tool for tool in TOOLS}


@pytest.fixture
def db(tmp_path: Path) -> Iterator[memdb.Database]:
    with memdb.open(tmp_path / "life", embedder="none") as opened:
        yield opened


def call(db: memdb.Database, name: str | None, tool: str, **arguments: Any) -> Any:
    acting = acting_as(db, name, None)(None, tool)
    return json.loads(BY_NAME[tool](acting, arguments)[-1])


def test_source_and_namespace_come_from_the_token(db: memdb.Database) -> None:
    db.tokens.create("planner")
    id = call(db, "planner", "memory_add", text="Lunch with Ana on Friday")["id"]
    with memdb.open(db.path, namespace="") as whole:
        memory = whole[id]
    assert (memory.source, memory.namespace) == ("agent:planner", "planner")


def test_what_a_grant_hides_is_in_no_result(db: memdb.Database) -> None:
    hidden = db.remember("The owner's secret lunch", about=["Ana"]).id
    db.profile.set("city", "Porto")
    db.tokens.create("planner", memdb.Grant(("read", "add", "forget", "update", "feedback")))
    seen = call(db, "planner", "memory_add", text="Lunch with Ana", about=["Ana"])["id"]
    found = call(db, "planner", "memory_search", query="lunch")
    assert [item["id"] for item in found["items"]] == [seen]
    assert [one["id"] for one in call(db, "planner", "memory_timeline")["items"]] == [seen]
    assert call(db, "planner", "memory_context", query="lunch with Ana")["items"] == 1
    assert call(db, "planner", "memory_profile_get")["items"] == []
    assert call(db, "planner", "memory_forget", about="Ana")["would_forget"] == 1
    assert call(db, "planner", "memory_forget", about="Ana", confirmed=True)["ids"] == [seen]
    errors = []
    for id in (hidden, "01ARZ3NDEKTSV4RRFFQ69G5FAV"):
        with pytest.raises(memdb.NotFound) as raised:
            call(db, "planner", "memory_get", id=id)
        errors.append((str(raised.value), raised.value.hint))
    assert errors[0] == errors[1]
    assert db[hidden].text


def test_facts_of_a_namespace_that_may_be_read_are_found(db: memdb.Database) -> None:
    db.profile.set("city", "Porto")
    db.profile.set("pin", "1234", sensitivity="secret")
    everything = {"namespace": {"$exists": True}}
    db.tokens.create("planner", memdb.Grant(("read", "add"), where=everything))
    (fact,) = call(db, "planner", "memory_profile_get", key="city")["items"]
    assert (fact["value"], fact["namespace"]) == ("Porto", "default")
    assert [one["key"] for one in call(db, "planner", "memory_profile_get")["items"]] == ["city"]
    with pytest.raises(memdb.NotFound):
        call(db, "planner", "memory_profile_get", key="pin")
    call(db, "planner", "memory_profile_set", key="city", value="Lisbon")
    (fact,) = call(db, "planner", "memory_profile_get", key="city")["items"]
    assert fact["value"] == "Lisbon" and db.profile["city"] == "Porto"


def test_what_a_grant_does_not_allow_is_refused(db: memdb.Database) -> None:
    db.tokens.create("reader", memdb.Grant(("read",), where={"namespace": {"$exists": True}}))
    id = db.remember("Lunch with Ana").id
    assert call(db, "reader", "memory_get", id=id)["memory"]["text"] == "Lunch with Ana"
    for tool, arguments in (
        ("memory_add", {"text": "x"}),
        ("memory_update", {"id": id, "text": "x"}),
        ("memory_profile_set", {"key": "k", "value": 1}),
        ("memory_forget", {"ids": [id], "confirmed": True}),
        ("memory_feedback", {"search_id": id, "used": [id]}),
    ):
        with pytest.raises(memdb.PermissionDenied):
            call(db, "reader", tool, **arguments)
    assert db.versions(id)[-1].text == "Lunch with Ana" and db.count() == 1


def test_a_token_that_ends_is_refused_at_the_next_call(db: memdb.Database) -> None:
    db.tokens.create("planner")
    acts = acting_as(db, "planner", None)
    assert acts(None, "memory_timeline").timeline().items == ()
    db.tokens.pause("planner")
    with pytest.raises(memdb.PermissionDenied):
        acts(None, "memory_timeline")
    db.tokens.resume("planner")
    acts(None, "memory_timeline")
    db.tokens.revoke("planner")
    for attempt in (lambda: acts(None, "x"), lambda: acting_as(db, "planner", None)):
        with pytest.raises(memdb.PermissionDenied):
            attempt()


def test_a_token_keeps_to_its_rate(db: memdb.Database) -> None:
    db.tokens.create("busy", memdb.Grant(rate_per_minute=12))
    acts = acting_as(db, "busy", None)
    for _ in range(2):  # a sixth of the minute's at once
        acts(None, "memory_search").recall("anything")
    with pytest.raises(memdb.PermissionDenied) as raised:
        acts(None, "memory_search")
    assert "seconds" in raised.value.hint


def test_every_call_is_in_the_audit_with_its_tool_and_purpose(db: memdb.Database) -> None:
    db.tokens.create("planner", memdb.Grant(("read", "add"), purposes=["meals"]))
    acts = acting_as(db, "planner", "meals")
    id = json.loads(BY_NAME["memory_add"](acts(None, "memory_add"), {"text": "Fish"})[-1])["id"]
    BY_NAME["memory_search"](acts(None, "memory_search"), {"query": "fish"})
    with pytest.raises(memdb.PermissionDenied):
        BY_NAME["memory_search"](acting_as(db, "planner", None)(None, "x"), {"query": "fish"})
    rows = [row for row in db.audit.rows().items if row.principal == "planner"]
    told = sorted((row.tool, row.transport, row.purpose) for row in rows)
    assert ("memory_add", "mcp", "meals") in told and ("memory_search", "mcp", "meals") in told
    assert any(id in row.ids for row in rows)
    assert db.audit.verify().ok


def test_installing_makes_a_token_that_sees_only_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("MEMDB_PATH", str(tmp_path / "life"))
    for _ in range(2):
        assert main(["mcp", "install", "cursor"]) == 0
    with memdb.open(tmp_path / "life") as db:
        (token,) = db.tokens.list()
        assert token.name == "cursor" and not token.owner and token.grant.where is None
        db.remember("The owner's own")
        assert call(db, "cursor", "memory_timeline")["items"] == []
        db.tokens.revoke("cursor")
    assert main(["mcp", "install", "cursor"]) == 0
    with memdb.open(tmp_path / "life") as db:
        assert [token.revoked_at is None for token in db.tokens.list()] == [False, True]
        assert call(db, "cursor", "memory_add", text="mine")["status"] == "inserted"
    assert main(["mcp", "--as", "nobody"]) == 1
