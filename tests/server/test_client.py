"""``memdb.connect``: what a database answers, its server answers through the client as well."""

from __future__ import annotations

import inspect
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

import memdb
from tests.server.running import Served, serving

# What a client has not: a server keeps its own house, and functions do not travel.
ALONE = {"acting", "check", "compact", "path", "reembed", "snapshot"}


@pytest.fixture
def client(served: Served) -> Iterator[memdb.Client]:
    with memdb.connect(served.url, served.token) as client:
        yield client


def test_a_client_has_the_verbs_of_a_database(client: memdb.Client) -> None:
    verbs = {name for name, _ in inspect.getmembers(memdb.Database) if not name.startswith("_")}
    assert verbs - ALONE <= {name for name in dir(client) if not name.startswith("_")}


def test_the_verbs_give_what_the_database_gives(served: Served, client: memdb.Client) -> None:
    db = served.db
    written = client.remember("Cem plays the cello", about=["Cem"], tags=["music"],
                              external_id="c-1", event_time="2024-03-01")  # fmt: skip
    assert db[written.id] == written.memory == client[written.id]
    assert client.get(external_id="c-1") == written.memory
    assert client.get("01HZY3J8Q6W2V0M5T4R7N9K1BX") is None
    many = client.remember_many([f"note {n} of many" for n in range(5)])
    assert client.get_many([one.id for one in many]) == db.get_many([one.id for one in many])
    changed = client.update(written.id, text="Cem plays the viola")
    assert client.versions(written.id) == db.versions(written.id)
    assert changed.memory.version == 2
    where = {"tags": {"$contains": "music"}}
    assert client.count(where) == db.count(where) == 1
    assert list(client.iter(where)) == list(db.iter(where))
    assert client.list(limit=3) == db.list(limit=3)
    assert client.values("tags") == db.values("tags")
    assert client.namespaces() == list(db.namespaces())
    assert client.timeline(start="2024-02-01", end="2024-04-01") == db.timeline(
        start="2024-02-01", end="2024-04-01"
    )


def test_answers_are_those_of_the_database(served: Served, client: memdb.Client) -> None:
    db = served.db
    db.remember_many([f"Dora saw {n} herons at the lake" for n in range(9)])
    mine, its = client.recall("herons lake", k=4, explain=True), db.recall("herons lake", k=4)
    assert [(hit.id, hit.score, hit.memory) for hit in mine] == [
        (hit.id, hit.score, hit.memory) for hit in its
    ]
    assert mine.plan and mine[0].why.words and mine.to_dicts()[0]["bm25"] is not None
    assert client.context("herons", 300).text == db.context("herons", 300).text
    used = client.feedback(mine.search_id, [mine[0].id])
    assert used.counted == (mine[0].id,)


def test_vectors_of_numpy_travel(client: memdb.Client) -> None:
    rng = np.random.default_rng(3)
    vectors = rng.standard_normal((6, 16)).astype(np.float32)
    made = [client.remember(data=n, vector=one) for n, one in enumerate(vectors)]
    assert client.recall(vector=vectors[2], k=1, mode="vector")[0].id == made[2].id
    near = client.recall_within(0.001, vector=vectors[4])
    assert [hit.id for hit in near] == [made[4].id]
    assert client.spaces.list()[0].dim == 16


def test_faces_give_what_the_database_gives(served: Served, client: memdb.Client) -> None:
    db = served.db
    client.profile.set("tea/colour", "green", valid_from="2020-01-01")
    client.profile["tea/colour"] = "black"
    assert client.profile["tea/colour"] == db.profile["tea/colour"] == "black"
    assert client.profile.get("tea/colour", as_of="2021") == "green"
    assert client.profile.versions("tea/colour") == db.profile.versions("tea/colour")
    assert client.profile.items(None) == db.profile.items(None)
    assert client.profile.delete("tea/colour").valid_to is not None
    assert "tea/colour" not in client.profile
    client.history.append("door", "the bell rang", event_time="2024-01-05T10:00Z", tags=["bell"])
    client.history.append("door", data={"open": True}, event_time="2024-01-05T11:00Z")
    times = [(f"2024-01-06T10:{n:02}Z", n) for n in range(30)]
    assert client.history.append_many("door", times) == 30
    assert list(client.history.range("door")) == list(db.history.range("door"))
    assert len(list(client.history.range("door", limit=7, reverse=True))) == 7
    assert client.settings.to_dict() == db.settings.to_dict()
    plan = client.retention.plan(disk_budget="1GB")
    assert client.retention.apply(plan).batch is None
    assert client.retention.status()["policies"] == db.retention.status()["policies"]


