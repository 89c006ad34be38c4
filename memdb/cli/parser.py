"""From the table of commands to an argparse parser with help and examples."""

from __future__ import annotations

import argparse
import difflib
import json
import re
import textwrap
from collections.abc import Iterable, Sequence
from typing import Any

from memdb.cli.spec import COMMON, GROUPS, Command, Option

_COMMAND_DESTS = ("verb", "subverb")
_EXAMPLES = "examples:\n"
EPILOG = """\
The database is --db PATH, else $MEMDB_PATH, else ~/.memdb. Times are written 2024, 2024-05,
2024-05-17 or 2024-05-17T09:30; without an offset they are in the database's zone. Text of "-" is
read from standard input. `memdb COMMAND --help` explains a command and shows examples.
"""


class Formatter(argparse.RawDescriptionHelpFormatter):
    """Help as wide as the terminal allows; only examples keep the lines they are written in."""

    def __init__(self, prog: str, **options: Any) -> None:
        super().__init__(prog, max_help_position=28, **options)

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        if text.startswith(_EXAMPLES):
            return text
        paragraphs = text.split("\n\n")
        return "\n\n".join(textwrap.fill(part, width, initial_indent=indent) for part in paragraphs)


_WRONG_CHOICE = re.compile(
    r"argument (?P<name>.*?): invalid choice: '(?P<given>.*?)' \(choose from"
)


class HelpParser(argparse.ArgumentParser):
    """Wrong usage: one line with the remedy, exit status 2."""

    def error(self, message: str) -> Any:
        hint = f"see `{self.prog} --help`"
        wrong = _WRONG_CHOICE.match(message)
        if wrong and wrong["name"] == "COMMAND":
            message = f"there is no command {wrong['given']!r}"
            near = difflib.get_close_matches(wrong["given"], self.words(), 1, 0.5)
            hint = f"did you mean `{self.prog} {near[0]}`?" if near else hint
        self.exit(2, f"memdb: {message}\n  hint: {hint}\n")

    def words(self) -> list[str]:
        """The commands that may come next."""
        choices = (action.choices for action in self._actions if action.dest in _COMMAND_DESTS)
        return [word for words in choices for word in words or ()]


def json_value(text: str) -> Any:
    """What an option of kind json holds."""
    try:
        return json.loads(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"not JSON ({error})") from error


def integer(text: str) -> int:
    """A whole number; digits may be grouped with underscores."""
    try:
        return int(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError("not a whole number") from error


def number(text: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError("not a number") from error


_TYPES = {"integer": integer, "number": number, "json": json_value}


def build(commands: Sequence[Command], version: str) -> argparse.ArgumentParser:
    """The parser of everything; the chosen ``Command`` is left in ``.command``."""
    parser = HelpParser(
        prog="memdb",
        description="Remember, recall and forget: the memory of a personal agent, on one device.",
        epilog=EPILOG,
        formatter_class=Formatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"memdb {version}")
    add_options(parser, COMMON, common=True)
    verbs = parser.add_subparsers(
        metavar="COMMAND", title="commands", required=True, dest=_COMMAND_DESTS[0]
    )
    groups: dict[str, Any] = {}
    for command in commands:
        target = verbs
        if len(command.words) == 2:
            target = groups.get(command.words[0]) or _group(verbs, command.words[0], groups)
        child = target.add_parser(
            command.words[-1],
            help=command.summary,
            description=_sentence(command.summary) + command.details,
            epilog=examples(command),
            formatter_class=Formatter,
            allow_abbrev=False,
        )
        add_options(child, command.options)
        add_options(child, COMMON, common=True)
        child.set_defaults(command=command)
        if any(other.words[:-1] == command.words for other in commands):
            groups[command.name] = child.add_subparsers(
                metavar="COMMAND", title="commands", dest=_COMMAND_DESTS[1]
            )
    return parser


def _group(verbs: Any, name: str, groups: dict[str, Any]) -> Any:
    group = verbs.add_parser(
        name, help=GROUPS[name], description=_sentence(GROUPS[name]), formatter_class=Formatter
    )
    groups[name] = group.add_subparsers(
        metavar="COMMAND", title="commands", required=True, dest=_COMMAND_DESTS[1]
    )
    return groups[name]


def _sentence(summary: str) -> str:
    return summary[:1].upper() + summary[1:] + "."


def examples(command: Command) -> str:
    return _EXAMPLES + "\n".join(f"  memdb {line}" for line in command.examples)


def add_options(
    parser: argparse.ArgumentParser, options: Iterable[Option], *, common: bool = False
) -> None:
    """Add options; the common ones may stand before or after the command."""
    target: Any = parser.add_argument_group("database and output") if common else parser
    for option in options:
        target.add_argument(*_names(option), **_arguments(option, common))


def _names(option: Option) -> tuple[str, ...]:
    return option.flags or (option.parameter,)


def _arguments(option: Option, common: bool) -> dict[str, Any]:
    found: dict[str, Any] = {"help": option.help}
    if option.place == "option":
        found["dest"] = option.parameter
        # A default here would undo what was given before the command.
        found["default"] = argparse.SUPPRESS if common else option.default
    elif option.place != "one":
        found["nargs"] = "?" if option.place == "maybe" else "*"
        found["default"] = option.default
    if option.kind == "flag":
        found["action"] = "store_true"
        if not common:
            found["default"] = False
        return found
    if option.kind == "switch":
        found["action"] = argparse.BooleanOptionalAction
        return found
    found["metavar"] = option.shown
    if option.choices:
        found["choices"] = option.choices
        found.pop("metavar") if option.place == "option" else None
    if option.kind == "list":
        found["action"] = "append"
    if option.kind in _TYPES:
        found["type"] = _TYPES[option.kind]
    return found
