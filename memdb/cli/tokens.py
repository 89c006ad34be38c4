"""Commands of who may know what: token create, list, revoke, pause, resume; audit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from memdb.cli.calls import Call, read_stdin, with_database
from memdb.cli.output import counted, local
from memdb.cli.spec import Command, Option

if TYPE_CHECKING:
    from datetime import datetime

    from memdb import AuditRow, Database, Grant, TokenInfo

_IDS_SHOWN = 3


@with_database
def create(call: Call, db: Database) -> None:
    """Make a token and print its secret, once."""
    fields = call.arguments("grant")
    made = db.tokens.create(**fields, grant=_grant(call))
    if call.out.as_json:
        call.out.json({"name": made.name, "id": made.id, "secret": made.secret})
        return
    call.out.line(made.secret)
    call.out.note("this is shown once: keep it where only that program can read it")


def _grant(call: Call) -> Grant | None:
    """The grant that the options say; None where they say nothing."""
    from memdb import Grant, InvalidArgument

    args = call.args
    fields: dict[str, Any] = {}
    if args.grant is not None:
        try:
            text = read_stdin() if args.grant == "-" else Path(args.grant).read_text("utf-8")
            fields = dict(json.loads(text))
        except (OSError, ValueError, TypeError) as error:
            raise InvalidArgument("the grant is not a file of JSON", field="grant") from error
    if args.can is not None:
        fields["actions"] = [one.strip() for one in args.can.split(",") if one.strip()]
    given = {"namespace": getattr(args, "namespace", None), "sensitivity": args.sensitivity}
    fields.update({name: value for name, value in given.items() if value is not None})
    return Grant.from_dict(fields) if fields else None


@with_database
def listing(call: Call, db: Database) -> None:
    """Print every token and what it may do."""
    found = db.tokens.list()
    if call.out.as_json:
        call.out.json([_as_fields(one) for one in found])
    elif found:
        rows = [_token_row(call, one) for one in found]
        call.out.table(("name", "id", "may", "namespace", "made", "last used", "state"), rows)
    else:
        call.out.note("no tokens; `memdb token create NAME` makes one")


def _as_fields(token: TokenInfo) -> dict[str, Any]:
    names = "name id owner created_at expires_at paused revoked_at last_used".split()
    return {**{name: getattr(token, name) for name in names}, "grant": token.grant.to_dict()}


def _token_row(call: Call, token: TokenInfo) -> tuple[str, ...]:
    may = "everything" if token.owner else ", ".join(token.grant.actions) or "nothing"
    where = "" if token.owner else token.grant.namespace or token.name
    ends = token.expires_at
    state = "revoked" if token.revoked_at else "paused" if token.paused else ""
    state = state or (f"until {_when(call, ends)}" if ends else "valid")
    times = (_when(call, token.created_at), _when(call, token.last_used))
    return (token.name, token.id, may, where, *times, state)


def _when(call: Call, moment: datetime | None) -> str:
    if moment is None:
        return "never"
    return local(moment, call.out.zone).strftime("%Y-%m-%d %H:%M")


def _changed(call: Call, token: TokenInfo, what: str) -> None:
    if call.out.as_json:
        call.out.json(_as_fields(token))
    else:
        call.out.line(f"{token.name} ({token.id}) is {what}")


@with_database
def revoke(call: Call, db: Database) -> None:
    """End a token for good."""
    _changed(call, db.tokens.revoke(call.args.name), "revoked")


@with_database
def pause(call: Call, db: Database) -> None:
    """Refuse a token until it is resumed."""
    _changed(call, db.tokens.pause(call.args.name), "paused")


@with_database
def resume(call: Call, db: Database) -> None:
    """Accept a paused token again."""
    _changed(call, db.tokens.resume(call.args.name), "valid again")


@with_database
def audit(call: Call, db: Database) -> int:
    """Print what was done by whom, or verify that nobody changed what is written about it."""
    if call.args.what == "verify":
        return _verify(call, db)
    page = db.audit.rows(**call.arguments())
    if call.out.as_json:
        call.out.json({"items": page.to_dicts(), "next_cursor": page.next_cursor})
        return 0
    if not page.items:
        call.out.note("nothing was done by anybody who is told of in the audit")
        return 0
    headers = ("when", "who", "action", "by", "purpose", "what", "outcome")
    call.out.table(headers, [_audit_row(call, row) for row in page.items])
    if page.next_cursor is not None:
        call.out.note(f"more: --cursor {page.next_cursor}")
    return 0


def _audit_row(call: Call, row: AuditRow) -> tuple[str, ...]:
    shown = ", ".join(row.ids[:_IDS_SHOWN])
    more = f" and {len(row.ids) - _IDS_SHOWN} more" if len(row.ids) > _IDS_SHOWN else ""
    what = f"{shown}{more}" if row.ids else f"{row.count:,}"
    what = "erased" if row.blanked else " ".join(filter(None, (what, row.where, row.query)))
    by = f"{row.tool} over {row.transport}"
    return (
        local(row.at, call.out.zone).strftime("%Y-%m-%d %H:%M:%S"),
        row.principal,
        row.action,
        by,
        row.purpose or "",
        what,
        row.outcome,
    )


def _verify(call: Call, db: Database) -> int:
    found = db.audit.verify()
    if call.out.as_json:
        names = ("ok", "rows", "first_bad", "lost_tail", "blanked")
        call.out.json({name: getattr(found, name) for name in names})
        return 0 if found.ok else 1
    call.out.line(f"{counted(found.rows, 'row')} follow from each other, {found.blanked:,} blanked")
    if found.lost_tail:
        call.out.line(f"{counted(found.lost_tail, 'last row')} cut off by a crash")
    if found.first_bad is not None:
        call.out.line(f"the first that is not right: {found.first_bad}")
    return 0 if found.ok else 1


_NAME = Option("name", "the token's name", place="one")

COMMANDS = (
    Command(
        "token create",
        "make a token for a program and print its secret, once",
        create,
        "tokens.create",
        (
            Option("name", "whose it is: its namespace and its source are named so", place="one"),
            Option("can", "what it may do (default: read,add)", own=True, metavar="ACTIONS"),
            Option("sensitivity", "the highest label it may see and give (default: none)",
                   own=True, choices=("public", "personal", "private", "secret")),
            Option("grant", "a grant as JSON, for all else; - is standard input", metavar="FILE"),
            Option("expires_in", "when it ends, such as 90d", names=("--expires",)),
            Option("owner", "it may do everything", kind="flag"),
        ),
        (
            "token create planner",
            "token create chef --can read,add,feedback --namespace home/kitchen --expires 90d",
            "token create diary --grant grant.json",
        ),
        opens="change",
        details=" It may read and add in its own namespace unless more is said: README of server/.",
    ),
    Command("token list", "print every token and what it may do", listing, "tokens.list",
            examples=("token list", "token list --json"), opens="read"),
    Command("token revoke", "end a token for good", revoke, "tokens.revoke", (_NAME,),
            ("token revoke planner",), opens="change"),
    Command("token pause", "refuse a token until it is resumed", pause, "tokens.pause", (_NAME,),
            ("token pause planner",), opens="change"),
    Command("token resume", "accept a paused token again", resume, "tokens.resume", (_NAME,),
            ("token resume planner",), opens="change"),
    Command(
        "audit",
        "print what was done by whom, or verify that it is as it was written",
        audit,
        "audit.rows",
        (
            Option("what", "verify checks every link of every chain", place="maybe", own=True,
                   choices=("verify",)),
            Option("principal", "of this principal", metavar="NAME"),
            Option("action", "this action, such as read or erase"),
            Option("since", "at this time or later", kind="time"),
            Option("before", "before this time", kind="time"),
            Option("limit", "how many, the latest first (default: 100)", kind="integer"),
            Option("cursor", "go on where the last page ended"),
        ),
        ("audit --principal planner --since 2025-03-01", "audit verify"),
        opens="read",
    ),
)  # fmt: skip
