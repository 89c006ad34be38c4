"""Plots: recall against bytes kept for each way of asking; a year of bytes and memories.

Takes rows, knows no measuring.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

OURS = "#D55E00"
COLOURS = ("#0072B2", "#009E73", "#56B4E9", "#CC79A7", "#B8860B", "#7A5230", "#6A51A3", "#888888")


def _pyplot() -> Any:
    try:
        import matplotlib
    except ImportError:
        raise ValueError("plots need matplotlib: pip install matplotlib") from None
    matplotlib.use("Agg")
    from matplotlib import pyplot

    return pyplot


def draw_year(found: dict[str, Any], folder: Path) -> Path:
    """``du`` at the end of each day beside the budget, and how many memories are kept."""
    pyplot = _pyplot()
    folder.mkdir(parents=True, exist_ok=True)
    figure, (above, below) = pyplot.subplots(2, 1, figsize=(7, 6), sharex=True)
    days = range(1, len(found["day by day"]) + 1)
    above.plot(days, [day["du"] / 1e6 for day in found["day by day"]], color=OURS, linewidth=1.2)
    above.axhline(found["budget"] / 1e6, color="#000000", linestyle="--", label="budget")
    above.axhline(found["greatest du"] / 1e6, color=COLOURS[0], linewidth=1, label="greatest du")
    above.set_ylabel("MB on the disk")
    above.set_ylim(bottom=0)
    above.legend(fontsize=8, frameon=False)
    below.plot(days, [day["kept"] for day in found["day by day"]], color=OURS, linewidth=1.2)
    below.set_ylabel("memories kept")
    below.set_xlabel("day")
    path = folder / "forgetting-year.png"
    figure.savefig(path, dpi=150, bbox_inches="tight")
    pyplot.close(figure)
    return path


def draw(rows: Sequence[dict[str, Any]], folder: Path) -> list[Path]:
    """The paths of the files. ``ValueError`` without matplotlib."""
    pyplot = _pyplot()
    folder.mkdir(parents=True, exist_ok=True)
    made = []
    for regime in dict.fromkeys(row["regime"] for row in rows):
        figure, axes = pyplot.subplots(figsize=(7, 5))
        shown = [row for row in rows if row["regime"] == regime]
        for place, policy in enumerate(dict.fromkeys(row["policy"] for row in shown)):
            line = [
                (row["bytes kept"], row["recall@10"]) for row in shown if row["policy"] == policy
            ]
            ours, oracle = policy == "memdb", policy == "oracle"
            axes.plot(
                *zip(*sorted(line), strict=True),
                label=policy,
                color=OURS if ours else "#000000" if oracle else COLOURS[place % len(COLOURS)],
                linewidth=2.5 if ours else 1.2,
                linestyle="--" if oracle else "-",
                marker="o" if ours else None,
            )
        axes.set_xlabel("share of the compressed bytes kept")
        axes.set_ylabel("evidence found among the first ten")
        axes.set_title(f"asked at: {regime}")
        axes.legend(fontsize=8, frameon=False)
        path = folder / f"forgetting-{regime.replace(' ', '-')}.png"
        figure.savefig(path, dpi=150, bbox_inches="tight")
        pyplot.close(figure)
        made.append(path)
    return made
