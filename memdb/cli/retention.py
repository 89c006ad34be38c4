"""Commands that forget on purpose: retention plan, apply, undo, status."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from memdb.cli.calls import Call, read_stdin, with_database
from memdb.cli.output import counted
from memdb.cli.spec import Command, Option
from memdb.cli.terminal import working

if TYPE_CHECKING:
    from memdb import Database

_SHOWN = 20


@with_database
def plan(call: Call, db: Database) -> None:
    """Print what would be forgotten, and why."""
    with working("weighing memories"):
        found = db.retention.plan(**call.arguments())
    _show(call, found)


@with_database
def apply(call: Call, db: Database) -> int:
    """Do what a plan says."""
    if call.args.plan is not None:
        made: Any = _saved(call.args.plan)
    else:
        made = db.retention.plan(**_planning(call))
        if not call.args.yes and not made.is_empty:
            if not call.out.as_json:
                _show(call, made)
            if not _confirmed("apply this plan?"):
                call.out.note("nothing was done")
                return 1
    with working("forgetting"):
        done = db.retention.apply(made, **call.arguments("plan"))
    if call.out.as_json:
        call.out.json(done)
        return 0
    call.out.fields(done.to_dict().items())
    if done.batch is not None:
        call.out.note(f"for seven days: memdb retention undo {done.batch}")
    return 0


@with_database
def undo(call: Call, db: Database) -> None:
    """Bring back what applying a plan put into the trash."""
    ids = db.retention.undo(call.args.batch)
    if call.out.as_json:
        call.out.json({"ids": ids})
    else:
        call.out.line(f"restored {counted(len(ids), 'memory', 'memories')}")


@with_database
def status(call: Call, db: Database) -> None:
    """Print the budget, the policies and what was done last."""
    found = db.retention.status()
    if call.out.as_json:
        call.out.json(found)
    else:
        call.out.fields(found.items())


def _saved(path: str) -> Any:
    from memdb import InvalidArgument

    try:
        return json.loads(read_stdin() if path == "-" else Path(path).read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise InvalidArgument(f"the plan cannot be read: {error}", field="plan") from error


def _planning(call: Call) -> dict[str, Any]:
    given = {name: getattr(call.args, name) for name in ("policy", "disk_budget", "now")}
    return {name: value for name, value in given.items() if value is not None}


def _confirmed(question: str) -> bool:
    from memdb import InvalidArgument

    if not sys.stdin.isatty():
        raise InvalidArgument("nobody can be asked", field="yes", hint="say --yes")
    sys.stderr.write(f"{question} [y/N] ")
    sys.stderr.flush()
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _show(call: Call, found: Any) -> None:
    if call.out.as_json:
        call.out.json(found)
        return
    going = [item for item in found.items if item.action != "keep"]
    rows = [_row(item) for item in going[:_SHOWN]]
    if rows:
        call.out.table(("id", "action", "rule", "level", "V", "w", "R", "bytes"), rows)
    if len(going) > _SHOWN:
        call.out.note(f"and {counted(len(going) - _SHOWN, 'memory', 'memories')} more")
    for step in found.steps:
        what = f"{step.what} {step.space or ''} {step.profile or ''}".strip()
        call.out.line(f"step: {what}, about {step.bytes:,} bytes")
    for namespace, subject, key in found.profile_keys:
        call.out.line(f"fact: {namespace} {subject} {key}")
    if found.is_empty:
        call.out.note("nothing to forget")
    call.out.fields(
        (name, getattr(found, name))
        for name in ("totals", "disk_budget", "bytes_before", "bytes_after")
    )


def _row(item: Any) -> tuple[str, ...]:
    level = f"{item.level_from}>{item.level_to}"
    worth = (f"{figure:.3f}" for figure in (item.value, item.weight, item.kept))
    return (item.id, item.action, item.rule, level, *worth, f"{item.bytes:,}")


POLICY = Option("policy", "a file of policies (default: those that are set)", metavar="FILE")
BUDGET = Option("disk_budget", "bytes the directory may take, such as 200MB (default: the setting)")
AT = Option("now", "plan for this moment instead of the present", kind="time")

COMMANDS = (
    Command(
        "retention plan",
        "print what would be forgotten, and why; nothing is changed",
        plan,
        "retention.plan",
        (POLICY, BUDGET, AT),
        ("retention plan --disk-budget 200MB", "retention plan --policy gentle.toml --json"),
        opens="change",
    ),
    Command(
        "retention apply",
        "do what a plan says: one that was saved, or one made now",
        apply,
        "retention.apply",
        (
            Option("plan", "what `retention plan --json` printed; - is standard input",
                   place="maybe"),
            *(replace(option, own=True) for option in (POLICY, BUDGET, AT)),
            Option("changed", "what to do where memories changed since (default: error)",
                   choices=("error", "skip")),
            Option("yes", "do not ask", kind="flag", own=True),
        ),
        ("retention apply --disk-budget 200MB --yes", "retention apply plan.json --changed skip"),
        opens="change",
        details=" It asks before it forgets what it planned itself; --yes when not a terminal.",
    ),
    Command(
        "retention undo",
        "bring back what a plan put into the trash, for seven days",
        undo,
        "retention.undo",
        (Option("batch", "the batch that apply printed", place="one"),),
        ("retention undo 01J9ZK6T4Q8E4M5W7Y2B3C6D8F",),
        opens="change",
    ),
    Command(
        "retention status",
        "print the budget, the policies and what was done last",
        status,
        "retention.status",
        examples=("retention status", "retention status --json"),
        opens="read",
    ),
)  # fmt: skip
