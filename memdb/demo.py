"""``memdb demo``: a tour on a sample life whose every question is an assertion.

A temporary database is filled with the sample life, asked, changed and asked again; each question
names words that only the right memory has, and the tour fails when that memory does not come first.
It shows the public interface as a user would type it, and uses nothing else.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any

import memdb
from memdb import sample_life
from memdb.cli import terminal
from memdb.cli.output import Output, counted, size, why, words_of

__all__ = ["QUESTIONS", "Answer", "Question", "main", "run"]

MIN_RIVALS = 10
TODAY = "2025-01-20"  # when the fact changes; the sample life ends with 2024


@dataclass(frozen=True, slots=True)
class Question:
    """One question and the words by which the right memory, and no other, is known."""

    text: str
    expected: str
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of a question. ``rivals``: other memories that share a word with it."""

    question: str
    expected: str
    first: str
    rank: int | None
    rivals: int
    elapsed_ms: float

    @property
    def correct(self) -> bool:
        return self.rank == 1


# The home loan is called a mortgage in the notes: words alone do not find it, meaning does.
QUESTIONS = (
    Question("What can't Ana eat?", "cannot eat hazelnuts"),
    Question("When was Mum's hip operation?", "must not eat from midnight"),
    Question("Where did Jonas put our spare key?", "blue teapot"),
    Question("How do I get the boiler back to pressure when it drops?", "filling loop"),
    Question("Which climbing shoes did Sam recommend for wide feet?", "the Otter by Kelm"),
    Question("Where did Felix and Rui take us to eat grilled sardines?", "Casa da Amendoeira"),
    Question("How many eggs, how much flour for the children's pancakes?", "one mashed banana"),
    Question("What did the vet say about Biscuit's ear?", "yellow ointment"),
    Question("What did the survey of the house say about damp in the pantry?", "blocked gutter"),
    Question("Who else can we ask for willows, who grows and delivers them?", "basket makers"),
    Question("What does Theo need to sleep?", "the moon song"),
    Question("Until when is the interest rate of our home loan fixed?", "until May 2029"),
    Question("What is the password of the network for guests in the new house?", "elm-guests"),
)
CHANGING = "What can't Ana eat?"
TO_PLAN = "Bake a birthday cake for Ana: what must I know?"
BUDGET_TOKENS = 400


def main(*, as_json: bool = False, embedder: str | None = None) -> int:
    """Run the tour; 0 when every answer was right, else 1."""
    out = Output(as_json)
    with tempfile.TemporaryDirectory(prefix="memdb-demo-") as folder:
        answers = run(Path(folder), Output(False, _quiet()) if as_json else out, embedder)
    wrong = [answer for answer in answers if not answer.correct]
    if as_json:
        rows = [{**asdict(answer), "correct": answer.correct} for answer in answers]
        out.json({"correct": not wrong, "answers": rows})
    return 1 if wrong else 0


def _quiet() -> IO[str]:
    return open(os.devnull, "w", encoding="utf-8")


def run(folder: Path, out: Output | None = None, embedder: str | None = None) -> list[Answer]:
    """The whole tour in ``folder``; the answers in the order asked."""
    return Tour(folder, out or Output(False), embedder).run()


