"""Lexical search against BM25 written out by hand."""

from __future__ import annotations

import math
import tempfile
import threading
from collections import Counter
from pathlib import Path

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings
from pyroaring import BitMap

from memdb.query import lexical
from memdb.query.analyser import Analyser
from memdb.query.lexical import LexicalQuery
from memdb.storage import postings
from memdb.storage.environment import Environment, ReadTxn

WORDS = ["ana", "boat", "cake", "dog", "echo", "fig", "goat", "hat", "ink", "jam"]
Model = dict[int, Counter[str]]


def quantised(length: int) -> int:
    return int(postings.decode_lengths(postings.encode_lengths(np.array([length])))[0])


def brute_force(
    model: Model, query: list[str], counted: set[int], *, exact_mean: bool
) -> dict[int, float]:
    """BM25 from its definition, with the lengths the index keeps."""
    docs = [model[row] for row in model if row in counted]
    if not docs:
        return {}
    lengths = [c.total() if exact_mean else quantised(c.total()) for c in docs]
    mean = max(1.0, sum(lengths) / len(docs))
    scores: dict[int, float] = {}
    for term, times in Counter(query).items():
        df = sum(1 for counts in docs if counts[term])
        idf = math.log(1 + (len(docs) - df + 0.5) / (df + 0.5))
        for row in counted:
            tf = min(255, model.get(row, Counter())[term])
            if tf:
                norm = 1.2 * (0.25 + 0.75 * quantised(model[row].total()) / mean)
                scores[row] = scores.get(row, 0.0) + times * idf * tf * 2.2 / (tf + norm)
    return scores


def assert_best(
    rows: np.ndarray, scores: np.ndarray, expected: dict[int, float], limit: int
) -> None:
    """``rows`` are a best-first selection of ``expected``; float32 may swap near equals."""
    assert len(rows) == len(set(rows.tolist())) == min(limit, len(expected))
    assert np.allclose(scores, [expected[row] for row in rows.tolist()], rtol=1e-4)
    best = sorted(expected.values(), reverse=True)[:limit]
    assert np.allclose(scores, best, rtol=1e-4)
    for (row, score), (after, next_score) in zip(
        zip(rows, scores, strict=True), list(zip(rows, scores, strict=True))[1:], strict=False
    ):
        assert (-score, row) < (-next_score, after)


texts = st.lists(st.sampled_from(WORDS), max_size=12).map(" ".join)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.tuples(texts, st.sampled_from(["single", "batch", "fold"])), max_size=25),
    st.lists(st.sampled_from([*WORDS, "zebra"]), min_size=1, max_size=5),
    st.sets(st.integers(0, 30)),
    st.integers(1, 8),
    st.booleans(),
)
def test_search_is_bm25_over_the_allowed_rows(
    writes: list[tuple[str, str]], query: list[str], hidden: set[int], limit: int, strict: bool
) -> None:
    analyser = Analyser()
    model: Model = {}
    with tempfile.TemporaryDirectory() as folder:
        env = Environment(Path(folder))
        with env.write() as txn:
            for number, (text, how) in enumerate(writes):
                row = number * 997 % 31
                model[row] = Counter(analyser.terms(text))
                if how == "batch":
                    batch = analyser.analyse_many([text], txn.digest)
                    postings.add_segment(txn, [row], batch)
                else:
                    postings.add(txn, row, analyser.analyse(text, txn.digest))
                if how == "fold":
                    postings.fold(txn, at_least=1)
                postings.merge_step(txn, fan_in=3)
        allowed = set(model) - hidden
        population = BitMap(allowed) if strict else None
        with env.read() as txn:
            found = LexicalQuery(
                txn, analyser.query(" ".join(query), txn.digest), population=population
            )
            rows, scores = found.search(BitMap(allowed), limit)
            counted = allowed if strict else set(model)
            expected = brute_force(
                model, query_terms(analyser, query), counted, exact_mean=not strict
            )
            expected = {row: score for row, score in expected.items() if row in allowed}
            assert_best(rows, scores, expected, limit)
            assert set(found.matches(BitMap(allowed))) == set(expected)
            assert np.allclose(
                found.scores_of(list(range(40))),
                [
                    expected.get(r, 0.0) if r in allowed else found.scores_of([r])[0]
                    for r in range(40)
                ],
                rtol=1e-4,
            )
            for row, score, parts in zip(rows, scores, found.explain(rows), strict=True):
                assert math.isclose(sum(parts.values()), score, rel_tol=1e-4)
                assert set(parts) == set(query_terms(analyser, query)) & set(model[row])
        env.close()


def query_terms(analyser: Analyser, query: list[str]) -> list[str]:
    return analyser.terms(" ".join(query))


@pytest.fixture
def env(tmp_path: Path) -> Environment:
    return Environment(tmp_path)


def put(env: Environment, analyser: Analyser, texts: dict[int, str]) -> None:
    with env.write() as txn:
        for row, text in texts.items():
            postings.add(txn, row, analyser.analyse(text, txn.digest))


def ask(txn: ReadTxn, analyser: Analyser, text: str, **options: object) -> LexicalQuery:
    return LexicalQuery(txn, analyser.query(text, txn.digest), **options)  # type: ignore[arg-type]


