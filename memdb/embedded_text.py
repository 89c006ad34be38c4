"""The text a memory's vector stands for, told from the memory alone.

What is remembered is embedded as it is; a chunk of a file stands below its title and headings, as
``ingest.chunks`` has it. This file knows memories; it does not know embedders or stores.
"""

from __future__ import annotations

from memdb.types import Memory


def embedded_text(memory: Memory) -> str | None:
    """None for a memory without text: its vector, if it has one, was brought by the caller."""
    if memory.text is None or memory.kind != "chunk":
        return memory.text
    headings = memory.metadata.get("heading", ())
    titles = [memory.metadata.get("title"), *(headings if isinstance(headings, list) else ())]
    context = [one for one in titles if isinstance(one, str) and one and one not in memory.text]
    return f"{' > '.join(context)}\n{memory.text}" if context else memory.text
