"""Every command of the command line, in the order of help."""

from __future__ import annotations

from memdb.cli import (
    completion,
    erasing,
    faces,
    mcp,
    memories,
    retention,
    serving,
    tokens,
    ui,
    upkeep,
)
from memdb.cli.calls import Call
from memdb.cli.spec import Command, Option


def demo(call: Call) -> int:
    """The tour: a sample life in a temporary directory."""
    from memdb.demo import main

    return main(as_json=call.out.as_json, embedder=getattr(call.args, "embedder", None))


def complete(call: Call) -> None:
    """Print a completion script."""
    call.out.stream.write(completion.script(call.args.shell, COMMANDS))


DEMO = Command(
    "demo",
    "the tour: a sample life is read, asked about, changed and asked again",
    demo,
    None,
    examples=("demo", "demo --embedder st:all-MiniLM-L6-v2"),
    opens="nothing",
    details=" It runs in a temporary directory and touches nothing else.",
)
COMPLETION = Command(
    "completion",
    "print a completion script for your shell",
    complete,
    None,
    (Option("shell", "which shell", place="one", choices=completion.SHELLS, own=True),),
    (
        "completion bash >> ~/.bashrc",
        "completion zsh > ~/.zfunc/_memdb",
        "completion fish > ~/.config/fish/completions/memdb.fish",
    ),
    opens="nothing",
)

COMMANDS: tuple[Command, ...] = (
    DEMO,
    *memories.COMMANDS,
    *erasing.COMMANDS,
    *faces.COMMANDS,
    *retention.COMMANDS,
    *tokens.COMMANDS,
    *upkeep.COMMANDS,
    *serving.COMMANDS,
    *ui.COMMANDS,
    *mcp.COMMANDS,
    COMPLETION,
)
