"""How a search is run: which plan, why, and what it will touch.

A plan follows from numbers alone: how many slots are allowed, how many blocks of codes they lie
in, how many results and candidates are wanted, and what a block and a record cost on this machine
(``calibration``). It reads no vector, and what it says it touches is what the search touches at
most: estimates may tell that a part of a shortlist cannot be near, and then it is not scored.

    exact     every allowed record is scored, because that was asked for
    refine    every allowed record is scored, because that is the cheapest way, and exact
    scan      all codes are estimated, the best re-scored from their records
    gather    the same, of those blocks only that hold an allowed row
    records   the space has no codes: its records are estimated, the best of them checked and scored
    graph     a graph is walked, what it finds is scored from the records
"""

from __future__ import annotations

from typing import Final

from memdb.index import layout
from memdb.index.calibration import Calibration
from memdb.index.protocol import PlanName, SearchPlan, SpaceSpec
from memdb.index.slots import SlotSet

UNMEASURED_EFFORT: Final = 200
"""Candidates re-scored where training measured nothing."""
LEAST_EFFORT: Final = 100
MOST_EFFORT: Final = 4096
_EFFORT_PER_RESULT: Final = 4
_MEASURED_AT: Final = 4096
_MARGIN: Final = 2.0  # questions lie farther from their neighbours than vectors of the space do
_WHOLE: Final = 0.9
_GRAPH_EFFORT: Final = 128
_GRAPH_EFFORT_AT: Final = 20_000
_DEGREE: Final = 32
_WORTH: Final = 1.5
_PATIENCE: Final = 1.5
_LINKED_BY_BUILD: Final = 3.0  # times the nodes of its walk: to link a slot in memory
_LINKED_IN_PLACE: Final = 10.0  # the same, on the pages of the file, with its share of commits
_WRITTEN: Final = 30.0  # nodes: to take over a slot from the present graph and write it anew
_GAIN: Final = 2.0  # of a build: every process loads the new file, and reads its pages again
_GROWTH: Final = 0.25  # ranks grow with the fourth root of the size: see README, "The shortlist"


def default_effort(spec: SpaceSpec, count: int, k: int, *, capacity: int = 0) -> int:
    """Candidates to re-score among ``count`` rows so that 99 of 100 neighbours are among them.

    Measured at training among 4,096 rows of the space itself, and scaled to ``count``. A filter
    (less than nine tenths of the ``capacity``) may leave what is far from the query, where
    estimates are close together: it takes twice what the whole space does. Profile "exact" takes
    half as many again: its records tell apart what 8 bits do not.
    """
    effort = float(UNMEASURED_EFFORT)
    if spec.shortlist:
        rows = max(count, capacity)
        effort = _MARGIN * spec.shortlist * max(1.0, rows / _MEASURED_AT) ** _GROWTH
        if count < _WHOLE * capacity:
            effort *= 2
        if spec.profile == "exact":
            effort *= 1.5
    return max(LEAST_EFFORT, _EFFORT_PER_RESULT * k, min(MOST_EFFORT, round(effort)))


def plan_search(
    spec: SpaceSpec,
    allowed: SlotSet,
    k: int,
    *,
    effort: int | None,
    exact: bool,
    codes: bool,
    capacity: int,
    calibration: Calibration,
    rows: bool = False,
) -> SearchPlan:
    """The cheapest plan that finds the min(k, allowed) nearest.

    ``codes`` says if any are sound, ``rows`` if they lie in rows, ``capacity`` for how many slots
    there are records.
    """
    count, blocks = allowed.count, allowed.blocks
    wanted = max(k, effort or default_effort(spec, count, k, capacity=capacity))
    keep = min(count, wanted)
    record = layout.record_bytes(spec.dim, spec.precision)

    def plan(name: PlanName, reason: str, blocks: int, rescored: int) -> SearchPlan:
        from_records = name == "records"
        block = layout.BLOCK_ROWS * record if from_records else layout.block_bytes(spec.dim)
        cost = calibration.cost_of_block(spec, from_records=from_records)
        looked_at = blocks
        if rows and blocks and not from_records:  # none but the allowed ones
            looked_at, block = count, layout.row_bytes(spec.dim)
            cost = calibration.cost_of_row(spec)
        nanoseconds = looked_at * cost + rescored * calibration.cost_of_record(spec)
        touched = looked_at * block + rescored * record
        return SearchPlan(name, reason, count, blocks, rescored, touched, nanoseconds / 1e3)

    all_records = plan("refine", "", 0, count)
    if exact:
        return plan("exact", "exact=True scores every allowed record", 0, count)
    if not count:
        return plan("refine", "no vector in the files is allowed", 0, 0)
    if keep >= count:
        return plan("refine", f"no more than {wanted} are allowed: all are scored", 0, count)
    if not spec.has_codes:
        return plan("records", f"profile {spec.profile!r} has no codes", blocks, keep)
    if not codes:
        return plan("refine", "there are no sound codes: every allowed record is scored", 0, count)
    whole = blocks * layout.BLOCK_ROWS <= 2 * count
    reason = f"{count} allowed rows lie in {blocks} blocks; the best {keep} are scored"
    estimated = plan("scan" if whole else "gather", reason, blocks, keep)
    if all_records.estimated_us <= estimated.estimated_us:
        return plan("refine", f"scoring {count} records costs less than their codes", 0, count)
    return estimated


