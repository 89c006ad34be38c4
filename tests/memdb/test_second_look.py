"""Profile nano with its closest texts embedded again: ranked as if the vectors had been kept."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
import pytest

import memdb
from memdb.ingest import embedders
from memdb.settings import FRESH_VECTORS_MAX

_WHO = "Ana Ben Carla David Elif Farid Greta Hugo Irina Jonas".split()
_DOES = "paints repairs sells visits photographs cleans borrows describes".split()
_WHAT = "a boat,the old bridge,a violin,her garden,the museum,a bicycle,the bakery,a map".split(",")
_WHEN = "in the morning,at night,on Sunday,after work,during the storm,by train,with friends".split(
    ","
)
TEXTS = [" ".join(words) for words in itertools.product(_WHO, _DOES, _WHAT, _WHEN)]
QUESTIONS = ["who plays music late", "a trip on rails", "bread before noon", "flowers", "weather"]


@pytest.fixture(scope="module")
def nano(tmp_path_factory: pytest.TempPathFactory) -> Iterator[memdb.Database]:
    assert len(TEXTS) > FRESH_VECTORS_MAX  # so that the space is trained and in files
    with memdb.open(tmp_path_factory.mktemp("nano") / "db", embedder="static") as db:
        db.remember_many([{"text": text, "source": "test"} for text in TEXTS])
        assert db.spaces.convert("default", "nano").profile == "nano"
        yield db


@pytest.fixture(scope="module")
def truth() -> dict[str, list[str]]:
    """The ten closest texts to each question, by vectors nobody compressed."""
    model = embedders.load("static")
    assert model is not None
    products = embedders.embed_queries(model, QUESTIONS) @ embedders.embed_documents(model, TEXTS).T
    order = np.argsort(-products, axis=1)[:, :10]
    return {
        asked: [TEXTS[place] for place in places]
        for asked, places in zip(QUESTIONS, order.tolist(), strict=True)
    }


def _recall(db: memdb.Database, truth: dict[str, list[str]]) -> float:
    shares = []
    for asked, wanted in truth.items():
        found = {hit.text for hit in db.recall(asked, k=10, mode="vector")}
        shares.append(len(found & set(wanted)) / len(wanted))
    return sum(shares) / len(shares)


def test_embedding_the_best_again_ranks_them_as_if_nothing_had_been_compressed(
    nano: memdb.Database, truth: dict[str, list[str]]
) -> None:
    nano.settings.reembed_top = 0
    before = _recall(nano, truth)
    nano.settings.reembed_top = 50
    after = _recall(nano, truth)
    assert after > before
    assert after >= 0.8


def test_a_cosine_of_the_second_look_is_that_of_the_uncompressed_vectors(
    nano: memdb.Database,
) -> None:
    nano.settings.reembed_top = 5
    model = embedders.load("static")
    assert model is not None
    best = nano.recall("flowers", k=1, mode="vector", explain=True)
    vectors = embedders.embed_documents(model, [best[0].text or ""])
    wanted = float(embedders.embed_queries(model, ["flowers"])[0] @ vectors[0])
    assert best[0].why.cosine == pytest.approx(wanted, abs=1e-5)
    assert best.plan["reembed"] == 5


def test_nobody_pays_for_it_who_did_not_ask(nano: memdb.Database) -> None:
    nano.settings.reembed_top = 0
    assert "reembed" not in nano.recall("flowers", mode="vector", explain=True).plan


def test_the_number_has_limits(nano: memdb.Database) -> None:
    for wrong in (-1, 1_001, True, "50"):
        with pytest.raises(memdb.InvalidArgument):
            nano.settings.reembed_top = wrong  # type: ignore[assignment]
