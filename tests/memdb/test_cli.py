"""Commands as a person or a program types them, run in this process through ``main``."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import memdb
from memdb.cli import main

Run = Callable[..., tuple[int, str, str]]
ULID = 26


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A database without an embedder, so that nothing here waits for a model."""
    place = tmp_path / "db"
    with memdb.open(place, embedder="none") as db:
        db.settings.time_zone = "Europe/London"
    return place


@pytest.fixture
def run(path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run one command on ``path``: (exit status, stdout, stderr)."""
    monkeypatch.setenv("COLUMNS", "100")

    def call(*words: str, stdin: bytes | None = None) -> tuple[int, str, str]:
        if stdin is not None:
            monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        status = main(["--db", str(path), *words])
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return call


@pytest.fixture
def ask(run: Run) -> Callable[..., Any]:
    """Run one command with ``--json``; what it printed."""

    def call(*words: str, stdin: bytes | None = None) -> Any:
        status, out, err = run(*words, "--json", stdin=stdin)
        assert (status, err) == (0, "")
        return json.loads(out)

    return call


# --- remember, recall, get, list --------------------------------------------------------


def test_remember_prints_the_id_under_which_get_finds_it(run: Run) -> None:
    status, out, err = run("remember", "The spare key is with Grace", "--tag", "home")
    assert (status, err) == (0, "")
    id, state = out.split()
    assert (len(id), state) == (ULID, "inserted")
    status, out, _ = run("get", id)
    assert status == 0
    assert "The spare key is with Grace" in out
    assert "home" in out


def test_every_option_of_remember_reaches_the_memory(ask: Callable[..., Any]) -> None:
    written = ask(
        *("remember", "Crown glued", "--data", '{"price": 80}', "--tag", "health", "--tag", "me"),
        *("--about", "Dr. Osei", "--at", "2024-10-24T16:30", "--event-end", "2024-10-24T17:15"),
        *("--kind", "event", "--source", "app:calendar", "--external-id", "cal:1"),
        *("--metadata", '{"place": "Market"}', "--stream", "calendar", "--position", "3"),
        *("--importance", "0.5", "--pinned", "--sensitivity", "private"),
        *("--valid-from", "2024", "--valid-to", "2025", "--expires-at", "2099"),
    )
    assert written["status"] == "inserted"
    memory = written["memory"]
    expected = {
        "text": "Crown glued",
        "data": {"price": 80},
        "tags": ["health", "me"],
        "about": ["Dr. Osei"],
        "event_time": "2024-10-24T15:30:00Z",
        "event_end": "2024-10-24T16:15:00Z",
        "kind": "event",
        "source": "app:calendar",
        "external_id": "cal:1",
        "metadata": {"place": "Market"},
        "stream": "calendar",
        "position": 3,
        "importance": 0.5,
        "pinned": True,
        "sensitivity": "private",
        "valid_from": "2024-01-01T00:00:00Z",
        "valid_to": "2025-01-01T00:00:00Z",
        "expires_at": "2099-01-01T00:00:00Z",
        "time_zone": "Europe/London",
    }
    assert {name: memory[name] for name in expected} == expected


def test_what_the_command_line_writes_names_itself_as_source(ask: Callable[..., Any]) -> None:
    assert ask("remember", "It rained")["memory"]["source"] == "cli"


def test_text_is_read_from_standard_input(ask: Callable[..., Any]) -> None:
    written = ask("remember", "-", stdin="Grüße aus Łódź\nzweite Zeile\n".encode())
    assert written["memory"]["text"] == "Grüße aus Łódź\nzweite Zeile"


def test_standard_input_that_is_not_utf8_is_refused(run: Run) -> None:
    status, out, err = run("remember", "-", stdin=b"\xff\xfe")
    assert (status, out) == (1, "")
    assert "UTF-8" in err
    assert run("list", "--json")[1].count('"id"') == 0


def test_the_same_text_twice_is_one_memory(ask: Callable[..., Any]) -> None:
    first = ask("remember", "Bins out before seven")
    again = ask("remember", "Bins out before seven")
    assert (again["id"], again["status"]) == (first["id"], "duplicate")


def fill(ask: Callable[..., Any]) -> None:
    for text, *options in (
        ("Ana saw the dentist", "--kind", "event", "--at", "2023-01-19T16:30", "--about", "Ana",
         "--tag", "health", "--tag", "ana"),
        ("The dentist glued my crown", "--kind", "event", "--at", "2024-10-24", "--tag", "health"),
        ("Dentist's number is 555-0164", "--source", "app:contacts"),
        ("Theo dug up the tulips", "--about", "Theo", "--at", "2024-03-02", "--source", "app:chat"),
    ):  # fmt: skip
        ask("remember", text, *options)


@pytest.mark.parametrize(
    ("selector", "found"),
    [
        (["--kind", "event"], 2),
        (["--kind", "event", "--kind", "note"], 4),
        (["--tag", "health"], 2),
        (["--tag", "health", "--tag", "ana"], 1),
        (["--about", "Theo"], 1),
        (["--source", "app:chat"], 1),
        (["--source", "app:*"], 2),
        (["--since", "2024-03-02"], 2),
        (["--before", "2024-03-02"], 1),
        (["--since", "2023", "--before", "2024-10-24"], 2),
        (["--where", '{"stream": {"$exists": true}}'], 0),
        (["--where", '{"tags": {"$contains": "ana"}}', "--kind", "event"], 1),
        ([], 4),
    ],
)
def test_selectors_narrow_list_recall_and_export_alike(
    ask: Callable[..., Any], run: Run, tmp_path: Path, selector: list[str], found: int
) -> None:
    fill(ask)
    assert len(ask("list", *selector)["items"]) == found
    exported = ask("export", str(tmp_path / "out.jsonl"), *selector)
    assert exported["exported"] == found
    asked = ask("recall", "dentist tulips", "--mode", "lexical", *selector)
    assert len(asked["hits"]) == found


def test_recall_prints_the_best_first_with_source_and_time(
    ask: Callable[..., Any], run: Run
) -> None:
    fill(ask)
    status, out, err = run("recall", "who glued the crown at the dentist?", "-k", "2")
    assert (status, err) == (0, "")
    lines = out.splitlines()
    assert lines[0].startswith(" 1  ")
    assert lines[0].endswith("The dentist glued my crown")
    assert lines[1].strip() == "2024-10-24 · cli"
    assert sum(line.startswith(" 2  ") for line in lines) == 1


def test_recall_explains_itself_when_asked(ask: Callable[..., Any], run: Run) -> None:
    fill(ask)
    assert "why: " not in run("recall", "dentist")[1]
    assert "why: " in run("recall", "dentist", "--explain")[1]
    found = ask("recall", "dentist", "--explain")
    assert found["plan"]
    assert found["hits"][0]["why"]["bm25"] > 0


def test_recall_without_matches_says_so(run: Run) -> None:
    status, out, _ = run("recall", "zebra", "--mode", "lexical")
    assert (status, out) == (0, "nothing found\n")


def test_list_pages_lead_through_everything_once(ask: Callable[..., Any]) -> None:
    fill(ask)
    seen, cursor = [], []
    for _ in range(4):
        page = ask("list", "--limit", "1", "--no-descending", *cursor)
        seen += [item["text"] for item in page["items"]]
        cursor = ["--cursor", page["next_cursor"]]
    assert page["next_cursor"] is None
    assert seen[:3] == [
        "Ana saw the dentist",
        "Theo dug up the tulips",
        "The dentist glued my crown",
    ]
    assert len(set(seen)) == 4


def test_get_by_the_callers_own_id_and_all_versions(ask: Callable[..., Any], path: Path) -> None:
    id = ask("remember", "Lunch at noon", "--external-id", "cal:7")["id"]
    with memdb.open(path) as db:
        db.update(id, text="Lunch at one")
    assert ask("get", "--external-id", "cal:7")["text"] == "Lunch at one"
    versions = ask("get", id, "--versions")["versions"]
    assert [version["text"] for version in versions] == ["Lunch at noon", "Lunch at one"]


def test_the_table_fits_the_terminal(
    ask: Callable[..., Any], run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask("remember", "word " * 60)
    ask("remember", "漢字" * 60)
    monkeypatch.setenv("COLUMNS", "60")
    lines = run("list")[1].splitlines()
    assert len(lines) == 3
    assert max(len(line) for line in lines) <= 60
    assert lines[1].endswith("…")


def test_stored_text_cannot_steer_the_terminal(ask: Callable[..., Any], run: Run) -> None:
    id = ask("remember", "calm \x1b[2J\x1b]0;owned\x07 text\u202e")["id"]
    for words in (("list",), ("get", id), ("recall", "calm text"), ("recall", "calm", "--explain")):
        out = run(*words)[1]
        assert "calm" in out
        assert not {"\x1b", "\x07", "\u202e"} & set(out)


# --- forget, restore, report ------------------------------------------------------------


def test_forget_hides_and_restore_brings_back(ask: Callable[..., Any], run: Run) -> None:
    fill(ask)
    status, out, _ = run("forget", "--tag", "health")
    assert status == 0
    assert out.startswith("forgot 2 memories\n")
    batch = out.split()[-1]
    assert len(ask("list")["items"]) == 2
    assert len(ask("restore", "--batch", batch)["ids"]) == 2
    assert len(ask("list")["items"]) == 4


def test_forget_by_id_and_by_name(ask: Callable[..., Any]) -> None:
    fill(ask)
    ask("profile", "set", "toy", "crane", "--subject", "Theo")
    assert len(ask("forget", "--about", "Theo")["ids"]) == 2
    (ana,) = ask("list", "--about", "Ana")["items"]
    assert ask("forget", "--id", ana["id"])["ids"] == [ana["id"]]


def test_forget_of_everything_by_accident_is_refused(ask: Callable[..., Any], run: Run) -> None:
    fill(ask)
    for words in (["forget"], ["forget", "--where", "{}"]):
        status, out, err = run(*words)
        assert (status, out) == (1, "")
        assert "hint:" in err
    assert len(ask("list")["items"]) == 4


def test_forget_that_matches_nothing_says_so(run: Run) -> None:
    status, out, _ = run("forget", "--tag", "nowhere")
    assert (status, out) == (0, "nothing matches; nothing was forgotten\n")


def test_report_tells_what_is_known_from_what_is_mentioned(
    ask: Callable[..., Any], run: Run
) -> None:
    fill(ask)
    ask("remember", "Grace asked after Theo and the pond")
    found = ask("report", "--about", "Theo")
    assert [item["text"] for item in found["items"]] == ["Theo dug up the tulips"]
    assert [item["text"] for item in found["mentions"]] == ["Grace asked after Theo and the pond"]
    assert found["derived"] == []
    out = run("report", "--about", "Theo")[1]
    assert "known (1)" in out
    assert "mentions it in passing (1)" in out


# --- profile ----------------------------------------------------------------------------


def test_a_fact_changes_and_its_past_stays(ask: Callable[..., Any], run: Run) -> None:
    assert (
        ask("profile", "set", "address", "7 Quay", "--valid-from", "2019")["status"] == "inserted"
    )
    moved = ask("profile", "set", "address", "12 Elm", "--valid-from", "2024-05-01")
    assert moved["status"] == "superseded"
    assert run("profile", "get", "address") == (0, "12 Elm\n", "")
    assert run("profile", "get", "address", "--as-of", "2023-01-01")[1] == "7 Quay\n"
    versions = ask("profile", "versions", "address")["versions"]
    assert [version["data"] for version in versions] == ["7 Quay", "12 Elm"]
    table = run("profile", "versions", "address")[1].splitlines()
    assert table[1].split("  ")[:3] == ["2019-01-01", "2024-05-01", "7 Quay"]


def test_facts_have_subjects_and_json_values(ask: Callable[..., Any], run: Run) -> None:
    ask("profile", "set", "allergy", "--data", '["hazelnuts", "egg"]', "--subject", "Ana")
    ask("profile", "set", "shoe_size", "--data", "39")
    assert ask("profile", "get", "allergy", "--subject", "Ana") == {
        "subject": "Ana",
        "key": "allergy",
        "value": ["hazelnuts", "egg"],
    }
    assert ask("profile", "items") == {"shoe_size": 39}
    assert ask("profile", "items", "--all") == {
        "Ana.allergy": ["hazelnuts", "egg"],
        "user.shoe_size": 39,
    }
    assert run("profile", "items")[1].split() == ["shoe_size", "39"]


def test_a_fact_that_is_not_known_is_an_error_that_names_it(run: Run) -> None:
    status, out, err = run("profile", "get", "nickname")
    assert (status, out) == (1, "")
    assert err.startswith("memdb: user has no nickname\n  hint: ")


def test_a_deleted_fact_has_no_value_but_a_history(ask: Callable[..., Any], run: Run) -> None:
    ask("profile", "set", "nickname", "Til", "--valid-from", "2020")
    assert run("profile", "delete", "nickname")[0] == 0
    assert run("profile", "get", "nickname")[0] == 1
    assert run("profile", "get", "nickname", "--as-of", "2021")[1] == "Til\n"


# --- history and files ------------------------------------------------------------------


def test_history_is_printed_in_order_of_time(ask: Callable[..., Any], run: Run) -> None:
    for at, text in (("2024-05-02T07:35", "later"), ("2024-05-01T21:50", "earlier")):
        ask("history", "append", "message", text, "--at", at, "--stream", "chat/family")
    ask("history", "append", "heart_rate", "--data", '{"bpm": 61}', "--at", "2024-05-01")
    status, out, _ = run("history", "range", "message", "2024-05", "2024-06")
    assert (status, out) == (
        0,
        "2024-05-01 21:50  [chat/family] earlier\n2024-05-02 07:35  [chat/family] later\n",
    )
    latest = ask("history", "range", "message", "--reverse", "--limit", "1")["items"]
    assert [item["text"] for item in latest] == ["later"]
    (reading,) = ask("history", "range", "heart_rate")["items"]
    assert reading["data"] == {"bpm": 61}
    assert run("history", "range", "message", "2025")[1] == "nothing happened then\n"


def test_sync_follows_a_folder(ask: Callable[..., Any], run: Run, tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    notes.mkdir()
    (notes / "garden.md").write_text("# Garden\n\nThe tomatoes go behind the shed.\n")
    (notes / "draft.md").write_text("# Draft\n\nnothing yet\n")
    report = ask("sync", str(notes), "--exclude", "draft*")
    assert report["added"] == ["garden.md"]
    assert "tomatoes" in run("recall", "where do the tomatoes go?", "-k", "1")[1]
    (notes / "garden.md").write_text("# Garden\n\nThe tomatoes go along the wall.\n")
    out = run("sync", str(notes), "--exclude", "draft*")[1]
    assert "updated garden.md" in out
    assert "along the wall" in run("recall", "where do the tomatoes go?", "-k", "1")[1]


def test_context_stays_within_its_tokens(ask: Callable[..., Any], run: Run) -> None:
    fill(ask)
    pack = ask("context", "dentist", "--tokens", "120")
    assert set(pack) == {"text", "items", "dropped", "tokens", "counter"}
    assert 0 < pack["tokens"] <= 120
    assert "entist" in run("context", "dentist", "--tokens", "120")[1]


# --- keeping house ----------------------------------------------------------------------


def test_settings_are_stored_in_the_database(ask: Callable[..., Any], run: Run) -> None:
    assert run("config", "time_zone", "Asia/Tokyo")[0] == 0
    assert run("config", "time_zone") == (0, "Asia/Tokyo\n", "")
    assert ask("config", "disk_budget", "200MB") == {"disk_budget": 200_000_000}
    assert ask("config") == {"time_zone": "Asia/Tokyo", "disk_budget": 200_000_000}
    assert ask("config", "disk_budget", "none") == {"disk_budget": None}
    assert ask("remember", "x", "--at", "2024-01-01T09:00")["memory"]["event_time"] == (
        "2024-01-01T00:00:00Z"
    )


def test_an_unknown_setting_lists_those_there_are(run: Run) -> None:
    status, _, err = run("config", "colour", "blue")
    assert status == 1
    assert "time_zone" in err


def test_stats_and_check_of_a_sound_database(ask: Callable[..., Any], run: Run) -> None:
    fill(ask)
    stats = ask("stats")
    assert stats["memories"] == 4
    assert stats["kinds"] == {"event": 2, "note": 2}
    assert stats["bytes"]["total"] > 0
    assert ask("check")["ok"] is True
    status, out, _ = run("check")
    assert (status, out.splitlines()[0]) == (0, "sound")
    assert "memories" in run("stats")[1]


def test_compact_and_snapshot(ask: Callable[..., Any], run: Run, tmp_path: Path) -> None:
    fill(ask)
    assert set(ask("compact")) >= {"before", "after"}
    copy = tmp_path / "copy"
    assert ask("snapshot", str(copy)) == {"path": str(copy.resolve())}
    with memdb.open(copy) as db:
        assert db.count() == 4


def test_export_and_import_round_trip(ask: Callable[..., Any], tmp_path: Path) -> None:
    fill(ask)
    file, other = str(tmp_path / "out.jsonl"), str(tmp_path / "other")
    ask("export", file)
    assert ask("--db", other, "--embedder", "none", "import", file)["imported"] == 4
    assert ask("--db", other, "import", file)["imported"] == 0
    key = lambda item: item["id"]
    ours, theirs = ask("list")["items"], ask("--db", other, "list")["items"]
    assert sorted(ours, key=key) == sorted(theirs, key=key)


def test_export_to_standard_output_is_one_memory_a_line(run: Run, ask: Callable[..., Any]) -> None:
    fill(ask)
    status, out, _ = run("export", "-", "--tag", "health")
    assert status == 0
    lines = [json.loads(line) for line in out.splitlines()]
    assert sum("text" in line for line in lines) == 2


def test_import_from_standard_input(run: Run, ask: Callable[..., Any], tmp_path: Path) -> None:
    fill(ask)
    exported = run("export", "-")[1].encode()
    other = str(tmp_path / "other")
    found = ask("--db", other, "--embedder", "none", "import", "-", stdin=exported)
    assert found["imported"] == 4


def test_spaces_hold_vectors_of_the_callers_own(ask: Callable[..., Any], run: Run) -> None:
    made = ask("spaces", "create", "photos", "--dim", "3", "--metric", "l2")
    assert (made["name"], made["dim"], made["metric"]) == ("photos", 3, "l2")
    for text, vector in (("sunset", "[1, 0, 0]"), ("pond", "[0, 1, 0]")):
        ask("remember", text, "--space", "photos", "--vector", vector)
    hits = ask(
        *("recall", "-", "--space", "photos", "--vector", "[0, 0.9, 0]", "--mode", "vector"),
        stdin=b"anything",
    )["hits"]
    assert [hit["text"] for hit in hits] == ["pond", "sunset"]
    (photos,) = [space for space in ask("spaces", "list")["spaces"] if space["name"] == "photos"]
    assert photos["vectors"] == 2
    assert "photos" in run("spaces", "list")[1]


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


def test_a_namespace_is_written_to_and_read_from(ask: Callable[..., Any]) -> None:
    ask("remember", "planner's", "--namespace", "home/planner")
    ask("remember", "cook's", "--namespace", "home/cook")
    assert len(ask("list", "--namespace", "home")["items"]) == 2
    assert len(ask("list", "--namespace", "home/cook")["items"]) == 1
    assert len(ask("list", "--namespace", "")["items"]) == 2
    assert ask("list")["items"] == []


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
    run: Run, words: list[str], code: str
) -> None:
    status, out, err = run(*words)
    assert (status, out) == (1, "")
    first, second = err.splitlines()
    assert first.startswith("memdb: ")
    assert second.startswith("  hint: ")
    status, out, err = run(*words, "--json")
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
    ask: Callable[..., Any], run: Run, path: Path
) -> None:
    ask("remember", "kept")
    entries = [path, *path.rglob("*")]
    modes = {entry: entry.stat().st_mode for entry in entries}
    before = {entry: entry.read_bytes() for entry in entries if entry.is_file()}
    for entry in entries:
        entry.chmod(modes[entry] & ~0o222)
    try:
        if os.access(path, os.W_OK):
            pytest.skip("this user may write anywhere")
        status, out, err = run("remember", "more", "--json")
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