def test_rows_outside_the_population_change_neither_order_nor_score(env: Environment) -> None:
    analyser = Analyser()
    mine = {1: "ana likes figs", 2: "the boat of ana and her dog", 3: "figs and jam and a boat"}
    put(env, analyser, mine)
    with env.read() as txn:
        alone = ask(txn, analyser, "boat ana figs").search(BitMap(mine), 10)
    put(env, analyser, {row: "boat boat boat " * row for row in range(10, 60)})
    with env.read() as txn:
        among = ask(txn, analyser, "boat ana figs", population=BitMap(mine))
        rows, scores = among.search(BitMap(mine), 10)
        counted_with_strangers = ask(txn, analyser, "boat ana figs").search(BitMap(mine), 10)
    assert rows.tolist() == alone[0].tolist()
    assert scores.tolist() == alone[1].tolist()
    assert counted_with_strangers[1].tolist() != alone[1].tolist()


def test_the_matched_mass_says_how_much_of_the_question_is_known(env: Environment) -> None:
    analyser = Analyser()
    put(env, analyser, {n: f"dog number{n}" for n in range(20)} | {50: "rare falcon"})
    with env.read() as txn:
        everything = ask(txn, analyser, "dog falcon")
        assert everything.matched_mass == 1.0
        assert everything.document_frequencies() == {"dog": 20, "falcon": 1}
        half = ask(txn, analyser, "falcon pangolin")
        assert 0.35 < half.matched_mass < 0.5  # an unknown word would have been the rarest
        common = ask(txn, analyser, "dog pangolin")
        assert common.matched_mass < 0.05
        assert ask(txn, analyser, "pangolin").matched_mass == 0.0
        nothing = ask(txn, analyser, "who is it?")
        assert nothing.matched_mass == 0.0
        assert len(nothing.search(BitMap(range(60)), 5)[0]) == 0


def test_equal_scores_come_in_order_of_rows_at_every_limit(env: Environment) -> None:
    analyser = Analyser()
    put(env, analyser, dict.fromkeys((9, 70_000, 3, 5, 131_072), "same dog"))
    with env.read() as txn:
        found = ask(txn, analyser, "dog")
        for limit in range(1, 7):
            rows, _ = found.search(BitMap([3, 5, 9, 70_000, 131_072, 999_999]), limit)
            assert rows.tolist() == [3, 5, 9, 70_000, 131_072][:limit]
        assert found.search(BitMap(), 3)[0].tolist() == []
        assert found.search(BitMap([4]), 3)[0].tolist() == []


def test_threads_do_not_see_each_others_scores(env: Environment) -> None:
    analyser = Analyser()
    put(env, analyser, {n: f"dog {WORDS[n % 10]} {WORDS[n % 7]}" for n in range(300)})
    allowed = BitMap(range(300))

    def answer(word: str) -> list[int]:
        with env.read() as txn:
            rows, _ = ask(txn, analyser, f"dog {word}").search(allowed, 20)
            return [int(row) for row in rows]

    expected = {word: answer(word) for word in WORDS}
    wrong: list[str] = []

    def work(word: str) -> None:
        wrong.extend(word for _ in range(20) if answer(word) != expected[word])

    threads = [threading.Thread(target=work, args=(word,)) for word in WORDS]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_the_accumulator_is_clean_after_every_search(env: Environment) -> None:
    analyser = Analyser()
    put(env, analyser, {n: "dog cake" for n in range(50)})
    with env.read() as txn:
        found = ask(txn, analyser, "dog cake")
        found.search(BitMap(range(50)), 3)
        found.scores_of([1, 2])
        assert not lexical._scratch.scores.any()


@pytest.mark.parametrize("dense_share", [1, 10**9])
@pytest.mark.parametrize("sort_at_most", [3, 10**9])
@pytest.mark.parametrize("sample", [2, 4096])
def test_every_way_to_find_the_best_gives_the_same_answer(
    env: Environment,
    monkeypatch: pytest.MonkeyPatch,
    dense_share: int,
    sort_at_most: int,
    sample: int,
) -> None:
    rng = np.random.default_rng(7)
    analyser = Analyser()
    rows = np.sort(rng.choice(2000, 600, replace=False)).tolist()
    put(env, analyser, {row: " ".join(rng.choice(WORDS, 6)) for row in rows})
    allowed_sets = [
        BitMap(range(2000)), BitMap(rows), BitMap(rows[::3]), BitMap(range(1000, 90_000)),
        BitMap(rows[:2]),
    ]  # fmt: skip
    with env.read() as txn:
        found = [ask(txn, analyser, text) for text in ("ana", "ana boat jam", "boat zebra")]
        by_hand = []
        for query in found:
            scores = query.scores_of(np.arange(2000))
            order = np.lexsort((np.arange(2000), -scores))
            by_hand.append([int(row) for row in order if scores[row] > 0])
        monkeypatch.setattr(lexical, "_DENSE_SHARE", dense_share)
        monkeypatch.setattr(lexical, "_SORT_AT_MOST", sort_at_most)
        monkeypatch.setattr(lexical, "_SAMPLE", sample)
        for query, ranking in zip(found, by_hand, strict=True):
            for allowed in allowed_sets:
                expected = [row for row in ranking if row in allowed]
                for limit in (1, 7, 100, 5000):
                    assert query.search(allowed, limit)[0].tolist() == expected[:limit]
