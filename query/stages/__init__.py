"""The stages of ranking, in the order in which they add their parts.

A stage is one small class; how to write one is in query/README.md. The order here is the order
in ``explain``, and a stage may read what those before it left in ``measures``.
"""

from __future__ import annotations

from typing import Final

from memdb.query.pipeline import Stage
from memdb.query.stages.asked import Asked
from memdb.query.stages.confidence import Confidence
from memdb.query.stages.duplicates import Duplicates
from memdb.query.stages.legs import Lexical, Vector, legs
from memdb.query.stages.neighbours import Neighbours
from memdb.query.stages.prior import Prior
from memdb.query.stages.profile import ProfileStage
from memdb.query.stages.rerank import Rerank
from memdb.query.stages.time import TimeStage

__all__ = ["NAMES", "STAGES", "Asked", "legs", "made_for"]

STAGES: Final = (
    Lexical,
    Vector,
    ProfileStage,
    TimeStage,
    Confidence,
    Neighbours,
    Prior,
    Rerank,
    Duplicates,
)
NAMES: Final = tuple(stage.name for stage in STAGES)


def made_for(asked: Asked) -> list[Stage]:
    """The stages for one question."""
    return [stage(asked) for stage in STAGES]