class Tour:
    """The steps of the demonstration over one database."""

    def __init__(self, folder: Path, out: Output, embedder: str | None) -> None:
        self._folder = folder
        self._embedder = embedder
        self._out = out
        self._answers: list[Answer] = []
        self._step = 0

    def run(self) -> list[Answer]:
        out = self._out
        out.line()
        out.line(out.style("memdb", "bold", "cyan") + " · the memory of a personal agent")
        out.note(f"Two years in the life of {sample_life.PERSON}, who is made up.")
        path = self._folder / "life"
        with memdb.open(path, source="app:demo", embedder=self._embedder) as db:
            self._ingest(db)
            self._ask_all(db)
            self._change(db)
            self._narrow(db)
            self._pack(db)
            self._cost(db)
        with memdb.open(path) as db:
            self._elsewhere(db)
        self._conclude()
        return self._answers

    # --- steps --------------------------------------------------------------------------

    def _ingest(self, db: memdb.Database) -> None:
        self._title("Remember", "notes, chats, a calendar, contacts, facts and a watch")
        db.settings.time_zone = self._out.zone = sample_life.TIME_ZONE
        notes = self._folder / "notes"
        sample_life.copy_notes(notes)
        self._timed("notes", "Markdown files", lambda: len(db.files.sync(notes).added))
        self._timed("messages", "of three chats", lambda: _write(db, sample_life.messages()))
        self._timed("appointments", "of a calendar", lambda: _write(db, sample_life.calendar()))
        self._timed("facts", "of people, some of which change", lambda: _set_facts(db))
        self._timed("samples", "of a pulse, a few bytes each", lambda: _append_pulse(db))
        self._out.note(f"   {db.count():,} memories in all, each with its source, and the samples")

    def _ask_all(self, db: memdb.Database) -> None:
        self._title("Recall", "by meaning and by words at once; every answer here is checked")
        for question in QUESTIONS:
            self._ask(db, question)

    def _change(self, db: memdb.Database) -> None:
        self._title("Facts change", "the old value is closed, not lost")
        value = "allergic to cashews; cannot eat cashews, hazelnuts are fine again"
        self._typed(f'db.profile.set("allergy", "{value}", subject="Ana", valid_from="{TODAY}")')
        db.profile.set("allergy", value, subject="Ana", valid_from=TODAY, source="app:doctor")
        self._ask(db, Question(CHANGING, "cannot eat cashews"))
        self._ask(db, Question(CHANGING, "cannot eat hazelnuts", {"as_of": "2024-12-24"}))
        self._ask(db, Question(CHANGING, "cannot eat egg", {"as_of": "2023-06-01"}))
        self._typed('db.profile.versions("address")')
        for fact in db.profile.versions("address"):
            until = self._out.day(fact.valid_to) or "now"
            self._out.line(f"     {self._out.day(fact.valid_from)} to {until:10}  {fact.data}")

    def _narrow(self, db: memdb.Database) -> None:
        self._title("Filters and time", "a filter never makes an answer come short")
        self._ask(
            db,
            Question(
                "dentist",
                "the crown came off",
                {"where": {"kind": "event", "event_time": {"$gte": "2024-07", "$lt": "2025"}}},
            ),
            rivals=False,
        )
        self._ask(
            db,
            Question(
                "Which test did the doctor do?",
                "skin prick",
                {"where": {"tags": {"$all": ["ana", "health"]}, "event_time": {"$lt": "2023-06"}}},
            ),
            rivals=False,
        )
        self._typed('db.history.range("heart_rate", "2024-02-04", "2024-02-15")')
        pulse = [m.data["bpm"] for m in db.history.range("heart_rate", "2024-02-04", "2024-02-15")]
        self._out.line(f"     {_sparkline(pulse)}  {min(pulse)} to {max(pulse)} a minute: the flu")

    def _pack(self, db: memdb.Database) -> None:
        self._title("Context", "what an agent should know, within a number of tokens")
        self._typed(f'db.context("{TO_PLAN}", tokens={BUDGET_TOKENS})')
        pack = db.context(TO_PLAN, tokens=BUDGET_TOKENS)
        for line in terminal.printable_lines(pack.text).splitlines():
            self._wrapped(line)
        self._out.note(
            f"     {pack.tokens} tokens; {counted(len(pack.dropped), 'weaker hit')} left out"
        )

    def _cost(self, db: memdb.Database) -> None:
        self._title("What it costs", "db.stats()")
        stats = db.stats()
        kinds = ", ".join(f"{number:,} {kind}" for kind, number in stats["kinds"].items())
        self._wrapped(f"{counted(stats['memories'], 'memory', 'memories')}: {kinds}")
        self._out.line(f"     {size(stats['bytes']['total'])} on disk, everything counted")

    def _elsewhere(self, db: memdb.Database) -> None:
        self._title("Another process", "opens the same directory; nobody waits for a lock")
        note = "The gate of the allotment now opens with 4711"
        self._typed(f'memdb --db {db.path.name} remember "{note}"')
        self._command(db.path, "remember", note)
        self._ask(
            db, Question("How does the allotment gate open?", "opens with 4711"), rivals=False
        )
        self._typed(f'memdb --db {db.path.name} recall "{CHANGING}" -k 1 --json')
        found = self._command(db.path, "recall", CHANGING, "-k", "1")
        first = str(found["hits"][0]["text"])
        self._wrapped(first)

    def _command(self, path: Path, *words: str) -> dict[str, Any]:
        """Run the command line in a process of its own; its JSON."""
        command = [sys.executable, "-m", "memdb", "--db", str(path), "--json", *words]
        result = subprocess.run(
            command, capture_output=True, text=True, check=False, encoding="utf-8"
        )
        if result.returncode:
            raise memdb.MemdbError(f"memdb {words[0]} failed: {result.stderr.strip()}")
        found: dict[str, Any] = json.loads(result.stdout)
        return found

    def _conclude(self) -> None:
        out, wrong = self._out, [answer for answer in self._answers if not answer.correct]
        out.line()
        times = sorted(answer.elapsed_ms for answer in self._answers)
        asked = counted(len(self._answers), "question")
        if wrong:
            out.line(out.style(f"{len(wrong)} of {asked} got a wrong answer:", "bold", "red"))
            out.lines(f"  {answer.question}  wanted: {answer.expected}" for answer in wrong)
        else:
            verdict = out.style(f"All {asked} got the right answer first", "bold", "green")
            out.line(f"{verdict}, each in {times[len(times) // 2]:.1f} ms (median).")
            out.note("Nothing left this machine, and no language model was asked.")
        out.line()

    # --- printing -----------------------------------------------------------------------

    def _ask(self, db: memdb.Database, question: Question, *, rivals: bool = True) -> None:
        """Ask, print the first answer with why it was found, and keep the outcome."""
        out = self._out
        began_s = time.perf_counter()
        hits = db.recall(question.text, k=MIN_RIVALS + 1, **question.options)
        elapsed_ms = (time.perf_counter() - began_s) * 1e3
        others = _rivals(db, question) if rivals else len(hits) - 1
        answer = Answer(
            question.text,
            question.expected,
            words_of(hits[0].memory) if hits else "",
            _rank(hits, question.expected),
            others,
            elapsed_ms,
        )
        self._answers.append(answer)
        out.line()
        out.line(f"  {out.style('?', 'cyan', 'bold')}  {out.style(question.text, 'bold')}")
        for name, value in question.options.items():
            self._wrapped(f"{name}={value!r}", "dim")
        if not hits:
            out.line("     " + out.style("nothing found", "red"))
            return
        mark = out.style("✓", "green", "bold") if answer.correct else out.style("✗", "red", "bold")
        text = terminal.printable(answer.first)
        first, *rest = terminal.wrap(text, out.columns - 5, limit=3)
        out.line(f"  {mark}  {first}")
        out.lines(f"     {line}" for line in rest)
        origin = [*out.origin(hits[0].memory), f"ahead of {counted(others, 'rival')}"]
        self._wrapped(" · ".join([*origin, f"{elapsed_ms:.1f} ms"]), "dim")
        self._wrapped(why(hits[0]), "cyan")

    def _title(self, title: str, remark: str) -> None:
        self._step += 1
        out = self._out
        out.line()
        head = out.style(f"{self._step}  {title}", "bold", "blue")
        room = out.columns - len(title) - 5
        out.line(f"{head}  {out.style(terminal.fit(remark, room), 'dim')}")

    def _wrapped(self, text: str, *styles: str) -> None:
        """Indented text, broken between words."""
        for part in terminal.wrap(text, self._out.columns - 5):
            self._out.line("     " + self._out.style(part, *styles))

    def _typed(self, code: str) -> None:
        """A line as a user would type it."""
        out = self._out
        out.line()
        out.lines(
            ("  " + out.style(">", "cyan", "bold") if not place else "   ") + "  " + part
            for place, part in enumerate(terminal.wrap(code, out.columns - 5))
        )

    def _timed(self, noun: str, remark: str, work: Callable[[], int]) -> None:
        began_s = time.perf_counter()
        count = work()
        took_ms = (time.perf_counter() - began_s) * 1e3
        self._out.line(f"   {count:5,} {noun:13} {remark:33} {took_ms:7.0f} ms")


