"""The canary test, small: every planted string and vector is found first, in whatever form and
file, and none of the erased ones after. ``python -m bench erase`` plants a thousand.
"""

from __future__ import annotations

from pathlib import Path

import memdb
from bench import canaries
from memdb import Canary, scan_erased
from tests.memdb.clock import Clock
from tests.memdb.full_store import small_steps


def test_the_scanner_finds_all_and_after_erasing_half_none_of_that_half(tmp_path: Path) -> None:
    with small_steps():
        outcome = canaries.trial(tmp_path, count=100, fillers=200, seed=3)
    assert outcome.found_before == 100
    assert set(canaries.FORMS) <= outcome.forms_before
    assert outcome.residues == []
    assert outcome.kept_intact == 50
    assert outcome.restored_residues == []
    assert outcome.restored_kept == 50
    assert outcome.held_open is not None


def test_a_scan_sees_what_lies_about(tmp_path: Path, clock: Clock) -> None:
    """Free pages, leftovers in tmp, names of files, UTF-16: each is found by itself."""
    path = tmp_path / "db"
    with memdb.open(path, embedder="none", clock=clock) as db:
        db.remember("innocent words")
        assert scan_erased(path, ["wxcanaryq"]).clean
        for form in ("utf-8", "utf-16-le", "utf-16-be"):
            (path / "tmp" / "left").write_bytes(b"." * 4095 + "..wxcanaryq".encode(form))
            found = scan_erased(path, ["wxcanaryq"]).found
            assert form in {one.form for one in found}
            assert all(one.file.endswith("left") for one in found)
        (path / "tmp" / "left").unlink()
        (path / "audit" / "wxcanaryq.log").touch()
        assert "name" in scan_erased(path, ["wxcanaryq"]).found[0].form
        (path / "audit" / "wxcanaryq.log").unlink()
        gone = db.remember("wxcanaryq and more", external_id="wxoutside")
        db.forget(gone.id)  # which is not erasing: the bytes stay
        scan = scan_erased(path, [Canary("wxcanaryq", id=gone.id, external_id="wxoutside")])
        assert {"utf-8", "id", "external id"} <= {one.form for one in scan.found}
        db.erase(gone.id).wait()
        scan = scan_erased(path, [Canary("wxcanaryq", id=gone.id, external_id="wxoutside")])
        assert scan.clean, scan.found
