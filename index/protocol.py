"""The contract between the index's engines and those who wire them.

An engine holds vectors at *slots*: unsigned 32-bit numbers that its caller hands out, reuses and
translates from its own ids. It takes arrays and returns arrays; it knows no records, no LMDB and
no embedder. Shapes: ``n`` vectors, ``q`` queries, ``dim`` coordinates.

Changes are two-phase, because the caller's database is the only commit point:

    encoded = index.encode(vectors)           # CPU only, outside any transaction
    change = index.prepare(slots, encoded)    # files written and synced; nobody looks there yet
    ...                                       # the caller commits: these slots now hold vectors
    index.publish(change)                     # this process sees them

A slot means something only while the caller's ``allowed`` sets name it. One process writes at a
time; any number may read, and call ``refresh`` when the caller's database says that files changed.
Smaller distances are closer: cosine is ``1 - cos``, ip is ``-<x, y>``, l2 is squared, hamming
counts the bits that differ; its vectors come as (n, dim) zeros and ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Final, Literal, Protocol, cast, get_args, runtime_checkable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from memdb import settings
from memdb.errors import DimensionMismatch, InvalidArgument, StoreCorrupt
from memdb.index import layout
from memdb.index.slots import SlotSet

Metric = Literal["cosine", "ip", "l2", "hamming"]
Profile = Literal["exact", "standard", "compact", "nano", "pico"]
PlanName = Literal["exact", "refine", "scan", "gather", "records", "graph"]

NO_SLOT: Final = 2**32 - 1
"""Pads answers that have fewer than k results; their distance is +inf."""

MAX_NORM: Final = 1e15
"""The longest vector taken: beyond it squared distances leave float32."""

_DEFAULT_SEED: Final = 0x6D656D64622D3031


@dataclass(frozen=True, slots=True, kw_only=True)
class SpaceSpec:
    """What an index is made with; the caller stores it and passes it back.

    ``profile`` chooses the lasting copy of a vector: "exact" is float16, "standard" 8 bits a
    coordinate, "compact" 5, "nano" 2 and "pico" 1, each with one scale a vector; a Hamming space
    keeps its bits. ``epoch`` counts trainings; 0 is untrained. ``shortlist`` is how many estimates
    must be re-scored among 4,096 vectors, measured at training; 0 is not measured.
    """

    dim: int
    metric: Metric = "cosine"
    profile: Profile = "standard"
    code_bits: int = 1
    epoch: int = 0
    seed: int = _DEFAULT_SEED
    shortlist: int = 0

    def __post_init__(self) -> None:
        if not 1 <= self.dim <= settings.MAX_DIM:
            raise InvalidArgument(f"dim must be in 1 ... {settings.MAX_DIM}", field="dim")
        if self.metric not in get_args(Metric):
            raise InvalidArgument(f"metric must be one of {get_args(Metric)}", field="metric")
        if self.profile not in get_args(Profile):
            raise InvalidArgument(f"profile must be one of {get_args(Profile)}", field="profile")
        if self.code_bits != 1:
            raise InvalidArgument("code_bits must be 1", field="code_bits")
        if self.epoch < 0 or not 0 <= self.seed < 2**64:
            raise InvalidArgument("epoch and seed must not be negative", field="epoch")
        if self.metric == "hamming" and self.dim % 8:
            raise InvalidArgument("a hamming space has a multiple of 8 bits", field="dim")

    @property
    def precision(self) -> int:
        """How records keep a coordinate: one of the numbers in ``layout``."""
        return layout.BITS if self.metric == "hamming" else layout.PRECISIONS[self.profile]

    @property
    def has_codes(self) -> bool:
        """Whether scans read sign codes; records of 2 bits and less are scanned themselves."""
        return self.precision not in (layout.INT2, layout.INT1, layout.BITS)

    def to_dict(self) -> dict[str, Any]:
        """Integers and strings only: fits JSON and msgpack."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> SpaceSpec:
        """Inverse of ``to_dict``; ``StoreCorrupt`` when it is not one of its results."""
        known = {field.name for field in fields(cls)}
        try:
            return cls(**{name: value for name, value in values.items() if name in known})
        except (TypeError, InvalidArgument) as error:
            raise StoreCorrupt("a space's index settings do not decode", path="kv") from error


@dataclass(frozen=True, slots=True)
class Encoded:
    """Vectors in the form of the files, not yet at a slot. Made by ``encode``.

    records (n, record bytes) uint8, codes (n, code bytes) uint8, factors (n,) uint32; codes and
    factors have no rows where the space has no codes.
    """

    epoch: int
    records: NDArray[np.uint8]
    codes: NDArray[np.uint8]
    factors: NDArray[np.uint32]

    def __len__(self) -> int:
        return len(self.records)


