"""Tokens, grants and the audit, over HTTP: an agent sees what it may, and what it does is told."""

from __future__ import annotations

import memdb
from tests.server.running import Served


def made(served: Served, name: str, **fields: object) -> str:
    answer = served.ask("POST", "/v1/tokens", {"name": name, **fields})
    assert answer.status == 200, answer.body
    return str(answer.json["secret"])


def test_an_agent_writes_and_reads_in_its_own_namespace_alone(served: Served) -> None:
    mine = served.db.remember("the owner hides a key under the stone", namespace="private")
    token = made(served, "planner")
    wrote = served.ask("POST", "/v1/memories", {"items": [{"text": "a key for the plan"}]},
                       token=token)  # fmt: skip
    id = wrote.json[0]["id"]
    memory = served.db[id] if served.db.get(id) else memdb.open(served.db.path, namespace="")[id]
    assert (memory.namespace, memory.source) == ("planner", "agent:planner")
    hits = served.ask("POST", "/v1/recall", {"query": "key"}, token=token).json["hits"]
    assert [hit["id"] for hit in hits] == [id]
    hidden = served.ask("GET", f"/v1/memories/{mine.id}", token=token)
    absent = served.ask("GET", "/v1/memories/01HZY3J8Q6W2V0M5T4R7N9K1BX", token=token)
    assert (hidden.status, hidden.body) == (absent.status, absent.body) == (404, absent.body)
    for method, path in (("GET", "/metrics"), ("GET", "/v1/tokens"), ("GET", "/v1/audit"),
                         ("POST", "/v1/ui/code"), ("DELETE", f"/v1/memories/{id}")):  # fmt: skip
        assert served.ask(method, path, token=token).status == 403
    named = served.ask("POST", "/v1/memories", {"items": [{"text": "x", "namespace": "private"}]},
                       token=token)  # fmt: skip
    assert named.status == 403
    assert served.ask("GET", "/v1/grants/own", token=token).json["grant"] == {
        "actions": ["read", "add"]
    }
    assert list(served.ask("GET", "/v1/settings", token=token).json["settings"]) == ["time_zone"]


def test_a_token_ends_and_rests_at_once(served: Served) -> None:
    token = made(served, "guest")
    assert served.ask("GET", "/v1/memories", token=token).status == 200
    assert served.ask("POST", "/v1/tokens/guest/pause").json["paused"]
    assert served.ask("GET", "/v1/memories", token=token).status == 401
    served.ask("POST", "/v1/tokens/guest/resume")
    assert served.ask("GET", "/v1/memories", token=token).status == 200
    assert "guest" in [one["name"] for one in served.ask("GET", "/v1/grants").json["items"]]
    served.ask("DELETE", "/v1/tokens/guest")
    refused = served.ask("GET", "/v1/memories", token=token)
    never = served.ask("GET", "/v1/memories", token="mdb_" + "0" * 16 + "A" * 43)
    assert refused.status == 401 and refused.body == never.body
    listed = {one["name"]: one for one in served.ask("GET", "/v1/tokens").json["items"]}
    assert listed["guest"]["revoked_at"] and "secret" not in listed["guest"]


def test_purposes_rates_and_denials_are_kept_to(served: Served) -> None:
    grant = {"actions": ["read"], "where": {"tags": {"$contains": "work"}},
             "purposes": ["planning"], "rate_per_minute": 12}  # fmt: skip
    token = made(served, "narrow", grant=grant)
    assert served.ask("POST", "/v1/recall", {"query": "x"}, token=token).status == 403
    body = {"query": "x", "purpose": "planning"}
    assert served.ask("POST", "/v1/recall", body, token=token).status == 200
    header = {"Memdb-Purpose": "planning"}
    answers = [served.ask("GET", "/v1/namespaces", token=token, headers=header) for _ in range(3)]
    assert {answer.status for answer in answers} <= {200, 429}
    assert answers[-1].status == 429 and int(answers[-1].headers["retry-after"]) >= 1


def test_what_is_done_is_told_and_the_chain_holds(served: Served) -> None:
    token = made(served, "watched")
    served.ask("POST", "/v1/recall", {"query": "anything", "purpose": "a test"}, token=token)
    served.ask("DELETE", "/v1/memories/01HZY3J8Q6W2V0M5T4R7N9K1BX", token=token)
    rows = served.ask("GET", "/v1/audit?principal=watched").json["items"]
    told = {(row["action"], row["outcome"], row["transport"], row["purpose"]) for row in rows}
    assert ("read", "ok", "http", "a test") in told
    assert ("forget", "permission_denied", "http", None) in told
    assert served.ask("GET", "/v1/audit/verify").json["verdict"]["ok"]
    first = served.ask("GET", "/v1/audit?limit=1").json
    second = served.ask("GET", f"/v1/audit?limit=1&cursor={first['next_cursor']}").json
    assert first["items"] != second["items"]


def test_a_secret_is_shown_once_even_under_an_idempotency_key(served: Served) -> None:
    key = {"Idempotency-Key": "k-1"}
    first = served.ask("POST", "/v1/tokens", {"name": "once"}, headers=key)
    again = served.ask("POST", "/v1/tokens", {"name": "once"}, headers=key)
    assert first.status == 200 and again.status == 409


def test_when_remembering_is_paused_nobody_adds(served: Served) -> None:
    served.db.settings.remembering_paused = True
    try:
        refused = served.ask("POST", "/v1/memories", {"items": [{"text": "x"}]})
        assert refused.status == 403 and refused.json["code"] == "permission_denied"
    finally:
        served.db.settings.remembering_paused = False
