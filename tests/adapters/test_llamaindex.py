"""``MemdbVectorStore`` for LlamaIndex beside its own ``SimpleVectorStore``, on the same nodes."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from itertools import count
from pathlib import Path
from typing import Any

import pytest

import memdb


@cache
def llama() -> Any:
    """Nodes and filters; imported by who needs them, since LlamaIndex takes seconds."""
    return import_module("tests.adapters.llama")


VECTORS = [[1, 0, 0, 0], [0, 1, 0.2, 0], [0.3, 0.1, 1, 0]]


NAMES = (f"index-{number}" for number in count())  # one database; a namespace, a space a test


@pytest.fixture(scope="module")
def db(tmp_path_factory: pytest.TempPathFactory) -> Iterator[memdb.Database]:
    with memdb.open(tmp_path_factory.mktemp("index") / "life", embedder="none") as opened:
        yield opened


@pytest.fixture
def store(db: memdb.Database) -> Iterator[Any]:
    name = next(NAMES)
    made = llama().MemdbVectorStore(db, namespace=name, space=name)
    assert made.add(llama().NODES) == ["a", "b", "c", "d"]
    yield made
    made.close()


@pytest.fixture(scope="module")
def oracle() -> Any:
    simple = llama().SimpleVectorStore()
    simple.add(llama().NODES)
    return simple


def ids(store: Any, **query: Any) -> list[str]:
    given = {"query_embedding": VECTORS[0], "similarity_top_k": 4, **query}
    return store.query(llama().VectorStoreQuery(**given)).ids


def test_the_closest_nodes_are_those_of_the_simple_store(store: Any, oracle: Any) -> None:
    for vector in VECTORS:
        query = llama().VectorStoreQuery(query_embedding=vector, similarity_top_k=3)
        ours, theirs = store.query(query), oracle.query(query)
        assert ours.ids == theirs.ids
        for cosine, expected in zip(
            ours.similarities or [], theirs.similarities or [], strict=True
        ):
            assert math.isclose(cosine, expected, abs_tol=0.02)  # vectors are kept in 8 bits
        by_id = {expected.node_id: expected for expected in llama().NODES}
        for found in ours.nodes or []:
            expected_node = by_id[found.node_id]
            assert found.get_content() == expected_node.get_content()
            assert found.metadata == expected_node.metadata
            assert found.ref_doc_id == expected_node.ref_doc_id


FILTERS = [
    ("who", "Ana", "EQ"),
    ("who", "Ana", "NE"),
    ("page", 2, "GT"),
    ("page", 2, "GTE"),
    ("page", 2.5, "LT"),
    ("page", 2.5, "LTE"),
    ("who", ["Ana", "Bo"], "IN"),
    ("who", ["Ana", "Bo"], "NIN"),
    ("tags", ["x", "z"], "ANY"),
    ("tags", ["x", "y"], "ALL"),
    ("tags", "y", "CONTAINS"),
    ("who", "na", "TEXT_MATCH"),
    ("who", "ANA", "TEXT_MATCH_INSENSITIVE"),
    ("who", "nobody", "TEXT_MATCH"),
    ("note", None, "IS_EMPTY"),
    ("tags", None, "IS_EMPTY"),
]


@pytest.mark.parametrize("given", FILTERS, ids=lambda given: f"{given[0]}-{given[2]}")
def test_every_operator_passes_what_the_simple_store_passes(
    store: Any, oracle: Any, given: tuple[str, Any, str]
) -> None:
    for condition in (llama().FilterCondition.AND, llama().FilterCondition.NOT):
        filters = llama().MetadataFilters(filters=[llama().one(*given)], condition=condition)
        assert ids(store, filters=filters) == ids(oracle, filters=filters)


@pytest.mark.parametrize("condition", ["AND", "OR", "NOT"])
def test_conditions_combine_filters(store: Any, oracle: Any, condition: str) -> None:
    for pair in zip(FILTERS, FILTERS[3:], strict=False):
        filters = llama().MetadataFilters(
            filters=[llama().one(*given) for given in pair],
            condition=llama().FilterCondition[condition],
        )
        assert ids(store, filters=filters) == ids(oracle, filters=filters)


def test_filters_may_be_nested(store: Any) -> None:
    inner = llama().MetadataFilters(
        filters=[llama().one(*FILTERS[0]), llama().one(*FILTERS[2])],
        condition=llama().FilterCondition.OR,
    )
    filters = llama().MetadataFilters(filters=[inner, llama().one("page", 3, "NE")])
    assert sorted(ids(store, filters=filters)) == ["a", "d"]
    none = llama().MetadataFilters(filters=[llama().one("who", None, "EQ")])
    with pytest.raises(memdb.InvalidArgument):
        ids(store, filters=none)


def test_nodes_are_restricted_by_id_and_by_document(store: Any) -> None:
    assert ids(store, node_ids=["c", "b", "absent"]) == ["c", "b"] or ids(
        store, node_ids=["c", "b", "absent"]
    ) == ["b", "c"]
    assert ids(store, doc_ids=["d1"]) == ["a", "b"]
    assert [found.node_id for found in store.get_nodes(["b", "d"])] == ["b", "d"]
    ana = llama().MetadataFilters(filters=[llama().one(*FILTERS[0])])
    assert [found.node_id for found in store.get_nodes(filters=ana)] == ["a"]


def test_words_find_nodes_and_hybrid_finds_both_ways(store: Any) -> None:
    words = {"query_str": "boiler", "query_embedding": None}
    for mode in (llama().VectorStoreQueryMode.TEXT_SEARCH, llama().VectorStoreQueryMode.SPARSE):
        assert ids(store, mode=mode, **words) == ["b"]
    hybrid = {"mode": llama().VectorStoreQueryMode.HYBRID, "query_str": "boiler"}
    assert ids(store, **hybrid)[0] in ("a", "b") and len(ids(store, **hybrid)) == 4
    assert len(ids(store, **hybrid, hybrid_top_k=2)) == 2
    with pytest.raises(memdb.InvalidArgument):
        ids(store, mode=llama().VectorStoreQueryMode.SVM)
    with pytest.raises(memdb.InvalidArgument):
        ids(store, query_embedding=None)


def test_deleting_follows_documents_ids_and_filters(store: Any) -> None:
    store.delete("d1")
    assert sorted(ids(store)) == ["c", "d"]
    store.add(llama().NODES[:2])
    store.delete_nodes(["a", "absent"])
    assert sorted(ids(store)) == ["b", "c", "d"]
    store.delete_nodes(filters=llama().MetadataFilters(filters=[llama().one("page", 2.5, "EQ")]))
    store.delete_nodes()
    assert sorted(ids(store)) == ["b", "c"]
    store.clear()
    assert ids(store) == [] and store.get_nodes() == []


def test_a_node_that_exists_is_replaced(store: Any) -> None:
    store.add([llama().node("a", "dentist", [0, 0, 0, 1], "d9", page=9)])
    (found,) = store.get_nodes(["a"])
    assert (found.get_content(), found.metadata, found.ref_doc_id) == ("dentist", {"page": 9}, "d9")
    assert len(ids(store)) == 4


def test_it_is_the_store_of_an_index(store: Any) -> None:
    from llama_index.core import StorageContext, VectorStoreIndex
    from llama_index.core.embeddings import MockEmbedding

    context = StorageContext.from_defaults(vector_store=store)
    store.clear()
    index = VectorStoreIndex(
        [llama().TextNode(text="the spare key is with Grace")],
        storage_context=context,
        embed_model=MockEmbedding(embed_dim=4),
    )
    (found,) = index.as_retriever(similarity_top_k=1).retrieve("key")
    assert found.get_content() == "the spare key is with Grace"


def test_an_empty_store_answers_with_nothing(tmp_path: Path) -> None:
    with memdb.open(tmp_path / "life", embedder="none"):
        store = llama().MemdbVectorStore(tmp_path / "life")
        assert ids(store) == [] and store.get_nodes() == []
        store.close()
