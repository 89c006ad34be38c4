"""The routes in mem0's shape, asked over a socket of a server that runs."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest

from tests.server.running import Served

TALK = [
    {"role": "system", "content": "You are an assistant."},
    {"role": "user", "content": "I am allergic to peanuts", "name": "Ana"},
    {"role": "assistant", "content": "I will remember the peanuts"},
]
ABSENT = "01ARZ3NDEKTSV4RRFFQ69G5FAV"


def ask(served: Served, method: str, path: str, body: Any = None) -> Any:
    answer = served.ask(method, f"/v1/mem0{path}", body)
    assert answer.status == 200, answer.body
    return answer.json


def add(served: Served, text: str, **owners: Any) -> str:
    body = {"messages": [{"role": "user", "content": text}], **owners}
    (result,) = ask(served, "POST", "/memories", body)["results"]
    return str(result["id"])


def test_messages_are_kept_as_they_were_said_and_once(served: Served) -> None:
    body = {"messages": TALK, "user_id": "talk", "metadata": {"trip": "Rome"}, "infer": True}
    results = ask(served, "POST", "/memories", body)["results"]
    assert [(one["memory"], one["event"], one["role"]) for one in results] == [
        ("I am allergic to peanuts", "ADD", "user"),
        ("I will remember the peanuts", "ADD", "assistant"),
    ]
    item = ask(served, "GET", f"/memories/{results[0]['id']}")
    said = b"I am allergic to peanuts"
    assert item == {
        "id": results[0]["id"],
        "memory": said.decode(),
        "hash": hashlib.md5(said, usedforsecurity=False).hexdigest(),
        "created_at": item["created_at"],
        "user_id": "talk",
        "actor_id": "Ana",
        "role": "user",
        "metadata": {"trip": "Rome"},
    }
    again = ask(served, "POST", "/memories", body)["results"]
    assert [(one["id"], one["event"]) for one in again] == [(one["id"], "NONE") for one in results]
    listed = ask(served, "GET", "/memories?user_id=talk")["results"]
    assert {one["id"] for one in listed} == {one["id"] for one in results}
    assert len(ask(served, "GET", "/memories?user_id=talk&limit=1")["results"]) == 1


def test_a_search_sees_those_it_names_and_no_others(served: Served) -> None:
    mine = add(served, "the boiler was serviced in May", user_id="s1", metadata={"room": "cellar"})
    run = add(served, "the boiler leaks", user_id="s1", run_id="r1", metadata={"cost": 140})
    theirs = add(served, "our boiler is new", agent_id="s2")

    def found(**body: Any) -> list[str]:
        results = ask(served, "POST", "/search", {"query": "boiler", **body})["results"]
        assert all(0 <= one["score"] <= 1 for one in results)
        return sorted(one["id"] for one in results)

    assert found(user_id="s1") == sorted([mine, run])
    assert found(agent_id="s2") == [theirs]
    assert found(user_id="s1", run_id="r1") == [run]
    assert found(user_id="s1", filters={"room": "cellar"}) == [mine]
    assert found(user_id="s1", filters={"cost": {"gte": 100, "lt": 200}}) == [run]
    assert found(filters={"OR": [{"user_id": "s1"}, {"agent_id": "s2"}]}) == sorted(
        [mine, run, theirs]
    )
    assert found(user_id="s1", filters={"NOT": [{"room": "cellar"}]}) == [run]
    assert found(user_id="s1", filters={"room": "*"}) == [mine]
    assert len(found(user_id="s1", limit=1)) == len(found(user_id="s1", top_k=1)) == 1
    assert found(user_id="s1", threshold=1) == []


def test_a_memory_is_changed_with_its_history_and_deleted(served: Served) -> None:
    id = add(served, "the meeting is on Tuesday", user_id="h", metadata={"a": 1})
    done = ask(served, "PUT", f"/memories/{id}", {"text": "the meeting is on Thursday"})
    assert done["message"].startswith("Memory updated")
    ask(served, "PUT", f"/memories/{id}", {"metadata": {"b": 2, "user_id": "other"}})
    item = ask(served, "GET", f"/memories/{id}")
    assert (item["memory"], item["metadata"]) == ("the meeting is on Thursday", {"b": 2})
    assert item["user_id"] == "h" and item["updated_at"] > item["created_at"]
    events = ask(served, "GET", f"/memories/{id}/history")
    assert [(one["event"], one["old_memory"], one["new_memory"]) for one in events] == [
        ("ADD", None, "the meeting is on Tuesday"),
        ("UPDATE", "the meeting is on Tuesday", "the meeting is on Thursday"),
        ("UPDATE", "the meeting is on Thursday", "the meeting is on Thursday"),
    ]
    assert all(one["memory_id"] == id for one in events)
    ask(served, "DELETE", f"/memories/{id}")
    for path in (f"/memories/{id}", f"/memories/{id}/history"):
        assert served.ask("GET", f"/v1/mem0{path}").status == 404
    assert served.ask("DELETE", f"/v1/mem0/memories/{id}").status == 404
    assert served.db.restore(id) == [id]


def test_all_of_somebody_are_deleted_and_nobody_elses(served: Served) -> None:
    going = [add(served, f"going {number}", user_id="all", run_id="1") for number in range(3)]
    staying = add(served, "staying", user_id="all2")
    ask(served, "DELETE", "/memories?user_id=all&run_id=1")
    assert ask(served, "GET", "/memories?user_id=all")["results"] == []
    assert served.db.get(staying) is not None and served.db.get(going[0]) is None


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", "/memories", {"messages": TALK}, 400),
        ("POST", "/memories", {"messages": [], "user_id": "x"}, 400),
        ("POST", "/memories", {"messages": TALK, "user_id": "x", "source": "me"}, 400),
        ("POST", "/memories", {"messages": [{"role": "user"}], "user_id": "x"}, 400),
        ("POST", "/search", {"query": "boiler"}, 400),
        ("POST", "/search", {"query": "b", "user_id": "x", "filters": {"a": {"near": 1}}}, 400),
        ("POST", "/search", {"query": "b", "user_id": "x", "filters": {"OR": [1]}}, 400),
        ("GET", "/memories", None, 400),
        ("DELETE", "/memories", None, 400),
        ("GET", f"/memories/{ABSENT}", None, 404),
        ("PUT", f"/memories/{ABSENT}", {"text": "x"}, 404),
        ("POST", "/reset", {}, 404),
    ],
)
def test_what_is_wrong_is_a_problem(
    served: Served, method: str, path: str, body: Any, status: int
) -> None:
    answer = served.ask(method, f"/v1/mem0{path}", body)
    assert answer.status == status and answer.json["status"] == status
    assert served.ask(method, f"/v1/mem0{path}", body, token=None).status == 401


def test_a_text_alone_is_a_message_of_the_user(served: Served) -> None:
    body = {"messages": "the key is with Grace", "user_id": "text"}
    (result,) = ask(served, "POST", "/memories", body)["results"]
    assert ask(served, "GET", f"/memories/{result['id']}")["role"] == "user"


def test_a_sample_of_a_series_was_made_when_it_happened(served: Served) -> None:
    id = served.db.history.append("pulse", data={"bpm": 61}, event_time="2024-03-01T08:00Z").id
    assert ask(served, "GET", f"/memories/{id}")["created_at"] == "2024-03-01T08:00:00+00:00"
