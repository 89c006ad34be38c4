"""Records in the order that is asked for, whichever of their forms they lie in."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memdb.errors import StoreCorrupt
from memdb.storage.blobs import BlobStore
from memdb.storage.environment import Environment
from memdb.storage.records import Records, encode
from memdb.types import Memory

ROWS = 600


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> tuple[Environment, Records]:
    """Rows that are hot but for some that are cold and one whose text is in a file."""
    folder = tmp_path_factory.mktemp("records")
    for name in ("blob", "tmp"):
        (folder / name).mkdir()
    blobs = BlobStore(folder, bytes(32))
    env, records = Environment(folder), Records(blobs)
    blob = blobs.put(b"a long text")
    with env.write() as txn:
        records.put_many(txn, [(row, encode(memory(row))) for row in range(ROWS)])
        records.freeze(txn, list(range(256, 320)))
        records.put(txn, 400, memory(400), blob)
    return env, records


def memory(row: int) -> Memory:
    return Memory(id=f"id {row}", text=f"text {row}", tags=("t",) * (row % 3))


@settings(deadline=None, max_examples=40)
@given(
    st.lists(st.integers(0, ROWS - 1), max_size=300, unique=True)
    | st.tuples(st.integers(0, ROWS), st.integers(0, ROWS)).map(lambda ends: list(range(*ends))),
    st.sampled_from([None, False, True]),
)
def test_memories_come_in_the_order_of_their_rows(
    stored: tuple[Environment, Records], rows: list[int], backwards: bool | None
) -> None:
    env, records = stored
    if backwards is not None:
        rows = sorted(rows, reverse=backwards)
    with env.read() as txn:
        found = records.in_turn(txn, rows)
        known = records.get_many(txn, rows)
    expected = [
        memory(row).replace(text="a long text" if row == 400 else f"text {row}") for row in rows
    ]
    assert list(found) == expected
    assert known == dict(zip(rows, expected, strict=True))


def test_a_row_without_a_record_is_damage(stored: tuple[Environment, Records]) -> None:
    env, records = stored
    for rows in ([ROWS - 1, ROWS], [ROWS], [ROWS, 0], list(range(ROWS - 200, ROWS + 1))):
        with env.read() as txn, pytest.raises(StoreCorrupt):
            list(records.in_turn(txn, rows))
