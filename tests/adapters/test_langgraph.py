"""``MemdbStore`` beside LangGraph's own ``InMemoryStore``: one table of behaviour, run on both."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from langgraph.store.base import (
    BaseStore,
    GetOp,
    InvalidNamespaceError,
    ListNamespacesOp,
    MatchCondition,
    PutOp,
    SearchOp,
)
from langgraph.store.memory import InMemoryStore

import memdb
from memdb.adapters.langgraph import MemdbStore
from tests.memdb.clock import Clock

NAMESPACES = (f"graph-{number}" for number in count())  # one database, a namespace a test


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[memdb.Database]:
    with memdb.open(tmp_path_factory.mktemp("graph") / "life", embedder="none") as db:
        yield db


@pytest.fixture(params=["memory", "memdb"])
def store(request: pytest.FixtureRequest, place: memdb.Database) -> Iterator[BaseStore]:
    if request.param == "memory":
        yield InMemoryStore()
        return
    with MemdbStore(place, namespace=next(NAMESPACES)) as made:
        yield made


def keys(found: Any) -> list[str]:
    return [item.key for item in found]


PEOPLE = {
    "ana": {"name": "Ana", "age": 41, "city": "Porto", "diet": {"nuts": False}, "likes": ["tea"]},
    "bo": {"name": "Bo", "age": 7.5, "city": "Lisbon", "diet": {"nuts": True}, "likes": []},
    "cy": {"name": "Cy", "age": "9", "city": "Porto", "diet": None, "likes": ["tea", "rain"]},
    "dee": {"name": "Dee", "city": ""},
}


def filled(store: BaseStore) -> BaseStore:
    for key, value in PEOPLE.items():
        store.put(("people",), key, value)
    return store


# --- the table: each holds of both stores ---------------------------------------------------------


def test_what_is_put_is_got(store: BaseStore) -> None:
    before = datetime.now(UTC) - timedelta(seconds=1)
    value = {"text": "tea", "n": [1, 2.5, None, True], "deep": {"a": {"b": "ü 漢"}}}
    store.put(("users", "1"), "k", value)
    item = store.get(("users", "1"), "k")
    assert item is not None
    assert (item.value, item.key, item.namespace) == (value, "k", ("users", "1"))
    assert before <= item.created_at <= datetime.now(UTC)
    assert before <= item.updated_at <= datetime.now(UTC)


def test_what_is_absent_is_none(store: BaseStore) -> None:
    store.put(("users", "1"), "k", {"a": 1})
    assert store.get(("users", "2"), "k") is None
    assert store.get(("users",), "k") is None
    assert store.get(("users", "1"), "other") is None
    store.delete(("users", "1"), "never")
    assert store.search(("nobody",)) == []


def test_a_later_put_replaces_the_value(store: BaseStore) -> None:
    for value in ({"a": 1, "b": 2}, {"a": 3}):
        store.put(("n",), "k", value)
    assert store.get(("n",), "k").value == {"a": 3}  # type: ignore[union-attr]
    assert len(store.search(("n",))) == 1


def test_what_is_deleted_is_gone_and_may_come_again(store: BaseStore) -> None:
    store.put(("n",), "k", {"a": 1})
    store.delete(("n",), "k")
    assert store.get(("n",), "k") is None and store.search(("n",)) == []
    store.put(("n",), "k", {"a": 2})
    assert store.get(("n",), "k").value == {"a": 2}  # type: ignore[union-attr]


def test_the_same_value_under_two_keys_is_two_items(store: BaseStore) -> None:
    store.put(("n",), "1", {"text": "same"})
    store.put(("n",), "2", {"text": "same"})
    assert keys(store.search(("n",))) == ["1", "2"]


def test_a_prefix_finds_what_is_below_it_by_whole_labels(store: BaseStore) -> None:
    for labels in (("a",), ("a", "b"), ("a", "b", "c"), ("ab",), ("b",)):
        store.put(labels, "/".join(labels), {"x": 1})
    assert sorted(keys(store.search(("a",)))) == ["a", "a/b", "a/b/c"]
    assert sorted(keys(store.search(("a", "b")))) == ["a/b", "a/b/c"]
    assert len(store.search(())) == 5


def test_any_label_and_key_that_langgraph_allows_is_kept(store: BaseStore) -> None:
    odd = [("a/b", "c"), ("a", "b/c"), (" x ", "%2F"), ("ü", "漢 字"), ("*", "a%b")]
    for labels in odd:
        store.put(labels, f"key {labels}", {"at": list(labels)})
    for labels in odd:
        found = store.search(labels)
        assert [item.value["at"] for item in found] == [list(labels)]
        assert found[0].namespace == labels and found[0].key == f"key {labels}"
    assert set(store.list_namespaces()) == set(odd)


@pytest.mark.parametrize("labels", [(), ("",), ("a.b",), ("langgraph", "x"), ("a", 1), ("a\x00",)])
def test_a_bad_namespace_is_refused(store: BaseStore, labels: Any) -> None:
    with pytest.raises(InvalidNamespaceError):
        store.put(labels, "k", {"a": 1})


def test_limit_and_offset_page_through_everything_once(store: BaseStore) -> None:
    for number in range(7):
        store.put(("n",), f"k{number}", {"n": number})
    pages = [keys(store.search(("n",), limit=3, offset=offset)) for offset in (0, 3, 6, 9)]
    assert pages == [["k0", "k1", "k2"], ["k3", "k4", "k5"], ["k6"], []]


@pytest.mark.parametrize(
    "filter",
    [
        {"city": "Porto"},
        {"city": ""},
        {"city": {"$eq": "Porto"}},
        {"city": {"$ne": "Porto"}},
        {"city": "Porto", "name": "Cy"},
        {"age": 41},
        {"age": 41.0},
        {"age": "9"},
        {"diet": {"nuts": True}},
        {"diet": {"nuts": {"$ne": True}}},
        {"diet": None},
        {"likes": ["tea"]},
        {"likes": []},
        {"likes": ["tea", "rain"]},
        {"absent": None},
        {"absent": "x"},
        {"city": {"$eq": "Porto", "$ne": "Lisbon"}},
        None,
        {},
    ],
)
def test_filters_pass_the_same_items(store: BaseStore, filter: Any) -> None:
    expected = keys(filled(InMemoryStore()).search(("people",), filter=filter))
    assert keys(filled(store).search(("people",), filter=filter)) == expected


@pytest.mark.parametrize("operator", ["$gt", "$gte", "$lt", "$lte"])
def test_filters_compare_numbers(store: BaseStore, operator: str) -> None:
    filled(store).delete(("people",), "dee")  # it has no age, which neither store compares
    oracle = filled(InMemoryStore())
    oracle.delete(("people",), "dee")
    for bound in (7, 7.5, 9, "9", 41, 100):
        wanted = {"age": {operator: bound}}
        expected = keys(oracle.search(("people",), filter=wanted))
        assert keys(store.search(("people",), filter=wanted)) == expected


def test_an_unknown_operator_and_an_uncomparable_value_are_errors(store: BaseStore) -> None:
    with pytest.raises(ValueError):
        filled(store).search(("people",), filter={"city": {"$regex": "P"}})
    with pytest.raises((ValueError, TypeError)):
        store.search(("people",), filter={"city": {"$gt": 5}})


def test_namespaces_are_listed_by_prefix_suffix_depth_and_page(store: BaseStore) -> None:
    every = [("a", "b", "c"), ("a", "b", "d", "e"), ("a", "x", "c"), ("z", "b", "c"), ("z",)]
    for labels in every:
        store.put(labels, "k", {"v": 1})
    listed = store.list_namespaces
    assert listed() == sorted(every)
    assert listed(prefix=("a", "b")) == [("a", "b", "c"), ("a", "b", "d", "e")]
    assert listed(prefix=("a", "*", "c")) == [("a", "b", "c"), ("a", "x", "c")]
    assert listed(suffix=("b", "c")) == [("a", "b", "c"), ("z", "b", "c")]
    assert listed(suffix=("*", "c")) == [("a", "b", "c"), ("a", "x", "c"), ("z", "b", "c")]
    assert listed(prefix=("a",), suffix=("c",)) == [("a", "b", "c"), ("a", "x", "c")]
    assert listed(max_depth=2) == [("a", "b"), ("a", "x"), ("z",), ("z", "b")]
    assert listed(prefix=("a",), max_depth=1) == [("a",)]
    assert listed(limit=2) == sorted(every)[:2]
    assert listed(limit=2, offset=3) == sorted(every)[3:5]
    assert listed(prefix=("a", "b", "d", "e", "f")) == []


def test_a_batch_reads_what_was_there_before_and_the_last_put_wins(store: BaseStore) -> None:
    store.put(("n",), "old", {"v": 0})
    results = store.batch(
        [
            PutOp(("n",), "new", {"v": 1}),
            GetOp(("n",), "new"),
            GetOp(("n",), "old"),
            PutOp(("n",), "new", {"v": 2}),
            PutOp(("n",), "old", None),
            SearchOp(("n",)),
            ListNamespacesOp((MatchCondition("prefix", ("n",)),)),
            PutOp(("m",), "k", {"v": 3}),
            PutOp(("m",), "k", None),
        ]
    )
    assert results[0] is results[1] is results[3] is results[4] is None
    assert results[2].value == {"v": 0}  # type: ignore[union-attr]
    assert keys(results[5]) == ["old"] and results[6] == [("n",)]
    assert keys(store.search(())) == ["new"]
    assert store.get(("n",), "new").value == {"v": 2}  # type: ignore[union-attr]


def test_the_asynchronous_verbs_do_the_same(store: BaseStore) -> None:
    async def run() -> None:
        await asyncio.gather(*(store.aput(("n",), f"k{n}", {"n": n}) for n in range(8)))
        item = await store.aget(("n",), "k3")
        assert item is not None and item.value == {"n": 3}
        assert len(await store.asearch(("n",), filter={"n": {"$gte": 4}})) == 4
        await store.adelete(("n",), "k3")
        assert await store.aget(("n",), "k3") is None
        assert await store.alist_namespaces(prefix=("n",)) == [("n",)]

    asyncio.run(run())


def test_threads_may_write_at_once(store: BaseStore) -> None:
    def work(number: int) -> None:
        for n in range(5):
            store.put(("n", str(number)), f"k{n}", {"n": n})

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(store.search(("n",), limit=100)) == 20


OPS = st.lists(
    st.tuples(
        st.sampled_from(["put", "delete", "get", "search"]),
        st.sampled_from([("a",), ("a", "b"), ("c",)]),
        st.sampled_from(["k1", "k2", "k3"]),
        st.dictionaries(
            st.sampled_from(["x", "y"]),
            st.none() | st.booleans() | st.integers(-2, 2) | st.sampled_from(["", "s", "1"]),
            max_size=2,
        ),
    ),
    max_size=12,
)


@settings(max_examples=25)
@given(ops=OPS)
def test_any_history_ends_like_in_memory(
    ops: Any, tmp_path_factory: pytest.TempPathFactory
) -> None:
    oracle = InMemoryStore()
    with MemdbStore(tmp_path_factory.getbasetemp() / "histories") as store:
        for number, item in enumerate(store.search((), limit=1000)):
            store.delete(item.namespace, item.key)
            assert number < 1000
        for verb, labels, key, value in ops:
            if verb == "put":
                store.put(labels, key, value)
                oracle.put(labels, key, value)
            elif verb == "delete":
                store.delete(labels, key)
                oracle.delete(labels, key)
            elif verb == "get":
                ours, theirs = store.get(labels, key), oracle.get(labels, key)
                assert (ours and ours.value) == (theirs and theirs.value)
            else:
                assert held(store, labels, value) == held(oracle, labels, value)
        assert held(store, (), None) == held(oracle, (), None)


def held(store: BaseStore, labels: tuple[str, ...], filter: Any) -> list[Any]:
    found = store.search(labels, filter=filter, limit=100)
    return sorted((item.namespace, item.key, str(item.value)) for item in found)


# --- what memdb adds ------------------------------------------------------------------------------


def test_a_query_ranks_and_the_rest_follows_without_a_score(place: memdb.Database) -> None:
    with MemdbStore(place, namespace=next(NAMESPACES)) as store:
        store.put(("docs",), "boiler", {"text": "The heating boiler was serviced in May"})
        store.put(("docs",), "tea", {"text": "Ana prefers green tea", "who": "Ana"})
        store.put(("docs",), "hidden", {"text": "The boiler manual"}, index=False)
        store.put(("docs",), "title", {"title": "boiler", "text": "x"}, index=["text"])
        found = store.search(("docs",), query="boiler")
        assert keys(found) == ["boiler", "tea", "hidden", "title"]
        assert found[0].score is not None and 0 < found[0].score <= 1
        assert [item.score for item in found[1:]] == [None, None, None]
        assert keys(store.search(("docs",), query="boiler", limit=1)) == ["boiler"]
        assert keys(store.search(("docs",), query="boiler", filter={"who": "Ana"})) == ["tea"]
        assert keys(store.search(("docs",), query="tea", limit=1, offset=1)) == ["boiler"]


def test_a_graph_remembers_with_it_from_one_run_to_the_next(place: memdb.Database) -> None:
    from langgraph.graph import END, START, StateGraph
    from langgraph.runtime import Runtime

    def node(state: dict[str, Any], runtime: Runtime[Any]) -> dict[str, Any]:
        assert runtime.store is not None
        known = runtime.store.search(("people",), query=state["said"], limit=1)
        runtime.store.put(("people",), str(len(state["said"])), {"text": state["said"]})
        return {"said": known[0].value["text"] if known else "nothing yet"}

    with MemdbStore(place, namespace=next(NAMESPACES)) as store:
        graph = StateGraph(dict).add_node("node", node)
        app = graph.add_edge(START, "node").add_edge("node", END).compile(store=store)
        assert app.invoke({"said": "Ana prefers green tea"}) == {"said": "nothing yet"}
        assert app.invoke({"said": "tea?"}) == {"said": "Ana prefers green tea"}
        answer = asyncio.run(app.ainvoke({"said": "what tea does Ana like"}))
        assert answer == {"said": "Ana prefers green tea"}


def test_fields_say_what_of_a_value_is_searched(place: memdb.Database) -> None:
    fields = ["title", "parts[*].text"]
    with MemdbStore(place, namespace=next(NAMESPACES), fields=fields) as store:
        store.put(("d",), "1", {"title": "garden", "note": "boiler", "parts": [{"text": "roses"}]})
        assert store.search(("d",), query="roses")[0].score is not None
        assert store.search(("d",), query="boiler")[0].score is None


def test_a_query_with_a_filter_is_not_short(place: memdb.Database) -> None:
    with MemdbStore(place, namespace=next(NAMESPACES)) as store:
        store.batch([
            PutOp(("d",), f"k{n}", {"text": f"report {n} of the year", "n": n}) for n in range(300)
        ])  # fmt: skip
        found = store.search(("d",), query="report", filter={"n": {"$gte": 290}}, limit=10)
        assert len(found) == 10 and all(item.score is not None for item in found)
        assert {item.value["n"] for item in found} == set(range(290, 300))


def test_first_put_and_last_put_are_told_apart(place: memdb.Database) -> None:
    with MemdbStore(place, namespace=next(NAMESPACES)) as store:
        store.put(("n",), "k", {"a": 1})
        first = store.get(("n",), "k")
        store.put(("n",), "k", {"a": 2})
        second = store.get(("n",), "k")
        assert first is not None and second is not None
        assert second.created_at == first.created_at and second.updated_at > first.updated_at


def test_items_stay_when_the_store_is_opened_again(tmp_path: Path) -> None:
    with memdb.open(tmp_path / "life", embedder="none"), MemdbStore(tmp_path / "life") as store:
        store.put(("n",), "k", {"text": "tea"})
    with MemdbStore(tmp_path / "life") as store:
        assert store.get(("n",), "k").value == {"text": "tea"}  # type: ignore[union-attr]
    with memdb.open(tmp_path / "life", namespace="langgraph") as db:
        (memory,) = db.list().items
        assert memory.source == "app:langgraph" and memory.external_id == "k"
        assert db.recall("tea")[0].id == memory.id


def test_a_time_to_live_ends_and_reading_renews_it(tmp_path: Path) -> None:
    clock = Clock(datetime(2026, 1, 1, tzinfo=UTC))
    with memdb.open(tmp_path / "life", embedder="none", clock=clock) as db:
        store = MemdbStore(db, ttl={"default_ttl": 60, "refresh_on_read": True}, clock=clock)
        store.put(("n",), "read", {"a": 1})
        store.put(("n",), "unread", {"a": 1})
        store.put(("n",), "kept", {"a": 1}, ttl=None)
        store.put(("n",), "short", {"a": 1}, ttl=1)
        clock.advance(minutes=59)
        assert store.get(("n",), "short") is None
        assert store.get(("n",), "read") is not None
        assert store.search(("n",), refresh_ttl=False)
        clock.advance(minutes=59)
        assert store.get(("n",), "read") is not None, "a read renews the whole time"
        assert store.get(("n",), "unread") is None
        assert store.get(("n",), "kept") is not None
        store.put(("n",), "read", {"a": 2}, ttl=None)
        clock.advance(days=100)
        assert sorted(keys(store.search(("n",)))) == ["kept", "read"]
        store.close()


def test_reading_does_not_write_every_time(place: memdb.Database) -> None:
    namespace = next(NAMESPACES)
    with (
        MemdbStore(place, namespace=namespace) as store,
        memdb.open(place.path, namespace=namespace) as beside,
    ):
        store.put(("n",), "k", {"a": 1}, ttl=60)
        (memory,) = beside.list().items
        for _ in range(5):
            assert store.get(("n",), "k") is not None
        (after,) = beside.list().items
        assert after.version == memory.version