@dataclass(frozen=True, slots=True)
class Change:
    """Slots whose bytes are on disk and wait for the caller's commit."""

    slots: NDArray[np.uint32]
    epoch: int


@dataclass(frozen=True, slots=True)
class SearchPlan:
    """What a search does: ``planner`` has the names. Counts are exact; ``estimated_us`` is for one
    query on one core, 0 where nobody estimates it."""

    name: PlanName
    reason: str
    allowed: int
    blocks: int
    """Blocks of 32 codes, or of 32 records, that are estimated; 0 where nothing is."""
    rescored: int
    """Records that are checked and scored."""
    bytes_touched: int
    estimated_us: float
    fresh: int = 0
    """Vectors in no file yet, which are scanned at full precision besides."""

    @property
    def estimates(self) -> bool:
        """Whether candidates are chosen by estimate, so that the answer may miss one."""
        return self.name not in ("exact", "refine")

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


class Engine(Protocol):
    """What every engine offers. Damage raises ``StoreCorrupt`` naming the file."""

    @property
    def spec(self) -> SpaceSpec: ...

    @property
    def trained(self) -> bool:
        """Whether vectors can be encoded."""
        ...

    def train(self, sample: ArrayLike, *, encoded: SlotSet | None = None) -> SpaceSpec:
        """Fix centre and rotation on (n, dim) vectors; returns the spec to store."""
        ...

    def encode(self, vectors: ArrayLike) -> Encoded: ...

    def prepare(self, slots: ArrayLike, encoded: Encoded) -> Change: ...

    def publish(self, change: Change) -> None: ...

    def clear(self, slots: ArrayLike) -> None:
        """Zero the slots in every file, durably."""
        ...

    def fetch(self, slots: ArrayLike) -> NDArray[np.float32]:
        """The (n, dim) vectors at the slots, at the profile's precision."""
        ...

    def search(
        self,
        queries: ArrayLike,
        k: int,
        *,
        allowed: SlotSet,
        effort: int | None = None,
        exact: bool = False,
    ) -> tuple[NDArray[np.uint32], NDArray[np.float32]]:
        """The min(k, len(allowed)) nearest of ``allowed``: (q, k) slots and distances."""
        ...

    def within(
        self, query: ArrayLike, radius: float, *, allowed: SlotSet
    ) -> tuple[NDArray[np.uint32], NDArray[np.float32]]:
        """Every allowed slot at a distance of at most ``radius``, nearest first."""
        ...

    def plan(
        self, allowed: SlotSet, k: int, *, effort: int | None = None, exact: bool = False
    ) -> SearchPlan:
        """What ``search`` with the same arguments does, a query."""
        ...

    def verify(self, slots: ArrayLike) -> None: ...

    def refresh(self) -> None:
        """See what another process wrote."""
        ...

    def stats(self) -> dict[str, int]: ...

    def close(self) -> None: ...


@runtime_checkable
class Graphed(Protocol):
    """What an engine with a graph offers besides. The graph may lag: it gates no answer."""

    graph_problem: Exception | None
    """Why a saved graph was not used, or could not be saved."""

    def waiting(self, allowed: SlotSet) -> SlotSet:
        """The slots of ``allowed`` that are not in the graph."""
        ...

    def memory_bytes(self, slots: int) -> int:
        """Private memory of a graph of that many slots."""
        ...


@runtime_checkable
class Linking(Graphed, Protocol):
    """A graph that each process links for itself."""

    def link(self, allowed: SlotSet, most: int) -> int:
        """Do up to ``most`` slots' worth of work on the graph; how much was done."""
        ...

    def recheck(self, slots: NDArray[np.uint32] | None) -> None:
        """Another process may have written these slots, or any: let go of those it did."""
        ...

    @property
    def unsaved(self) -> float:
        """The share of the graph that ``save`` would spare the next process."""
        ...

    def save(self) -> None: ...


class Build(Protocol):
    """Linking in progress: it may be given up at any time, and then changed nothing."""

    @property
    def linked_now(self) -> int:
        """How many slots it has linked."""
        ...

    def link(self, most: int) -> int:
        """Link up to ``most`` of what waits; how many."""
        ...

    def write(self) -> tuple[NDArray[np.uint32], NDArray[np.uint32]]:
        """Write a draft, durably: the slots linked, and the seals of the records they had."""
        ...


