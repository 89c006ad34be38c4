"""PNG plots of results: recall against speed, recall against memory, filters.

Takes rows, knows no measuring. matplotlib is imported by ``draw`` alone: it is in the dependency
group ``bench``, and nothing else needs it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

Row = dict[str, Any]

# Okabe and Ito's palette, told apart by every kind of colour vision; ours is the strongest.
OURS_COLOUR = "#D55E00"
COLOURS = {
    "memdb": OURS_COLOUR,
    "hnswlib": "#0072B2",
    "turbovec": "#009E73",
    "usearch": "#56B4E9",
    "faiss": "#CC79A7",
    "rabitqlib": "#B8860B",
    "diskannpy": "#7A5230",
    "zvec": "#6A51A3",
    "lancedb": "#000000",
}
MARKERS = "osD^vPX*"
INK, FAINT = "#222222", "#DDDDDD"
RECALLS = (0.0, 0.5, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.999, 1.0)
_NEAREST_ONE = (
    5e-4  # recall 1 is drawn where 0.9995 + this would be: a log axis has no place for it
)


def draw(rows: Sequence[Row], context: Row, folder: Path) -> list[Path]:
    """Every plot there are rows for; the paths of the files. ``ValueError`` without matplotlib."""
    try:
        import matplotlib
    except ImportError:
        raise ValueError("plots need matplotlib: pip install matplotlib") from None
    matplotlib.use("Agg")
    from matplotlib import pyplot

    folder.mkdir(parents=True, exist_ok=True)
    style = {
        "font.size": 10,
        "text.color": INK,
        "axes.labelcolor": INK,
        "axes.edgecolor": "#888888",
        "xtick.color": INK,
        "ytick.color": INK,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "svg.fonttype": "none",
    }
    made: list[Path] = []
    measured = [row for row in rows if "error" not in row]
    with pyplot.rc_context(style):
        for count in sorted({row["vectors"] for row in measured if "qps" in row}):
            some = [row for row in measured if row.get("vectors") == count and "qps" in row]
            for name, chart in (("speed", _speed), ("memory", _memory)):
                figure = chart(pyplot, some, context, count)
                if figure is not None:
                    made.append(_save(pyplot, figure, folder / f"recall-{name}-{count}.png"))
        filters = [row for row in measured if row.get("part") == "filter"]
        for label in dict.fromkeys(row["label"] for row in filters):
            some = [row for row in filters if row["label"] == label]
            path = folder / f"filter-{label.replace(' ', '-')}.png"
            made.append(_save(pyplot, _filters(pyplot, some, context), path))
    return made


def _save(pyplot: Any, figure: Any, path: Path) -> Path:
    figure.savefig(path, dpi=150, facecolor="white")
    pyplot.close(figure)
    return path


def nines(recall: Any) -> Any:
    """Where a recall is drawn: each further nine takes the same room."""
    return -np.log10(1 - np.asarray(recall, float) + _NEAREST_ONE)


def _recall_axis(axes: Any, recalls: Sequence[float], which: str) -> None:
    """Ticks at recalls a person knows, over the range there is."""
    low = min(recalls)
    shown = [tick for tick in RECALLS if tick >= low]
    below = [tick for tick in RECALLS if tick < low]
    shown = [*below[-1:], *shown]
    axis = getattr(axes, f"{which}axis")
    axis.set_ticks([float(nines(tick)) for tick in shown], [f"{tick:g}" for tick in shown])
    room = 0.12
    getattr(axes, f"set_{which}lim")(float(nines(shown[0])) - room, float(nines(1.0)) + room)


def _by_label(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Variants in the order they came, each with its rows by recall."""
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(row["label"], []).append(row)
    return {label: sorted(some, key=lambda row: row["recall"]) for label, some in found.items()}


def _figure(pyplot: Any, title: str, context: Row, count: int) -> tuple[Any, Any]:
    figure, axes = pyplot.subplots(figsize=(11, 7))
    figure.subplots_adjust(left=0.075, right=0.79, top=0.88, bottom=0.1)
    data = context.get("data", {})
    figure.text(0.075, 0.95, title, fontsize=14, weight="bold")
    figure.text(
        0.075,
        0.915,
        f"{data.get('name', '')}, {count:,} vectors of {data.get('dim', '?')} dimensions, "
        f"{data.get('metric', '')}; one query at a time on one core; up and right is better",
        color="#555555",
    )
    axes.grid(True, color=FAINT, linewidth=0.6)
    axes.set_axisbelow(True)
    return figure, axes