def graph_effort(k: int, linked: int) -> int:
    """How long a walk's list must be among ``linked`` slots: grows with the fourth root."""
    effort = _GRAPH_EFFORT * max(1.0, linked / _GRAPH_EFFORT_AT) ** _GROWTH
    return max(_EFFORT_PER_RESULT * k, min(MOST_EFFORT, int(effort)))


def most_hops(
    spec: SpaceSpec,
    breadth: int,
    *,
    inside: int,
    linked: int,
    degree: int,
    calibration: Calibration,
) -> int:
    """Nodes after which a walk inside an allowed set gives up: half as many again as it takes where
    the set has nothing to do with the query, and never as much as would cost what the scan does."""
    scan = inside * calibration.cost_of_row(spec) / max(1.0, calibration.cost_of_hop(spec, degree))
    return int(min(breadth + scan, _PATIENCE * breadth * linked / max(1, inside)))


def plan_graph(
    spec: SpaceSpec,
    flat: SearchPlan,
    k: int,
    *,
    effort: int | None,
    inside: int,
    waiting: int,
    linked: int,
    degree: int,
    calibration: Calibration,
) -> SearchPlan:
    """A walk, or the flat engine's plan for the same search where that costs less.

    ``inside`` of the ``linked`` slots are allowed, and ``waiting`` others, which are scanned. A
    walk looks at about one node for each entry of its list; inside a filter at as many more as
    there are nodes to pass through.
    """
    breadth = max(k, effort or graph_effort(k, linked))
    if 2 * breadth > inside or flat.name == "exact":
        return flat
    hops = breadth * linked / inside
    record = layout.record_bytes(spec.dim, spec.precision)
    nanoseconds = (
        hops * calibration.cost_of_hop(spec, degree)
        + breadth * calibration.cost_of_record(spec)
        + waiting * calibration.cost_of_row(spec)
    )
    if flat.estimated_us <= nanoseconds / 1e3:
        return flat
    row = layout.row_bytes(spec.dim)
    touched = breadth * record + waiting * row
    touched += round(hops * (layout.graph_record_bytes(degree) + 0.6 * degree * row))
    reason = f"{inside} of {linked} linked rows are allowed: the list is {breadth}"
    return SearchPlan("graph", reason, flat.allowed, 0, breadth, touched, nanoseconds / 1e3)


def wants_graph(spec: SpaceSpec, count: int, calibration: Calibration) -> bool:
    """Whether ``count`` vectors are too many to be scanned: a walk would take two thirds of it."""
    scan = count / layout.BLOCK_ROWS * calibration.cost_of_block(spec, from_records=False)
    effort = graph_effort(1, count)
    walk = effort * (calibration.cost_of_hop(spec, _DEGREE) + calibration.cost_of_record(spec))
    return scan > _WORTH * walk


def wants_build(placed: int, waiting: int, breadth: int) -> bool:
    """Whether to link ``waiting`` slots in memory and write all of the graph anew, rather than link
    them in place, one after the other; ``breadth`` of a slot's walk.

    In processor time, in units of one node of a walk, which both are made of: a build takes
    ``_LINKED_BY_BUILD * breadth`` a slot that waits, and ``_WRITTEN`` a slot that there is; in
    place, ``_LINKED_IN_PLACE * breadth``. A build must take less than half of that. So what it
    writes again is paid for by what it links, whatever the order of additions, and builds become
    rarer as the graph grows: the share of it that must wait is the same, a sixth at a breadth
    of 96.
    """
    build = waiting * _LINKED_BY_BUILD * breadth + (placed + waiting) * _WRITTEN
    return not placed or _GAIN * build < waiting * _LINKED_IN_PLACE * breadth