def _write(db: memdb.Database, items: Iterable[dict[str, Any]]) -> int:
    return len(db.remember_many(list(items), progress=True))


def _set_facts(db: memdb.Database) -> int:
    facts = [*sample_life.profile(), *sample_life.contacts()]
    for fact in facts:
        db.profile.set(**fact)
    return len(facts)


def _append_pulse(db: memdb.Database) -> int:
    samples = sample_life.heart_rate()
    return db.history.append_many("heart_rate", samples, stream="watch", source="app:watch")


def _rank(hits: memdb.Hits, expected: str) -> int | None:
    """The place of the memory with the expected words, from 1; None when it is not there."""
    return next((rank for rank, hit in enumerate(hits, 1) if _says(hit, expected)), None)


def _says(hit: memdb.Hit, expected: str) -> bool:
    """Whether the memory has these words, however its lines are broken."""
    return expected in " ".join(words_of(hit.memory).split())


def _rivals(db: memdb.Database, question: Question) -> int:
    """How many other memories share a word with the question."""
    found = db.recall(question.text, k=1000, mode="lexical", **question.options)
    return sum(1 for hit in found if not _says(hit, question.expected))


def _sparkline(values: Sequence[int]) -> str:
    low, high = min(values), max(values)
    marks = "▁▂▃▄▅▆▇█"
    return "".join(
        marks[(value - low) * (len(marks) - 1) // max(1, high - low)] for value in values
    )
