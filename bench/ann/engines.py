"""Who is asked, and with which parameters: one table of engines, and the variants of each.

Configuration only: no data, no measuring. memdb's own kinds and profiles are those the library
accepts, so a new one joins without a change here.
"""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

import memdb
from memdb.index.protocol import Profile

WORKERS = Path(__file__).parent / "workers"
OURS = "memdb"

Parameters = dict[str, Any]


@dataclass(frozen=True)
class Variant:
    """One index to build, and the sets of parameters it is asked with.

    ``environment`` goes to the child process; ``opening`` is how the index is opened to be asked,
    which changes nothing in its files; ``fixed`` where a person chose the parameters.
    """

    engine: str
    label: str
    build: Parameters
    searches: tuple[Parameters, ...]
    environment: dict[str, str] = field(default_factory=dict)
    fixed: bool = False
    opening: Parameters = field(default_factory=dict)


@dataclass(frozen=True)
class Engine:
    """Where an engine's adapter is and what pip installs for it; the first package is its own."""

    name: str
    packages: tuple[str, ...]
    variants: tuple[Variant, ...]
    about: str

    @property
    def adapter(self) -> Path:
        return WORKERS / f"with_{self.name.replace('-', '_')}.py"


def _asked(name: str, values: Sequence[int | None], **also: Any) -> tuple[Parameters, ...]:
    return tuple({name: value, **also} for value in values)


_GRAPH = {"M": 16, "ef_construction": 200}
_EF = (40, 80, 160, 320)


def _peer(name: str, about: str, packages: Sequence[str], *variants: tuple[Any, ...]) -> Engine:
    made = tuple(Variant(name, label, build, searches) for label, build, searches in variants)
    return Engine(name, tuple(packages), made, about)


PEERS = {
    engine.name: engine
    for engine in (
        _peer(
            "hnswlib",
            "graph over float32 in memory",
            ("hnswlib==0.8.0", "numpy==2.4.6", "setuptools==80.9.0"),
            ("hnswlib M16", _GRAPH, _asked("ef", _EF)),
        ),
        _peer(
            "turbovec",
            "flat scan of 4-bit codes, bare or re-ranked from vectors in memory",
            ("turbovec==1.1.2", "numpy==2.4.6"),
            ("turbovec 4-bit", {"bits": 4, "vectors": "none"}, _asked("rerank", (0,))),
            (
                "turbovec 4-bit + float16",
                {"bits": 4, "vectors": "float16"},
                _asked("rerank", (20, 50)),
            ),
            (
                "turbovec 4-bit + float32",
                {"bits": 4, "vectors": "float32"},
                _asked("rerank", (20, 50)),
            ),
        ),
        _peer(
            "usearch",
            "graph over float16 or int8 in memory",
            ("usearch==2.26.6", "numpy==2.4.6"),
            ("usearch f16", {"dtype": "f16", **_GRAPH}, _asked("ef", _EF)),
            ("usearch i8", {"dtype": "i8", **_GRAPH}, _asked("ef", _EF)),
        ),
        _peer(
            "faiss",
            "flat 1-bit and IVF-PQ fast scans, re-ranked from float16",
            ("faiss-cpu==1.15.1", "numpy==2.4.6"),
            (
                "faiss RaBitQ flat + float16",
                {"factory": "RR{dim},RaBitQfs,Refine(SQfp16)"},
                _asked("k_factor_rf", (5, 10, 20, 40)),
            ),
            (
                "faiss IVF-PQ + float16",
                {"factory": "IVF{nlist},PQ{half}x4fs,Refine(SQfp16)"},
                _asked("nprobe", (16, 64, 128, 256), k_factor_rf=10),
            ),
        ),
        _peer(
            "rabitqlib",
            "graph and partitions over 4-bit RaBitQ codes",
            ("rabitqlib==0.7.1", "numpy==2.4.6"),
            ("rabitqlib HNSW 4-bit", {"kind": "hnsw", "bits": 4, **_GRAPH}, _asked("ef", _EF)),
            ("rabitqlib IVF 4-bit", {"kind": "ivf", "bits": 4}, _asked("nprobe", (16, 64, 256))),
        ),
        _peer(
            "diskannpy",
            "DiskANN's graph on disk",
            ("diskannpy==0.7.0", "numpy==1.25.0"),
            (
                "diskannpy R64",
                {"graph_degree": 64, "complexity": 100, "pq_bytes": 64},
                _asked("complexity", (40, 80, 160), beam_width=4),
            ),
        ),
        _peer(
            "zvec",
            "DiskANN, and a graph over RaBitQ codes",
            ("zvec==0.8.0", "numpy==2.4.6"),
            (
                "zvec DiskANN",
                {"kind": "diskann", "max_degree": 64, "list_size": 50},
                _asked("list_size", (40, 80, 160)),
            ),
            (
                "zvec HNSW-RaBitQ",
                {"kind": "hnsw-rabitq", "m": 16, "ef_construction": 200},
                _asked("ef", (80, 160, 320)) + _asked("ef", (80, 160), refine=True),
            ),
        ),
        _peer(
            "lancedb",
            "partitions over 1-bit RaBitQ codes on disk, re-ranked from there",
            ("lancedb==0.40.0", "numpy==2.4.6", "pyarrow==26.0.1"),
            (
                "LanceDB IVF-RQ",
                {"index_type": "IVF_RQ", "num_bits": 1},
                _asked("nprobes", (4, 16), refine_factor=10),
            ),
            (
                "LanceDB IVF-RQ sqrt(n)",
                {"index_type": "IVF_RQ", "num_bits": 1, "num_partitions": "sqrt"},
                _asked("nprobes", (16, 32, 64), refine_factor=10),
            ),
        ),
    )
}

