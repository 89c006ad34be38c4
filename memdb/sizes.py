"""Byte sizes as people write them: MB is 10^6, MiB is 2^20, an int is bytes."""

from __future__ import annotations

import re

from memdb.errors import InvalidArgument

_SIZE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([kmgt]?)(i?)b?\s*", re.IGNORECASE | re.ASCII)
_POWERS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}


def parse_bytes(value: int | str, field: str) -> int:
    """The number of bytes; raises ``InvalidArgument`` naming ``field``."""
    if isinstance(value, int) and not isinstance(value, bool) and value > 0:
        return value
    match = _SIZE.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise InvalidArgument(f"{field} must be a size such as '256MiB' or 10**9", field=field)
    number, letter, binary = match.groups()
    size = int(float(number) * (1024 if binary else 1000) ** _POWERS[letter.lower()])
    if size <= 0:
        raise InvalidArgument(f"{field} must be positive", field=field)
    return size


def format_bytes(size: int) -> str:
    """ "1.5 MB": three significant digits, powers of ten."""
    number = float(size)
    for unit in ("B", "kB", "MB", "GB"):
        if number < 1000:
            return f"{number:.0f} {unit}" if unit == "B" else f"{number:.3g} {unit}"
        number /= 1000
    return f"{number:.3g} TB"
