"""The envelope of every stored value: a checksum in front, zeros behind where size demands.

Grammar of a sealed value (all integers little-endian)::

    small   := crc32c u32 | payload                       1 <= 4 + len(payload) <= 1,900
    large   := crc32c u32 | length u32 | payload | zeros  16 + total is a multiple of 4,096

A reader tells them apart by the total length alone: small iff it is at most 1,900 bytes. The
checksum covers the entry's key and every byte after itself: a key whose bits changed gives its
value to nobody. The padding rule exists because LMDB puts a value above some 2,000 bytes on
overflow pages of its own, 16 bytes of header included: a value that ends inside a page would leave
the previous tenant's bytes readable behind it, and would waste what it does not use.

This file knows nothing of tables or transactions.
"""

from __future__ import annotations

from typing import Final

from memdb.storage import reference
from memdb.storage.kernels import KERNELS

__all__ = ["obeys_size_rule", "seal", "seal_many", "unseal", "unseal_joined", "unseal_until"]

SMALL_MAX_BYTES: Final = reference.SMALL_MAX_BYTES
SMALL_PAYLOAD_MAX_BYTES: Final = reference.SMALL_PAYLOAD_MAX_BYTES

# Bound once: a name here is a call on the path of every value.
seal = KERNELS.seal
seal_many = KERNELS.seal_many
unseal = KERNELS.unseal
unseal_joined = KERNELS.unseal_joined
unseal_until = KERNELS.unseal_until


def obeys_size_rule(value: bytes) -> bool:
    """Whether a stored value's length satisfies the grammar above."""
    paged = (len(value) + reference.PAGE_HEADER_BYTES) % reference.PAGE_BYTES == 0
    return len(value) <= SMALL_MAX_BYTES or paged
