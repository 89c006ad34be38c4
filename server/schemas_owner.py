"""The shapes of what an owner's programs ask for: files, forgetting, retention, the database.

The other half of ``schemas``, by the same rules.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

from memdb import AuditRow, AuditVerdict, FileStatus, Space, SyncReport
from memdb.server.schemas import (
    Answer,
    Cursor,
    Id,
    Ids,
    MemoryObject,
    Name,
    Names,
    Purpose,
    Request,
    Time,
    Where,
)

# --- files ------------------------------------------------------------------------------------

Path = Annotated[str, Meta(min_length=1, max_length=4_096)]


class SyncFolder(Request):
    """A folder below one that ``memdb serve --root`` names."""

    path: Path
    include: Names | None = None
    exclude: Names | None = None
    allow_empty: bool = False
    purpose: Purpose | None = None


class Synced(Struct, kw_only=True):
    report: SyncReport


class FilesQuery(Request):
    path: Path | None = None


class FileStates(Struct, kw_only=True):
    items: list[FileStatus]


# --- forgetting -------------------------------------------------------------------------------


class Selector(Request):
    """What is named: every part that is given narrows it. At least one is needed."""

    ids: Ids | None = None
    where: Where | None = None
    about: Name | None = None


class ForgetMemories(Selector, kw_only=True, forbid_unknown_fields=True):
    purpose: Purpose | None = None


class Hidden(Answer):
    """What is hidden, and the batch by which ``restore`` brings it back for seven days."""

    batch: str
    ids: list[str]


class RestoreMemories(Request):
    ids: Ids | None = None
    batch: Id | None = None
    purpose: Purpose | None = None


class Restored(Answer):
    ids: list[str]


class TrashBatch(Answer):
    batch: str
    forgotten_at: datetime
    restorable_until: datetime
    items: list[MemoryObject]
    expired: bool = False


class TrashList(Answer):
    batches: list[TrashBatch]


class ReportObject(Struct, kw_only=True):
    """Everything known under a selector. ``total``: how many ``erase`` would remove."""

    items: list[MemoryObject]
    derived: list[MemoryObject]
    mentions: list[MemoryObject]
    hidden: list[MemoryObject]
    counts: dict[str, int]
    snapshots: list[str]
    total: int


class EraseMemories(Request):
    """``confirm_count`` is the ``total`` of the report on the same selector."""

    selector: Selector
    confirm_count: Annotated[int, Meta(ge=0)]
    purpose: Purpose | None = None


class ReceiptObject(Struct, kw_only=True):
    """The proof of one erasure, without content."""

    id: str
    state: Literal["hidden", "scrubbed"]
    erased_at: datetime
    scrubbed_at: datetime | None
    counts: dict[str, int]
    out_of_reach: list[str]
    previous: str
    hash: str


class Receipts(Struct, kw_only=True):
    items: list[ReceiptObject]


# --- retention --------------------------------------------------------------------------------


class MakePlan(Request):
    """The arguments of ``retention.plan``."""

    policy: dict[str, Any] | None = None
    disk_budget: int | Name | None = None
    now: Time | None = None


class ApplyPlan(Request):
    plan: dict[str, Any]
    changed: Literal["error", "skip"] = "error"
    purpose: Purpose | None = None


class UndoPlan(Request):
    batch: Id
    purpose: Purpose | None = None


class PlanObject(Struct, kw_only=True):
    plan: dict[str, Any]


class AppliedObject(Struct, kw_only=True):
    applied: dict[str, Any]


class RetentionStatus(Struct, kw_only=True):
    status: dict[str, Any]


# --- the database -----------------------------------------------------------------------------


class Statistics(Struct, kw_only=True):
    stats: dict[str, Any]


class Health(Struct, kw_only=True):
    status: Literal["ok"]


class SettingsObject(Struct, kw_only=True):
    settings: dict[str, Any]


class SpaceList(Struct, kw_only=True):
    items: list[Space]


class ExportMemories(Request):
    """Every field of the memories selected, one JSON object a line."""

    where: Where | None = None
    purpose: Purpose | None = None


class ImportMemories(Request):
    """The lines of an export, as objects. Memories whose id exists are left alone."""

    records: Annotated[list[dict[str, Any]], Meta(min_length=1, max_length=1_000_000)]
    purpose: Purpose | None = None


class Imported(Answer):
    added: int


# --- access -----------------------------------------------------------------------------------


class GrantObject(Request):
    """The arguments of ``memdb.Grant``."""

    actions: Annotated[tuple[Name, ...], Meta(max_length=32)] = ("read", "add")
    where: Where | None = None
    deny: Where | None = None
    namespace: Name | None = None
    source: Name | None = None
    sensitivity: Name | None = None
    purposes: Names | None = None
    rate_per_minute: Annotated[int, Meta(ge=1, le=1_000_000)] | None = None
    expires_at: Time | None = None


class MakeToken(Request):
    """The arguments of ``tokens.create``; ``owner`` and ``grant`` exclude each other."""

    name: Annotated[str, Meta(min_length=1, max_length=128)]
    grant: GrantObject | None = None
    owner: bool = False
    expires_in: Name | None = None
    purpose: Purpose | None = None


class MadeToken(Struct, kw_only=True):
    """A token that was made; its secret is shown this once."""

    secret: str
    name: str
    id: str


class TokenObject(Struct, kw_only=True):
    """What is known of a token; never its secret."""

    name: str
    id: str
    grant: dict[str, Any]
    owner: bool
    created_at: datetime
    expires_at: datetime | None
    paused: bool
    revoked_at: datetime | None
    last_used: datetime | None


class TokenList(Struct, kw_only=True):
    items: list[TokenObject]


class NamedGrant(Struct, kw_only=True):
    """What one principal may do and see; ``owner``: everything."""

    name: str
    owner: bool
    grant: dict[str, Any]


class GrantList(Struct, kw_only=True):
    items: list[NamedGrant]


class AuditQuery(Request):
    """The arguments of ``audit.rows``."""

    principal: Name | None = None
    since: Time | None = None
    before: Time | None = None
    action: Name | None = None
    limit: Annotated[int, Meta(ge=1, le=10_000)] = 100
    cursor: Cursor | None = None


class AuditRows(Struct, kw_only=True):
    """Rows, the latest first."""

    items: list[AuditRow]
    next_cursor: str | None


class Verdict(Struct, kw_only=True):
    """Whether the chain of the audit holds."""

    verdict: AuditVerdict


class PageCode(Struct, kw_only=True):
    """A one-time code for the owner's page, and the address that takes it."""

    code: str
    url: str
    expires_s: int