NAMES = (OURS, *PEERS)

KINDS = ("flat", "hnsw", "ssd")  # of the public contract; the library says which it has
PROFILES: tuple[str, ...] = get_args(Profile)
_EFFORTS: dict[str, tuple[int | None, ...]] = {"flat": (None, 50, 100, 200, 400, 800)}
_GRAPH_EFFORTS = (40, 80, 160, 320, 640)


def offered(kind: str, profile: str = "standard") -> str | None:
    """None where the library makes such an index, else what it says instead."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "index"
        try:
            memdb.VectorIndex(path, dim=8, kind=kind, profile=profile).close()
        except memdb.MemdbError as error:
            return str(error)
    return None


def ours(
    kinds: Sequence[str] = KINDS,
    profiles: Sequence[str] = PROFILES,
    efforts: Sequence[int] = (),
    kernels: Sequence[str] = (),
    budgets: Sequence[str] = (),
) -> tuple[Engine, dict[str, str]]:
    """memdb's engine with every variant the library offers, and why others are left out.

    ``kernels``: names for MEMDB_KERNELS, each a variant of its own; none is the best there is.
    ``budgets``: memory budgets to open it with, each a variant too; none is one that holds all.
    """
    variants: list[Variant] = []
    refused: dict[str, str] = {}
    for kind in kinds:
        said = offered(kind)
        if said is not None:
            refused[f"{OURS} {kind}"] = said
            continue
        asked = _asked("effort", efforts or _EFFORTS.get(kind, _GRAPH_EFFORTS))
        for profile in profiles:
            said = offered(kind, profile)
            if said is not None:
                refused[f"{OURS} {kind} {profile}"] = said
                continue
            for name, budget in itertools.product(kernels or ("",), budgets or ("",)):
                label = " ".join(filter(None, (OURS, kind, profile, name, budget)))
                build = {"kind": kind, "profile": profile}
                environment = {"MEMDB_KERNELS": name} if name else {}
                opening = {"memory_budget": budget} if budget else {}
                variants.append(
                    Variant(OURS, label, build, asked, environment, bool(efforts), opening)
                )
    about = "this library"
    return Engine(OURS, ("personal-memdb", "numpy"), tuple(variants), about), refused
