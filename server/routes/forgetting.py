"""Routes that take memories away: forget, restore, report, erase; and retention's plans."""

from __future__ import annotations

from typing import Any

from memdb import NotFound
from memdb.server import schemas_owner as schemas
from memdb.server.routes.files import LONG_S
from memdb.server.routing import Call, Route
from memdb.server.schemas import memory_object


def _selector(given: schemas.Selector) -> dict[str, Any]:
    return {"ids": given.ids, "where": given.where, "about": given.about}


def forget_memories(call: Call) -> schemas.Hidden:
    """Hide memories at once; they can be restored for seven days."""
    done = call.acting.forget(**_selector(call.body))
    return schemas.Hidden(batch=done.batch, ids=list(done.ids))


def restore_memories(call: Call) -> schemas.Restored:
    """Bring back what was forgotten."""
    return schemas.Restored(ids=list(call.acting.restore(call.body.ids, batch=call.body.batch)))


def list_trash(call: Call) -> schemas.TrashList:
    """What can be restored, latest batch first."""
    return schemas.TrashList(
        batches=[
            schemas.TrashBatch(
                batch=one.batch,
                forgotten_at=one.forgotten_at,
                restorable_until=one.restorable_until,
                items=[memory_object(memory) for memory in one.items],
                expired=one.expired,
            )
            for one in call.acting.trash()
        ]
    )


def report(call: Call) -> schemas.ReportObject:
    """Everything known under a selector, and what erase of it would reach."""
    known = call.acting.report(**_selector(call.body))
    parts = {
        name: [memory_object(memory) for memory in getattr(known, name)]
        for name in ("items", "derived", "mentions", "hidden")
    }
    return schemas.ReportObject(
        **parts,
        counts=dict(known.counts),
        snapshots=list(known.snapshots),
        total=known.total,
    )


def erase(call: Call) -> schemas.ReceiptObject:
    """Remove memories for good; ``confirm_count`` must be the total of a report on them."""
    body: schemas.EraseMemories = call.body
    receipt = call.acting.erase(**_selector(body.selector), confirm_count=body.confirm_count)
    call.services.replays.clear()
    return _receipt(receipt)


def _receipt(receipt: Any) -> schemas.ReceiptObject:
    fields = receipt.to_dict()
    fields["counts"], fields["out_of_reach"] = dict(receipt.counts), list(receipt.out_of_reach)
    return schemas.ReceiptObject(**fields)


def list_receipts(call: Call) -> schemas.Receipts:
    """The receipt of every erasure, oldest first."""
    return schemas.Receipts(items=[_receipt(one) for one in call.acting.receipts()])


def get_receipt(call: Call) -> schemas.ReceiptObject:
    """One receipt, as it stands."""
    for one in call.acting.receipts():
        if one.id == call.path["id"]:
            return _receipt(one)
    raise NotFound("no receipt has that id")


def plan_retention(call: Call) -> schemas.PlanObject:
    """What would become of each memory, and why; nothing is changed."""
    body: schemas.MakePlan = call.body
    plan = call.acting.retention.plan(body.policy, body.disk_budget, body.now)
    return schemas.PlanObject(plan=plan.to_dict())


def apply_retention(call: Call) -> schemas.AppliedObject:
    """Do what a plan says."""
    done = call.acting.retention.apply(call.body.plan, changed=call.body.changed)
    call.services.replays.clear()
    return schemas.AppliedObject(applied=done.to_dict())


def undo_retention(call: Call) -> schemas.Restored:
    """Bring back what a plan put into the trash."""
    return schemas.Restored(ids=list(call.acting.retention.undo(call.body.batch)))


def retention_status(call: Call) -> schemas.RetentionStatus:
    """The budget, the policies that are set, and the last run."""
    return schemas.RetentionStatus(status=call.acting.retention.status())


ROUTES = (
    Route("POST", "/v1/memories/forget", forget_memories, "hide memories, for seven days",
          schemas.Hidden, body=schemas.ForgetMemories, tag="forgetting"),
    Route("POST", "/v1/memories/restore", restore_memories, "bring back what was forgotten",
          schemas.Restored, body=schemas.RestoreMemories, tag="forgetting"),
    Route("GET", "/v1/trash", list_trash, "what can be restored", schemas.TrashList,
          tag="forgetting"),
    Route("POST", "/v1/report", report, "everything known under a selector",
          schemas.ReportObject, body=schemas.ForgetMemories, limit_s=LONG_S, tag="forgetting"),
    Route("POST", "/v1/erase", erase, "remove memories for good", schemas.ReceiptObject,
          body=schemas.EraseMemories, limit_s=LONG_S, tag="forgetting"),
    Route("GET", "/v1/receipts", list_receipts, "the receipts of erasures", schemas.Receipts,
          tag="forgetting"),
    Route("GET", "/v1/receipts/{id}", get_receipt, "one receipt", schemas.ReceiptObject,
          tag="forgetting"),
    Route("POST", "/v1/retention/plan", plan_retention, "what would become of each memory",
          schemas.PlanObject, body=schemas.MakePlan, limit_s=LONG_S, tag="retention"),
    Route("POST", "/v1/retention/apply", apply_retention, "do what a plan says",
          schemas.AppliedObject, body=schemas.ApplyPlan, limit_s=LONG_S, body_bytes=64 << 20,
          tag="retention"),
    Route("POST", "/v1/retention/undo", undo_retention, "bring back what a plan took",
          schemas.Restored, body=schemas.UndoPlan, limit_s=LONG_S, tag="retention"),
    Route("GET", "/v1/retention", retention_status, "the budget, the policies, the last run",
          schemas.RetentionStatus, tag="retention"),
)  # fmt: skip
