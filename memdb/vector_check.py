"""``VectorIndex.check``: is every byte what was written, and do the book and the files agree?

Reads everything: the pages of the book, each entry's checksum, each vector, its code, the graph's
pages. It repairs nothing: what is derived is made again by whoever writes next.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from memdb import vector_book
from memdb.errors import StoreCorrupt
from memdb.storage import tables

if TYPE_CHECKING:
    from memdb.vector_shared import SharedIndex
    from memdb.vector_shown import View

_SHOWN = 100


def check(shared: SharedIndex) -> dict[str, Any]:
    """{"ok", "problems", "checked"}: problems are sentences, at most 100 of them."""
    checked = {"pages": 0, "ids": 0, "vectors": 0}
    problems: list[str] = []
    try:
        checked["pages"] = shared.verify_pages()
        with shared.snapshot() as view:
            problems += _book(view)
            checked["ids"] = view.txn.count(tables.IDS)
            checked["vectors"] = view.book.encoded.count
            view.files.verify(view.book.encoded.array)
    except StoreCorrupt as error:  # the first of its kind: what lies behind it was not looked at
        problems.append(str(error))
    return {"ok": not problems, "problems": problems[:_SHOWN], "checked": checked}


def _book(view: View) -> Iterator[str]:
    """Every id leads to a slot that holds it, and every slot that holds one is led to."""
    txn, book = view.txn, view.book
    present = book.present()
    led_to = np.zeros(len(present), np.bool_)
    for key, payload in txn.scan(tables.IDS):
        number, slot = int.from_bytes(key, "big"), int.from_bytes(payload, "little")
        if slot >= len(present) or not present[slot] or int(book.ids[slot]) != number:
            yield f"id {number} leads to slot {slot}, which does not hold it"
        else:
            led_to[slot] = True
    stray = np.flatnonzero(present & ~led_to)
    if len(stray):
        yield f"no id leads to slot {int(stray[0])}, nor to {len(stray) - 1} others that hold one"
    if book.state.count != np.count_nonzero(present):
        yield f"{np.count_nonzero(present)} vectors are there, {book.state.count} are counted"
    retired = np.count_nonzero(book.states == vector_book.RETIRED)
    if retired != txn.count(tables.COLD):
        yield f"{retired} slots wait to be zeroed, {txn.count(tables.COLD)} are written down"
