"""``bench recall`` on a handful of made conversations: its rows, their figures, its intervals."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

import memdb
from bench import recall, recall_unanswerable, recall_verdicts
from bench.recall_data import conversations, day_after, memories_of, questions_of
from bench.recall_tally import Tally, interval, not_better


def write(folder: Path) -> None:
    for number, name in enumerate(("Ana", "Theo")):
        items = [
            {"id": "1", "session": "s", "speaker": name, "text": f"Where did {name} put the key?"},
            {"id": "2", "session": "s", "speaker": "Grace", "text": "Behind the blue door."},
            {"id": "3", "session": "s", "speaker": name, "text": "Thank you, dear."},
        ]
        queries = [
            {"q": f"where is the key of {name}?", "type": "one", "evidence": ["2"]},
            {"q": "no evidence", "type": "one", "evidence": ["9"]},
        ]
        line = json.dumps({"id": f"c{number}", "items": items, "queries": queries})
        with open(folder / "made.jsonl", "a") as file:
            file.write(line + "\n")


def test_every_method_of_a_file_has_its_row(tmp_path: Path) -> None:
    write(tmp_path)
    out = tmp_path / "figures.json"
    assert recall.main(["--data", str(tmp_path), "--embedder", "static", "--json", str(out)]) == 0
    rows = json.loads(out.read_text())["results"]
    by_method = {row["method"]: row for row in rows if "method" in row}
    assert {
        "reference BM25",
        "lexical",
        "vector static",
        "hybrid static",
        "hybrid static, exact",
        "hybrid static, shared",
        "hybrid static - neighbours",
        "hybrid static, day after",
        "hybrid static, day after + prior",
    } <= set(by_method)
    hybrid = by_method["hybrid static"]
    assert hybrid["questions"] == 2
    assert hybrid["any@10"] == hybrid["all@5"] == hybrid["mean@20"] == 1.0
    assert 0 < hybrid["ndcg@10"] <= 1
    assert hybrid["bytes_a_memory"] > 0
    judged = [row for row in rows if "no answer" in row]
    for measure in ("score", "confidence"):
        by_measure = [row["loss"] for row in judged if row["by"] == measure]
        assert by_measure == list(recall_unanswerable.LOSSES)


def test_a_run_ends_with_the_verdict_of_each_limit(tmp_path: Path) -> None:
    write(tmp_path)
    out = tmp_path / "figures.json"
    how = ["--only", "verdicts", "--embedder", "static", "--json", str(out)]
    assert recall.main(["--data", str(tmp_path), *how]) == 0
    rows = json.loads(out.read_text())["results"]
    assert {row["method"] for row in rows if "method" in row} == {
        "lexical",
        "vector static",
        "hybrid static",
        "hybrid static, shared",
    }
    judged = {(row["line"], row["measure"]): row for row in rows if "line" in row}
    shared = judged["shared store against one each", "all@10"]
    assert (shared["value"], shared["difference"], shared["verdict"]) == (1, 0, "met")


def _tally(found: list[list[str]]) -> Tally:
    tally = Tally()
    for one in found:
        tally.add(one, ["a"], 1.0, 1.0)
    return tally


def test_a_verdict_takes_the_better_leg_and_the_floor_of_the_file() -> None:
    right, wrong = ["a"], ["b"]
    tallies = {
        ("lexical", "all"): _tally([right, wrong, wrong, wrong]),
        ("vector m", "all"): _tally([right, right, right, wrong]),
        ("hybrid m", "all"): _tally([right, right, wrong, wrong]),
    }
    rows = recall_verdicts.rows("madial-en", tallies, ["m"])
    by_line = {(row["line"], row["measure"]): row for row in rows}
    beside = by_line["hybrid against vector m", "all@10"]
    assert (beside["value"], beside["beside"], beside["difference"]) == (0.5, 0.75, -0.25)
    assert beside["verdict"] == "not met"
    assert by_line["hybrid", "all@10"]["verdict"] == "met"
    tallies["hybrid m", "all"] = _tally([right, right, right, right])
    rows = recall_verdicts.rows("other", tallies, ["m"])
    assert {row["verdict"] for row in rows} == {"met"}


def test_questions_without_an_answer_can_be_asked_alone(tmp_path: Path) -> None:
    write(tmp_path)
    out = tmp_path / "figures.json"
    how = ["--only", "unanswerable", "--embedder", "static", "--json", str(out)]
    assert recall.main(["--data", str(tmp_path), *how]) == 0
    rows = json.loads(out.read_text())["results"]
    assert {row["by"] for row in rows} == {"score", "confidence", "confidence, fixed"}
    assert all(0 <= row["empty"] <= 1 for row in rows)


def test_a_piece_told_again_is_taken_out_with_the_evidence(tmp_path: Path) -> None:
    with memdb.open(tmp_path / "db") as db:
        for name, text in (
            ("1", "The spare key of the cabin hangs behind the blue door"),
            ("2", "the spare key of the cabin hangs behind the BLUE door!"),
            ("3", "The ferry to the island was late again this morning"),
        ):
            db.remember(text, external_id=name, dedup="off")
        assert recall_unanswerable.taken_out(db, frozenset({"1"})) == {"1", "2"}


def test_thresholds_cost_what_they_may_and_leave_empty_what_is_below() -> None:
    pairs = [recall_unanswerable.Pair(True, 0.5 + n / 100, 0.4, 0.9, 0.1) for n in range(20)]
    pairs += [recall_unanswerable.Pair(False, 0.0, 0.4, 0.0, 0.95)] * 20
    rows = recall_unanswerable.rows(pairs)
    by = {(row["by"], row["loss"]): row for row in rows}
    assert by["score", 0.05]["threshold"] == pytest.approx(0.52)  # two of forty below it
    assert by["score", 0.05]["empty"] == 1.0
    assert by["score", 0.01]["auc"] == 1.0
    assert by["confidence", 0.01]["empty"] == by["confidence", 0.01]["auc"] == 0.5
    assert by["confidence, fixed", 0.0]["empty"] == 0.5
    assert recall_unanswerable.auc(np.array([1.0, 2.0]), np.array([1.0])) == 0.75


def test_a_folder_of_documents_and_judgements_is_read_as_one_conversation(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    (folder / "qrels").mkdir(parents=True)
    (folder / "corpus.jsonl").write_text('{"_id": "d1", "title": "T", "text": "body"}\n')
    (folder / "queries.jsonl").write_text(
        '{"_id": "q1", "text": "ask"}\n{"_id": "q2", "text": "-"}\n'
    )
    (folder / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nq1\td1\t1\nq2\td1\t0\n")
    (conversation,) = conversations(folder)
    assert [one.query for one in questions_of(conversation)] == ["ask"]
    assert memories_of(conversation, "x/")[0]["external_id"] == "x/d1"
    assert "stream" not in memories_of(conversation)[0]


def test_the_day_after_is_that_of_the_last_that_has_a_time() -> None:
    items = [{"time": "2024-05-08"}, {"time": "2024-05-09 10:30"}, {"time": "some day"}]
    assert day_after({"items": items}) == datetime(2024, 5, 10, 10, 30, tzinfo=UTC)
    assert day_after({"items": [{"time": "some day"}]}) is None


def test_figures_are_those_of_their_definitions() -> None:
    tally = Tally()
    tally.add(["a", "x", "b"], {"a", "b"}, 1.0, 1.0)
    tally.add(["x", "a"], {"a", "c"}, 3.0, 1.0)
    row = tally.row()
    assert row["any@5"] == 1.0
    assert row["all@5"] == 0.5
    assert row["mean@5"] == 0.75
    best = 1 + 1 / np.log2(3)
    assert row["ndcg@10"] == pytest.approx(((1 + 0.5) / best + 1 / np.log2(3) / best) / 2)
    assert row["p50_ms"] == 2.0


def test_intervals_hold_the_mean_and_no_gain_is_no_evidence() -> None:
    values = np.array([1.0] * 70 + [0.0] * 30)
    low, high = interval(values)
    assert 0.55 < low < 0.7 < high < 0.85
    assert not_better(np.zeros(50)) == 1.0
    assert not_better(np.array([1.0] * 30 + [0.0] * 70)) == 0.0
