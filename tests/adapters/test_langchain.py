"""``MemdbVectorStore`` for LangChain beside its ``InMemoryVectorStore``, on the same documents."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_core.vectorstores import InMemoryVectorStore

import memdb
from memdb.adapters.langchain import MemdbVectorStore

WORDS = ("tea", "boiler", "garden", "Porto", "dentist", "rain", "key", "cake")


class CountingWords(Embeddings):
    """A vector of how often each word occurs: what is near is known by looking."""

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return [self.embed_query(text) for text in texts]

    def embed_query(self, text: str) -> list[float]:
        counts = [text.lower().count(word.lower()) for word in WORDS]
        return [count * (1 + at / 9) + 0.02 * at for at, count in enumerate(counts, 1)]


DOCUMENTS = [
    Document(id="1", page_content="tea in the garden", metadata={"page": 1, "who": "Ana"}),
    Document(id="2", page_content="the boiler and the key", metadata={"page": 2, "who": "Bo"}),
    Document(id="3", page_content="rain in Porto, tea in Porto", metadata={"page": 3}),
    Document(id="4", page_content="cake", metadata={"page": 4, "who": "Ana", "tags": ["x", "y"]}),
]


NAMES = (f"chain-{number}" for number in count())  # one database; a namespace, a space a test


@pytest.fixture(scope="module")
def db(tmp_path_factory: pytest.TempPathFactory) -> Iterator[memdb.Database]:
    with memdb.open(tmp_path_factory.mktemp("chain") / "life", embedder="none") as opened:
        yield opened


@pytest.fixture
def store(db: memdb.Database) -> Iterator[MemdbVectorStore]:
    name = next(NAMES)
    made = MemdbVectorStore(db, CountingWords(), namespace=name, space=name)
    yield made
    made.close()


def test_searches_agree_with_the_store_of_langchain(store: MemdbVectorStore) -> None:
    oracle = InMemoryVectorStore(CountingWords())
    assert store.add_documents(DOCUMENTS) == oracle.add_documents(DOCUMENTS) == list("1234")
    for query in ("tea", "Porto rain", "the key to the boiler", "cake in the garden"):
        ours = store.similarity_search_with_score(query, k=4)
        theirs = oracle.similarity_search_with_score(query, k=4)
        assert [found for found, _ in ours] == [found for found, _ in theirs]
        for (_, cosine), (_, expected) in zip(ours, theirs, strict=True):
            assert math.isclose(cosine, expected, abs_tol=0.02)  # vectors are kept in 8 bits
        assert store.similarity_search(query, k=2) == oracle.similarity_search(query, k=2)
        vector = CountingWords().embed_query(query)
        assert store.similarity_search_by_vector(vector, 3) == [found for found, _ in ours[:3]]
        mmr = {"k": 2, "fetch_k": 4, "lambda_mult": 0.3}
        assert store.max_marginal_relevance_search(
            query, **mmr
        ) == oracle.max_marginal_relevance_search(query, **mmr)


def test_an_id_that_exists_is_replaced_and_deleted_ones_are_gone(store: MemdbVectorStore) -> None:
    store.add_documents(DOCUMENTS)
    store.add_texts(["dentist"], [{"page": 9}], ids=["1"])
    assert store.get_by_ids(["1", "absent", "2"]) == [
        Document(id="1", page_content="dentist", metadata={"page": 9}),
        DOCUMENTS[1],
    ]
    assert store.similarity_search("dentist", k=1)[0].id == "1"
    assert store.delete(["1", "absent"]) and store.get_by_ids(["1"]) == []
    assert [found.id for found in store.similarity_search("tea", k=9)] == ["3", "4", "2"]
    assert store.delete() and store.similarity_search("tea") == []


def test_texts_without_ids_get_their_own_and_the_same_text_stays_twice(
    store: MemdbVectorStore,
) -> None:
    ids = store.add_texts(["tea", "tea"])
    assert len(set(ids)) == 2 and len(store.similarity_search("tea", k=5)) == 2
    assert store.add_texts([]) == []
    with pytest.raises(memdb.InvalidArgument):
        store.add_texts(["tea"], ids=["1", "2"])
    with pytest.raises(memdb.InvalidArgument):
        store.add_texts(["tea"], [{}, {}])


@pytest.mark.parametrize(
    ("filter", "ids"),
    [
        ({"who": "Ana"}, "14"),
        ({"page": {"$gt": 2}}, "34"),
        ({"who": {"$exists": False}}, "3"),
        ({"$or": [{"who": "Bo"}, {"tags": {"$contains": "y"}}]}, "24"),
        ({"$not": {"who": "Ana"}, "page": {"$lt": 3}}, "2"),
        ({}, "1234"),
    ],
)
def test_filters_decide_before_ranking(store: MemdbVectorStore, filter: Any, ids: str) -> None:
    store.add_documents(DOCUMENTS)
    found = store.similarity_search("tea", k=len(ids), filter=filter)
    assert sorted(document.id or "" for document in found) == list(ids)


def test_a_filter_that_is_no_mapping_or_no_operator_is_an_error(store: MemdbVectorStore) -> None:
    store.add_documents(DOCUMENTS)
    with pytest.raises(memdb.InvalidArgument):
        store.similarity_search("tea", filter=lambda document: True)
    with pytest.raises(memdb.FilterError):
        store.similarity_search("tea", filter={"page": {"$near": 2}})


def test_without_an_embedding_the_database_searches(db: memdb.Database) -> None:
    store = MemdbVectorStore.from_texts(
        ["tea in the garden", "the boiler"], place=db, namespace="words"
    )
    ((found, score),) = store.similarity_search_with_relevance_scores("boiler", k=1)
    assert found.page_content == "the boiler" and 0 < score <= 1
    with pytest.raises(memdb.InvalidArgument):
        store.max_marginal_relevance_search("tea")
    store.close()


def test_it_works_as_a_retriever_and_asynchronously(store: MemdbVectorStore) -> None:
    async def run() -> list[Document]:
        await store.aadd_documents(DOCUMENTS)
        retriever = store.as_retriever(search_kwargs={"k": 1, "filter": {"who": "Bo"}})
        assert (await store.aget_by_ids(["3"]))[0] == DOCUMENTS[2]
        return await retriever.ainvoke("key")

    assert [document.id for document in asyncio.run(run())] == ["2"]
    threshold = {"search_type": "similarity_score_threshold"}
    near = store.as_retriever(**threshold, search_kwargs={"score_threshold": 0.9, "k": 4})
    assert [document.id for document in near.invoke("cake")] == ["4"]


def test_another_length_of_vectors_is_refused(store: MemdbVectorStore, db: memdb.Database) -> None:
    class Short(CountingWords):
        def embed_query(self, text: str) -> list[float]:
            return super().embed_query(text)[:5]

    store.add_documents(DOCUMENTS)
    short = MemdbVectorStore(db, Short(), namespace="short", space=store._space)
    with pytest.raises(memdb.DimensionMismatch):
        short.add_texts(["tea"])
    short.close()


def test_documents_stay_and_are_memories_like_others(tmp_path: Path) -> None:
    with memdb.open(tmp_path / "life", embedder="none") as db:
        store = MemdbVectorStore(db, CountingWords())
        store.add_documents(DOCUMENTS)
        store.close()
    with memdb.open(tmp_path / "life", namespace="langchain") as db:
        assert {memory.source for memory in db.list()} == {"app:langchain"}
        again = MemdbVectorStore(db, CountingWords())
        assert again.similarity_search("cake", k=1)[0] == DOCUMENTS[3]
        again.close()
