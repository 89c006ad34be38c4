"""Files of vectors: what is sound is read exactly, what is not is one clear error."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bench.ann import scaling
from bench.ann.data import DataError, DataSet, embedded, load, read


def load_file(path: Path, **more: object) -> DataSet:
    return load(str(path), folder=path.parent, **more)  # type: ignore[arg-type]


def vecs(rows: np.ndarray) -> bytes:
    dim = np.full((len(rows), 1), rows.shape[1], "<i4").view(np.uint8)
    return np.hstack([dim, np.ascontiguousarray(rows).view(np.uint8)]).tobytes()


@pytest.mark.parametrize(("suffix", "dtype"), [(".fvecs", "<f4"), (".bvecs", "u1")])
def test_vecs_files_are_read_as_they_were_written(suffix: str, dtype: str, tmp_path: Path) -> None:
    rows = np.arange(20).reshape(4, 5).astype(dtype)
    path = tmp_path / f"a{suffix}"
    path.write_bytes(vecs(rows))
    assert read(path).tolist() == rows.tolist()


def test_without_queries_some_vectors_are_held_out_and_it_is_said(tmp_path: Path) -> None:
    rows = np.random.default_rng(1).standard_normal((50, 4)).astype(np.float32)
    np.save(tmp_path / "a.npy", rows)
    found = load_file(tmp_path / "a.npy", metric="l2")
    assert np.array_equal(found.base, rows[:45]) and np.array_equal(found.queries, rows[45:])
    assert "held out" in found.notes[0]


def test_cosine_vectors_get_unit_length_and_the_file_is_not_touched(tmp_path: Path) -> None:
    rows = np.full((30, 4), 3, np.float32)
    np.save(tmp_path / "a.npy", rows)
    found = load_file(tmp_path / "a.npy", metric="cosine", queries=tmp_path / "a.npy")
    assert np.allclose(np.linalg.norm(found.base, axis=1), 1)
    assert np.array_equal(np.load(tmp_path / "a.npy"), rows)


def test_the_hash_is_of_the_vectors_used(tmp_path: Path) -> None:
    rows = np.random.default_rng(1).standard_normal((50, 4)).astype(np.float32)
    np.save(tmp_path / "a.npy", rows)
    np.save(tmp_path / "b.npy", rows)
    hashes = [
        load_file(tmp_path / name, metric="l2", count=count).sha256
        for name, count in (("a.npy", None), ("b.npy", None), ("a.npy", 20))
    ]
    assert hashes[0] == hashes[1] != hashes[2]


def broken(tmp_path: Path) -> dict[str, tuple[str, bytes]]:
    sound = vecs(np.ones((3, 4), "<f4"))
    np.save(tmp_path / "sound.npy", np.ones((3, 4)))
    npy = (tmp_path / "sound.npy").read_bytes()
    np.save(tmp_path / "flat.npy", np.ones(3))
    np.save(tmp_path / "words.npy", np.array([["a", "b"]]))
    np.save(tmp_path / "nan.npy", np.array([[1.0, 2.0], [np.nan, 0.0]]))
    return {
        "cut off": ("a.fvecs", sound[:-3]),
        "empty": ("a.fvecs", b""),
        "negative dimension": ("a.fvecs", b"\xff\xff\xff\xff" + sound[4:]),
        "dimensions differ": ("a.fvecs", sound[:20] + b"\x05\0\0\0" + sound[24:]),
        "npy cut off": ("a.npy", npy[:-8]),
        "no npy": ("a.npy", b"hello"),
        "one dimension": ("a.npy", (tmp_path / "flat.npy").read_bytes()),
        "words": ("a.npy", (tmp_path / "words.npy").read_bytes()),
        "not finite": ("a.npy", (tmp_path / "nan.npy").read_bytes()),
        "hdf5": ("a.hdf5", b"not hdf5"),
        "unknown kind": ("a.csv", b"1,2"),
    }


def test_damaged_and_wrong_files_are_errors_that_name_the_file(tmp_path: Path) -> None:
    for what, (name, content) in broken(tmp_path).items():
        path = tmp_path / name
        path.write_bytes(content)
        with pytest.raises(DataError) as caught:
            load_file(path)
        assert name in str(caught.value), what
        path.unlink()
    with pytest.raises(DataError, match="no such file"):
        load_file(tmp_path / "missing.npy")
    with pytest.raises(DataError, match="neither a known set"):
        load("minilm", folder=tmp_path)


def test_queries_of_another_dimension_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.ones((20, 4)))
    np.save(tmp_path / "q.npy", np.ones((3, 5)))
    with pytest.raises(DataError, match="4 dimensions, queries 5"):
        load_file(tmp_path / "a.npy", queries=tmp_path / "q.npy")


def test_more_vectors_than_there_are_begin_with_the_real_ones_and_say_so(tmp_path: Path) -> None:
    rows = np.random.default_rng(1).standard_normal((40, 8)).astype(np.float32)
    np.save(tmp_path / "a.npy", rows)
    found = load_file(tmp_path / "a.npy", queries=tmp_path / "a.npy", count=100)
    again = load_file(tmp_path / "a.npy", queries=tmp_path / "a.npy", count=100)
    assert found.base.shape == (100, 8) and found.notes == (scaling.CAVEAT,)
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    assert np.allclose(found.base[:40], unit)
    assert len(np.unique(found.base, axis=0)) == 100
    assert np.allclose(np.linalg.norm(found.base, axis=1), 1)
    assert found.sha256 == again.sha256


def test_lines_of_a_text_are_embedded_by_an_embedder_of_memdb(tmp_path: Path) -> None:
    path = tmp_path / "lines.txt"
    path.write_text("".join(f"the {word} is on the table\n\n" for word in "abcdefghijklmno"))
    (tmp_path / "asked.txt").write_text("the b is on the table\n")
    found = embedded(path, "static", queries=tmp_path / "asked.txt")
    assert len(found.base) == 15 and found.metric == "cosine"
    assert np.allclose(np.linalg.norm(found.base, axis=1), 1)
    assert (found.base @ found.queries[0]).argmax() == 1
    assert len(embedded(path, "static").base) == 14


def test_texts_that_cannot_be_used_are_errors_that_name_the_file(tmp_path: Path) -> None:
    path = tmp_path / "lines.txt"
    for content, said in ((b"\n \n", "holds no text"), (b"\xff\xfe\x00", "UTF-8"), (b"a", "two")):
        path.write_bytes(content)
        with pytest.raises(DataError, match=said) as caught:
            embedded(path, "static")
        assert "lines.txt" in str(caught.value)
    path.write_text("one\ntwo\n")
    with pytest.raises(DataError, match="no vectors"):
        embedded(path, "none")
