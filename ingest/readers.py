"""From a file on disk to a text with its facts, or to the reason why not.

Strategy: which reader a file gets is decided by its name alone, before it is opened, so that a
folder of photographs costs no reads; what the bytes are is decided by looking at them. Nothing
about one file raises: a sync of ten thousand files ends with a report, not with a traceback.
The registry maps extensions to readers, so that a further format is one function and one entry.

It must not know chunks, embedders or stores.
"""

from __future__ import annotations

import codecs
import os
import re
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Final, Literal

from memdb.ingest import frontmatter

MAX_FILE_BYTES: Final = 16 << 20
_SNIFF_BYTES: Final = 8 << 10

TextFormat = Literal["markdown", "plain"]
_ISO_DATE = re.compile(r"\d{4}-\d{2}-\d{2}(?!\d)")


@dataclass(frozen=True, slots=True)
class Document:
    """What a reader makes of a file. Lines of ``text`` end with ``\\n``.

    ``title``     as the document itself names it; None where it does not
    ``tags``      as written in its front matter
    ``date``      as written, not parsed: from its front matter, else an ISO date its name begins
                  with
    """

    text: str
    format: TextFormat
    title: str | None = None
    tags: tuple[str, ...] = ()
    date: str | None = None


@dataclass(frozen=True, slots=True)
class Unread:
    """Why a file gave no document. ``skipped``: it is not for us; ``failed``: try it again."""

    state: Literal["skipped", "failed"]
    reason: str


Reader = Callable[[bytes, str], "Document | Unread"]
"""(content, path relative to the root with ``/``) -> document; must not raise for any content."""


def read_markdown(data: bytes, path: str) -> Document | Unread:
    text = decode(data)
    if isinstance(text, Unread):
        return text
    end = frontmatter.end_of(text)
    facts = frontmatter.parse(text[:end]) if end else frontmatter.FrontMatter()
    return Document(text, "markdown", facts.title, facts.tags, facts.date or _date_of(path))


def read_plain(data: bytes, path: str) -> Document | Unread:
    text = decode(data)
    return text if isinstance(text, Unread) else Document(text, "plain", date=_date_of(path))


# Markup whose headings are not read is plain text: its words and lines are right all the same.
# Logs, data and program sources are left out: a person's memory drowns in them. Naming them in
# ``include`` brings them in as plain text.
READERS: Final[Mapping[str, Reader]] = {
    "": read_plain,
    ".adoc": read_plain,
    ".asciidoc": read_plain,
    ".markdown": read_markdown,
    ".md": read_markdown,
    ".mdown": read_markdown,
    ".mdx": read_markdown,
    ".mkd": read_markdown,
    ".org": read_plain,
    ".rst": read_plain,
    ".text": read_plain,
    ".txt": read_plain,
}


def reader_for(path: str, *, named: bool, readers: Mapping[str, Reader] = READERS) -> Reader | None:
    """The reader of a file by its extension; an unknown one gets plain text if it was ``named``."""
    reader = readers.get(PurePosixPath(path).suffix.lower())
    return read_plain if reader is None and named else reader


def read_bytes(path: str | os.PathLike[str], *, limit: int = MAX_FILE_BYTES) -> bytes | Unread:
    """The content of a regular file of at most ``limit`` bytes.

    Raises ``FileNotFoundError`` and nothing else: that a file is gone is news for the caller.
    """
    # Without O_NONBLOCK the open of a pipe put in a file's place since the scan would wait for
    # a writer; O_NOFOLLOW keeps a link put there from leading out of the root.
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOFOLLOW", 0)
    flags |= getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)
    try:
        descriptor = os.open(path, flags)
    except FileNotFoundError:
        raise
    except OSError as error:
        return Unread("failed", _said(error))
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return Unread("skipped", "not a regular file")
        data = _read_up_to(descriptor, limit + 1)
    except OSError as error:
        return Unread("failed", _said(error))
    finally:
        os.close(descriptor)
    return too_large(limit) if len(data) > limit else data


def too_large(limit: int) -> Unread:
    return Unread("skipped", f"larger than {limit} bytes")


def decode(data: bytes) -> str | Unread:
    """Text from UTF-8, or UTF-16 or UTF-8 with a byte order mark; line ends become ``\\n``."""
    if data.startswith(codecs.BOM_UTF8):
        encoding, data = "utf-8", data[3:]
    elif data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        encoding = "utf-16"
    elif b"\0" in data[:_SNIFF_BYTES]:
        return Unread("skipped", "binary")
    else:
        encoding = "utf-8"
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        name = encoding.upper()
        return Unread("skipped", f"not valid {name} (byte {error.start})")
    if "\0" in text:
        return Unread("skipped", "binary")
    return text.replace("\r\n", "\n").replace("\r", "\n") if "\r" in text else text


def _read_up_to(descriptor: int, size: int) -> bytes:
    parts = []
    while size > 0 and (part := os.read(descriptor, min(size, 1 << 20))):
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def _said(error: OSError) -> str:
    return (error.strerror or type(error).__name__).lower()


def _date_of(path: str) -> str | None:
    """The date a daily note is named after (``journal/2024-03-05 Ana.md``)."""
    found = _ISO_DATE.match(PurePosixPath(path).name)
    return found[0] if found else None
