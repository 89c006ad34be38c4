"""``bench ann`` end to end at a small size: real engines in real child processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.ann import children, data, engines, filtering, main, peers, plotting, results, truth
from bench.ann.engines import Engine, Variant
from bench.ann.measuring import Contestant, Run, measure
from tests.source_tree import ROOT

LINUX = sys.platform == "linux"
HERE = Path(sys.executable)
GRAPH = {"M": 8, "ef_construction": 40}


def small(count: int = 5000, asked: int = 20) -> data.DataSet:
    return data.load(data.MADE, folder=Path(), count=count, asked=asked)


def run_of(tmp_path: Path, found: data.DataSet, **more: Any) -> Run:
    folder = tmp_path / "run"
    folder.mkdir(exist_ok=True)
    run = Run(found, tmp_path / "cache", folder, rounds=1, threads=1, cold_queries=3, **more)
    run.prepare()
    return run


def hnswlib(*searches: dict[str, Any], build: dict[str, Any] | None = None) -> Contestant:
    engine = engines.PEERS["hnswlib"]
    return Contestant(engine, HERE, (Variant("hnswlib", "hnswlib", build or GRAPH, searches),))


def ours(**more: Any) -> Contestant:
    engine, _ = engines.ours(("flat",), ("standard",), (20, 200), **more)
    return Contestant(engine, HERE, engine.variants)


def heard(run: Run, contestants: list[Contestant]) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    measure(run, contestants, rows.append)
    return rows


def test_the_worker_protocol_measures_what_the_library_does(tmp_path: Path) -> None:
    import hnswlib as library

    found = small(1500)
    (row,) = heard(run_of(tmp_path, found), [hnswlib({"ef": 40})])
    index = library.Index("cosine", found.dim)
    index.init_index(len(found.base), M=8, ef_construction=40, random_seed=1)
    index.add_items(found.base, num_threads=1)
    index.set_ef(40)
    ids, _ = index.knn_query(found.queries, k=10, num_threads=1)
    _, true = truth.exact(found.base, found.queries, found.metric, 10)
    wanted = truth.recall(ids, found.base, found.queries, found.metric, true, 10)
    assert row["recall"] == pytest.approx(wanted)
    assert 0 < row["p50_ms"] <= row["p99_ms"]
    assert row["packages"]["hnswlib"] == "0.8.0"
    vectors = found.base.nbytes
    assert vectors < row["disk_bytes"] < 2 * vectors
    if LINUX:
        assert vectors * 0.8 < row["anonymous_bytes"] < 3 * vectors
        assert row["mapped_bytes"] == 0
        assert row["cold"]["queries"] == 3


def test_ours_is_measured_with_its_mapped_files_apart(tmp_path: Path) -> None:
    rows = heard(run_of(tmp_path, small()), [ours()])
    assert [row["asked"]["effort"] for row in rows] == [20, 200]
    assert rows[0]["recall"] <= rows[1]["recall"] >= 0.95
    assert rows[1]["about"]["encoded"] > 0
    if LINUX:
        assert {"codes.bin", "data.mdb"} <= set(rows[1]["mapped_files"])
        assert rows[1]["memory_bytes"] == rows[1]["anonymous_bytes"] + rows[1]["mapped_bytes"]


def test_kernels_are_a_parameter_of_ours(tmp_path: Path) -> None:
    rows = heard(run_of(tmp_path, small(4200, asked=3)), [ours(kernels=("scalar",))])
    assert [row["about"]["kernels"] for row in rows] == ["scalar", "scalar"]
    assert rows[0]["label"] == "memdb flat standard scalar"


def test_a_kind_the_library_does_not_know_is_left_out_with_its_reason() -> None:
    engine, refused = engines.ours(("flat", "cubic"), ("standard", "tiny"))
    assert [variant.build for variant in engine.variants] == [
        {"kind": "flat", "profile": "standard"}
    ]
    assert "cubic" not in engine.variants[0].label
    assert set(refused) == {"memdb cubic", "memdb flat tiny"}
    assert "kind must be" in refused["memdb cubic"]


def test_an_engine_that_fails_does_not_lose_the_others(tmp_path: Path) -> None:
    run = run_of(tmp_path, small(600))
    rows = heard(run, [hnswlib({"ef": 10}, build={"M": 8}), hnswlib({"ef": 10}, {"ex": 1}),
                       hnswlib({"ef": 10})])  # fmt: skip
    assert [row.get("error") for row in rows] == [
        "KeyError: 'ef_construction'",
        "KeyError: 'ef'",
        None,
    ]
    assert rows[2]["recall"] > 0


def test_a_step_that_takes_too_long_is_ended_and_says_so(tmp_path: Path) -> None:
    rows = heard(run_of(tmp_path, small(600), limit_s=0.01), [hnswlib({"ef": 10})])
    assert rows[0]["error"].startswith("not done after")


def test_a_child_that_dies_is_reported_with_its_last_words(tmp_path: Path) -> None:
    (tmp_path / "with_dying.py").write_text(
        "import os, sys\nprint('no more memory', file=sys.stderr, flush=True)\nos._exit(9)\n"
    )
    job = {"name": "a", "step": "build", "adapter": str(tmp_path / "with_dying.py")}
    with pytest.raises(children.EngineFailed, match="ended with status 9: no more memory"):
        children.run(HERE, job, tmp_path, limit_s=60)


def test_reused_indexes_answer_as_when_they_were_built(tmp_path: Path) -> None:
    run = run_of(tmp_path, small(800), reuse=True)
    first, second = (heard(run, [hnswlib({"ef": 20})])[0] for _ in range(2))
    assert "reused" not in first and second["reused"]
    assert first["recall"] == second["recall"]
    assert first["build_s"] == second["build_s"]


def test_a_peer_that_cannot_be_had_is_one_line_with_the_reason(tmp_path: Path) -> None:
    engine = Engine("absent", (str(tmp_path / "absent-1.0-py3-none-any.whl"),), (), "")
    with pytest.raises(peers.Unavailable, match="--install absent"):
        peers.python_of(engine, tmp_path, install=False)
    with pytest.raises(peers.Unavailable) as caught:
        peers.python_of(engine, tmp_path, install=True)
    assert "absent-1.0" in str(caught.value) and "\n" not in str(caught.value)


# --- the command --------------------------------------------------------------------------------


def command(tmp_path: Path, *arguments: str) -> list[str]:
    where = ["--json", str(tmp_path / "ann.json"), "--cache", str(tmp_path / "cache")]
    return [*arguments, "--data", "made", *where]


def kept(tmp_path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((tmp_path / "ann.json").read_text())
    return content


def test_compare_prints_a_table_and_keeps_what_made_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ("--count", "300", "--asked", "5", "--engines", "memdb", "--kinds", "flat",
             "--efforts", "50", "--rounds", "1")  # fmt: skip
    assert main(command(tmp_path, *asked)) == 0
    printed = capsys.readouterr().out
    assert "memdb flat standard" in printed and "QPS" in printed
    content = kept(tmp_path)
    assert content["command"].startswith("python -m bench ann --count 300")
    assert content["machine"]["processor"]
    told = content["results"]
    assert told["data"]["sha256"] and told["seed"] == 1
    assert told["rows"][0]["recall"] == 1
    assert not list((tmp_path / "cache").glob("run-*"))
    assert main(["--from-json", str(tmp_path / "ann.json")]) == 0
    assert "memdb flat standard" in capsys.readouterr().out


def test_scale_measures_every_size(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = ("scale", "--sizes", "200", "0.4k", "--asked", "5", "--engines", "memdb", "--kinds",
             "flat", "--profiles", "exact", "--efforts", "50", "--rounds", "1")  # fmt: skip
    assert main(command(tmp_path, *asked)) == 0
    assert [row["vectors"] for row in kept(tmp_path)["results"]["rows"]] == [200, 400]
    assert "exact" in capsys.readouterr().out


def test_insert_counts_durable_inserts_and_times_opening(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ("insert", "--sizes", "5000", "--kinds", "flat", "--profiles", "standard", "--quick")
    assert main(command(tmp_path, *asked)) == 0
    rows = kept(tmp_path)["results"]["rows"]
    rates = {row["batch"]: row for row in rows if row.get("part") == "insert"}
    assert set(rates) == {1, 64, 1024, 8192, 65_536}
    assert rates[65_536]["vectors"] == 5000 and rates[65_536]["encoded"] > 0.5
    assert "cold ms" in capsys.readouterr().out


def test_filter_judges_every_case(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = ("filter", "--count", "1000", "--asked", "4", "--kinds", "flat", "--profiles",
             "standard", "--rounds", "1")  # fmt: skip
    assert main(command(tmp_path, *asked)) == 0
    rows = kept(tmp_path)["results"]["rows"]
    assert len(rows) == 1 + 6 * len(filtering.RELATIONS)  # 0.01 % of 1,000 is nothing
    assert all(row["exact_counts"] == 1 and row["outside"] == 0 for row in rows)
    assert all(row["recall"] >= 0.9 for row in rows if row["relation"] == "random")
    assert "off-topic 50 %" in capsys.readouterr().out


@pytest.mark.skipif(os.name != "posix", reason="signals as terminals and schedulers send them")
@pytest.mark.parametrize("sent", ["SIGINT", "SIGTERM"])
def test_an_interrupt_keeps_what_was_measured(sent: str, tmp_path: Path) -> None:
    asked = command(tmp_path, "--count", "400", "--asked", "5", "--engines", "memdb", "--kinds",
                    "flat", "--rounds", "10000")  # fmt: skip
    child = subprocess.Popen([sys.executable, "-m", "bench", "ann", *asked], cwd=ROOT,
                             stdout=subprocess.PIPE, text=True, start_new_session=True)  # fmt: skip
    deadline = time.monotonic() + 60
    assert child.stdout is not None
    for line in child.stdout:
        if "recall" in line or time.monotonic() > deadline:
            break
    if sent == "SIGINT":
        os.killpg(child.pid, signal.SIGINT)  # a terminal sends it to children as well
    else:
        child.send_signal(signal.SIGTERM)
    rest = child.communicate(timeout=60)[0]
    assert child.returncode == 130
    assert "stopped early" in rest
    assert kept(tmp_path)["results"]["rows"][0]["recall"] == 1
    assert not list((tmp_path / "cache").glob("run-*"))


def test_wrong_use_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "torn.json").write_text('{"results": {"rows"')
    for arguments, said in (
        (["--from-json", str(tmp_path / "torn.json")], "torn.json"),
        (["--data", str(tmp_path / "none.npy"), "--engines", "memdb"], "no such file"),
        (["--engines", "memdb", "--kinds", "cubic"], "no engine is left"),
        (["filter", "--engines", "lancedb"], "not lancedb"),
    ):
        assert main([*arguments, "--cache", str(tmp_path / "cache")]) == 1
        error = capsys.readouterr().err
        assert said in error and error.count("\n") == 1


def test_help_shows_examples(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    assert "python -m bench ann scale --sizes 10k 100k 1M" in capsys.readouterr().out


# --- judging filters, drawing --------------------------------------------------------------------


def test_allowed_sets_have_the_size_and_the_relation_they_are_named_by() -> None:
    found = small(1000, asked=3)
    distances = filtering.all_distances(found, found.queries)
    for row, query in zip(distances, found.queries, strict=True):
        assert np.allclose(row, truth.distances_to(found.base, query, "cosine"), atol=1e-12)
    mean = {"random": distances.mean()}
    for case in filtering.cases(found, distances, 1):
        assert case.sets.shape[1] == round(1000 * case.share)
        assert all(len(np.unique(one)) == len(one) for one in case.sets)
        if case.share == 0.05 and case.relation != "random":
            mean[case.relation] = np.mean([distances[i, one] for i, one in enumerate(case.sets)])
    assert mean["nearest"] < mean["topic"] < mean["random"] < mean["off-topic"] < mean["farthest"]


def test_a_wrong_filtered_answer_is_seen() -> None:
    distances = np.array([[0.1, 0.2, 0.3, 0.4]])
    case = filtering.Case("random", 0.75, np.array([[1, 2, 3]]))
    right = filtering.judged(case, distances, np.array([[1, 2]]), 2)
    assert right == {"recall": 1.0, "exact_counts": 1.0, "outside": 0}
    outside = filtering.judged(case, distances, np.array([[0, 1]]), 2)
    assert outside == {"recall": 0.5, "exact_counts": 0.0, "outside": 1}
    short = filtering.judged(case, distances, np.array([[1, -1]]), 2)
    assert short == {"recall": 0.5, "exact_counts": 0.0, "outside": 0}
    worse = filtering.judged(case, distances, np.array([[1, 3]]), 2)
    assert worse == {"recall": 0.5, "exact_counts": 1.0, "outside": 0}


def test_every_worker_has_an_engine_and_every_engine_a_worker() -> None:
    workers = {path.stem.removeprefix("with_") for path in engines.WORKERS.glob("with_*.py")}
    assert workers == set(engines.NAMES)
    pins = [package for engine in engines.PEERS.values() for package in engine.packages]
    assert all("==" in package for package in pins)


def test_plots_are_drawn_from_rows(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="in the dependency group bench")
    rows = [
        {"engine": "memdb", "label": "memdb flat", "vectors": 100, "qps": 1000.0 / (i + 1),
         "recall": 0.9 + i / 30, "bytes_per_vector": 500.0}
        for i in range(4)
    ]  # fmt: skip
    rows += [
        {"part": "filter", "label": "memdb flat", "relation": "topic", "share": share, "vectors": 9,
         "p99_ratio": 1.5, "recall": 1.0}
        for share in (0.5, 0.01)
    ]  # fmt: skip
    made = plotting.draw(rows, {"data": {"name": "made", "dim": 8, "metric": "l2"}}, tmp_path)
    assert [path.name for path in made] == [
        "recall-speed-100.png",
        "recall-memory-100.png",
        "filter-memdb-flat.png",
    ]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in made)


@given(st.lists(st.floats(-0.2, 1.2), min_size=1, max_size=30))
def test_labels_keep_their_order_and_their_distance(heights: list[float]) -> None:
    placed = plotting.spread(sorted(heights))
    step = min(0.045, 1 / max(1, len(heights) - 1))
    assert all(b - a >= step - 1e-9 for a, b in pairwise(placed))
    assert placed[0] >= -1e-9 and placed[-1] <= 1 + 1e-9
    if len(heights) == 1:
        assert placed == [min(max(heights[0], 0.0), 1.0)]


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=12))
def test_the_front_is_what_no_other_point_beats(points: list[tuple[int, int]]) -> None:
    kept_points = [points[number] for number in plotting.front(points)]
    assert kept_points == sorted(set(kept_points))
    for one in points:
        beaten = any(a >= one[0] and b >= one[1] and (a, b) != one for a, b in points)
        assert (one in kept_points) != beaten


def test_a_later_row_about_the_same_takes_the_place_of_the_earlier(tmp_path: Path) -> None:
    kept_rows = results.Results(tmp_path / "a.json", ["--x"], {"seed": 1})
    row = {"label": "a", "parameter": "ef 1", "vectors": 5, "recall": 0.5, "p50_ms": 1.0,
           "p99_ms": 2.0, "qps": 10.0}  # fmt: skip
    kept_rows.hear(row)
    kept_rows.hear({**row, "qps": 20.0})
    kept_rows.hear({"label": "b", "error": "no luck"})
    stored = results.load(tmp_path / "a.json")
    assert [one.get("qps") for one in stored["rows"]] == [20.0, None]
    assert results.failures(stored["rows"]) == ["b: no luck"]
    assert os.listdir(tmp_path) == ["a.json"]
