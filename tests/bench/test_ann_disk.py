"""``bench ann cold``, ``layout``, ``big`` and the ratios to a peer, at a small size."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

import memdb
from bench.ann import against, big, data, disk, limits, main, scaling
from memdb.index import graph_file
from memdb.index.kernels import default_kernels
from memdb.index.reads import native_of

pytestmark = [
    pytest.mark.skipif(native_of(default_kernels()) is None, reason="these kernels read no files"),
    pytest.mark.skipif(sys.platform != "linux", reason="reads past the page cache"),
]


def run(tmp_path: Path, part: str, *more: str) -> list[dict[str, object]]:
    kept = tmp_path / f"{part}.json"
    arguments = [part, "--data", "made", "--cache", str(tmp_path / "cache"), "--json", str(kept)]
    assert main([*arguments, *more]) == 0
    rows: list[dict[str, object]] = json.loads(kept.read_text())["results"]["rows"]
    return rows


def test_cold_counts_reads_and_layout_takes_each_idea_away(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ("--count", "5000", "--asked", "10", "--efforts", "64", "--reuse", "--threads", "2")
    rows = run(tmp_path, "cold", *given)
    cases = {str(row["case"]): row for row in rows}
    assert len(cases) == len(rows) == 4
    empty, warm = cases["disk cold, cache empty"], cases["warm, cache kept"]
    assert empty["pages_read"] > warm["pages_read"]  # type: ignore[operator]
    assert empty["reads_waited"] >= empty["pages_read"] > 5  # type: ignore[operator]
    assert {row["verdict"] for row in rows} <= {"met", "not met"}
    assert 0 < empty["read_of_32_us"] < 32 * empty["read_alone_us"]  # type: ignore[operator]
    laid_out = run(tmp_path, "layout", *given)
    assert len({row["case"] for row in laid_out}) == 12
    pages = {row["order"]: row["pages_read"] for row in laid_out if "cold" in str(row["case"])}
    assert pages["affinity"] < pages["random"]  # type: ignore[operator]
    assert "waited for" in capsys.readouterr().out


def test_a_graph_laid_out_anew_has_the_same_edges(tmp_path: Path) -> None:
    vectors = np.random.default_rng(0).standard_normal((4500, 16)).astype("f4")
    with memdb.VectorIndex(tmp_path, dim=16, kind="ssd", params={"R": 8}) as index:
        index.add(np.arange(4500), vectors)
        index.wait()
        spec = index._shared.spec

    def edges() -> tuple[np.ndarray, int]:
        graph = graph_file.GraphFile(tmp_path, spec, writable=False)
        lists = np.zeros((graph.slots, 11), np.uint32)
        graph.fill(lists)
        found = lists, len(graph.entries)
        graph.close()
        return found

    before, _ = edges()
    disk.lay_out(tmp_path, "one for all", "random")
    after, entries = edges()
    assert entries == 1
    np.testing.assert_array_equal(before, after)


def test_big_makes_its_vectors_by_blocks_and_asks_another_process(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = data.load(data.MADE, folder=Path(), count=3000, asked=5)
    whole = scaling.extended(found.base, 7000, found.metric, 1)
    parts = [vectors for _, vectors in big.blocks(found, 7000, 1)]
    np.testing.assert_array_equal(np.concatenate(parts), whole)
    ids, _ = big.exact(found, 7000, 1, 10)
    wanted = np.argsort(-(found.queries @ whole.T), axis=1)[:, :10]
    assert (np.sort(ids) == np.sort(wanted)).mean() > 0.95  # but for ties in single precision
    given = ("--count", "6000", "--asked", "5", "--efforts", "100", "--budgets", "2MB", "--reuse")
    (row,) = run(tmp_path, "big", *given)
    assert row["io"] == "read" and row["vectors"] == 6000
    assert row["recall"] >= 0.8  # type: ignore[operator]
    (again,) = run(tmp_path, "big", *given)
    assert again["build_s"] == row["build_s"]
    assert "private MB" in capsys.readouterr().out


def test_speed_at_a_recall_lies_between_the_points_around_it() -> None:
    rows = [{"recall": r, "qps": q} for r, q in ((0.90, 4000.0), (0.96, 1000.0), (0.99, 500.0))]
    assert against.qps_at(rows, 0.96) == pytest.approx(1000)
    assert against.qps_at(rows, 0.93) == pytest.approx(2000)
    assert against.qps_at(rows, 0.5) == pytest.approx(4000)
    assert against.qps_at(rows, 0.995) is None
    common = {"vectors": 10, "build_s": 4.0, "build_cpu_s": 8.0, "qps_cpu": 1.0}
    theirs = [{"label": "hnswlib", "engine": "hnswlib", "bytes_per_vector": 1800, **common, **row}
              for row in rows]  # fmt: skip
    mine = [{"label": "ours", "engine": "memdb", "bytes_per_vector": 150, **common, **row,
             "qps": 2 * row["qps"], "build_s": 1.0} for row in rows]  # fmt: skip
    (line,) = against.ratios([*theirs, *mine])
    assert line["engine"] == "ours" and line["memory"] == "1/12.0"
    assert line["QPS at 0.95"] == "2.000 x" and line["build s"] == "4.000 x"


def test_limits_are_judged_beside_the_peer_and_the_scan() -> None:
    def rows(engine: str, kind: str, qps: float, kept: float, build_s: float) -> list[limits.Row]:
        sizes = {"codes_disk_bytes": 60e6, "records_disk_bytes": 400e6, "graph_disk_bytes": 95e6}
        about = {"kind": kind, "profile": "standard", **sizes}
        common = {"engine": engine, "label": f"{engine} {kind}", "vectors": 1_000_000,
                  "about": about, "kept_per_vector": kept, "build_s": build_s,
                  "disk_bytes_per_vector": 596, "touched_bytes": 1e6 / qps}  # fmt: skip
        return [{**common, "recall": 0.96, "qps": qps}, {**common, "recall": 0.985, "qps": qps / 2}]

    theirs, scan = rows("hnswlib", "", 1000, 1800, 300), rows("memdb", "flat", 100, 50, 2)
    held = {
        (line["held to"], line["limit"]): (line["found"], line["verdict"])
        for line in limits.table([*theirs, *scan, *rows("memdb", "ssd", 900, 140, 100)])
    }
    assert held["QPS at 0.95, of hnswlib's", ">= 1.0"] == ("0.90", "not met")
    assert held["QPS at 0.98, of hnswlib's", ">= 0.8"] == ("0.90", "met")
    assert held["hnswlib's memory, of private and codes", ">= 12"] == ("12.86", "met")
    assert held["hnswlib's time to build, of ours", ">= 1.5"] == ("3.00", "met")
    assert held["QPS at 0.95, of our scan's", "> 1"] == ("9.00", "met")
    assert held["bytes our scan touches, of ours", ">= 10"] == ("9.00", "not met")
    assert held["bytes a vector on disk, without ids", "<= 600"] == ("555.00", "met")
    assert held["bytes a vector on disk, of ids", "<= 40"] == ("41.00", "not met")


def test_churn_and_mixed_tell_what_they_did(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = run(tmp_path, "churn", "--count", "9000", "--asked", "5")
    lived = [row for row in rows if row["name"] == "lived"]
    assert {row["round"] for row in lived} == set(range(11))
    assert {row["waiting"] for row in rows} == {0}
    assert min(row["recall"] for row in rows) > 0.8  # type: ignore[type-var, operator]
    (mixed,) = run(tmp_path, "mixed", *("--count", "9000", "--seconds", "0.2", "--rounds", "1"))
    assert mixed["vectors"] == 4500 and mixed["busy_p99_ms"] > 0  # type: ignore[operator]
    assert "lived" in capsys.readouterr().out
