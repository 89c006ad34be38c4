"""The grammar of an embedder's name, such as ``"st:all-MiniLM-L6-v2"``.

A spec is what a database records, so it is a string, it is checked without loading anything, and
it holds no secret::

    "static"                                    the embedded default
    "none"                                      no vectors; lexical recall only
    "st:NAME" | "st:/path"                      sentence-transformers
    "openai:http://127.0.0.1:11434/v1#MODEL"    a server that speaks OpenAI's embeddings API

Options of a server go into its address as a query: ``?max_tokens=2048`` and, for models trained
with instructions, ``&query=search_query%3A%20&document=search_document%3A%20``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from urllib.parse import parse_qsl, urlsplit, urlunsplit

from memdb.errors import InvalidArgument
from memdb.ingest.embedders.protocol import ROLES

FORMS = (
    '"static", "none", "st:NAME", "st:/path", "openai:http://127.0.0.1:11434/v1#MODEL", '
    "or an object with name, revision, dim, max_tokens, count_tokens and embed"
)
DEFAULT_SERVER_TOKENS = 512
MIN_TOKENS = 8
MAX_TOKENS = 1 << 20


@dataclass(frozen=True, slots=True)
class ServerSpec:
    """Where a server is and what to ask it for. ``prompts``: role -> text put before each text."""

    base_url: str
    model: str
    max_tokens: int = DEFAULT_SERVER_TOKENS
    prompts: dict[str, str] = field(default_factory=dict)


def check_spec(spec: str) -> None:
    """Raise ``InvalidArgument`` unless ``spec`` has one of the forms above. Loads nothing."""
    scheme, _, rest = spec.partition(":")
    if spec in ("static", "none") or (scheme == "st" and rest.strip()):
        return
    if scheme == "openai":
        parse_server(rest)
        return
    raise InvalidArgument(
        f"unknown embedder {spec!r}", field="embedder", hint=f"an embedder is one of {FORMS}"
    )


def parse_server(address: str) -> ServerSpec:
    """The parts of what follows ``openai:``. Raises ``InvalidArgument``."""
    try:
        url = urlsplit(address)
        url.port  # noqa: B018  reading it is what checks it
        options = dict(parse_qsl(url.query, keep_blank_values=True, strict_parsing=bool(url.query)))
    except ValueError as error:
        raise _bad("the embedder's address is no URL") from error
    if url.scheme not in ("http", "https"):
        raise _bad("the embedder's address must begin with http:// or https://")
    if not url.hostname:
        raise _bad("the embedder's address names no host")
    if url.username is not None or url.password is not None:
        raise _bad("the embedder's address holds a password, which the database would record")
    if not url.fragment:
        raise _bad("the embedder's address names no model; write it after '#'")
    unknown = set(options) - {"max_tokens", *ROLES}
    if unknown:
        raise _bad(f"the embedder's address has an unknown option {min(unknown)!r}")
    return ServerSpec(
        base_url=urlunsplit((url.scheme, url.netloc, url.path.rstrip("/"), "", "")),
        model=url.fragment,
        max_tokens=_tokens(options.get("max_tokens", str(DEFAULT_SERVER_TOKENS))),
        prompts={role: options[role] for role in ROLES if options.get(role)},
    )


def _tokens(text: str) -> int:
    if not (text.isascii() and text.isdigit() and MIN_TOKENS <= int(text) <= MAX_TOKENS):
        raise _bad(f"max_tokens in the embedder's address must be {MIN_TOKENS} to {MAX_TOKENS}")
    return int(text)


def _bad(message: str) -> InvalidArgument:
    return InvalidArgument(
        message,
        field="embedder",
        hint="write it like openai:http://127.0.0.1:11434/v1#nomic-embed-text",
    )
