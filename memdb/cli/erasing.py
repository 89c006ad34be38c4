"""Commands of the right to be forgotten: report, erase, receipts, scan-erased."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from memdb.cli.calls import Call, with_database
from memdb.cli.output import counted
from memdb.cli.spec import SELECTOR_TO_ACT_ON, Command, Option
from memdb.cli.terminal import working

if TYPE_CHECKING:
    from memdb import Database, Receipt

_PATIENCE_S = 60.0


@with_database
def report(call: Call, db: Database) -> None:
    """Print everything known under a selector, and what erasing it would reach."""
    found = db.report(**call.arguments())
    if call.out.as_json:
        call.out.json(found)
        return
    for title, memories in (
        ("known", found.items),
        ("in the trash, or expired", found.hidden),
        ("derived from that", found.derived),
        ("mentions it in passing; erase leaves these", found.mentions),
    ):
        if memories:
            call.out.line(call.out.style(f"{title} ({len(memories)})", "bold", "blue"))
            call.out.memories(memories)
            call.out.line()
    if not (found.items or found.hidden or found.derived or found.mentions):
        call.out.note("nothing is known")
        return
    call.out.line(f"erase would reach {_amounts(found.counts)}")
    for path in found.snapshots:
        call.out.line(f"and the snapshot {path}")


def _amounts(counts: Mapping[str, int]) -> str:
    """ "3 memories, 1 derived, 4 postings": what there is any of."""
    return ", ".join(f"{number} {name}" for name, number in counts.items() if number) or "nothing"


@with_database
def erase(call: Call, db: Database) -> int:
    """Remove memories for good, and wait until no byte of them is left."""
    from memdb import LockHeld

    fields = call.arguments()
    confirmed = fields.pop("confirm_count", None)
    if not call.args.yes:
        agreed = _agreed(db, fields)
        if agreed is None:
            call.out.note("nothing was erased")
            return 1
        confirmed = agreed if confirmed is None else confirmed
    receipt = db.erase(**fields, confirm_count=confirmed)
    with working("erasing"):
        try:
            receipt.wait(_PATIENCE_S if call.args.timeout is None else call.args.timeout)
        except LockHeld as error:
            if call.out.as_json:
                call.out.json(receipt)
            print(f"memdb: hidden, but not gone yet: {error}", file=sys.stderr)
            return 1
    _print(call, receipt)
    return 0


def _agreed(db: Database, selector: dict[str, Any]) -> int | None:
    """How many memories a person at a terminal says yes to; None for no."""
    from memdb import InvalidArgument

    if not sys.stdin.isatty():
        raise InvalidArgument(
            "erasing cannot be undone", field="yes", hint="add --yes to do it without being asked"
        )
    found = db.report(**selector)
    print(f"This removes {_amounts(found.counts)} for good.", file=sys.stderr)
    print("Type yes to erase: ", end="", file=sys.stderr, flush=True)
    return found.total if sys.stdin.readline().strip().lower() == "yes" else None


def _print(call: Call, receipt: Receipt) -> None:
    if call.out.as_json:
        call.out.json(receipt)
        return
    call.out.line(f"erased {_amounts(receipt.counts)}")
    call.out.fields([("receipt", receipt.id), ("hash", receipt.hash)])
    for text in receipt.out_of_reach:
        call.out.note(f"out of reach: {text}")


@with_database
def receipts(call: Call, db: Database) -> None:
    """List the receipts of what was erased."""
    found = db.receipts()
    if call.out.as_json:
        call.out.json({"receipts": found})
        return
    if not found:
        call.out.note("nothing was erased")
        return
    rows = [
        (one.id, call.out.day(one.erased_at), one.state, counted(one.counts["memories"], "memory",
                                                                 "memories"), one.hash[:16])
        for one in found
    ]  # fmt: skip
    call.out.table(("receipt", "erased", "state", "reached", "hash"), rows)


@with_database
def scan(call: Call, db: Database) -> int:
    """Look for what was erased in every byte of the database; exit status 1 if any is left."""
    from memdb import NotFound, scan_erased

    found = {one.id: one for one in db.receipts()}
    receipt = found.get(call.args.receipt)
    if receipt is None:
        raise NotFound("no receipt has that id", hint="memdb receipts lists them")
    with working("scanning"):
        report = scan_erased(db.path, Path(call.args.canaries), fragments=call.args.fragments)
    if call.out.as_json:
        call.out.json({"receipt": receipt, "clean": report.clean, "scan": report})
        return 0 if report.clean else 1
    call.out.fields(
        [
            ("receipt", f"{receipt.id} ({receipt.state})"),
            ("canaries", report.canaries),
            ("files", report.files),
            ("bytes", report.bytes),
            ("frames opened", report.frames),
        ]
    )
    if report.clean:
        call.out.line(call.out.style("nothing of them is left", "green"))
        return 0
    call.out.line(call.out.style("residue", "red"))
    rows = [(str(one.canary + 1), one.form, one.file) for one in report.found]
    call.out.table(("canary", "as", "in"), rows)
    return 1


COMMANDS = (
    Command(
        "report",
        "print everything known about someone or something, and what erasing would reach",
        report,
        "report",
        SELECTOR_TO_ACT_ON,
        ("report --about Ana", "report --source 'app:*' --since 2024 --json"),
        opens="read",
    ),
    Command(
        "erase",
        "remove memories for good, down to the last byte; it cannot be undone",
        erase,
        "erase",
        (
            *SELECTOR_TO_ACT_ON,
            Option("yes", "do not ask; needed where no person can answer", kind="flag", own=True),
            Option("confirm_count", "erase only if it reaches just so many, the total of a report",
                   kind="integer"),
            Option("timeout", "seconds to wait for the last byte (default: 60)", kind="number",
                   own=True),
        ),
        ("erase --about Ana", "erase --id 01HZY3J8Q6W2V0M5T4R7N9K1BX --yes"),
        opens="change",
        details=" What was derived goes too; what only mentions a name stays (see report).",
    ),
    Command(
        "receipts",
        "list what was erased: when, how much, and the chain of proofs",
        receipts,
        "receipts",
        examples=("receipts", "receipts --json"),
        opens="read",
    ),
    Command(
        "scan-erased",
        "look for what was erased in every byte of the database and its snapshots",
        scan,
        None,
        (
            Option("receipt", "id of the receipt", place="one", own=True),
            Option("canaries", "file of what to look for: a line each, a string or JSON with text,"
                   " vector, id, external_id", own=True, metavar="FILE"),
            Option("fragments", "any 12 bytes of a string count; for strings that are unique",
                   kind="flag", own=True),
        ),
        ("scan-erased 01HZY3J8Q6W2V0M5T4R7N9K1BX --canaries secrets.txt",),
        opens="read",
        details=" The exit status is 1 when something is left.",
    ),
)  # fmt: skip
