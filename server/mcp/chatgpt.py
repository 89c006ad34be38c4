"""The two tools that ChatGPT's connectors and deep research call: ``search`` and ``fetch``.

Their names, arguments and results are OpenAI's ("Building MCP servers for ChatGPT and API
integrations"): ``search(query)`` gives ``results`` of id, title and url, ``fetch(id)`` one document
of id, title, text, url and metadata; each both as structured content and as the same JSON in one
text. Texts are shown there as ``db.context`` shows them. Both only read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from memdb import NotFound
from memdb.server.mcp import frame
from memdb.server.mcp.schemas import parameters
from memdb.server.mcp.tools import Arguments, Tool

if TYPE_CHECKING:
    from memdb import Acting, Memory

_RESULTS: Final = 20
_TITLE, _TITLE_TOKENS = 80, 60
_REST: Final = 600  # tokens of a document that are not its text


def search(db: Acting, given: Arguments) -> str:
    results = [_named(hit.memory) for hit in db.recall(given["query"], _RESULTS)]
    return frame.encoded({"results": results})


def fetch(db: Acting, given: Arguments) -> str:
    memory = db.get(given["id"])
    if memory is None:
        raise NotFound("no memory has that id", hint="take ids from search")
    said = frame.harmless(frame.words(memory))
    metadata = {"source": frame.harmless(memory.source), "kind": memory.kind}
    for name in ("event_time", "valid_from", "valid_to", "recorded_at"):
        if (told := frame.moment(memory, name)) is not None:
            metadata[name] = told
    metadata["note"] = frame.NOTE
    shown = frame.beginning(said, frame.RESULT_TOKENS - _REST)
    if shown != said:
        metadata["cut"] = "only the beginning of the text is here"
        said = shown + "…"
    return frame.encoded({**_named(memory), "text": said, "metadata": metadata})


def _named(memory: Memory) -> dict[str, Any]:
    """What both results say of a memory; the url is what a citation points to."""
    said = " ".join(frame.harmless(frame.words(memory)).split())
    title = frame.beginning(said[:_TITLE], _TITLE_TOKENS)
    title += "…" if title != said else ""
    return {"id": memory.id, "title": title, "url": f"memdb://memory/{memory.id}"}


TOOLS: Final = (
    Tool(
        "search",
        "Find what is remembered about something: titles and ids, best first.",
        "recall",
        parameters("query!s"),
        search,
        read_only=True,
    ),
    Tool(
        "fetch",
        "The whole of one memory that search found.",
        "get",
        parameters("id!s"),
        fetch,
        read_only=True,
    ),
)
