"""The shapes of the routes that speak like mem0's open-source REST server.

Names are mem0's, not memdb's. This file knows neither HTTP nor a database.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import Meta

from memdb.server.schemas import Answer, K, Name, Query, Request, Text, Unit

MAX_MESSAGES = 1_000


class Message(Request):
    """One message of a conversation."""

    role: Name
    content: Text
    name: Name | None = None


class Owners(Request):
    """Whose memories: at least one is needed."""

    user_id: Name | None = None
    agent_id: Name | None = None
    run_id: Name | None = None


class OwnersPage(Owners):
    """Whose memories, and how many of them at most, latest first."""

    limit: K = 100


class AddMessages(Owners, kw_only=True):
    """Messages to keep. ``infer`` is taken and changes nothing: memdb stores what was said."""

    messages: Annotated[list[Message], Meta(min_length=1, max_length=MAX_MESSAGES)] | Text
    metadata: dict[str, Any] | None = None
    infer: bool = False


class SearchItems(Owners, kw_only=True):
    """A question. ``filters``: equality or operators over metadata, with AND, OR and NOT."""

    query: Query
    filters: dict[str, Any] | None = None
    limit: K | None = None
    top_k: K | None = None
    threshold: Unit | None = None


class Change(Request):
    """The new text of a memory, its new metadata, or both."""

    text: Text | None = None
    metadata: dict[str, Any] | None = None


class Added(Answer):
    """What became of one message."""

    id: str
    memory: str
    event: Literal["ADD", "NONE"]
    role: str | None = None


class AddedAll(Answer):
    results: list[Added]


class Item(Answer):
    """One memory as mem0 shows it. ``hash`` is of the text; times are ISO 8601."""

    id: str
    memory: str
    hash: str
    created_at: str
    updated_at: str | None = None
    user_id: str | None = None
    agent_id: str | None = None
    run_id: str | None = None
    actor_id: str | None = None
    role: str | None = None
    score: float | None = None
    metadata: dict[str, Any] | None = None


class Items(Answer):
    results: list[Item]


class Changed(Answer):
    """That it was done."""

    message: str


class Event(Answer):
    """One change of a memory."""

    id: str
    memory_id: str
    old_memory: str | None
    new_memory: str | None
    event: Literal["ADD", "UPDATE"]
    created_at: str
    updated_at: str | None = None
    is_deleted: bool | None = None
    actor_id: str | None = None
    role: str | None = None
