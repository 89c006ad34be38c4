"""Each engine beside one of its peers, at equal recall: ratios within one run.

Speed at a recall lies between the two sets of parameters around it, on a straight line of the
logarithm. It knows rows, and neither measures nor prints.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from bench import report

Row = dict[str, Any]
RECALLS = (0.95, 0.98)
PEER = "hnswlib"


def qps_at(rows: Sequence[Row], recall: float, measure: str = "qps") -> float | None:
    """Queries a second at a recall, from rows of one index; None beyond the best of them."""
    points = sorted((row["recall"], row[measure]) for row in rows)
    if not points or points[-1][0] < recall:
        return None
    # Of all that find as much, the fastest: a slower set of parameters hides no faster one.
    above = max((point for point in points if point[0] >= recall), key=lambda point: point[1])
    below = [point for point in points if point[0] < recall and point[1] > above[1]]
    if not below:
        return float(above[1])
    low = max(below)
    share = (recall - low[0]) / (above[0] - low[0])
    return math.exp(math.log(low[1]) + share * (math.log(above[1]) - math.log(low[1])))


def ratios(rows: Sequence[Row], peer: str = PEER) -> list[Row]:
    """One line an index and number of vectors, where the peer was asked in the same run."""
    groups: dict[tuple[int, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row["vectors"], row["label"]), []).append(row)
    lines = []
    for (vectors, label), mine in groups.items():
        theirs = next(
            (g for (n, _), g in groups.items() if n == vectors and g[0]["engine"] == peer), None
        )
        if theirs is None or mine[0]["engine"] == peer:
            continue
        line: Row = {"engine": label, "vectors": vectors}
        for recall in RECALLS:
            for measure, name in (("qps", "QPS"), ("qps_cpu", "QPS cpu")):
                line[f"{name} at {recall:.2f}"] = _times(
                    qps_at(mine, recall, measure), qps_at(theirs, recall, measure)
                )
        for name, column in (("memory", "bytes_per_vector"), ("kept", "kept_per_vector")):
            times = share(mine, theirs, column)
            line[name] = None if times is None else f"1/{times:.1f}"
        line["build s"] = _times(theirs[0]["build_s"], mine[0]["build_s"])
        line["build cpu s"] = _times(theirs[0]["build_cpu_s"], mine[0]["build_cpu_s"])
        lines.append(line)
    return lines


def share(mine: Sequence[Row], theirs: Sequence[Row], column: str) -> float | None:
    """How many times as much memory the others take."""
    ours, peers = (max(row.get(column) or 0 for row in group) for group in (mine, theirs))
    return peers / ours if ours and peers else None


def _times(ours: float | None, theirs: float | None) -> str | None:
    return None if not ours or not theirs else f"{report.number(ours / theirs)} x"
