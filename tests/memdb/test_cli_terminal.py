"""What reaches a terminal: widths, cuts, colours and nothing that it would obey."""

from __future__ import annotations

import io
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memdb.cli import terminal
from memdb.cli.output import Output, local, plain, size
from memdb.cli.spec import selected
from memdb.types import from_micros

any_text = st.text(st.characters(exclude_categories=()), max_size=80)
word_text = st.text("ab 漢é\u0301\n-", max_size=80)


class Screen(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


@given(any_text)
def test_printable_text_holds_no_control_character(text: str) -> None:
    shown = terminal.printable(text)
    assert all(unicodedata.category(char) not in ("Cc", "Cs") for char in shown)
    assert not set(shown) & set("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
    assert shown == terminal.printable(shown)


@given(any_text)
def test_printable_lines_keep_their_breaks_alone(text: str) -> None:
    shown = terminal.printable_lines(text)
    assert all(terminal.printable(line).strip() == line.strip() for line in shown.split("\n"))


@given(word_text, st.integers(1, 40))
def test_a_fitted_text_fits_and_is_whole_when_it_can_be(text: str, columns: int) -> None:
    fitted = terminal.fit(text, columns)
    assert terminal.cells(fitted) <= max(columns, 1)
    if terminal.cells(text) <= columns:
        assert fitted == text


@given(word_text, st.integers(2, 40))
def test_wrapped_lines_fit_and_lose_no_word(text: str, columns: int) -> None:
    lines = terminal.wrap(text, columns)
    assert all(terminal.cells(line) <= columns for line in lines)
    if all(terminal.cells(word) <= columns for word in text.split()):
        assert " ".join(lines).split() == text.split()


@given(word_text, st.integers(2, 40), st.integers(1, 4))
def test_a_limit_bounds_the_lines_and_marks_the_cut(text: str, columns: int, limit: int) -> None:
    lines = terminal.wrap(text, columns, limit=limit)
    whole = terminal.wrap(text, columns)
    assert len(lines) == min(limit, len(whole))
    assert all(terminal.cells(line) <= columns for line in lines)
    if len(whole) > limit:
        assert lines[-1].endswith("…")
    else:
        assert lines == whole


@given(st.lists(st.tuples(st.text("xy", max_size=9), word_text), max_size=5), st.integers(30, 90))
def test_a_table_fits_its_columns(rows: list[tuple[str, str]], columns: int) -> None:
    style = terminal.Style(io.StringIO())
    lines = terminal.table(("name", "text"), rows, style, columns=columns)
    assert len(lines) == len(rows) + 1
    assert all(terminal.cells(line) <= columns for line in lines)


@pytest.mark.parametrize(("text", "columns"), [("abc", 3), ("漢字", 4), ("e\u0301", 1), ("", 0)])
def test_cells_count_columns(text: str, columns: int) -> None:
    assert terminal.cells(text) == columns


def test_colour_needs_a_terminal_that_wants_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert terminal.Style(Screen())("x", "red", "bold") == "\x1b[31;1mx\x1b[0m"
    assert terminal.Style(io.StringIO())("x", "red") == "x"
    monkeypatch.setenv("NO_COLOR", "1")
    assert terminal.Style(Screen())("x", "red") == "x"
    monkeypatch.delenv("NO_COLOR")
    monkeypatch.setenv("TERM", "dumb")
    assert terminal.Style(Screen())("x", "red") == "x"


def test_work_of_more_than_a_second_shows_itself_and_goes_again() -> None:
    import time

    screen = Screen()
    with terminal.working("checking", screen):
        time.sleep(1.2)
    assert "checking … 1 s" in screen.getvalue()
    assert screen.getvalue().endswith(" \r")
    quiet, quick = io.StringIO(), Screen()
    with terminal.working("checking", quiet), terminal.working("checking", quick):
        pass
    assert (quiet.getvalue(), quick.getvalue()) == ("", "")


def test_an_error_in_shown_work_is_passed_on() -> None:
    with pytest.raises(ValueError, match="inside"), terminal.working("checking", Screen()):
        raise ValueError("inside")


@pytest.mark.parametrize(
    ("count", "shown"), [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (2_500_000, "2.5 MB")]
)
def test_sizes_are_in_powers_of_ten(count: int, shown: str) -> None:
    assert size(count) == shown


@pytest.mark.parametrize(
    ("zone", "shown"),
    [
        (None, "1970-01-01 00:00"),
        ("Asia/Tokyo", "1970-01-01 09:00"),
        ("+02:00", "1970-01-01 02:00"),
        ("Nowhere/Land", "1970-01-01 00:00"),
    ],
)
def test_times_are_shown_in_the_zone(zone: str | None, shown: str) -> None:
    assert f"{local(from_micros(0), zone):%Y-%m-%d %H:%M}" == shown


def test_json_is_indented_for_people_and_on_one_line_for_programs() -> None:
    for screen, lines in ((Screen(), 3), (io.StringIO(), 1)):
        Output(True, screen).json({"time": from_micros(0)})
        assert screen.getvalue().count("\n") == lines
        assert '"1970-01-01T00:00:00Z"' in screen.getvalue()


def test_plain_values_keep_what_json_can_say() -> None:
    value = {"a": (1, 2.5, None, True, "x"), 3: {"b"}}
    assert plain(value) == {"a": [1, 2.5, None, True, "x"], "3": ["b"]}


def test_selectors_that_say_nothing_select_nothing_in_particular() -> None:
    assert selected({"tag": None, "where": None, "kind": []}) is None
    assert selected({"where": {}}) == {}
    assert selected({"where": {}, "tag": ["x"]}) == {"$and": [{"tags": {"$all": ["x"]}}, {}]}
