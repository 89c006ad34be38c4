"""Cutting a text into chunks: slices of the file that fit an embedder's window.

Strategy. Blocks (``ingest.blocks``) of one section are packed into chunks; a block that does not
fit is cut at its items, then lines, then sentences, then words. Every piece is a span of offsets
and a chunk is the slice from its first piece to its last, so that

* chunks lie in file order, do not overlap, and between them is nothing but white space,
* every non-blank line that fits the budget is in exactly one chunk,
* no chunk begins or ends inside a word (a run of over 256 characters without a space is data,
  not a word, and is cut).

Where a section needs several chunks, the cut is not simply where the budget ends: among the
boundaries of the second half of the budget the best in kind is taken (block before line before
sentence before word) and among equals the one with the smallest CRC of the piece behind it. This
is content-defined chunking by local minima (Bjorner, Blass, Gurevich 2010, "Content-dependent
chunking for differential compression, the local maximum approach") over pieces instead of bytes:
after an insertion the cuts fall into step again within a few chunks, so an edit does not re-embed
the rest of the file.

It must not know files, stores or vectors; tokens are whatever ``count_tokens`` says they are.
"""

from __future__ import annotations

import bisect
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from itertools import pairwise
from zlib import crc32

from memdb.errors import InvalidArgument
from memdb.ingest.blocks import Block, markdown_blocks, plain_blocks

# Part of what makes two syncs comparable: raise it when the same text gives other chunks.
CHUNKER_VERSION = 1

MIN_TOKENS = 8
MAX_CHARS_PER_TOKEN = 24  # a longer slice is cut whatever its token count: a tokenizer may see
# a megabyte without spaces as one unknown token
MAX_WORD_CHARS = 256
_CONTEXT_SHARE = 4  # the heading path takes at most this fraction of the budget
_SEPARATOR = " > "

_ITEM = re.compile(r"[ \t]*(?:[-*+]|\d{1,9}[.)])[ \t]")
# A sentence ends with its mark, closing quotes and white space; with an ideographic mark at once.
_ENDS = r".!?\u2026"
_CJK_ENDS = r"\u3002\uff01\uff1f"
_SENTENCE = re.compile(
    rf"(?<![{_ENDS}])[{_ENDS}]++[\"'\u201d\u2019)\]]*+\s++"
    rf"|(?<![{_CJK_ENDS}])[{_CJK_ENDS}]++[\u300d\u300f\u201d\u2019]*+"
)
# Scripts written without spaces between words: each ideograph or kana is a word of its own.
_CJK = r"\u2e80-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uff66-\uff9f\U00020000-\U0003ffff"
_WORD = re.compile(rf"[{_CJK}]|[^\s{_CJK}]{{1,{MAX_WORD_CHARS}}}")
_CACHED_CONTEXTS = 256

Digest = Callable[[bytes], bytes]


def plain_digest(data: bytes) -> bytes:
    """BLAKE2b, 16 bytes, without a key; a store passes a keyed one."""
    return blake2b(data, digest_size=16).digest()


@dataclass(frozen=True, slots=True)
class Chunk:
    """One slice of a file.

    ``text``        the slice as it is in the file
    ``heading``     titles of the headings above it, outermost first
    ``context``     title and headings that ``text`` itself does not contain, for the index
    ``start_line``  first line, 1-based;  ``end_line`` last line, inclusive
    ``ordinal``     its place among the file's chunks, from 0
    ``digest``      16 bytes over context and text: equal digests need no new vector
    """

    text: str
    heading: tuple[str, ...]
    context: str
    start_line: int
    end_line: int
    ordinal: int
    digest: bytes

    @property
    def indexed_text(self) -> str:
        """What is embedded and tokenised: the context, then the text."""
        return _under(self.context, self.text)


def _under(context: str, text: str) -> str:
    return f"{context}\n{text}" if context else text


@dataclass(frozen=True, slots=True)
class _Piece:
    """``text[start:end]``; ``rank``: how good a place its start is to cut, 0 the best."""

    start: int
    end: int
    rank: int
    tokens: int


