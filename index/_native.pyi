"""The native kernels (native/module.cpp). Outputs are the caller's arrays, C-contiguous."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

def available() -> list[str]: ...
def rotate(x: NDArray[np.float32], signs: NDArray[np.float32], back: bool) -> None: ...
def quantise8(
    x: NDArray[np.float32], payload: NDArray[np.int8], scales: NDArray[np.float32]
) -> None: ...
def sign_codes(residuals: NDArray[np.float32], codes: NDArray[np.uint64]) -> None: ...
def quantise_queries(
    queries: NDArray[np.float32], planes: NDArray[np.uint64], deltas: NDArray[np.float32]
) -> None: ...
def seal(level: int, records: NDArray[np.uint8], slots: NDArray[np.uint32]) -> None: ...
def check(level: int, records: NDArray[np.uint8], slots: NDArray[np.uint32]) -> int: ...
def scan(
    level: int,
    groups: NDArray[np.uint8],
    dim: int,
    planes: NDArray[np.uint64],
    delta: float,
    allowed: NDArray[np.uint8],
    slots: NDArray[np.uint32],
    keys: NDArray[np.float32],
) -> int: ...
def rescore(
    level: int,
    records: NDArray[np.uint8],
    dim: int,
    metric: int,
    precision: int,
    query: NDArray[np.float32],
    slots: NDArray[np.uint32],
    distances: NDArray[np.float32],
) -> int: ...
def score(
    level: int,
    metric: int,
    queries: NDArray[np.float32],
    rows: NDArray[np.float32],
    distances: NDArray[np.float32],
) -> None: ...
def search(
    level: int,
    use_codes: bool,
    groups: NDArray[Any],
    records: NDArray[np.uint8],
    metric: int,
    precision: int,
    queries: NDArray[np.float32],
    signs: NDArray[np.float32],
    centre: NDArray[np.float32],
    allowed: NDArray[np.uint8],
    keep: int,
    threads: int,
    slots: NDArray[np.uint32],
    distances: NDArray[np.float32],
) -> int: ...
