"""Each benchmark runs at a small size and says what it is for; figures are not judged here."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench import filter, makers, open, write
from bench.measure import judged, percentile


def figures(path: Path) -> dict[str, dict[str, object]]:
    content = json.loads(path.read_text())
    assert content["command"].startswith("python -m bench ")
    return {row["figure"]: row for row in content["results"]}


SMALL = ["--records", "200", "--events", "2000", "--singles", "30", "--rounds", "5"]


@pytest.mark.parametrize(
    ("parts", "judged_figures"),
    [
        (("batches", "durable", "profile"), ("remember p99, store of 200", "profile.get p50")),
        (("singles",), ("recall hybrid, singles / batches",)),
        (("events", "samples"), ("one day of 2,000 events, p95", "one day of 2,000 samples, p95")),
    ],
)
def test_write_reports_its_parts_with_their_limits(
    parts: tuple[str, ...],
    judged_figures: tuple[str, ...],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    chosen = [argument for part in parts for argument in ("--only", part)]
    assert write.main([*SMALL, *chosen, "--json", str(tmp_path / "w.json")]) == 0
    found = figures(tmp_path / "w.json")
    printed = capsys.readouterr().out
    for name in judged_figures:
        assert found[name]["verdict"] in ("met", "not met")
        assert name in printed


def test_writing_clients_are_threads_and_processes_and_all_their_writes_are_kept(
    tmp_path: Path,
) -> None:
    import memdb

    run = write.Run(tmp_path, 50, 0, 0, 5, 0.1, False, 64)
    rows = {row["figure"]: row["value"] for row in write.clients(run)}
    run.close()
    with memdb.open(tmp_path / "full", embedder="none") as db:
        total = round(0.1 * sum(v for name, v in rows.items() if name.endswith("together")))
        assert db.count() == 50 + total


def test_open_measures_new_processes_and_names_the_heavy_modules(tmp_path: Path) -> None:
    assert open.main(["--records", "100", "--times", "1", "--json", str(tmp_path / "o.json")]) == 0
    found = figures(tmp_path / "o.json")
    assert found["of pyarrow, torch, flask: loaded"]["value"] == 0
    assert found["open of 100, cold, p50"]["value"] > 0


def test_filter_times_every_shape_and_agrees_with_the_oracle(tmp_path: Path) -> None:
    arguments = ["--records", "300", "--pairs", "40", "--asked", "5", "--vectors", str(tmp_path)]
    assert filter.main([*arguments, "--json", str(tmp_path / "f.json")]) == 0
    found = figures(tmp_path / "f.json")
    assert found["agreement on 40 (filter, query) pairs"]["value"] == 40
    assert found["recall@10 against exact=True"]["value"] >= 0.98


def test_pairs_are_counted_as_wrong_when_the_oracle_means_something_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(filter.filter_oracle, "means", lambda where, row: bool(where))
    (row,) = filter.compare_pairs(tmp_path / "db", 30)
    assert row["verdict"] == "not met"


def test_made_data_is_the_same_for_the_same_seed_and_distinct_within() -> None:
    first, second = (list(makers.memories(50, None, seed=3)) for _ in range(2))
    assert first == second
    assert len({item["metadata"]["n"] for item in first}) == 50
    assert len({item["metadata"]["code"] for item in first}) == 50


def test_a_limit_is_met_at_the_limit_and_a_figure_without_one_has_no_verdict() -> None:
    assert judged("a", 2.0, "ms", at_most=2.0)["verdict"] == "met"
    assert judged("a", 2.1, "ms", at_most=2.0)["verdict"] == "not met"
    assert judged("a", 9, "1/s", at_least=10)["verdict"] == "not met"
    assert judged("a", 1, "ms")["verdict"] is None
    assert percentile(range(100), 99) == 99.0
