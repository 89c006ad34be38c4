"""The embedded default: what its vectors are, and that it needs nothing but its own files."""

from __future__ import annotations

import functools
import json
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memdb.errors import EmbedderUnavailable
from memdb.ingest.embedders import distil_static, embed_documents, embed_query, load, static
from memdb.ingest.embedders.static import StaticEmbedder
from tests.source_tree import ROOT

MEMORIES = [
    "Ana is allergic to peanuts and carries an adrenaline pen.",
    "The dentist moved the appointment to Tuesday afternoon.",
    "We rented a small flat near the harbour in Lisbon.",
    "The car needs new winter tyres before November.",
    "Grandmother's birthday is on the third of June.",
    "I started to learn the cello with a teacher called Petra.",
    "The wifi router in the attic has to be restarted every week.",
    "Marco lent me two hundred euros for the bicycle.",
    "The cat hides under the bed during thunderstorms.",
    "My salary was raised by four percent in January.",
]
QUESTIONS = {
    "What food makes Ana sick?": 0,
    "When do I see the doctor for my teeth?": 1,
    "Which apartment did we stay in in Portugal?": 2,
    "Does the vehicle need anything for the cold season?": 3,
    "What musical instrument am I learning?": 5,
    "Why is the internet down?": 6,
    "Whom do I owe money?": 7,
    "What is the pet afraid of, storms?": 8,
}


@pytest.fixture(scope="module")
def embedder() -> StaticEmbedder:
    return StaticEmbedder()


def test_questions_find_the_memory_that_answers_them_in_other_words(
    embedder: StaticEmbedder,
) -> None:
    documents = embed_documents(embedder, MEMORIES)
    ranks = {}
    for question, answer in QUESTIONS.items():
        scores = documents @ embed_query(embedder, question)
        ranks[question] = int((scores > scores[answer]).sum())
    assert sum(rank == 0 for rank in ranks.values()) >= 7, ranks
    assert max(ranks.values()) <= 2, ranks


def test_vectors_are_float32_of_unit_length(embedder: StaticEmbedder) -> None:
    vectors = embedder.embed(MEMORIES)
    assert vectors.dtype == np.float32
    assert vectors.shape == (len(MEMORIES), 256)
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(1, abs=1e-6)


def test_queries_and_documents_are_embedded_alike(embedder: StaticEmbedder) -> None:
    assert np.array_equal(
        embedder.embed(MEMORIES, role="query"), embedder.embed(MEMORIES, role="document")
    )


@pytest.mark.parametrize("text", ["", "  \n\t", "\x00", "\U0001f600\U0001f680", "x" * 5000])
def test_a_text_without_a_known_token_is_the_zero_vector(
    embedder: StaticEmbedder, text: str
) -> None:
    assert not embedder.embed([text]).any()
    assert not embed_documents(embedder, [text]).any()


def test_chinese_and_accents_are_expressed(embedder: StaticEmbedder) -> None:
    cat, same, plain = embed_documents(embedder, ["猫が好きです", "猫が好き", "我明天去北京开会"])
    assert cat @ same > cat @ plain
    accented, bare = embed_documents(embedder, ["Café in Zürich", "cafe in zurich"])
    assert np.array_equal(accented, bare)


def test_words_that_look_like_special_tokens_are_words(embedder: StaticEmbedder) -> None:
    assert embedder.count_tokens("[PAD]") == 3
    assert embedder.embed(["[PAD] [UNK]"]).any()


@settings(max_examples=150, deadline=None)
@given(st.lists(st.text(max_size=200), max_size=8))
def test_every_text_has_a_finite_vector_of_length_one_or_zero(texts: list[str]) -> None:
    embedder = _shared()
    vectors = embedder.embed(texts)
    norms = np.linalg.norm(vectors, axis=1)
    assert vectors.shape == (len(texts), embedder.dim)
    assert np.all((np.abs(norms - 1) < 1e-5) | (norms == 0))


@settings(max_examples=40, deadline=None)
@given(st.lists(st.sampled_from([*MEMORIES, "", "猫", "?" * 300]), max_size=60))
def test_a_vector_does_not_depend_on_what_is_embedded_together(texts: list[str]) -> None:
    embedder = _shared()
    together = embedder.embed(texts)
    for row, text in zip(together, texts, strict=True):
        assert np.array_equal(row, embedder.embed([text])[0])


