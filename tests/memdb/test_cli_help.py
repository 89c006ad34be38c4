"""The table of commands: help, examples and completion are made from it and agree with Python."""

from __future__ import annotations

import inspect
import os
import re
import shlex
import shutil
import subprocess
from operator import attrgetter
from pathlib import Path

import pytest

import memdb
from memdb.cli import completion, main
from memdb.cli.commands import COMMANDS
from memdb.cli.parser import build
from memdb.cli.spec import COMMON, Command, Option

BY_NAME = {command.name: command for command in COMMANDS}
names = pytest.mark.parametrize("name", BY_NAME)

# The commands that the page of the public interface promises.
PROMISED = {
    *("demo", "remember", "recall", "context", "list", "get", "forget", "restore", "report"),
    *("erase", "receipts", "scan-erased", "serve", "ui", "mcp", "mcp install"),
    *("config", "stats", "check", "compact", "snapshot", "export", "import", "sync", "completion"),
    "reembed",
    *("profile set", "profile get", "profile versions", "profile items", "profile delete"),
    *(
        "history append",
        "history range",
        "spaces list",
        "spaces create",
        "spaces convert",
        "spaces drop",
        "retention plan",
        "retention apply",
        "retention undo",
        "retention status",
    ),
    *("token create", "token list", "token revoke", "token pause", "token resume", "audit"),
}


@pytest.fixture(scope="module")
def db(tmp_path_factory: pytest.TempPathFactory) -> memdb.Database:
    return memdb.open(tmp_path_factory.mktemp("cli") / "db", embedder="none")


def test_every_promised_command_is_there() -> None:
    assert set(BY_NAME) == PROMISED


@names
def test_every_option_is_a_parameter_of_the_python_call(name: str, db: memdb.Database) -> None:
    command = BY_NAME[name]
    own = {option.parameter for option in command.options if option.own}
    filling = {option.parameter for option in command.options if not option.own}
    if command.call is None:
        assert not filling
        return
    parameters = inspect.signature(attrgetter(command.call)(db)).parameters
    open_ended = {name for name, one in parameters.items() if one.kind is one.VAR_KEYWORD}
    known = set(parameters)
    if open_ended:
        known |= set(inspect.signature(db.remember).parameters)
    assert filling <= known
    assert not own & filling


@names
def test_every_parameter_of_the_python_call_is_an_option(name: str, db: memdb.Database) -> None:
    command = BY_NAME[name]
    if command.call is None:
        return
    # Of every command, or without a meaning on a command line.
    elsewhere = {"namespace", "progress", "default", "fields", "counter"}
    parameters = set(inspect.signature(attrgetter(command.call)(db)).parameters) - elsewhere
    missing = parameters - {option.parameter for option in command.options}
    assert missing <= {"key"} if name == "remember" else not missing


def test_the_common_options_are_parameters_of_open() -> None:
    parameters = inspect.signature(memdb.open).parameters
    assert {option.parameter for option in COMMON if not option.own} <= set(parameters)


@pytest.mark.parametrize(
    "option", {id(o): o for c in COMMANDS for o in c.options}.values(), ids=str
)
def test_an_options_name_is_its_parameters_name(option: Option) -> None:
    if option.place == "option":
        derived = option.parameter.rstrip("_").replace("_", "-")
        assert {f"--{derived}", f"-{derived}"} & set(option.flags)
    assert option.help
    assert not option.help.endswith(".")


@names
def test_help_has_a_summary_options_and_examples_that_parse(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    command = BY_NAME[name]
    assert main([*command.words, "--help"]) == 0
    text = capsys.readouterr().out
    assert f"usage: memdb {name}" in text
    assert re.sub(r"\s+", " ", command.summary[1:]) in re.sub(r"\s+", " ", text)
    assert all(flag in text for option in command.options for flag in option.flags)
    assert "examples:\n" in text
    for example in command.examples:
        assert example in text
        before_pipe = re.split(r" [|<>]{1,2} ", example)[0]
        args = build(COMMANDS, "0").parse_args(shlex.split(before_pipe))
        assert args.command is command


def test_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    assert all(re.search(rf"^    {command.words[0]}\b", text, re.MULTILINE) for command in COMMANDS)


@pytest.mark.parametrize("columns", ["60", "80", "200"])
def test_help_fits_the_terminal(
    columns: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    assert main(["stats", "--help"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= int(columns)


def test_the_version_is_the_packages(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"memdb {memdb.__version__}\n"


# --- completion -------------------------------------------------------------------------


@pytest.mark.parametrize("shell", completion.SHELLS)
def test_completion_names_every_command_and_option(
    shell: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["completion", shell]) == 0
    script = capsys.readouterr().out
    for command in COMMANDS:
        assert all(re.search(rf"(?<![\w-]){word}(?![\w-])", script) for word in command.words)
        for option in command.options:
            assert all(flag.lstrip("-") in script for flag in option.flags)


@pytest.mark.parametrize("shell", completion.SHELLS)
def test_the_shell_accepts_its_script(shell: str, tmp_path: Path) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    script = tmp_path / "script"
    script.write_text(completion.script(shell, COMMANDS), encoding="utf-8")
    result = subprocess.run([shell, "-n", str(script)], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr) == (0, "")


@pytest.mark.skipif(os.name != "posix" or not shutil.which("bash"), reason="needs bash")
@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (["re"], {"remember", "recall", "receipts", "reembed", "restore", "report", "retention"}),
        (["--db", "x", "pro"], {"profile"}),
        (["profile", ""], {"set", "get", "versions", "items", "delete"}),
        (["profile", "set", "--v"], {"--valid-from", "--valid-to"}),
        (["recall", "x", "--mode", ""], {"hybrid", "vector", "lexical"}),
        (["list", "--no"], {"--no-descending"}),
        (["mcp", "i"], {"install"}),
        (["mcp", "--s"], {"--surface"}),
        (["mcp", "install", "--p"], {"--print"}),
    ],
)
def test_bash_offers_what_may_come_next(
    words: list[str], offered: set[str], tmp_path: Path
) -> None:
    script = tmp_path / "script"
    script.write_text(completion.script("bash", COMMANDS), encoding="utf-8")
    typed = " ".join(shlex.quote(word) for word in ["memdb", *words])
    program = f"""source {shlex.quote(str(script))}
COMP_WORDS=({typed}); COMP_CWORD={len(words)}; _memdb; printf '%s\\n' "${{COMPREPLY[@]}}" """
    result = subprocess.run(["bash", "-c", program], capture_output=True, text=True, check=True)
    assert set(result.stdout.split()) - {"--namespace"} == offered


def test_commands_are_described_once() -> None:
    def texts(command: Command) -> tuple[str, ...]:
        return tuple(option.parameter for option in command.options)

    assert len(BY_NAME) == len(COMMANDS)
    assert all(len(set(texts(command))) == len(texts(command)) for command in COMMANDS)
