"""``python -m bench forgetting policies``: who keeps what is asked for, at which budget."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from bench import report
from bench.forgetting import history, simulation, statistics
from bench.forgetting.contenders import CONTENDERS, REGIMES, RIVALS, SEEDS
from bench.forgetting.history import Floats, History

SHARES = (0.05, 0.10, 0.25, 0.50, 0.75, 1.0)
JUDGED_AT = 0.25
GAP_TO_CLOSE = 0.40


def measure(
    path: Path, shares: tuple[float, ...], overhead: float, per_byte: float
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Rows of recall, and rows of comparisons at a quarter of the bytes."""
    histories = history.load(path, overhead, per_byte)
    rows: list[dict[str, Any]] = []
    judged: list[dict[str, Any]] = []
    for regime in REGIMES:
        for share in shares:
            recalls = {}
            for name in CONTENDERS:
                report.progress(f"{regime}, {share:.0%}: {name}")
                recalls[name] = _recall(histories, name, share, regime)
            figures = {name: float(found.mean()) for name, found in recalls.items()}
            rows += [
                {"regime": regime, "bytes kept": share, "policy": name, "recall@10": figure}
                for name, figure in figures.items()
            ]
            if share == JUDGED_AT:
                judged += _judge(regime, recalls)
    return rows, judged


def by_policy(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One row a policy and regime, a column a share."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for row in rows:
        named = {"regime": row["regime"], "policy": row["policy"]}
        line = found.setdefault((row["regime"], row["policy"]), dict(named))
        line[f"{row['bytes kept']:.0%}"] = row["recall@10"]
    return list(found.values())


def _recall(histories: list[History], name: str, share: float, regime: Any) -> Floats:
    """(all questions,) means over seeds where there is chance in it."""
    runs = [
        np.concatenate(
            [simulation.run(one, CONTENDERS[name], share, regime, seed) for one in histories]
        )
        for seed in range(SEEDS.get(name, 1))
    ]
    found: Floats = np.mean(runs, axis=0)
    return found


def _judge(regime: str, recalls: dict[str, Floats]) -> list[dict[str, Any]]:
    ours = recalls["memdb"]
    rows = []
    for rival in RIVALS:
        found = statistics.compare(ours, recalls[rival])
        rows.append(
            {
                "regime": regime,
                "figure": f"memdb - {rival}",
                "value": found.difference,
                "low": found.low,
                "high": found.high,
                "p": found.p,
                "limit": "p < .05",
                "verdict": "met" if found.p < 0.05 and found.difference > 0 else "not met",
            }
        )
    means = {name: float(found.mean()) for name, found in recalls.items()}
    closed = statistics.gap_closed(means["memdb"], means["random"], means["oracle"])
    limited = regime == "uniform lag"
    rows.append(
        {
            "regime": regime,
            "figure": "gap closed, random to oracle",
            "value": closed,
            "low": None,
            "high": None,
            "p": None,
            "limit": f">= {GAP_TO_CLOSE}" if limited else None,
            "verdict": ("met" if closed >= GAP_TO_CLOSE else "not met") if limited else None,
        }
    )
    return rows
