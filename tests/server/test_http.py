"""The routes of ``/v1``, asked over a socket of a server that runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.server.running import Served, serving


def add(served: Served, **fields: Any) -> str:
    answer = served.ask("POST", "/v1/memories", {"items": [fields]})
    assert answer.status == 200, answer.body
    return str(answer.json[0]["id"])


def test_health_needs_no_token_and_says_nothing_else(served: Served) -> None:
    answer = served.ask("GET", "/v1/healthz", token=None)
    assert (answer.status, answer.json) == (200, {"status": "ok"})


def test_what_is_written_is_found(served: Served) -> None:
    id = add(served, text="Ana is allergic to peanuts", about=["Ana"], tags=["health"])
    answer = served.ask("POST", "/v1/recall", {"query": "peanuts", "k": 3})
    assert answer.status == 200
    hit = answer.json["hits"][0]
    assert hit["id"] == id == hit["memory"]["id"]
    assert hit["memory"]["text"] == "Ana is allergic to peanuts"
    assert hit["memory"]["about"] == ["Ana"] and 0 <= hit["score"] <= 1
    assert hit["why"]["terms"]
    alias = served.ask("POST", "/v1/search", {"query": "peanuts", "k": 3}).json
    assert alias["hits"] == answer.json["hits"]


def test_a_memory_is_read_changed_and_hidden(served: Served) -> None:
    id = add(served, text="the spare key is with Grace")
    assert served.ask("GET", f"/v1/memories/{id}").json["text"] == "the spare key is with Grace"
    changed = served.ask("PATCH", f"/v1/memories/{id}", {"text": "the key is with Tom"})
    assert changed.status == 200 and changed.json["memory"]["version"] == 2
    versions = served.ask("GET", f"/v1/memories/{id}/versions").json["items"]
    assert [one["text"] for one in versions] == ["the spare key is with Grace",
                                                 "the key is with Tom"]  # fmt: skip
    hidden = served.ask("DELETE", f"/v1/memories/{id}")
    assert hidden.json["ids"] == [id]
    gone = served.ask("GET", f"/v1/memories/{id}")
    assert gone.status == 404 and gone.json["code"] == "not_found"
    trash = served.ask("GET", "/v1/trash").json["batches"]
    assert trash[0]["batch"] == hidden.json["batch"]
    back = served.ask("POST", "/v1/memories/restore", {"batch": hidden.json["batch"]})
    assert back.json["ids"] == [id]


def test_facts_have_history(served: Served) -> None:
    path = "/v1/profile/user/home%2Faddress"
    first = served.ask("PUT", path, {"value": "12 Elm St", "valid_from": "2020-01-01"})
    assert first.json["status"] == "inserted"
    served.ask("PUT", path, {"value": "3 Oak St", "valid_from": "2024-01-01"})
    assert served.ask("GET", path).json["value"] == "3 Oak St"
    assert served.ask("GET", f"{path}?as_of=2022-01-01").json["value"] == "12 Elm St"
    assert len(served.ask("GET", f"{path}/versions").json["items"]) == 2
    assert served.ask("GET", "/v1/profile/user").json["items"] == {"home/address": "3 Oak St"}
    assert served.ask("DELETE", path).status == 200
    assert served.ask("GET", path).status == 404


def test_history_is_appended_and_read_page_by_page(served: Served) -> None:
    samples = [[f"2024-05-01T10:00:{n // 4:02}Z", {"bpm": 60 + n}] for n in range(20)]
    sent = {"kind": "heart_rate", "source": "app:watch", "samples": samples}
    assert served.ask("POST", "/v1/history", sent).json["count"] == 20
    served.ask("POST", "/v1/history", {"kind": "message", "text": "hi",
                                       "event_time": "2024-05-02T10:00Z"})  # fmt: skip
    for reverse in ("false", "true"):
        seen: list[int] = []
        cursor = ""
        while True:
            path = f"/v1/history?kind=heart_rate&limit=3&reverse={reverse}{cursor}"
            page = served.ask("GET", path).json
            seen += [one["data"]["bpm"] for one in page["items"]]
            if page.get("next_cursor") is None:
                break
            cursor = f"&cursor={page['next_cursor']}"
        assert sorted(seen) == [60 + n for n in range(20)] and len(set(seen)) == 20


def test_context_timeline_feedback_and_stats_answer(served: Served) -> None:
    id = add(served, text="dinner with Ana at the harbour", kind="event", event_time="2024-06-01")
    pack = served.ask("POST", "/v1/context", {"query": "harbour dinner", "tokens": 500}).json
    assert "harbour" in pack["text"] and pack["tokens"] <= 500
    found = served.ask("POST", "/v1/recall", {"query": "harbour"}).json
    used = served.ask("POST", "/v1/feedback", {"search_id": found["search_id"], "used": [id]})
    assert used.json["counted"] == [id]
    line = served.ask("GET", "/v1/timeline?start=2024-05-30&end=2024-06-03").json
    assert id in [one["id"] for one in line["items"]]
    assert served.ask("GET", "/v1/stats").json["stats"]["memories"] >= 1


def test_pages_of_a_list_join_without_gap_or_repeat(served: Served) -> None:
    ids = {add(served, text=f"page {n}", tags=["paged"]) for n in range(7)}
    seen: list[str] = []
    where = '{"tags":{"$contains":"paged"}}'
    path = f"/v1/memories?limit=3&where={where}"
    while True:
        page = served.ask("GET", path).json
        seen += [one["id"] for one in page["items"]]
        if page.get("next_cursor") is None:
            break
        path = f"/v1/memories?limit=3&where={where}&cursor={page['next_cursor']}"
    assert set(seen) == ids and len(seen) == 7


def test_a_write_sent_twice_under_one_key_is_done_once(served: Served) -> None:
    body = {"items": [{"text": "said twice"}], "dedup": "off"}
    key = {"Idempotency-Key": "a-1"}
    first = served.ask("POST", "/v1/memories", body, headers=key)
    second = served.ask("POST", "/v1/memories", body, headers=key)
    assert first.body == second.body and second.headers["idempotency-replayed"] == "true"
    other = served.ask("POST", "/v1/memories", {"items": [{"text": "other"}]}, headers=key)
    assert other.status == 422 and other.json["code"] == "idempotency_key_reused"


def test_nothing_is_erased_but_what_was_confirmed(served: Served) -> None:
    add(served, text="Bea lives in Rome", about=["Bea"])
    add(served, text="Bea likes figs", about=["Bea"])
    total = served.ask("POST", "/v1/report", {"about": "Bea"}).json["total"]
    assert total == 2
    wrong = served.ask("POST", "/v1/erase", {"selector": {"about": "Bea"}, "confirm_count": 1})
    assert wrong.status == 409
    done = served.ask("POST", "/v1/erase", {"selector": {"about": "Bea"}, "confirm_count": total})
    assert done.status == 200 and done.json["state"] in ("hidden", "scrubbed")
    assert served.ask("GET", f"/v1/receipts/{done.json['id']}").json["hash"]
    assert served.ask("POST", "/v1/report", {"about": "Bea"}).json["total"] == 0


def test_what_is_exported_is_imported_elsewhere(served: Served, tmp_path: Path) -> None:
    id = add(served, text="to be moved", tags=["moving"])
    where = {"where": {"tags": {"$contains": "moving"}}}
    lines = served.ask("POST", "/v1/export", where)
    assert lines.headers["content-type"] == "application/x-ndjson"
    records = [json.loads(line) for line in lines.body.splitlines()]
    with serving(tmp_path / "other") as other:
        assert other.ask("POST", "/v1/import", {"records": records}).json["added"] == 1
        assert other.ask("GET", f"/v1/memories/{id}").json["text"] == "to be moved"
        assert not list((tmp_path / "other" / "tmp").iterdir())


def test_metrics_hold_no_text_of_a_user(served: Served) -> None:
    add(served, text="a secret of mine", source="app:secret-source")
    text = served.ask("GET", "/metrics").body.decode()
    assert 'memdb_http_requests_total{method="POST",route="add_memories",status="200"}' in text
    assert "secret" not in text