def test_what_is_forgotten_and_erased_is_the_same(served: Served, client: memdb.Client) -> None:
    one = client.remember("Eva keeps bees", about=["Eva"])
    hidden = client.forget(one.id)
    assert [batch.batch for batch in client.trash()] == [batch.batch for batch in served.db.trash()]
    assert client.restore(batch=hidden.batch) == [one.id]
    assert client.report(about="Eva") == served.db.report(about="Eva")
    receipt = client.erase(about="Eva").wait()
    assert receipt.to_dict() == served.db.receipts()[-1].to_dict()
    assert client.get(one.id) is None


def test_errors_are_those_of_the_library(client: memdb.Client, served: Served) -> None:
    with pytest.raises(memdb.FilterError):
        client.recall("x", where={"$nonsense": 1})
    with pytest.raises(memdb.InvalidArgument, match="k") as raised:
        client.recall("x", k=0)
    assert raised.value.field == "k"
    client.remember("first", external_id="dup")
    with pytest.raises(memdb.Conflict):
        client.remember("second", external_id="dup")
    with pytest.raises(memdb.NotFound):
        client["01HZY3J8Q6W2V0M5T4R7N9K1BX"]
    with pytest.raises(memdb.NotFound):
        client.update("01HZY3J8Q6W2V0M5T4R7N9K1BX", text="nothing")
    with pytest.raises(memdb.PermissionDenied):
        client.files.sync("/etc")
    with memdb.connect(served.url, "wrong") as other, pytest.raises(memdb.PermissionDenied):
        other.stats()
    with memdb.connect("http://127.0.0.1:1", "x") as nobody, pytest.raises(memdb.ServerUnavailable):
        nobody.stats()
    with pytest.raises(memdb.InvalidArgument):
        memdb.connect("ftp://127.0.0.1", "x")


def test_an_export_goes_through_a_file(client: memdb.Client, tmp_path: Path) -> None:
    client.remember("carried over", tags=["carried"])
    assert client.export(tmp_path / "out.jsonl", {"tags": {"$contains": "carried"}}) == 1
    with serving(tmp_path / "db") as other, memdb.connect(other.url, other.token) as there:
        assert there.import_(tmp_path / "out.jsonl") == 1
        assert there.import_(tmp_path / "out.jsonl") == 0


def test_threads_share_a_client(client: memdb.Client) -> None:
    def work(name: int) -> None:
        for n in range(8):
            client.remember(f"thread {name} says {n}", tags=[f"t{name}"])
            assert client.recall(f"thread {name}", k=3)

    with ThreadPoolExecutor(6) as threads:
        list(threads.map(work, range(6)))
    assert all(client.count({"tags": {"$contains": f"t{n}"}}) == 8 for n in range(6))


def test_a_connection_that_the_server_closed_is_replaced(tmp_path: Path) -> None:
    with serving(tmp_path / "db") as first:
        client = memdb.connect(first.url, first.token)
        client.remember("before")
        kept = client._wire._kept[0]
        kept.sock.close()
        kept.sock, other = socket.socketpair()
        other.close()  # as a server does to a connection that idles
        assert client.remember("after").status == "inserted"
        client.close()
        with pytest.raises(memdb.InvalidArgument):
            client.stats()


def test_tokens_and_the_audit_are_the_databases(served: Served, client: memdb.Client) -> None:
    made = client.tokens.create("helper", memdb.Grant(actions=["read"]), expires_in="1d")
    with memdb.connect(served.url, made.secret) as helper:
        assert list(helper.recall("anything", k=2)) == []
        with pytest.raises(memdb.PermissionDenied):
            helper.remember("not allowed")
        assert client.tokens.pause("helper") == client.tokens.list()[-1]
        with pytest.raises(memdb.PermissionDenied):
            helper.count()
    client.tokens.resume("helper")
    assert client.tokens.revoke("helper") == served.db.tokens.list()[-1]
    rows = client.audit.rows(principal="helper").items
    assert rows == served.db.audit.rows(principal="helper").items and len(rows) == 2
    assert client.audit.verify().ok
