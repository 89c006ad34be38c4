"""``memdb token`` and ``memdb audit``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import memdb
from memdb import PermissionDenied
from memdb.storage import audit_log
from tests.memdb.cli_runner import Runner


@pytest.fixture
def cli(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Runner:
    memdb.open(tmp_path / "db", embedder="none").close()
    return Runner(tmp_path / "db", capsys, monkeypatch)


def test_a_token_is_made_paused_resumed_and_revoked(cli: Runner, tmp_path: Path) -> None:
    grant = tmp_path / "grant.json"
    grant.write_text(json.dumps({"deny": {"tags": "diary"}, "rate_per_minute": 60}))
    options = ("--can", "read, add", "--namespace", "home/kitchen", "--sensitivity", "private")
    made = cli.ask("token", "create", "chef", *options, "--grant", str(grant), "--expires", "90d")
    with memdb.open(cli.path, embedder="none") as db:
        principal = db.tokens.authenticate(made["secret"])
        assert principal.grant.to_dict() == {
            "actions": ["read", "add"],
            "deny": {"tags": "diary"},
            "namespace": "home/kitchen",
            "sensitivity": "private",
            "rate_per_minute": 60,
        }
    status, out, _ = cli.run("token", "create", "planner")
    assert status == 0
    assert out.startswith("mdb_")
    for verb, said in (("pause", "paused"), ("resume", "valid again"), ("revoke", "revoked")):
        status, out, _ = cli.run("token", verb, "chef")
        assert (status, said in out) == (0, True)
        with memdb.open(cli.path, embedder="none") as db:
            if verb == "resume":
                assert db.tokens.authenticate(made["secret"]).name == "chef"
            else:
                with pytest.raises(PermissionDenied):
                    db.tokens.authenticate(made["secret"])
    listed = {one["name"]: one for one in cli.ask("token", "list")}
    assert listed["chef"]["revoked_at"] is not None
    assert listed["planner"]["grant"] == {"actions": ["read", "add"]}
    assert "secret" not in listed["chef"]
    assert "planner" in cli.run("token", "list")[1]


def test_a_grant_that_is_none_is_one_line_with_its_field(cli: Runner, tmp_path: Path) -> None:
    grant = tmp_path / "grant.json"
    for text in ("[1]", "{", '{"where": {"knd": 1}}', '{"actions": ["fly"]}', '{"x": 1}'):
        grant.write_text(text)
        status, _, err = cli.run("token", "create", "chef", "--grant", str(grant))
        assert status == 1
        assert err.startswith("memdb: ")
    assert cli.ask("token", "list") == []


def test_the_audit_is_printed_and_verified(cli: Runner) -> None:
    with memdb.open(cli.path, embedder="none") as db:
        acting = db.acting(db.tokens.owner(), purpose="dinner", transport="cli")
        written = acting.remember("Ana is allergic to peanuts")
        acting.count({"kind": "note"})
    status, out, _ = cli.run("audit")
    assert status == 0
    assert all(word in out for word in ("owner", "dinner", written.id, "count over cli"))
    found = cli.ask("audit", "--action", "add")
    assert [row["ids"] for row in found["items"]] == [[written.id]]
    assert cli.ask("audit", "verify") == {
        "ok": True,
        "rows": 2,
        "first_bad": None,
        "lost_tail": 0,
        "blanked": 0,
    }
    (file,) = audit_log.files(cli.path)
    content = bytearray(file.path.read_bytes())
    content[-1] ^= 1
    file.path.write_bytes(content)
    status, out, _ = cli.run("audit", "verify")
    assert status == 1
    assert f"{file.path.name}: row 1 was changed" in out