class Chunker:
    """Cuts texts for one embedder.

    ``max_tokens``    the most tokens a chunk's ``indexed_text`` has, at least 8. A single word
                      that has more is a chunk by itself.
    ``count_tokens``  tokens of a text as the embedder counts them.
    ``digest``        16-byte hash of bytes.

    Raises ``InvalidArgument`` for a budget below 8 tokens.
    """

    def __init__(
        self, max_tokens: int, count_tokens: Callable[[str], int], digest: Digest = plain_digest
    ) -> None:
        if max_tokens < MIN_TOKENS:
            raise InvalidArgument(
                f"max_tokens is {max_tokens}; the least is {MIN_TOKENS}", field="max_tokens"
            )
        self.max_tokens = max_tokens
        self._count = count_tokens
        self._digest = digest
        self._leads: dict[str, int] = {}

    def markdown(self, text: str, title: str | None = None) -> list[Chunk]:
        """Chunks of Markdown; ``title`` is put before the heading path in the context."""
        return self._chunks(text, markdown_blocks(text), title)

    def plain(self, text: str, title: str | None = None) -> list[Chunk]:
        """Chunks of plain text: paragraphs, no headings."""
        return self._chunks(text, plain_blocks(text), title)

    def _chunks(self, text: str, blocks: Sequence[Block], title: str | None) -> list[Chunk]:
        starts = _line_starts(text)
        chunks: list[Chunk] = []
        for section in _sections(blocks, title):
            for start, end, context in self._section(text, section):
                body = text[start:end]
                chunks.append(
                    Chunk(
                        text=body,
                        heading=section.heading,
                        context=context,
                        start_line=bisect.bisect_right(starts, start),
                        end_line=bisect.bisect_right(starts, end - 1),
                        ordinal=len(chunks),
                        digest=self._digest(f"{context}\0{body}".encode()),
                    )
                )
        return chunks

    # --- one section --------------------------------------------------------------------

    def _section(self, text: str, section: _Section) -> Iterator[tuple[int, int, str]]:
        """(start, end, context) of the section's chunks."""
        context = self._context(section.titles)
        outer = self._context(section.titles[: len(section.titles) - section.own])
        longest = max(context, outer, key=self._lead)
        pieces: list[_Piece] = []
        for block in section.blocks:
            pieces.extend(self._pieces(text, block.start, block.end, 0, 0, longest))
        first = 0
        while first < len(pieces):
            lead = context if first else outer
            stop = self._take(text, pieces, first, lead)
            yield pieces[first].start, pieces[stop - 1].end, lead
            first = stop

    def _take(self, text: str, pieces: Sequence[_Piece], first: int, context: str) -> int:
        """The index after the last piece of the chunk that begins with ``pieces[first]``."""
        room = self.max_tokens - self._lead(context)
        fill = [pieces[first].tokens]
        stop = first + 1
        while stop < len(pieces) and fill[-1] + pieces[stop].tokens <= room:
            fill.append(fill[-1] + pieces[stop].tokens)
            stop += 1

        def fits(end: int) -> bool:
            return self._fits(text, pieces[first].start, pieces[end - 1].end, context)

        while stop > first + 1 and not fits(stop):  # counts do not add up in every tokenizer
            stop -= 1
        if stop < len(pieces):
            cuts = [c for c in range(first + 1, stop) if fill[c - first - 1] * 2 >= room]
            stop = min((*cuts, stop), key=lambda cut: _merit(text, pieces[cut]))
            while stop > first + 1 and not fits(stop):
                stop -= 1
        return stop

    def _pieces(
        self, text: str, start: int, end: int, level: int, rank: int, context: str
    ) -> Iterator[_Piece]:
        """A span as one piece if it fits below ``context``, else its parts."""
        last = level == len(_PARTS)
        if last or end - start <= self.max_tokens * MAX_CHARS_PER_TOKEN:
            tokens = self._count(_under(context, text[start:end]))
            if last or tokens <= self.max_tokens:
                yield _Piece(start, end, rank, max(tokens - self._lead(context), 0))
                return
        for number, (low, high) in enumerate(_PARTS[level](text, start, end)):
            inner = rank if number == 0 else level + 1
            yield from self._pieces(text, low, high, level + 1, inner, context)

    # --- tokens -------------------------------------------------------------------------

    def _lead(self, context: str) -> int:
        """Tokens of a text that come from its context and from what a model puts around it."""
        if context not in self._leads:
            if len(self._leads) > _CACHED_CONTEXTS:
                self._leads.clear()
            self._leads[context] = self._count(_under(context, ""))
        return self._leads[context]

    def _fits(self, text: str, start: int, end: int, context: str) -> bool:
        if end - start > self.max_tokens * MAX_CHARS_PER_TOKEN:
            return False
        return self._count(_under(context, text[start:end])) <= self.max_tokens

    def _context(self, titles: Sequence[str]) -> str:
        """The titles joined, the outermost dropped first where they take too much room."""
        most = max(self.max_tokens // _CONTEXT_SHARE, 1)
        kept = [title for title in titles if title]
        while kept:
            context = _SEPARATOR.join(kept)
            if len(context) <= most * MAX_CHARS_PER_TOKEN and (
                self._lead(context) - self._lead("") <= most
            ):
                return context
            kept.pop(0)
        return ""


@dataclass(frozen=True, slots=True)
class _Section:
    """What lies between two headings. The last ``own`` titles are lines of its first blocks."""

    titles: tuple[str, ...]
    heading: tuple[str, ...]
    own: int
    blocks: Sequence[Block]


def _sections(blocks: Sequence[Block], title: str | None) -> Iterator[_Section]:
    """Group blocks by heading. A heading directly below its parent shares the section, so that
    no chunk is a bare heading while there is text to put under it."""
    root = (title,) if title else ()
    path: list[Block] = []
    own = 0
    body: list[Block] = []

    def section() -> _Section:
        heading = tuple(block.title for block in path)
        return _Section((*root, *heading), heading, own, tuple(body))

    for block in blocks:
        if block.kind == "front":
            # Names the whole document: a chunk of its own, under no heading.
            yield _Section(root, (), len(root), (block,))
        elif block.kind == "heading":
            only_headings = len(body) == own
            if body and not (only_headings and path[-1].level < block.level):
                yield section()
                own, body = 0, []
            while path and path[-1].level >= block.level:
                path.pop()
            path.append(block)
            own += 1
            body.append(block)
        else:
            body.append(block)
    if body:
        yield section()


def _merit(text: str, piece: _Piece) -> tuple[int, int]:
    return piece.rank, crc32(text[piece.start : piece.end].encode())


# --- parts of a span ---------------------------------------------------------------------


def _items(text: str, start: int, end: int) -> list[tuple[int, int]]:
    """Cut before list items and after blank lines."""
    cuts = []
    blank = False
    for low, high in _lines_of(text, start, end):
        line = text[low:high]
        if low > start and (blank or _ITEM.match(line)):
            cuts.append(low)
        blank = not line.strip()
    return _trimmed(text, start, cuts, end)


def _lines(text: str, start: int, end: int) -> list[tuple[int, int]]:
    return _trimmed(text, start, [low for low, _ in _lines_of(text, start, end)][1:], end)


def _sentences(text: str, start: int, end: int) -> list[tuple[int, int]]:
    cuts = [mark.end() for mark in _SENTENCE.finditer(text, start, end)]
    return _trimmed(text, start, cuts, end)


def _words(text: str, start: int, end: int) -> list[tuple[int, int]]:
    return [word.span() for word in _WORD.finditer(text, start, end)]


_PARTS = (_items, _lines, _sentences, _words)


def _lines_of(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    while start < end:
        stop = text.find("\n", start, end)
        stop = end if stop < 0 else stop
        yield start, stop
        start = stop + 1


def _trimmed(text: str, start: int, cuts: Sequence[int], end: int) -> list[tuple[int, int]]:
    """The spans between cuts, without trailing white space; blank ones are dropped."""
    spans = []
    for low, high in pairwise((start, *cuts, end)):
        kept = len(text[low:high].rstrip())
        if kept:
            spans.append((low, low + kept))
    return spans


def _line_starts(text: str) -> list[int]:
    return [0, *(mark.end() for mark in re.finditer("\n", text))]
