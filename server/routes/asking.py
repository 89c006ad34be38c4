"""Routes that answer questions: recall, context, timeline, and feedback on what was found."""

from __future__ import annotations

from typing import Any

from memdb.server import schemas
from memdb.server.routes.memories import page_of
from memdb.server.routing import Call, Route, json_filter
from memdb.server.schemas import memory_object


def found(hits: Any) -> schemas.Found:
    """What is answered of ``Hits``."""
    return schemas.Found(
        search_id=hits.search_id,
        hits=[
            schemas.HitObject(
                id=hit.memory.id,
                score=hit.score,
                memory=memory_object(hit.memory),
                why=hit.why,
                history=[memory_object(earlier) for earlier in hit.history],
            )
            for hit in hits
        ],
        degraded=hits.degraded,
        confidence=hits.confidence,
        plan=dict(hits.plan),
    )


def recall(call: Call) -> schemas.Found:
    """The memories that answer a question best."""
    body: schemas.Recall = call.body
    answer = found(
        call.acting.recall(
            body.query,
            body.k,
            body.where,
            body.mode,
            as_of=body.as_of,
            namespace=body.namespace,
            space=body.space,
            vector=body.vector,
            min_score=body.min_score,
            min_confidence=body.min_confidence,
            exact=body.exact,
            explain=body.explain,
            stages=body.stages,
            time=body.time,
        )
    )
    if body.tokens is not None:
        answer.hits = _within_tokens(answer.hits, body.tokens)
    return answer


def search(call: Call) -> schemas.Found:
    """The same as recall, by the name that other stores give it."""
    return recall(call)


def _within_tokens(hits: list[schemas.HitObject], tokens: int) -> list[schemas.HitObject]:
    """The best hits, as many as their texts fit; a token is taken for three bytes, which errs
    high for what models count."""
    left = tokens
    for place, hit in enumerate(hits):
        left -= -(-len((hit.memory.text or "").encode()) // 3)  # type: ignore[attr-defined]
        if left < 0:
            return hits[:place]
    return hits


def recall_within(call: Call) -> schemas.Found:
    """Every memory within a distance of a vector."""
    body: schemas.RecallWithin = call.body
    return found(
        call.acting.recall_within(
            body.radius,
            query=body.query,
            vector=body.vector,
            where=body.where,
            namespace=body.namespace,
            space=body.space,
        )
    )


def context(call: Call) -> schemas.Packed:
    """What is worth telling an agent, within a number of tokens."""
    body: schemas.AskContext = call.body
    pack = call.acting.context(
        body.query, body.tokens, where=body.where, as_of=body.as_of, namespace=body.namespace
    )
    return schemas.Packed(
        text=pack.text,
        items=[_part(item) for item in pack.items],
        dropped=[_part(item) for item in pack.dropped],
        tokens=pack.tokens,
        counter=pack.counter,
        search_id=pack.search_id,
    )


def _part(item: Any) -> schemas.ContextPart:
    return schemas.ContextPart(
        memory=memory_object(item.memory), role=item.role, score=item.score, reason=item.reason
    )


def timeline(call: Call) -> schemas.PageOfMemories:
    """Memories in the order in which they happened."""
    query: schemas.TimelineQuery = call.query
    return page_of(
        call.acting.timeline(
            query.query,
            query.start,
            query.end,
            where=json_filter(query.where),
            descending=query.descending,
            limit=query.limit,
            cursor=query.cursor,
            namespace=query.namespace,
        )
    )


def feedback(call: Call) -> schemas.Counting:
    """Say which of the memories found were used."""
    done = call.acting.feedback(call.body.search_id, call.body.used)
    return schemas.Counting(
        search_id=done.search_id, counted=list(done.counted), unchanged=list(done.unchanged)
    )


ROUTES = (
    Route("POST", "/v1/recall", recall, "the memories that answer a question best",
          schemas.Found, body=schemas.Recall, tag="asking"),
    Route("POST", "/v1/search", search, "the same as /v1/recall", schemas.Found,
          body=schemas.Recall, tag="asking"),
    Route("POST", "/v1/recall/within", recall_within, "every memory within a distance",
          schemas.Found, body=schemas.RecallWithin, tag="asking"),
    Route("POST", "/v1/context", context, "what is worth telling an agent, as text",
          schemas.Packed, body=schemas.AskContext, tag="asking"),
    Route("GET", "/v1/timeline", timeline, "memories in the order in which they happened",
          schemas.PageOfMemories, query=schemas.TimelineQuery, tag="asking"),
    Route("POST", "/v1/feedback", feedback, "say which of the memories found were used",
          schemas.Counting, body=schemas.GiveFeedback, tag="asking"),
)  # fmt: skip