def _styles(labels: Sequence[str], rows: dict[str, list[Row]]) -> dict[str, Row]:
    """A colour an engine, a marker a variant of it; ours drawn heavier and above the rest."""
    seen: dict[str, int] = {}
    styles = {}
    for label in labels:
        engine = rows[label][0]["engine"]
        number = seen.get(engine, 0)
        seen[engine] = number + 1
        ours = engine == "memdb"
        styles[label] = {
            "color": COLOURS.get(engine, "#888888"),
            "marker": MARKERS[number % len(MARKERS)],
            "linewidth": 2.4 if ours else 1.4,
            "markersize": 7 if ours else 5.5,
            "zorder": 4 if ours else 3,
            "linestyle": ("-", "--", ":", "-.")[number % 4],
        }
    return styles


def _speed(pyplot: Any, rows: Sequence[Row], context: Row, count: int) -> Any:
    figure, axes = _figure(pyplot, "Recall against speed", context, count)
    by_label = _by_label(rows)
    ends: dict[str, tuple[float, float]] = {}
    styles = _styles(list(by_label), by_label)
    for label, some in by_label.items():
        best = front([(row["recall"], row["qps"]) for row in some])
        shown = [some[number] for number in best]
        x = nines([row["recall"] for row in shown])
        axes.plot(x, [row["qps"] for row in shown], **styles[label])
        beaten = [row for row in some if row not in shown]
        look = {**styles[label], "linestyle": "none", "markersize": 4, "markerfacecolor": "white"}
        axes.plot(nines([row["recall"] for row in beaten]), [row["qps"] for row in beaten], **look)
        ends[label] = (float(x[-1]), shown[-1]["qps"])
    axes.set_yscale("log")
    _plain_log_ticks(axes.yaxis, "{:,.0f}")
    _recall_axis(axes, [row["recall"] for row in rows], "x")
    k = context.get("k", 10)
    axes.set_xlabel(f"recall@{k} against exact search; hollow: beaten by the same index")
    axes.set_ylabel("queries a second")
    _label_right(axes, ends, styles)
    return figure


def _memory(pyplot: Any, rows: Sequence[Row], context: Row, count: int) -> Any:
    known = [row for row in rows if row.get("bytes_per_vector")]
    if not known:
        return None
    figure, axes = _figure(pyplot, "Recall against memory", context, count)
    figure.texts[1].set_text(
        figure.texts[1]
        .get_text()
        .replace(
            "up and right is better; hollow: beaten by the same index", "up and left is better"
        )
    )
    by_label = _by_label(known)
    styles = _styles(list(by_label), by_label)
    for label, some in by_label.items():
        axes.plot(
            [row["bytes_per_vector"] for row in some],
            nines([row["recall"] for row in some]),
            **styles[label],
        )
    axes.set_xscale("log")
    _plain_log_ticks(axes.xaxis, "{:,.0f}")
    _recall_axis(axes, [row["recall"] for row in known], "y")
    axes.set_xlabel("bytes of memory a vector: private memory and mapped files of the index")
    axes.set_ylabel(f"recall@{context.get('k', 10)}")
    ends = {label: (some[-1]["bytes_per_vector"], float(nines(some[-1]["recall"])))
            for label, some in by_label.items()}  # fmt: skip
    _label_right(axes, ends, styles)
    return figure


def _plain_log_ticks(axis: Any, form: str) -> None:
    """1, 2 and 5 of each decade, as numbers and not as powers."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: form.format(value)))
    axis.set_minor_formatter(NullFormatter())


def _label_right(axes: Any, ends: dict[str, tuple[float, float]], styles: dict[str, Row]) -> None:
    """Names at the right margin in the order of the lines' ends, a thin line leading to each."""
    figure = axes.figure
    figure.canvas.draw()
    to_axes: Callable[[Any], Any] = axes.transAxes.inverted().transform
    heights = {
        label: float(to_axes(axes.transData.transform(point))[1]) for label, point in ends.items()
    }
    order = sorted(heights, key=lambda label: heights[label])
    places = dict(zip(order, spread([heights[label] for label in order]), strict=True))
    for label in order:
        axes.annotate(
            label,
            xy=ends[label],
            xytext=(1.03, places[label]),
            textcoords="axes fraction",
            va="center",
            fontsize=9,
            color=styles[label]["color"],
            weight="bold" if label.startswith("memdb") else "normal",
            annotation_clip=False,
            arrowprops={
                "arrowstyle": "-",
                "relpos": (0, 0.5),
                "color": styles[label]["color"],
                "linewidth": 0.6,
                "alpha": 0.5,
                "shrinkA": 2,
                "shrinkB": 4,
            },
        )


