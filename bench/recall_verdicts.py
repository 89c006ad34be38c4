"""Whether the fusion of words and meaning helps, or at least costs nothing, on each file.

The limits were set beforehand (issue of retrieval): hybrid is within .01 of the better of its two
legs or above it, on every file; a store that all conversations share, asked with a filter, answers
within .005 of a store for each; and two files have a floor of their own. Each difference has its
paired bootstrap, since most files have few questions. It knows figures, not databases.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bench.recall_tally import Tally, spread

FUSED, SHARED = 0.01, 0.005
FLOORS = {("madial-en", "all@10"): 0.49, ("scifact", "ndcg@10"): 0.68}
"""Of hybrid recall with MiniLM."""
MEASURES = ("all@10", "ndcg@10")


def rows(
    file: str, tallies: Mapping[tuple[str, str], Tally], embedders: list[str]
) -> list[dict[str, Any]]:
    """The lines of one file. Those whose methods were not asked are not there."""
    found: list[dict[str, Any]] = []
    for name in embedders:
        hybrid = tallies.get((f"hybrid {name}", "all"))
        if hybrid is None:
            continue
        legs = {
            leg: tally
            for leg in ("lexical", f"vector {name}")
            if (tally := tallies.get((leg, "all"))) is not None
        }
        shared = tallies.get((f"hybrid {name}, shared", "all"))
        for measure in MEASURES:
            ours = float(hybrid.values(measure).mean())
            if legs:
                leg = max(legs, key=lambda leg: float(legs[leg].values(measure).mean()))
                line = {"line": f"hybrid against {leg}", "limit": f">= -{FUSED}"}
                found.append(_compared(file, name, measure, line, hybrid, legs[leg], -FUSED, None))
            if shared is not None:
                line = {"line": "shared store against one each", "limit": f"+-{SHARED}"}
                limits = (-SHARED, SHARED)
                found.append(_compared(file, name, measure, line, shared, hybrid, *limits))
            floor = FLOORS.get((file, measure))
            if floor is not None:
                found.append(
                    {"file": file, "embedder": name, "measure": measure, "line": "hybrid",
                     "value": ours, "beside": None, "difference": None, "95 %": None,
                     "limit": f">= {floor}", "verdict": _verdict(ours >= floor)}
                )  # fmt: skip
    return found


def _compared(
    file: str,
    name: str,
    measure: str,
    line: dict[str, str],
    ours: Tally,
    theirs: Tally,
    least: float,
    most: float | None,
) -> dict[str, Any]:
    differences = ours.values(measure) - theirs.values(measure)
    mean = float(differences.mean())
    holds = round(mean, 9) >= least and (most is None or round(mean, 9) <= most)
    return {
        "file": file,
        "embedder": name,
        "measure": measure,
        "line": line["line"],
        "value": float(ours.values(measure).mean()),
        "beside": float(theirs.values(measure).mean()),
        "difference": mean,
        "95 %": spread(differences),
        "limit": line["limit"],
        "verdict": _verdict(holds),
    }


def _verdict(holds: bool) -> str:
    return "met" if holds else "not met"
