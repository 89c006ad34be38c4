"""Forgetting: the rules, the plan before anything is done, applying it, and undoing that.

A plan is shown, kept in this process under a random name, and applied as it was shown: what
changed meanwhile makes ``apply`` refuse, and a new plan is shown instead.
"""

from __future__ import annotations

from typing import Any, Final

from flask import render_template, request
from werkzeug.wrappers import Response

from memdb import BudgetExceeded, Conflict, InvalidArgument, Memory, NotFound
from memdb.server.page import door, forms, shown
from memdb.server.page.blueprint import page
from memdb.server.page.forms import Kept, Note

LISTED: Final = 200
PLANS: Final = 4
_plans = Kept(PLANS)

ACTION_WORDS: Final = {
    "forget": "Goes to the trash",
    "consolidate": "Summed up, then to the trash",
    "evict": "Removed for good, to fit the budget",
    "demote": "Shrinks to words, time and a pointer to its file",
    "prune": "Earlier version removed for good",
    "archive": "Packed away, nothing lost",
    "keep": "Stays",
}
RULE_WORDS: Final = {
    "expired": "its time is up",
    "pinned": "it is pinned",
    "superseded": "something newer replaced it",
    "duplicate": "it says exactly what another says",
    "near duplicate": "it says nearly what another says",
    "budget": "there is no room for it, and it is worth least",
    "decayed": "it has faded: long unused, and it says little",
    "consolidated": "another memory sums it up",
}
STEP_WORDS: Final = {
    "trash": "empty the trash, the oldest first",
    "encode": "move new meanings into compact files",
    "cold": "pack texts into blocks; nothing is lost",
    "space": "keep meanings less precisely",
}


def rule(policy: dict[str, Any]) -> str:
    """A policy as a sentence."""
    name = policy["policy"]
    if name == "Superseded":
        return f"Earlier values and versions go, beyond {_beyond(policy)}."
    if name == "Duplicates":
        near = policy.get("near")
        same = "says the same" if near is None else f"says nearly the same ({near:g})"
        return f"Of what {same} the newest stays; the others go to the trash."
    if name == "Budget":
        return f"All of it fits into {shown.size(policy['disk_bytes'])}; what is worth least goes."
    if name == "Decay":
        does = "goes to the trash" if policy.get("action") == "forget" else "is packed away"
        kinds = [shown.kind_word(kind, 2) for kind in policy.get("kinds") or ()]
        of = f" of {', '.join(kinds)}" if kinds else ""
        return f"What{of} is worth less than {policy['below'] * 100:g} % {does}."
    return {
        "Expired": "What has expired goes to the trash.",
        "Pinned": "What is pinned stays, whatever else holds.",
    }.get(name, f"A rule of your own: {name}.")


def _beyond(policy: dict[str, Any]) -> str:
    versions, days = policy.get("keep_versions"), policy.get("keep_days")
    parts = [] if versions is None else [f"the newest {versions}"]
    parts += [] if days is None else [f"{days:g} days"]
    return " and ".join(parts)


@page.get("/forgetting")
def forgetting() -> str:
    """How it stands: the budget, the rules, what ran last, and what can be undone."""
    return _render()


def _render(problem: Exception | None = None, **given: str) -> str:
    status = door.acting().retention.status()
    return render_template(
        "forgetting.html",
        status=status,
        rules=[rule(policy) for policy in status["policies"]],
        problem=problem,
        given=given,
    )


@page.get("/forgetting/plan")
def plan() -> str | tuple[str, int]:
    """What would become of each memory: by the stored rules, or by those tried in the form."""
    given = {name: request.args.get(name, "").strip() for name in ("budget", "keep_days", "below")}
    given["duplicates"] = request.args.get("duplicates", "")
    try:
        made = door.acting().retention.plan(
            policy=_tried(given) if request.args.get("try") else None,
            disk_budget=given["budget"] or None,
        )
    except (InvalidArgument, BudgetExceeded) as error:
        return _render(error, **given), 400
    return show(made, bool(request.args.get("try")))


def show(made: Any, tried: bool) -> str:
    """The plan as a page; only what changes something is listed."""
    items = [item for item in made.items if item.action != "keep"]
    memories = door.acting().get_many([item.id for item in items[:LISTED]])
    texts: dict[str, Memory] = {one.id: one for one in memories if one is not None}
    return render_template(
        "plan.html",
        plan=made,
        tried=tried,
        name=_plans.put(made),
        items=items[:LISTED],
        total=len(items),
        memories_by_id=texts,
        action_words=ACTION_WORDS,
        rule_words=RULE_WORDS,
        step_words=STEP_WORDS,
        actions={name: one for name, one in made.totals["actions"].items() if name != "keep"},
        kept=made.totals["memories"] - len({item.id for item in items if item.current}),
    )


@page.post("/forgetting/apply")
def apply_plan() -> Response | tuple[str, int]:
    """Do exactly what the shown plan says, or show a new one where something changed."""
    made = _plans.take(forms.text("plan") or "")
    if made is None:
        raise NotFound("that plan is not here any more", hint="make a new plan and look at it")
    try:
        done = door.acting().retention.apply(made)
    except Conflict:
        note = Note(
            "Something was written since that plan was made, so nothing was done. "
            "This is the plan as it is now.",
            problem=True,
        )
        return forms.go("page.plan", note)
    changed = sum(number for action, number in done.done.items() if action != "keep")
    freed = shown.size(max(0, done.bytes_before - done.bytes_after))
    words = f"Done: {shown.memories(changed)}, {freed} freed."
    if done.batch is None:
        return forms.go("page.forgetting", Note(words))
    note = Note(words, undo="page.undo_plan", undo_fields=(("batch", done.batch),))
    return forms.go("page.forgetting", note)


@page.post("/forgetting/undo")
def undo_plan() -> Response:
    """Bring back what applying a plan put into the trash."""
    found = door.acting().retention.undo(forms.text("batch") or "")
    return forms.go("page.forgetting", Note(f"Brought back {shown.memories(len(found))}."))


@page.post("/forgetting/budget")
def set_budget() -> Response | tuple[str, int]:
    """The room the memory may take, or none: no limit."""
    wanted = forms.text("budget")
    try:
        door.acting().settings.disk_budget = wanted
    except InvalidArgument as error:
        return _render(error, saved_budget=wanted or ""), 400
    words = f"It may take {wanted}." if wanted else "It may take as much as it needs."
    return forms.go("page.forgetting", Note(words))


def _tried(given: dict[str, str]) -> dict[str, Any]:
    """The rules that the form of a trial means."""
    tables: dict[str, Any] = {}
    if given["keep_days"]:
        tables["superseded"] = {"keep_days": _number(given["keep_days"], "keep_days")}
    if given["duplicates"]:
        tables["duplicates"] = {"exact": True}
    if given["below"]:
        below = _number(given["below"], "below")
        tables["decay"] = {"below": below / 100, "action": "forget"}
    return tables


def _number(text: str, field: str) -> float:
    try:
        return float(text.replace(",", "."))
    except ValueError:
        raise InvalidArgument(f"{field.replace('_', ' ')} is a number", field=field) from None
