"""Commands that write, find, change and hide memories, as a person or a program types them."""

from __future__ import annotations

from pathlib import Path

import pytest

import memdb
from tests.memdb.cli_runner import Runner

ULID = 26


@pytest.fixture
def cli(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Runner:
    """A database without an embedder, so that nothing here waits for a model."""
    with memdb.open(tmp_path / "db", embedder="none") as db:
        db.settings.time_zone = "Europe/London"
    return Runner(tmp_path / "db", capsys, monkeypatch)


# --- remember, recall, get, list --------------------------------------------------------


def test_remember_prints_the_id_under_which_get_finds_it(cli: Runner) -> None:
    status, out, err = cli.run("remember", "The spare key is with Grace", "--tag", "home")
    assert (status, err) == (0, "")
    id, state = out.split()
    assert (len(id), state) == (ULID, "inserted")
    status, out, _ = cli.run("get", id)
    assert status == 0
    assert "The spare key is with Grace" in out
    assert "home" in out


def test_every_option_of_remember_reaches_the_memory(cli: Runner) -> None:
    written = cli.ask(
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


def test_what_the_command_line_writes_names_itself_as_source(cli: Runner) -> None:
    assert cli.ask("remember", "It rained")["memory"]["source"] == "cli"


def test_text_is_read_from_standard_input(cli: Runner) -> None:
    written = cli.ask("remember", "-", stdin="Grüße aus Łódź\nzweite Zeile\n".encode())
    assert written["memory"]["text"] == "Grüße aus Łódź\nzweite Zeile"


def test_standard_input_that_is_not_utf8_is_refused(cli: Runner) -> None:
    status, out, err = cli.run("remember", "-", stdin=b"\xff\xfe")
    assert (status, out) == (1, "")
    assert "UTF-8" in err
    assert cli.run("list", "--json")[1].count('"id"') == 0


def test_the_same_text_twice_is_one_memory(cli: Runner) -> None:
    first = cli.ask("remember", "Bins out before seven")
    again = cli.ask("remember", "Bins out before seven")
    assert (again["id"], again["status"]) == (first["id"], "duplicate")


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
    cli: Runner, tmp_path: Path, selector: list[str], found: int
) -> None:
    cli.fill()
    assert len(cli.ask("list", *selector)["items"]) == found
    exported = cli.ask("export", str(tmp_path / "out.jsonl"), *selector)
    assert exported["exported"] == found
    asked = cli.ask("recall", "dentist tulips", "--mode", "lexical", *selector)
    assert len(asked["hits"]) == found


def test_recall_prints_the_best_first_with_source_and_time(cli: Runner) -> None:
    cli.fill()
    status, out, err = cli.run("recall", "who glued the crown at the dentist?", "-k", "2")
    assert (status, err) == (0, "")
    lines = out.splitlines()
    assert lines[0].startswith(" 1  ")
    assert lines[0].endswith("The dentist glued my crown")
    assert lines[1].strip() == "2024-10-24 · cli"
    assert sum(line.startswith(" 2  ") for line in lines) == 1


def test_recall_explains_itself_when_asked(cli: Runner) -> None:
    cli.fill()
    assert "why: " not in cli.run("recall", "dentist")[1]
    assert "why: " in cli.run("recall", "dentist", "--explain")[1]
    found = cli.ask("recall", "dentist", "--explain")
    assert found["plan"]
    assert found["hits"][0]["why"]["bm25"] > 0


def test_recall_without_matches_says_so(cli: Runner) -> None:
    status, out, _ = cli.run("recall", "zebra", "--mode", "lexical")
    assert (status, out) == (0, "nothing found\n")


def test_list_pages_lead_through_everything_once(cli: Runner) -> None:
    cli.fill()
    seen, cursor = [], []
    for _ in range(4):
        page = cli.ask("list", "--limit", "1", "--no-descending", *cursor)
        seen += [item["text"] for item in page["items"]]
        cursor = ["--cursor", page["next_cursor"]]
    assert page["next_cursor"] is None
    assert seen[:3] == [
        "Ana saw the dentist",
        "Theo dug up the tulips",
        "The dentist glued my crown",
    ]
    assert len(set(seen)) == 4


def test_get_by_the_callers_own_id_and_all_versions(cli: Runner) -> None:
    id = cli.ask("remember", "Lunch at noon", "--external-id", "cal:7")["id"]
    with memdb.open(cli.path) as db:
        db.update(id, text="Lunch at one")
    assert cli.ask("get", "--external-id", "cal:7")["text"] == "Lunch at one"
    versions = cli.ask("get", id, "--versions")["versions"]
    assert [version["text"] for version in versions] == ["Lunch at noon", "Lunch at one"]


def test_the_table_fits_the_terminal(cli: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    cli.ask("remember", "word " * 60)
    cli.ask("remember", "漢字" * 60)
    monkeypatch.setenv("COLUMNS", "60")
    lines = cli.run("list")[1].splitlines()
    assert len(lines) == 3
    assert max(len(line) for line in lines) <= 60
    assert lines[1].endswith("…")


def test_stored_text_cannot_steer_the_terminal(cli: Runner) -> None:
    id = cli.ask("remember", "calm \x1b[2J\x1b]0;owned\x07 text\u202e")["id"]
    for words in (("list",), ("get", id), ("recall", "calm text"), ("recall", "calm", "--explain")):
        out = cli.run(*words)[1]
        assert "calm" in out
        assert not {"\x1b", "\x07", "\u202e"} & set(out)


# --- forget, restore, report ------------------------------------------------------------


def test_forget_hides_and_restore_brings_back(cli: Runner) -> None:
    cli.fill()
    status, out, _ = cli.run("forget", "--tag", "health")
    assert status == 0
    assert out.startswith("forgot 2 memories\n")
    batch = out.split()[-1]
    assert len(cli.ask("list")["items"]) == 2
    assert len(cli.ask("restore", "--batch", batch)["ids"]) == 2
    assert len(cli.ask("list")["items"]) == 4


def test_forget_by_id_and_by_name(cli: Runner) -> None:
    cli.fill()
    cli.ask("profile", "set", "toy", "crane", "--subject", "Theo")
    assert len(cli.ask("forget", "--about", "Theo")["ids"]) == 2
    (ana,) = cli.ask("list", "--about", "Ana")["items"]
    assert cli.ask("forget", "--id", ana["id"])["ids"] == [ana["id"]]


def test_forget_of_everything_by_accident_is_refused(cli: Runner) -> None:
    cli.fill()
    for words in (["forget"], ["forget", "--where", "{}"]):
        status, out, err = cli.run(*words)
        assert (status, out) == (1, "")
        assert "hint:" in err
    assert len(cli.ask("list")["items"]) == 4


def test_forget_that_matches_nothing_says_so(cli: Runner) -> None:
    status, out, _ = cli.run("forget", "--tag", "nowhere")
    assert (status, out) == (0, "nothing matches; nothing was forgotten\n")


def test_report_tells_what_is_known_from_what_is_mentioned(cli: Runner) -> None:
    cli.fill()
    cli.ask("remember", "Grace asked after Theo and the pond")
    found = cli.ask("report", "--about", "Theo")
    assert [item["text"] for item in found["items"]] == ["Theo dug up the tulips"]
    assert [item["text"] for item in found["mentions"]] == ["Grace asked after Theo and the pond"]
    assert found["derived"] == []
    out = cli.run("report", "--about", "Theo")[1]
    assert "known (1)" in out
    assert "mentions it in passing; erase leaves these (1)" in out


# --- profile ----------------------------------------------------------------------------


def test_a_fact_changes_and_its_past_stays(cli: Runner) -> None:
    assert (
        cli.ask("profile", "set", "address", "7 Quay", "--valid-from", "2019")["status"]
        == "inserted"
    )
    moved = cli.ask("profile", "set", "address", "12 Elm", "--valid-from", "2024-05-01")
    assert moved["status"] == "superseded"
    assert cli.run("profile", "get", "address") == (0, "12 Elm\n", "")
    assert cli.run("profile", "get", "address", "--as-of", "2023-01-01")[1] == "7 Quay\n"
    versions = cli.ask("profile", "versions", "address")["versions"]
    assert [version["data"] for version in versions] == ["7 Quay", "12 Elm"]
    table = cli.run("profile", "versions", "address")[1].splitlines()
    assert table[1].split("  ")[:3] == ["2019-01-01", "2024-05-01", "7 Quay"]


def test_facts_have_subjects_and_json_values(cli: Runner) -> None:
    cli.ask("profile", "set", "allergy", "--data", '["hazelnuts", "egg"]', "--subject", "Ana")
    cli.ask("profile", "set", "shoe_size", "--data", "39")
    assert cli.ask("profile", "get", "allergy", "--subject", "Ana") == {
        "subject": "Ana",
        "key": "allergy",
        "value": ["hazelnuts", "egg"],
    }
    assert cli.ask("profile", "items") == {"shoe_size": 39}
    assert cli.ask("profile", "items", "--all") == {
        "Ana.allergy": ["hazelnuts", "egg"],
        "user.shoe_size": 39,
    }
    assert cli.run("profile", "items")[1].split() == ["shoe_size", "39"]


def test_a_fact_that_is_not_known_is_an_error_that_names_it(cli: Runner) -> None:
    status, out, err = cli.run("profile", "get", "nickname")
    assert (status, out) == (1, "")
    assert err.startswith("memdb: user has no nickname\n  hint: ")


def test_a_deleted_fact_has_no_value_but_a_history(cli: Runner) -> None:
    cli.ask("profile", "set", "nickname", "Til", "--valid-from", "2020")
    assert cli.run("profile", "delete", "nickname")[0] == 0
    assert cli.run("profile", "get", "nickname")[0] == 1
    assert cli.run("profile", "get", "nickname", "--as-of", "2021")[1] == "Til\n"


# --- history and files ------------------------------------------------------------------


def test_history_is_printed_in_order_of_time(cli: Runner) -> None:
    for at, text in (("2024-05-02T07:35", "later"), ("2024-05-01T21:50", "earlier")):
        cli.ask("history", "append", "message", text, "--at", at, "--stream", "chat/family")
    cli.ask("history", "append", "heart_rate", "--data", '{"bpm": 61}', "--at", "2024-05-01")
    status, out, _ = cli.run("history", "range", "message", "2024-05", "2024-06")
    assert (status, out) == (
        0,
        "2024-05-01 21:50  [chat/family] earlier\n2024-05-02 07:35  [chat/family] later\n",
    )
    latest = cli.ask("history", "range", "message", "--reverse", "--limit", "1")["items"]
    assert [item["text"] for item in latest] == ["later"]
    (reading,) = cli.ask("history", "range", "heart_rate")["items"]
    assert reading["data"] == {"bpm": 61}
    assert cli.run("history", "range", "message", "2025")[1] == "nothing happened then\n"


def test_sync_follows_a_folder(cli: Runner, tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    notes.mkdir()
    (notes / "garden.md").write_text("# Garden\n\nThe tomatoes go behind the shed.\n")
    (notes / "draft.md").write_text("# Draft\n\nnothing yet\n")
    report = cli.ask("sync", str(notes), "--exclude", "draft*")
    assert report["added"] == ["garden.md"]
    assert "tomatoes" in cli.run("recall", "where do the tomatoes go?", "-k", "1")[1]
    (notes / "garden.md").write_text("# Garden\n\nThe tomatoes go along the wall.\n")
    out = cli.run("sync", str(notes), "--exclude", "draft*")[1]
    assert "updated garden.md" in out
    assert "along the wall" in cli.run("recall", "where do the tomatoes go?", "-k", "1")[1]


def test_context_stays_within_its_tokens(cli: Runner) -> None:
    cli.fill()
    pack = cli.ask("context", "dentist", "--tokens", "120")
    assert set(pack) == {"text", "items", "dropped", "tokens", "counter"}
    assert 0 < pack["tokens"] <= 120
    assert "entist" in cli.run("context", "dentist", "--tokens", "120")[1]
