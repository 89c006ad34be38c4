"""``MemdbVectorStore`` for LlamaIndex beside its own ``SimpleVectorStore``, on the same nodes."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from llama_index.core.schema import NodeRelationship, RelatedNodeInfo, TextNode
from llama_index.core.vector_stores.simple import SimpleVectorStore
from llama_index.core.vector_stores.types import (
    FilterCondition,
    FilterOperator,
    MetadataFilter,
    MetadataFilters,
    VectorStoreQuery,
    VectorStoreQueryMode,
)

import memdb
from memdb.adapters.llamaindex import MemdbVectorStore


def node(id: str, text: str, vector: list[float], document: str, **metadata: Any) -> TextNode:
    source = {NodeRelationship.SOURCE: RelatedNodeInfo(node_id=document)}
    return TextNode(id_=id, text=text, embedding=vector, relationships=source, metadata=metadata)


NODES = [
    node("a", "tea in the garden", [1, 0, 0, 0.1], "d1", page=1, who="Ana", tags=["x", "y"]),
    node("b", "the boiler", [0, 1, 0, 0.2], "d1", page=2, who="Bo", tags=["y"], note=""),
    node("c", "rain in Porto", [0.05, 0, 1, 0.1], "d2", page=3, who="ana maria", tags=[]),
    node("d", "tea with cake", [0.8, 0, 0.4, 0.1], "d3", page=2.5, note="long"),
]
VECTORS = [[1, 0, 0, 0], [0, 1, 0.2, 0], [0.3, 0.1, 1, 0]]


NAMES = (f"index-{number}" for number in count())  # one database; a namespace, a space a test


@pytest.fixture(scope="module")
def db(tmp_path_factory: pytest.TempPathFactory) -> Iterator[memdb.Database]:
    with memdb.open(tmp_path_factory.mktemp("index") / "life", embedder="none") as opened:
        yield opened


@pytest.fixture
def store(db: memdb.Database) -> Iterator[MemdbVectorStore]:
    name = next(NAMES)
    made = MemdbVectorStore(db, namespace=name, space=name)
    assert made.add(NODES) == ["a", "b", "c", "d"]
    yield made
    made.close()


@pytest.fixture(scope="module")
def oracle() -> SimpleVectorStore:
    simple = SimpleVectorStore()
    simple.add(NODES)
    return simple


def ids(store: Any, **query: Any) -> list[str]:
    given = {"query_embedding": VECTORS[0], "similarity_top_k": 4, **query}
    return store.query(VectorStoreQuery(**given)).ids


def test_the_closest_nodes_are_those_of_the_simple_store(
    store: MemdbVectorStore, oracle: SimpleVectorStore
) -> None:
    for vector in VECTORS:
        query = VectorStoreQuery(query_embedding=vector, similarity_top_k=3)
        ours, theirs = store.query(query), oracle.query(query)
        assert ours.ids == theirs.ids
        for cosine, expected in zip(
            ours.similarities or [], theirs.similarities or [], strict=True
        ):
            assert math.isclose(cosine, expected, abs_tol=0.02)  # vectors are kept in 8 bits
        by_id = {one.node_id: one for one in NODES}
        for found in ours.nodes or []:
            expected_node = by_id[found.node_id]
            assert found.get_content() == expected_node.get_content()
            assert found.metadata == expected_node.metadata
            assert found.ref_doc_id == expected_node.ref_doc_id


def one(key: str, value: Any, operator: FilterOperator) -> MetadataFilter:
    return MetadataFilter(key=key, value=value, operator=operator)


FILTERS = [
    one("who", "Ana", FilterOperator.EQ),
    one("who", "Ana", FilterOperator.NE),
    one("page", 2, FilterOperator.GT),
    one("page", 2, FilterOperator.GTE),
    one("page", 2.5, FilterOperator.LT),
    one("page", 2.5, FilterOperator.LTE),
    one("who", ["Ana", "Bo"], FilterOperator.IN),
    one("who", ["Ana", "Bo"], FilterOperator.NIN),
    one("tags", ["x", "z"], FilterOperator.ANY),
    one("tags", ["x", "y"], FilterOperator.ALL),
    one("tags", "y", FilterOperator.CONTAINS),
    one("who", "na", FilterOperator.TEXT_MATCH),
    one("who", "ANA", FilterOperator.TEXT_MATCH_INSENSITIVE),
    one("who", "nobody", FilterOperator.TEXT_MATCH),
    one("note", None, FilterOperator.IS_EMPTY),
    one("tags", None, FilterOperator.IS_EMPTY),
]


@pytest.mark.parametrize("given", FILTERS, ids=lambda given: f"{given.key}-{given.operator.value}")
def test_every_operator_passes_what_the_simple_store_passes(
    store: MemdbVectorStore, oracle: SimpleVectorStore, given: MetadataFilter
) -> None:
    for condition in (FilterCondition.AND, FilterCondition.NOT):
        filters = MetadataFilters(filters=[given], condition=condition)
        assert ids(store, filters=filters) == ids(oracle, filters=filters)


@pytest.mark.parametrize("condition", list(FilterCondition))
def test_conditions_combine_filters(
    store: MemdbVectorStore, oracle: SimpleVectorStore, condition: FilterCondition
) -> None:
    for pair in zip(FILTERS, FILTERS[3:], strict=False):
        filters = MetadataFilters(filters=list(pair), condition=condition)
        assert ids(store, filters=filters) == ids(oracle, filters=filters)


def test_filters_may_be_nested(store: MemdbVectorStore) -> None:
    inner = MetadataFilters(filters=[FILTERS[0], FILTERS[2]], condition=FilterCondition.OR)
    filters = MetadataFilters(filters=[inner, one("page", 3, FilterOperator.NE)])
    assert sorted(ids(store, filters=filters)) == ["a", "d"]
    none = MetadataFilters(filters=[one("who", None, FilterOperator.EQ)])
    with pytest.raises(memdb.InvalidArgument):
        ids(store, filters=none)


def test_nodes_are_restricted_by_id_and_by_document(store: MemdbVectorStore) -> None:
    assert ids(store, node_ids=["c", "b", "absent"]) == ["c", "b"] or ids(
        store, node_ids=["c", "b", "absent"]
    ) == ["b", "c"]
    assert ids(store, doc_ids=["d1"]) == ["a", "b"]
    assert [found.node_id for found in store.get_nodes(["b", "d"])] == ["b", "d"]
    ana = MetadataFilters(filters=[FILTERS[0]])
    assert [found.node_id for found in store.get_nodes(filters=ana)] == ["a"]


def test_words_find_nodes_and_hybrid_finds_both_ways(store: MemdbVectorStore) -> None:
    words = {"query_str": "boiler", "query_embedding": None}
    for mode in (VectorStoreQueryMode.TEXT_SEARCH, VectorStoreQueryMode.SPARSE):
        assert ids(store, mode=mode, **words) == ["b"]
    hybrid = {"mode": VectorStoreQueryMode.HYBRID, "query_str": "boiler"}
    assert ids(store, **hybrid)[0] in ("a", "b") and len(ids(store, **hybrid)) == 4
    assert len(ids(store, **hybrid, hybrid_top_k=2)) == 2
    with pytest.raises(memdb.InvalidArgument):
        ids(store, mode=VectorStoreQueryMode.SVM)
    with pytest.raises(memdb.InvalidArgument):
        ids(store, query_embedding=None)


def test_deleting_follows_documents_ids_and_filters(store: MemdbVectorStore) -> None:
    store.delete("d1")
    assert sorted(ids(store)) == ["c", "d"]
    store.add(NODES[:2])
    store.delete_nodes(["a", "absent"])
    assert sorted(ids(store)) == ["b", "c", "d"]
    store.delete_nodes(filters=MetadataFilters(filters=[one("page", 2.5, FilterOperator.EQ)]))
    store.delete_nodes()
    assert sorted(ids(store)) == ["b", "c"]
    store.clear()
    assert ids(store) == [] and store.get_nodes() == []


def test_a_node_that_exists_is_replaced(store: MemdbVectorStore) -> None:
    store.add([node("a", "dentist", [0, 0, 0, 1], "d9", page=9)])
    (found,) = store.get_nodes(["a"])
    assert (found.get_content(), found.metadata, found.ref_doc_id) == ("dentist", {"page": 9}, "d9")
    assert len(ids(store)) == 4


def test_it_is_the_store_of_an_index(store: MemdbVectorStore) -> None:
    from llama_index.core import StorageContext, VectorStoreIndex
    from llama_index.core.embeddings import MockEmbedding

    context = StorageContext.from_defaults(vector_store=store)
    store.clear()
    index = VectorStoreIndex(
        [TextNode(text="the spare key is with Grace")],
        storage_context=context,
        embed_model=MockEmbedding(embed_dim=4),
    )
    (found,) = index.as_retriever(similarity_top_k=1).retrieve("key")
    assert found.get_content() == "the spare key is with Grace"


def test_an_empty_store_answers_with_nothing(tmp_path: Path) -> None:
    with memdb.open(tmp_path / "life", embedder="none"):
        store = MemdbVectorStore(tmp_path / "life")
        assert ids(store) == [] and store.get_nodes() == []
        store.close()