class Live(Protocol):
    """Linking in place, while the caller keeps others from writing the graph.

    live.link(slots); pages = live.flush()      # then the caller commits that they are linked
    live.unlink(slots); pages = live.flush()    # then it may zero the slots elsewhere, and reuse
    index.changed(pages); index.mark_linked(...)    # after the commit, in every process
    """

    @property
    def is_replaced(self) -> bool:
        """Whether a build was installed since: another ``live`` is needed."""
        ...

    def is_placed(self, slots: NDArray[np.uint32]) -> NDArray[np.bool_]:
        """(n,) whether slots are in the graph, linked as far as the caller knows or not."""
        ...

    def ordered(self, slots: NDArray[np.uint32]) -> NDArray[np.uint32]:
        """The slots in an order in which linking writes fewer pages."""
        ...

    patience_ms: int
    """For how long a change waits for a core that nobody else wants, before it takes its turn."""

    def link(self, slots: NDArray[np.uint32]) -> int:
        """Link sound slots; how many."""
        ...

    def unlink(self, slots: NDArray[np.uint32]) -> None:
        """Take slots out that no snapshot sees any more; their records are sound still."""
        ...

    def flush(self) -> NDArray[np.uint32]:
        """Make it durable; numbers of the pages written since the last time."""
        ...

    def close(self) -> None: ...


@runtime_checkable
class Drafting(Graphed, Protocol):
    """A graph in a file of all processes, which one at a time changes: in place (``live``), or all
    of it, as when there is none yet: it builds, commits what is linked, and installs.

    build = index.begin(encoded, memory_bytes=...)
    while build.link(...): ...
    slots, seals = build.write()
    ...                       # in the caller's transaction: install(), and those of the slots
                              # whose records still have these seals are linked
    index.refresh(); index.mark_linked(...)
    """

    @property
    def io(self) -> str:
        """Whether graph and records are "mapped", "read", or read "direct"."""
        ...

    def mark_linked(self, linked: SlotSet) -> None:
        """What the caller's database says is linked."""
        ...

    def linkable(self, encoded: SlotSet) -> int:
        """How many of the slots a build would link."""
        ...

    def worth_building(self, waiting: int) -> bool:
        """Whether a build that links so many slots costs less than linking them in place."""
        ...

    def begin(self, encoded: SlotSet, *, memory_bytes: int) -> Build | None: ...

    def install(self) -> None: ...

    @property
    def has_graph(self) -> bool:
        """Whether there is one that can be used."""
        ...

    @property
    def placed_count(self) -> int:
        """How many slots are in the graph, those included that are about to be taken out."""
        ...

    def live(self) -> Live | None:
        """The graph for changing it in place; None where there is none."""
        ...

    def changed(self, pages: NDArray[np.uint32] | None) -> None:
        """A commit says that these pages, or any, were written anew; ``mark_linked`` follows."""
        ...


def as_vectors(values: ArrayLike, dim: int, *, field: str = "vectors") -> NDArray[np.float32]:
    """(n, dim) C-contiguous float32 of one vector or several.

    Raises ``DimensionMismatch`` for another length and ``InvalidArgument`` for what is not a
    real number, not finite, or longer than ``MAX_NORM``.
    """
    given = np.asarray(values)
    if given.dtype.kind not in "fiu":
        raise InvalidArgument(f"{field} must be real numbers", field=field)
    if given.ndim == 1:
        given = given[None, :]
    if given.ndim != 2:
        raise InvalidArgument(f"{field} must have one or two axes", field=field)
    if given.shape[1] != dim:
        raise DimensionMismatch(f"{field} have {given.shape[1]} dimensions, not {dim}", field=field)
    vectors = np.ascontiguousarray(given, dtype=np.float32)
    if len(vectors) == 1 and float(np.dot(vectors[0], vectors[0])) <= MAX_NORM**2 / dim:
        return vectors  # finite, and no longer than that: most searches have one query
    if len(vectors):
        largest = np.maximum(vectors.max(axis=1), -vectors.min(axis=1))
        if not np.isfinite(largest).all():
            raise InvalidArgument(f"{field} must be finite", field=field)
        if largest.max() > MAX_NORM / np.sqrt(dim):
            raise InvalidArgument(f"{field} must be no longer than {MAX_NORM:g}", field=field)
    return vectors


def as_slots(values: ArrayLike) -> NDArray[np.uint32]:
    """(n,) C-contiguous uint32 slot numbers; ``InvalidArgument`` for anything else."""
    given = np.asarray(values)
    if given.ndim != 1 or (given.dtype.kind not in "iu" and len(given)):
        raise InvalidArgument("slots must be a list of integers", field="slots")
    if given.dtype != np.uint32 and len(given) and (given.min() < 0 or given.max() >= NO_SLOT):
        raise InvalidArgument("slots must be in 0 ... 2**32 - 2", field="slots")
    return cast("NDArray[np.uint32]", np.ascontiguousarray(given, dtype=np.uint32))