def test_blocks_of_bounded_memory_give_the_same_vectors(
    embedder: StaticEmbedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = [*MEMORIES * 10, "", "word " * 1000]
    expected = embedder.embed(texts)
    monkeypatch.setattr(static, "_TOKENS_TOGETHER", 7)
    monkeypatch.setattr(static, "_TEXTS_TOGETHER", 11)
    monkeypatch.setattr(static, "_TEXTS_IN_PARALLEL", 1)
    assert np.array_equal(embedder.embed(texts), expected)


def test_counts_agree_one_by_one_and_many_at_once(embedder: StaticEmbedder) -> None:
    texts = [*MEMORIES * 5, ""]
    assert embedder.count_tokens_many(texts) == [embedder.count_tokens(text) for text in texts]
    assert embedder.count_tokens("") == 0


@given(st.lists(st.text(max_size=40), min_size=1, max_size=5))
@settings(max_examples=150)
def test_lines_have_as_many_tokens_together_as_one_by_one(texts: list[str]) -> None:
    embedder = _shared()
    assert embedder.counts_add_up
    assert embedder.count_tokens("\n".join(texts)) == sum(map(embedder.count_tokens, texts))


@functools.cache
def _shared() -> StaticEmbedder:
    return StaticEmbedder()


def test_threads_share_one_embedder(embedder: StaticEmbedder) -> None:
    expected = embedder.embed(MEMORIES)
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda _: embedder.embed(MEMORIES), range(40)))
    assert all(np.array_equal(result, expected) for result in results)


def test_the_model_is_under_eight_megabytes() -> None:
    assert sum(path.stat().st_size for path in static.MODEL.iterdir()) < 8_000_000


def test_loading_it_imports_no_model_library() -> None:
    heavy = ("torch", "transformers", "sentence_transformers", "model2vec", "huggingface_hub")
    program = (
        "import sys; from memdb.ingest import embedders;"
        "assert 'tokenizers' not in sys.modules;"
        "embedders.embed_query(embedders.load(), 'where are my keys?');"
        f"print([name for name in {heavy!r} if name in sys.modules])"
    )
    result = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "[]"


@pytest.mark.parametrize(
    "name", [static.CONFIG_FILE, static.ROWS_FILE, static.SCALES_FILE, static.VOCABULARY_FILE]
)
@pytest.mark.parametrize("damage", ["absent", "cut", "flipped"])
def test_a_damaged_model_is_a_typed_error(tmp_path: Path, name: str, damage: str) -> None:
    folder = tmp_path / "model"
    shutil.copytree(static.MODEL, folder)
    path = folder / name
    content = path.read_bytes()
    if damage == "absent":
        path.unlink()
    elif damage == "cut":
        path.write_bytes(content[: len(content) // 2])
    else:
        # The last digit of a checksum in the configuration, a number or a letter elsewhere.
        place = content.rindex(b"}", 0, content.rindex(b"}")) - 5 if name.endswith("json") else -9
        changed = bytearray(content)
        changed[place] ^= 1
        path.write_bytes(changed)
    with pytest.raises(EmbedderUnavailable) as raised:
        StaticEmbedder(folder)
    assert "install" in raised.value.hint


def test_distilling_again_from_the_same_vectors_makes_the_same_model(tmp_path: Path) -> None:
    vocabulary = ["[PAD]", "[UNK]", *(f"word{number}" for number in range(2000))]
    vectors = np.random.default_rng(3).normal(size=(len(vocabulary), 384))
    table = distil_static.finish(vocabulary, vectors)
    for name in ("one", "two"):
        distil_static.write(tmp_path / name, vocabulary, table)
    one, two = (json.loads((tmp_path / n / "model.json").read_text()) for n in ("one", "two"))
    assert one == two
    made = StaticEmbedder(tmp_path / "one")
    assert made.revision == one["revision"]
    assert not made.rows[:2].any()
    words = made.embed(["word7", "word8 word9"])
    exact = np.stack([table[9], table[10] + table[11]])
    exact /= np.linalg.norm(exact, axis=1, keepdims=True)
    assert np.einsum("ij,ij->i", words, exact).min() > 0.999


def test_eight_bits_keep_every_row_within_half_a_step() -> None:
    table = np.random.default_rng(5).normal(size=(500, 256)).astype(np.float32)
    table[7] = 0
    rows, scales = distil_static.quantise(table)
    assert rows.dtype == np.int8
    assert np.all(np.abs(rows * scales[:, None] - table) <= scales[:, None] * 0.5001)


def test_the_default_is_the_static_model() -> None:
    default, named = load(), load("static")
    assert isinstance(default, StaticEmbedder)
    assert isinstance(named, StaticEmbedder)
    assert default.revision == named.revision


@functools.cache
def _shared() -> StaticEmbedder:
    return StaticEmbedder()
