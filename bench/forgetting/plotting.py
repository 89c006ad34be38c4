"""A plot of recall against bytes kept for each way of asking. Takes rows, knows no measuring."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

OURS = "#D55E00"
COLOURS = ("#0072B2", "#009E73", "#56B4E9", "#CC79A7", "#B8860B", "#7A5230", "#6A51A3", "#888888")


def draw(rows: Sequence[dict[str, Any]], folder: Path) -> list[Path]:
    """The paths of the files. ``ValueError`` without matplotlib."""
    try:
        import matplotlib
    except ImportError:
        raise ValueError("plots need matplotlib: pip install matplotlib") from None
    matplotlib.use("Agg")
    from matplotlib import pyplot

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
