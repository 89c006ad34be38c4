"""``python -m bench ann churn``: an index that lives, and one built of what is in it at the end.

Ten rounds that each replace a tenth of the vectors, so that in the end all of them were replaced
once; after each, recall and bytes on disk. The fresh index holds the same vectors under the same
ids. Of memdb's kind "ssd" only; nothing is built anew, or the row says so.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import memdb
from bench import report
from bench.ann import truth
from bench.ann.data import DataSet
from bench.measure import load

ROUNDS = 10
EFFORTS = (80, 160, 320)
_BATCH = 1000

Row = dict[str, Any]


def measure(
    data: DataSet,
    profile: str,
    folder: Path,
    options: argparse.Namespace,
    hear: Callable[[Row], None],
) -> None:
    """A row for each round and effort. Half of the vectors are there at first."""
    n, k = len(data.base) // 2, options.k
    held = data.base[:n].copy()
    with _opened(folder / "lived", data, profile) as lived:
        _add(lived, np.arange(n), held)
        lived.wait()
        _tell(lived, held, data, profile, 0, "lived", k, hear)
        for number in range(ROUNDS):
            ids = np.arange(number, n, ROUNDS)
            held[ids] = data.base[n + ids]
            spent = -time.process_time()
            _add(lived, ids, held[ids])
            lived.wait()
            spent += time.process_time()
            more = {"cpu_us_a_vector": spent / len(ids) * 1e6}
            _tell(lived, held, data, profile, number + 1, "lived", k, hear, **more)
    with _opened(folder / "fresh", data, profile) as fresh:
        _add(fresh, np.arange(n), held)
        fresh.wait()
        _tell(fresh, held, data, profile, ROUNDS, "fresh", k, hear)


def _opened(path: Path, data: DataSet, profile: str) -> memdb.VectorIndex:
    return memdb.VectorIndex(
        path, dim=data.dim, metric=data.metric, kind="ssd", profile=profile, memory_budget="16GiB"
    )


def _add(index: memdb.VectorIndex, ids: np.ndarray[Any, Any], vectors: Any) -> None:
    for first in range(0, len(ids), _BATCH):
        report.progress(f"churn: {first:,}/{len(ids):,}")
        index.add(ids[first : first + _BATCH], vectors[first : first + _BATCH])


def _tell(
    index: memdb.VectorIndex,
    held: Any,
    data: DataSet,
    profile: str,
    number: int,
    name: str,
    k: int,
    hear: Callable[[Row], None],
    **more: Any,
) -> None:
    _, true = truth.exact(held, data.queries, data.metric, k)
    stats = index.stats()
    sizes = {file: stats[f"{file}_disk_bytes"] for file in ("codes", "records", "graph")}
    for effort in EFFORTS:
        spent = -time.process_time()
        found = np.concatenate([index.search(query, k, effort=effort)[0] for query in data.queries])
        spent += time.process_time()
        found = np.where(found < len(held), found, len(held)).astype(np.int64)
        hear(
            {
                "part": "churn",
                "label": f"memdb ssd {profile}",
                "case": f"{name}, round {number}, effort {effort}",
                "name": name,
                "round": number,
                "effort": effort,
                "recall": truth.recall(found, held, data.queries, data.metric, true, k),
                "per_cpu_second": len(data.queries) / spent,
                "vectors": len(held),
                "waiting": stats["waiting"],
                "graphs_built": stats["graphs_built"],
                "linked_in_place": stats["linked_in_place"],
                "disk_bytes": sum(sizes.values()),
                **{f"{file}_bytes": size for file, size in sizes.items()},
                **more,
                "load": load()["load"],
            }
        )


def table(rows: list[Row]) -> list[Row]:
    """One line a round and effort; the last lines hold the index beside the fresh one."""
    mine = [row for row in rows if row.get("part") == "churn"]
    shown = [
        {
            "index": f"{row['name']}, {row['vectors']:,}",
            "replaced": f"{row['round'] * 100 // ROUNDS} %",
            "effort": row["effort"],
            "recall": row["recall"],
            "queries a cpu second": row["per_cpu_second"],
            "cpu us a vector": row.get("cpu_us_a_vector"),
            "disk B/v": row["disk_bytes"] / row["vectors"],
            "graph B/v": row["graph_bytes"] / row["vectors"],
            "built": row["graphs_built"],
        }
        for row in mine
    ]
    for fresh in mine:
        lived = [
            row
            for row in mine
            if row["name"] == "lived"
            and row["round"] == ROUNDS
            and (row["effort"], row["label"]) == (fresh["effort"], fresh["label"])
        ]
        if fresh["name"] == "fresh" and lived:
            shown.append(
                {
                    "index": "lived against fresh",
                    "replaced": "100 %",
                    "effort": fresh["effort"],
                    "recall": lived[0]["recall"] - fresh["recall"],
                    "queries a cpu second": lived[0]["per_cpu_second"] / fresh["per_cpu_second"],
                    "disk B/v": lived[0]["disk_bytes"] / fresh["disk_bytes"],
                    "graph B/v": lived[0]["graph_bytes"] / fresh["graph_bytes"],
                }
            )
    return shown
