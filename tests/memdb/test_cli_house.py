"""Commands that keep house, where the database is, and what happens when something is wrong."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

import memdb
from memdb.cli import main
from tests.memdb.cli_runner import Runner


@pytest.fixture
def cli(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Runner:
    """A database without an embedder, so that nothing here waits for a model."""
    with memdb.open(tmp_path / "db", embedder="none") as db:
        db.settings.time_zone = "Europe/London"
    return Runner(tmp_path / "db", capsys, monkeypatch)


# --- keeping house ----------------------------------------------------------------------


def test_settings_are_stored_in_the_database(cli: Runner) -> None:
    assert cli.run("config", "time_zone", "Asia/Tokyo")[0] == 0
    assert cli.run("config", "time_zone") == (0, "Asia/Tokyo\n", "")
    assert cli.ask("config", "disk_budget", "200MB") == {"disk_budget": 200_000_000}
    assert cli.ask("config") == {
        "time_zone": "Asia/Tokyo",
        "disk_budget": 200_000_000,
        "policies": {},
        "reembed_top": 0,
        "remembering_paused": False,
        "audit_query_text": False,
    }
    assert cli.ask("config", "disk_budget", "none") == {"disk_budget": None}
    assert cli.ask("remember", "x", "--at", "2024-01-01T09:00")["memory"]["event_time"] == (
        "2024-01-01T00:00:00Z"
    )


def test_an_unknown_setting_lists_those_there_are(cli: Runner) -> None:
    status, _, err = cli.run("config", "colour", "blue")
    assert status == 1
    assert "time_zone" in err


def test_stats_and_check_of_a_sound_database(cli: Runner) -> None:
    cli.fill()
    stats = cli.ask("stats")
    assert stats["memories"] == 4
    assert stats["kinds"] == {"event": 2, "note": 2}
    assert stats["bytes"]["total"] > 0
    assert cli.ask("check")["ok"] is True
    status, out, _ = cli.run("check")
    assert (status, out.splitlines()[0]) == (0, "sound")
    assert "memories" in cli.run("stats")[1]


def test_compact_and_snapshot(cli: Runner, tmp_path: Path) -> None:
    cli.fill()
    assert set(cli.ask("compact")) >= {"before", "after"}
    copy = tmp_path / "copy"
    assert cli.ask("snapshot", str(copy)) == {"path": str(copy.resolve())}
    with memdb.open(copy) as db:
        assert db.count() == 4


def test_export_and_import_round_trip(cli: Runner, tmp_path: Path) -> None:
    cli.fill()
    file, other = str(tmp_path / "out.jsonl"), str(tmp_path / "other")
    cli.ask("export", file)
    assert cli.ask("--db", other, "--embedder", "none", "import", file)["imported"] == 4
    assert cli.ask("--db", other, "import", file)["imported"] == 0
    key = lambda item: item["id"]
    ours, theirs = cli.ask("list")["items"], cli.ask("--db", other, "list")["items"]
    assert sorted(ours, key=key) == sorted(theirs, key=key)


def test_export_to_standard_output_is_one_memory_a_line(cli: Runner) -> None:
    cli.fill()
    status, out, _ = cli.run("export", "-", "--tag", "health")
    assert status == 0
    lines = [json.loads(line) for line in out.splitlines()]
    assert sum("text" in line for line in lines) == 2


def test_import_from_standard_input(cli: Runner, tmp_path: Path) -> None:
    cli.fill()
    exported = cli.run("export", "-")[1].encode()
    other = str(tmp_path / "other")
    found = cli.ask("--db", other, "--embedder", "none", "import", "-", stdin=exported)
    assert found["imported"] == 4


def test_spaces_hold_vectors_of_the_callers_own(cli: Runner) -> None:
    made = cli.ask("spaces", "create", "photos", "--dim", "3", "--metric", "l2")
    assert (made["name"], made["dim"], made["metric"]) == ("photos", 3, "l2")
    for text, vector in (("sunset", "[1, 0, 0]"), ("pond", "[0, 1, 0]")):
        cli.ask("remember", text, "--space", "photos", "--vector", vector)
    hits = cli.ask(
        *("recall", "-", "--space", "photos", "--vector", "[0, 0.9, 0]", "--mode", "vector"),
        stdin=b"anything",
    )["hits"]
    assert [hit["text"] for hit in hits] == ["pond", "sunset"]
    (photos,) = [
        space for space in cli.ask("spaces", "list")["spaces"] if space["name"] == "photos"
    ]
    assert photos["vectors"] == 2
    assert "photos" in cli.run("spaces", "list")[1]


def test_a_damaged_database_is_found_and_named(cli: Runner) -> None:
    cli.fill()
    damaged = 0
    for file in cli.path.rglob("data.mdb"):
        content = bytearray(file.read_bytes())
        at = content.find(b"glued my crown")
        while at >= 0:
            content[at] ^= 0xFF
            damaged += 1
            at = content.find(b"glued my crown")
        file.write_bytes(content)
    assert damaged
    status, out, err = cli.run("check")
    assert status == 1
    assert out.startswith("damaged\n") or "hint:" in err
    assert "checksum" in out + err


# --- databases, namespaces, errors ------------------------------------------------------


def test_the_database_may_be_named_before_or_after_the_command(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = str(tmp_path / "db")
    assert main(["--db", place, "--embedder", "none", "remember", "here"]) == 0
    assert main(["list", "--db", place]) == 0
    monkeypatch.setenv("MEMDB_PATH", place)
    assert main(["list"]) == 0
    assert capsys.readouterr().out.count("here") == 2


def test_the_default_database_is_in_the_home_directory(
    own_home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["remember", "at home", "--embedder", "none"]) == 0
    assert (own_home / ".memdb" / "FORMAT").is_file()
    assert main(["list"]) == 0
    assert "at home" in capsys.readouterr().out


def test_a_namespace_is_written_to_and_read_from(cli: Runner) -> None:
    cli.ask("remember", "planner's", "--namespace", "home/planner")
    cli.ask("remember", "cook's", "--namespace", "home/cook")
    assert len(cli.ask("list", "--namespace", "home")["items"]) == 2
    assert len(cli.ask("list", "--namespace", "home/cook")["items"]) == 1
    assert len(cli.ask("list", "--namespace", "")["items"]) == 2
    assert cli.ask("list")["items"] == []


@pytest.mark.parametrize("words", [["list"], ["recall", "x"], ["stats"], ["check"], ["forget"]])
def test_commands_that_only_read_make_no_database(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = tmp_path / "nowhere"
    assert main(["--db", str(place), *words]) == 1
    assert "hint:" in capsys.readouterr().err
    assert not place.exists()


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["get", "0" * 25 + "1"], "not_found"),
        (["get", "short"], "invalid_argument"),
        (["get"], "invalid_argument"),
        (["remember", ""], "invalid_argument"),
        (["remember", "x", "--at", "yesterday"], "invalid_argument"),
        (["remember", "x", "--on-conflict", "error", "--importance", "7"], "invalid_argument"),
        (["list", "--where", '{"tegs": "x"}'], "filter_error"),
        (["list", "--where", '{"tags": {"$like": "x"}}'], "filter_error"),
        (["recall", "x", "-k", "0"], "invalid_argument"),
        (["profile", "set", "key"], "invalid_argument"),
        (["config", "time_zone", "Mars/Olympus"], "invalid_argument"),
        (["restore", "--id", "0" * 25 + "1"], "not_found"),
        (["import", "/nonexistent/file.jsonl"], "not_found"),
    ],
)
def test_bad_input_is_one_line_with_a_remedy_and_a_stable_code(
    cli: Runner, words: list[str], code: str
) -> None:
    status, out, err = cli.run(*words)
    assert (status, out) == (1, "")
    first, second = err.splitlines()
    assert first.startswith("memdb: ")
    assert second.startswith("  hint: ")
    status, out, err = cli.run(*words, "--json")
    assert (status, out) == (1, "")
    error = json.loads(err)["error"]
    assert error["code"] == code
    assert set(error) == {"code", "message", "hint"}


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["recal", "x"],
        ["profile"],
        ["recall"],
        ["recall", "x", "-k", "many"],
        ["recall", "x", "--mode", "magic"],
        ["list", "--where", "{tags"],
        ["list", "--no-such-option"],
        ["remember", "x", "--imp", "1"],
        ["completion", "tcsh"],
    ],
)
def test_wrong_usage_is_exit_status_2_and_says_where_help_is(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "hint: " in captured.err


def test_a_mistyped_command_is_answered_with_the_nearest(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["recal", "x"]) == 2
    assert "did you mean `memdb recall`?" in capsys.readouterr().err


def test_a_directory_that_cannot_be_written_is_a_typed_error_and_stays_as_it_is(
    cli: Runner,
) -> None:
    cli.ask("remember", "kept")
    entries = [cli.path, *cli.path.rglob("*")]
    modes = {entry: entry.stat().st_mode for entry in entries}
    before = {entry: entry.read_bytes() for entry in entries if entry.is_file()}
    for entry in entries:
        entry.chmod(modes[entry] & ~0o222)
    try:
        if os.access(cli.path, os.W_OK):
            pytest.skip("this user may write anywhere")
        status, out, err = cli.run("remember", "more", "--json")
        assert (status, out) == (1, "")
        assert json.loads(err)["error"]["code"] == "permission_denied"
        assert {entry: entry.read_bytes() for entry in before} == before
    finally:
        for entry, mode in modes.items():
            entry.chmod(mode)


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="needs a place nobody may write")
def test_a_place_where_nothing_can_be_made_is_a_typed_error(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["--db", "/proc/memdb", "--json", "remember", "x"]) == 1
    assert json.loads(capsys.readouterr().err)["error"]["code"] in (
        "permission_denied",
        "not_found",
    )


def test_a_file_in_place_of_the_directory_is_a_typed_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "file"
    file.write_text("not a database")
    assert main(["--db", str(file), "--json", "remember", "x"]) == 1
    assert json.loads(capsys.readouterr().err)["error"]["code"] != "os_error"
    assert file.read_text() == "not a database"


def test_erase_asks_and_tells_and_the_scan_finds_nothing(cli: Runner, tmp_path: Path) -> None:
    cli.fill()
    status, _, err = cli.run("erase", "--about", "Ana")
    assert status == 1
    assert "--yes" in err
    canaries = tmp_path / "canaries.txt"
    canaries.write_text('Ana saw the dentist\n{"text": "Ana saw the dentist"}\n')
    report = cli.ask("report", "--about", "Ana")
    assert report["counts"]["memories"] == 1
    assert "erase would reach 1 memories" in cli.run("report", "--about", "Ana")[1]
    receipt = cli.ask("erase", "--about", "Ana", "--yes")
    assert receipt["state"] == "scrubbed"
    assert receipt["counts"]["memories"] == 1
    assert cli.ask("receipts")["receipts"][0]["id"] == receipt["id"]
    assert receipt["id"] in cli.run("receipts")[1]
    found = cli.ask("scan-erased", receipt["id"], "--canaries", str(canaries))
    assert found["clean"]
    canaries.write_text("Theo dug up the tulips\n")
    status, out, _ = cli.run("scan-erased", receipt["id"], "--canaries", str(canaries))
    assert status == 1
    assert "utf-8" in out
    assert cli.run("scan-erased", "nobody", "--canaries", str(canaries))[0] == 1
    status, out, _ = cli.run("erase", "--about", "Theo", "--yes")
    assert status == 0
    assert "out of reach" in out
