"""Long texts: no character is lost, every window fits, and pooling is what it says."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from memdb.errors import InvalidArgument
from memdb.ingest.embedders import embed_documents, embed_queries, embed_query
from memdb.ingest.embedders.protocol import Role
from memdb.ingest.embedders.static import StaticEmbedder
from memdb.ingest.embedders.windows import cut, unit


class Recorder:
    """Counts letters by hashing them into a vector; remembers what it was given.

    It makes one token of each word and one of each further four letters, puts two around a text
    and refuses what is longer than its window, as a server does.
    """

    name = "recorder"
    revision = "1"
    dim = 16

    def __init__(self, max_tokens: int = 12) -> None:
        self.max_tokens = max_tokens
        self.seen: list[tuple[str, Role]] = []

    def count_tokens(self, text: str) -> int:
        return 2 + sum(1 + (len(word) - 1) // 4 for word in text.split())

    def embed(self, texts: Sequence[str], role: Role = "document") -> NDArray[np.float32]:
        vectors = np.zeros((len(texts), self.dim), dtype=np.float32)
        for row, text in zip(vectors, texts, strict=True):
            assert self.count_tokens(text) <= self.max_tokens
            self.seen.append((text, role))
            for letter in text:
                row[ord(letter) % self.dim] += 1
        return vectors


TEXTS = st.text(alphabet=st.sampled_from("ab c.\n!? 猫。é\u0301xyz"), max_size=400)


@settings(max_examples=300, deadline=None)
@given(TEXTS, st.integers(3, 40))
@example("a" * 400, 3)
@example(" " * 400 + "b", 3)
def test_the_windows_of_a_text_joined_are_the_text(text: str, max_tokens: int) -> None:
    count = Recorder().count_tokens
    windows = list(cut(text, max_tokens, count))
    assert "".join(window for window, _ in windows) == text
    assert all(window for window, _ in windows)
    for window, tokens in windows:
        assert tokens == count(window)
        assert tokens <= max_tokens or len(window) == 1


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=3000))
@example("word " * 600)
@example("猫" * 1000)
@example("x" * 3000)
def test_real_tokens_are_cut_without_loss(text: str) -> None:
    embedder = _static()
    windows = list(cut(text, 32, embedder.count_tokens))
    assert "".join(window for window, _ in windows) == text
    assert all(tokens <= 32 for _, tokens in windows)


def test_windows_are_well_filled() -> None:
    embedder = _static()
    text = "The train to Porto leaves at nine in the morning. " * 200
    windows = list(cut(text, 64, embedder.count_tokens))
    least = embedder.count_tokens(text) / 64
    assert least <= len(windows) <= 2 * least


def test_windows_end_where_sentences_end() -> None:
    text = "One two three four five. Six seven eight nine ten. " * 8
    windows = [window for window, _ in cut(text, 30, Recorder().count_tokens)]
    assert len(windows) > 2
    assert all(window.endswith(". ") for window in windows)


def test_windows_without_sentences_end_between_words() -> None:
    text = "lorem ipsum " * 100
    windows = [window for window, _ in cut(text, 30, Recorder().count_tokens)]
    assert len(windows) > 2
    assert all(window.endswith(" ") for window in windows)


def test_a_letter_keeps_its_accent() -> None:
    text = "e\u0301" * 200
    windows = [window for window, _ in cut(text, 9, Recorder().count_tokens)]
    assert len(windows) > 2
    assert not any(window.startswith("\u0301") for window in windows)


def test_a_counter_that_never_fits_still_terminates() -> None:
    windows = list(cut("abc", 8, lambda text: 1000))
    assert [window for window, _ in windows] == ["a", "b", "c"]


@pytest.mark.parametrize("role", ["document", "query"])
def test_a_long_text_is_the_mean_of_its_windows_weighted_by_tokens(role: Role) -> None:
    embedder = Recorder()
    text = "abcd efgh ijkl. mnop qrst uvwx yz. " * 3
    windows = list(cut(text, embedder.max_tokens, embedder.count_tokens))
    assert len(windows) > 2
    expected = np.zeros(embedder.dim)
    for window, tokens in windows:
        vector = Recorder().embed([window])[0].astype(np.float64)
        expected += (tokens - 2) * vector / np.linalg.norm(vector)
    expected /= np.linalg.norm(expected)
    embed = embed_documents if role == "document" else embed_queries
    (vector,) = embed(embedder, [text])
    assert vector == pytest.approx(expected, abs=1e-6)
    assert embedder.seen == [(window, role) for window, _ in windows]


def test_a_text_that_fits_is_embedded_whole() -> None:
    embedder = Recorder()
    embed_documents(embedder, ["short text", "", "another one"])
    assert [text for text, _ in embedder.seen] == ["short text", "", "another one"]


@settings(max_examples=50, deadline=None)
@given(st.lists(TEXTS, max_size=6))
def test_long_and_short_texts_keep_their_order(texts: list[str]) -> None:
    vectors = embed_documents(Recorder(), texts)
    assert vectors.shape == (len(texts), Recorder.dim)
    assert vectors.dtype == np.float32
    for row, text in zip(vectors, texts, strict=True):
        assert np.array_equal(row, embed_documents(Recorder(), [text])[0])
        assert np.linalg.norm(row) == pytest.approx(1 if text else 0, abs=1e-5)


def test_a_fact_at_the_end_of_a_long_text_still_counts() -> None:
    embedder = _static()
    filler = "The weather was mild and the streets were quiet. " * 60
    plain, with_fact = embed_documents(
        embedder, [filler, filler + "Ana is allergic to peanuts, ask her about peanuts. " * 5]
    )
    question = embed_query(embedder, "peanut allergy")
    assert with_fact @ question > plain @ question + 0.02


def test_one_question_is_one_row() -> None:
    vector = embed_query(Recorder(), "abc")
    assert vector.shape == (Recorder.dim,)
    assert np.array_equal(vector, embed_queries(Recorder(), ["abc"])[0])


def test_half_a_surrogate_pair_is_refused_before_anything_is_embedded() -> None:
    embedder = Recorder()
    with pytest.raises(InvalidArgument, match="text 1"):
        embed_documents(embedder, ["fine", "broken \ud83d"])
    assert not embedder.seen


def test_unit_vectors_of_extreme_numbers_are_right() -> None:
    rows = np.array([[3e38, 3e38], [1e-45, 0], [0, 0], [3, 4]], dtype=np.float32)
    half = np.sqrt(0.5)
    expected = np.array([[half, half], [1, 0], [0, 0], [0.6, 0.8]])
    assert unit(rows) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    "answer",
    [
        [[0.0] * 16],
        np.zeros((2, 16), dtype=np.float32),
        np.zeros((1, 15), dtype=np.float32),
        np.zeros((1, 16), dtype=np.float64),
        np.full((1, 16), np.nan, dtype=np.float32),
        np.full((1, 16), np.inf, dtype=np.float32),
    ],
)
def test_an_embedder_that_breaks_its_protocol_is_named(answer: object) -> None:
    class Broken(Recorder):
        def embed(self, texts: Sequence[str], role: Role = "document") -> NDArray[np.float32]:
            return answer  # type: ignore[return-value]

    with pytest.raises(InvalidArgument, match="recorder"):
        embed_documents(Broken(), ["text"])


@functools.cache
def _static() -> StaticEmbedder:
    return StaticEmbedder()