def spread(heights: Sequence[float], step: float = 0.045) -> list[float]:
    """Ascending heights, moved as little as can be (least squares) to be ``step`` apart."""
    step = min(step, 1 / max(1, len(heights) - 1))
    groups: list[tuple[float, int]] = []  # means of what must move together, and how many
    for number, height in enumerate(heights):
        groups.append((height - number * step, 1))
        while len(groups) > 1 and groups[-2][0] >= groups[-1][0]:
            (one, m), (other, n) = groups[-2:]
            groups[-2:] = [((one * m + other * n) / (m + n), m + n)]
    highest = 1 - step * (len(heights) - 1)
    starts = [min(max(mean, 0.0), highest) for mean, size in groups for _ in range(size)]
    return [start + number * step for number, start in enumerate(starts)]


def front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Which of (recall, speed) no other point beats in both, by ascending recall."""
    best, kept = -np.inf, []
    for number in sorted(range(len(points)), key=lambda i: points[i], reverse=True):
        if points[number][1] > best:
            best = points[number][1]
            kept.append(number)
    return kept[::-1]


def _filters(pyplot: Any, rows: Sequence[Row], context: Row) -> Any:
    """p99 of filtered over unfiltered above, recall below, by the share allowed."""
    figure, (above, below) = pyplot.subplots(2, 1, figsize=(9.5, 7.2), sharex=True)
    figure.subplots_adjust(left=0.09, right=0.84, top=0.87, bottom=0.09, hspace=0.12)
    data = context.get("data", {})
    label, count = rows[0]["label"], rows[0]["vectors"]
    figure.text(0.09, 0.945, f"Filtered search: {label}", fontsize=14, weight="bold")
    figure.text(
        0.09, 0.91, f"{data.get('name', '')}, {count:,} vectors; compiled filters", color="#555555"
    )
    colours = ("#000000", "#0072B2", OURS_COLOUR, "#56B4E9", "#CC79A7")
    relations = list(dict.fromkeys(row["relation"] for row in rows))
    for axes in (above, below):
        axes.grid(True, color=FAINT, linewidth=0.6)
        axes.set_axisbelow(True)
    ends: tuple[dict[str, Any], dict[str, Any]] = ({}, {})
    styles = {name: {"color": colours[i % len(colours)]} for i, name in enumerate(relations)}
    for number, name in enumerate(relations):
        some = sorted((row for row in rows if row["relation"] == name), key=lambda r: -r["share"])
        shares = [row["share"] * 100 for row in some]
        look = {"color": styles[name]["color"], "marker": MARKERS[number], "markersize": 5}
        above.plot(shares, [row["p99_ratio"] for row in some], **look)
        below.plot(shares, nines([row["recall"] for row in some]), **look)
        ends[0][name] = (shares[-1], some[-1]["p99_ratio"])
        ends[1][name] = (shares[-1], float(nines(some[-1]["recall"])))
    above.axhline(2, color="#888888", linewidth=1, linestyle="--")
    above.text(100, 2.05, "limit", color="#666666", fontsize=9, va="bottom")
    below.axhline(float(nines(0.98)), color="#888888", linewidth=1, linestyle="--")
    above.set_ylabel("p99 filtered / unfiltered")
    above.set_ylim(bottom=0)
    below.set_ylabel(f"recall@{context.get('k', 10)}")
    _recall_axis(below, [row["recall"] for row in rows], "y")
    below.set_xscale("log")
    below.invert_xaxis()
    ticks = sorted({row["share"] * 100 for row in rows})
    below.set_xticks(ticks, [f"{tick:g} %" for tick in ticks])
    below.minorticks_off()
    below.set_xlabel("vectors allowed")
    for axes, points in zip((above, below), ends, strict=True):
        _label_right(axes, points, styles)
    return figure
