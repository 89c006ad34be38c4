"""What a block of codes and a record cost on this machine, measured once and kept.

The constants of the planner: measured in some milliseconds when first needed, by the kernels that
will run, and kept in the user's cache folder under the processor's name; ``MEMDB_CALIBRATION``
names another file, or is ``builtin`` for the constants below, which tests use so that plans do not
depend on the machine. A wrong constant costs time, never an answer. It knows kernels and clocks.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Final

import numpy as np

from memdb.index import layout
from memdb.index.graph_kernels import SpaceArrays
from memdb.index.kernels import Kernels, default_kernels
from memdb.index.protocol import SpaceSpec

_DIM: Final = 384
_BLOCKS: Final = 2 * layout.GROUP_BLOCKS
_HOP_ROWS: Final = 40  # measured walks: what a node costs beside its neighbours' codes
_RECORDS: Final = 8192  # more bytes than the nearest caches hold
_VERSION: Final = 3


@dataclass(frozen=True, slots=True)
class Calibration:
    """Nanoseconds at 384 dimensions; other sizes are taken to be proportional."""

    code_block_ns: float
    """32 codes estimated, block after block."""
    record_ns: float
    """One 8-bit record out of order, checked and scored."""
    rough_ns: float
    """One 2-bit record in order, estimated."""
    row_ns: float
    """One code out of order, estimated by itself."""
    hop_ns: float = 0.0
    """A node of a graph, beside its neighbours' codes: its page, their marks, the list's upkeep."""

    def cost_of_block(self, spec: SpaceSpec, *, from_records: bool) -> float:
        share = spec.dim / _DIM
        if from_records:
            return share * layout.BLOCK_ROWS * self.rough_ns
        return share * self.code_block_ns

    def cost_of_row(self, spec: SpaceSpec) -> float:
        return self.row_ns * spec.dim / _DIM

    def cost_of_hop(self, spec: SpaceSpec, degree: int) -> float:
        """One node of a graph looked at: about half of its neighbours were not seen before."""
        return self.hop_ns + 0.6 * degree * self.cost_of_row(spec)

    def cost_of_record(self, spec: SpaceSpec) -> float:
        size = layout.record_bytes(spec.dim, spec.precision)
        return self.record_ns * size / layout.record_bytes(_DIM, layout.INT8)


BUILTIN: Final = Calibration(
    code_block_ns=60.0, record_ns=120.0, rough_ns=8.0, row_ns=15.0, hop_ns=600.0
)


def measure(kernels: Kernels) -> Calibration:
    """Some milliseconds of work with ``kernels`` on made-up data."""
    rng = np.random.default_rng(0)
    groups = rng.integers(0, 256, 2 * layout.group_bytes(_DIM), np.uint8)
    for number in range(2):
        ones = np.ones(layout.GROUP_ROWS, np.float32)
        layout.group_at(groups, _DIM, number).factors[:] = layout.pack_factors(0 * ones, -ones)
    everyone = np.full(_BLOCKS * layout.BLOCK_ROWS // 8, 255, np.uint8)
    query = rng.standard_normal((1, _DIM)).astype(np.float32)
    entries, bases, steps = kernels.query_tables(query)
    tables = entries[0], float(bases[0]), float(steps[0])
    scan_s = _best(lambda: kernels.scan(groups, _DIM, *tables, everyone, 100))
    records = np.zeros((_RECORDS, layout.record_bytes(_DIM, layout.INT8)), np.uint8)
    slots = np.arange(_RECORDS, dtype=np.uint32)
    kernels.seal(records, slots)
    chosen = rng.permutation(slots)[: _RECORDS // 8]
    rescore_s = _best(lambda: kernels.rescore(records, _DIM, 0, layout.INT8, query[0], chosen))
    small = np.zeros((_RECORDS, layout.record_bytes(_DIM, layout.INT2)), np.uint8)
    kernels.seal(small, slots)

    def rough() -> object:
        return kernels.search(
            groups=None,
            records=small,
            metric=0,
            precision=layout.INT2,
            queries=query,
            signs=layout.rotation_signs(_DIM, 0),
            centre=np.zeros(0, np.float32),
            allowed=everyone[: _RECORDS // 8],
            k=1,
            keep=1,
            threads=1,
            rough=True,
        )

    space = SpaceArrays(
        groups, records, 0, layout.INT8, layout.rotation_signs(_DIM, 0), np.zeros(_DIM, np.float32)
    )
    listed = rng.permutation(slots)[: _RECORDS // 2]

    def rows() -> object:
        return kernels.gather(space, query, listed, k=1, keep=1, threads=1)

    row_ns = 1e9 * _best(rows) / len(listed)
    return Calibration(
        row_ns=row_ns,
        hop_ns=_HOP_ROWS * row_ns,
        code_block_ns=1e9 * scan_s / _BLOCKS,
        record_ns=1e9 * rescore_s / len(chosen),
        rough_ns=1e9 * _best(rough) / _RECORDS,
    )


def _best(call: Callable[[], object]) -> float:
    """Seconds of the quickest of five calls: the others shared the processor."""
    found = []
    for _ in range(5):
        started = time.perf_counter()
        call()
        found.append(time.perf_counter() - started)
    return min(found)


@cache
def default_calibration() -> Calibration:
    """This machine's constants, from the cache folder or measured now and kept there."""
    wanted = os.environ.get("MEMDB_CALIBRATION")
    if wanted == "builtin":
        return BUILTIN
    kernels = default_kernels()
    path = Path(wanted) if wanted else _cache_folder() / "calibration.json"
    key = f"{_VERSION} {_processor()} {kernels.name}"
    known = _load(path)
    if key in known:
        return known[key]
    found = measure(kernels)
    _save(path, {**known, key: found})
    return found


def _load(path: Path) -> dict[str, Calibration]:
    """What the file holds; nothing where it is missing, damaged or of another memdb."""
    try:
        content = json.loads(path.read_text())
        return {key: Calibration(**values) for key, values in content.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def _save(path: Path, known: dict[str, Calibration]) -> None:
    """Keep the constants where that is possible; elsewhere each process measures its own."""
    draft = path.with_name(f"{path.name}.{os.getpid()}")
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        draft.write_text(json.dumps({key: asdict(value) for key, value in known.items()}))
        os.replace(draft, path)


def _cache_folder() -> Path:
    if os.name == "nt":
        base = os.environ.get("LOCALAPPDATA")
    elif platform.system() == "Darwin":
        base = str(Path.home() / "Library" / "Caches")
    else:
        base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "memdb"


def _processor() -> str:
    """The processor's model, as far as the system tells."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
