"""The tour and the sample life: every question gets its answer first, before ten rivals."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from memdb import sample_life
from memdb.cli import main
from memdb.demo import MIN_RIVALS, QUESTIONS, Answer, run

STRAIGHT = len(QUESTIONS)
CHANGED = 3  # the fact after the change, and twice as it was before


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Answer]]:
    """What the tour answers, with no socket but to this machine."""
    real = socket.socket.connect

    def local_only(self: socket.socket, address: Any) -> None:
        if self.family != getattr(socket, "AF_UNIX", None) and address[0] not in LOOPBACK:
            raise AssertionError(f"the tour connects to {address}")
        real(self, address)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", local_only)
        yield run(tmp_path_factory.mktemp("demo"))


LOOPBACK = ("127.0.0.1", "::1", "localhost")


def test_every_question_is_answered_first_and_right(answers: list[Answer]) -> None:
    wrong = [(a.question, a.expected, a.rank, a.first) for a in answers if not a.correct]
    assert not wrong
    assert len(answers) >= STRAIGHT + CHANGED


def test_every_plain_question_has_at_least_ten_rivals(answers: list[Answer]) -> None:
    few = [(a.question, a.rivals) for a in answers[: STRAIGHT + CHANGED] if a.rivals < MIN_RIVALS]
    assert not few


def test_the_same_question_has_three_answers_in_time(answers: list[Answer]) -> None:
    now, before, long_before = answers[STRAIGHT : STRAIGHT + CHANGED]
    assert now.question == before.question == long_before.question
    assert ("cashews" in now.first, "hazelnuts" in before.first, "egg" in long_before.first) == (
        True,
        True,
        True,
    )


def test_the_command_prints_json_that_says_all_is_well(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["demo", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["correct"] is True
    keys = {"question", "expected", "first", "rank", "rivals", "elapsed_ms", "correct"}
    assert all(set(answer) == keys for answer in found["answers"])


def test_the_command_reads_well_without_a_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "72")
    assert main(["demo"]) == 0
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert max(map(len, out.splitlines())) <= 72
    assert "got the right answer first" in out
    assert "nobody waits" in out
    assert out.count("why: ") >= STRAIGHT
    assert re.search(r"\d+ memories in all", out)


def test_a_wrong_answer_makes_the_exit_status_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from memdb import demo

    impossible = demo.Question("Where is the moon kept?", "words that no memory has")
    monkeypatch.setattr(demo, "QUESTIONS", (impossible,))
    assert main(["demo"]) == 1
    assert "1 of " in capsys.readouterr().out


# --- the sample life --------------------------------------------------------------------


def texts(folder: Path) -> list[str]:
    sample_life.copy_notes(folder)
    sections = [
        part
        for note in sorted(folder.iterdir())
        for part in re.split(r"^#+ ", note.read_text(encoding="utf-8"), flags=re.MULTILINE)
    ]
    items = [*sample_life.messages(), *sample_life.calendar()]
    facts = [*sample_life.profile(), *sample_life.contacts()]
    return [*sections, *(item["text"] for item in items), *(str(fact["value"]) for fact in facts)]


def test_the_sample_life_has_some_hundreds_of_memories_over_two_years(tmp_path: Path) -> None:
    assert 300 <= len(texts(tmp_path)) <= 500
    dated = [*sample_life.messages(), *sample_life.calendar()]
    years = {str(item["event_time"])[:4] for item in dated}
    assert years == {"2023", "2024"}
    assert len(list(sample_life.heart_rate())) == 731


def test_messages_are_in_order_with_their_places_in_the_stream() -> None:
    streams: dict[str, list[dict[str, Any]]] = {}
    for message in sample_life.messages():
        streams.setdefault(message["stream"], []).append(message)
    for messages in streams.values():
        assert [message["position"] for message in messages] == list(range(len(messages)))
        times = [message["event_time"] for message in messages]
        assert times == sorted(times)


def test_appointments_end_after_they_begin() -> None:
    assert all(event["event_time"] < event["event_end"] for event in sample_life.calendar())


def test_facts_that_change_do_so_in_order() -> None:
    seen: dict[tuple[str, str], list[str]] = {}
    for fact in sample_life.profile():
        seen.setdefault((fact["subject"], fact["key"]), []).append(fact["valid_from"])
    assert all(times == sorted(set(times)) for times in seen.values())
    assert sum(len(times) > 1 for times in seen.values()) >= 6


@pytest.mark.parametrize("question", QUESTIONS, ids=lambda question: question.text)
def test_the_expected_words_are_in_one_memory_alone(question: Any, tmp_path: Path) -> None:
    assert sum(question.expected in " ".join(text.split()) for text in texts(tmp_path)) == 1
