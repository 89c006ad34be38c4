"""Is the page tree of an LMDB file sound? Looked at without LMDB, which trusts what it reads.

LMDB 0.9 keeps no checksum of a page: a page that was zeroed, overwritten or cut off makes it abort
the process, or read past the end of the file (SIGBUS). Values carry checksums of their own; this
file checks what lies around them, level by level with numpy: page numbers, kinds, offsets, sizes,
and that each tree has the pages and entries that its root says. Some 2 us a page.

Grammar (LMDB 0.9, 64-bit, little-endian, pages of 4,096 bytes)::

    page    := number u64 | pad u16 | flags u16 | lower u16 | upper u16 | offset u16... | ... nodes
               an overflow page has its number of pages, u32, in place of lower and upper
    node    := low u16 | high u16 | flags u16 | key size u16 | key | data
               leaf: low | high << 16 is the size of data; with flag 1 data is a page number u64,
               with flag 2 a tree. branch: low | high << 16 | flags << 32 is the child's number
    tree    := pad u32 | flags u16 | depth u16 | branch u64 | leaf u64 | overflow u64 | entries u64
               | root u64
    meta    := page 0 and 1: header | magic u32 | version u32 | address u64 | map size u64
               | tree of free pages | tree of tables | last page u64 | transaction u64

It knows no table and no key.
"""

from __future__ import annotations

import mmap
import struct
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

PAGE = 4_096
_HALF = PAGE // 2
_HEAD = 16
_NODE = 8
_MAGIC = 0xBEEFC0DE
_NO_PAGE = 0xFFFF_FFFF_FFFF_FFFF
_BRANCH, _LEAF, _OVERFLOW, _META = 1, 2, 4, 8
_BIG, _TREE = 1, 2
_META_FORMAT = struct.Struct("<IIQQ")
_TREE_FORMAT = struct.Struct("<IHHQQQQQ")
_TAIL_FORMAT = struct.Struct("<QQ")
_MAX_DEPTH = 32


class Tree(NamedTuple):
    """The root record of one B-tree."""

    pad: int
    flags: int
    depth: int
    branch_pages: int
    leaf_pages: int
    overflow_pages: int
    entries: int
    root: int


class Meta(NamedTuple):
    """One of the two roots of the file."""

    free: Tree
    main: Tree
    last_page: int
    transaction: int


class Unsound(Exception):
    """What is wrong, in words; never leaves ``storage``."""


def read_meta(content: bytes) -> Meta | None:
    """The meta page in ``content``, None when it is none."""
    if len(content) < _HEAD + 136 or not content[10] & _META:
        return None
    magic, version, _, _ = _META_FORMAT.unpack_from(content, _HEAD)
    if magic != _MAGIC or version != 1:
        return None
    at = _HEAD + _META_FORMAT.size
    free = Tree(*_TREE_FORMAT.unpack_from(content, at))
    main = Tree(*_TREE_FORMAT.unpack_from(content, at + _TREE_FORMAT.size))
    last, transaction = _TAIL_FORMAT.unpack_from(content, at + 2 * _TREE_FORMAT.size)
    return Meta(free, main, last, transaction)


def read_metas(path: Path) -> list[Meta]:
    """Both meta pages. Raises ``Unsound``: LMDB would make an empty file of it, or refuse."""
    with open(path, "rb") as handle:
        content = handle.read(2 * PAGE)
    found = [read_meta(content[start : start + PAGE]) for start in (0, PAGE)]
    metas = [meta for meta in found if meta is not None]
    if len(metas) < 2:
        raise Unsound("has no sound beginning")
    if any(meta.free.pad != PAGE for meta in metas):
        raise Unsound("has pages of another size")
    return metas


def verify(path: Path, transaction: int, *, deep: bool = True) -> int:
    """Walk every tree as of ``transaction``, whose snapshot the caller holds open.

    ``deep``: down to the leaves and their values' pages, and not only to what leads there. A
    file shorter than its root says is walked deep in any case: only pages that are free may lie
    beyond its end. Returns the number of pages looked at, 0 when the file's two roots have moved
    on from ``transaction``; raises ``Unsound``.
    """
    with open(path, "rb") as handle:
        mapping = mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ)
    whole = len(mapping) // PAGE * PAGE
    halves = np.frombuffer(mapping, "<u2", count=whole // 2)
    metas = [read_meta(mapping[start : start + PAGE]) for start in (0, PAGE)]
    meta = next((m for m in metas if m is not None and m.transaction == transaction), None)
    if meta is None:
        return 0
    cut = whole // PAGE <= meta.last_page
    if not (deep or cut) and hasattr(mmap, "MADV_RANDOM"):
        mapping.madvise(mmap.MADV_RANDOM)  # few pages, far apart: no reading ahead
    walk = _Walk(halves, min(whole // PAGE, meta.last_page + 1))
    walk.tree(meta.free, "the free list", deep=deep or cut)
    for root in walk.tree(meta.main, "the list of tables", deep=True):
        walk.tree(root, "a table", deep=deep or cut)
    return walk.looked_at


class _Walk:
    def __init__(self, halves: NDArray[np.uint16], limit: int) -> None:
        self._halves = halves
        self._limit = limit
        self.looked_at = 0

    def tree(self, tree: Tree, name: str, *, deep: bool) -> list[Tree]:
        """Check one tree; returns the trees whose roots are its entries' data."""
        if tree.root == _NO_PAGE:
            if tree.entries or tree.depth:
                raise Unsound(f"has lost the root of {name}")
            return []
        if not 1 <= tree.depth <= _MAX_DEPTH:
            raise Unsound(f"has an impossible depth in {name}")
        level = np.array([tree.root], np.int64)
        branches = 0
        for _ in range(tree.depth - 1):
            level = self._children(level, name)
            branches += len(level)
            if branches > self._limit:
                raise Unsound(f"has a page twice in {name}")
        self._inside(level, name)
        if not deep:
            return []
        entries, overflow, found = self._leaves(level, name)
        if (len(level), entries, overflow) != (tree.leaf_pages, tree.entries, tree.overflow_pages):
            raise Unsound(f"has lost pages or entries of {name}")
        return found

    def _nodes(
        self, pages: NDArray[np.int64], kind: int, name: str
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Pages checked; where their nodes begin and where those pages end, both in halves."""
        self._inside(pages, name)
        self.looked_at += len(pages)
        starts = pages * _HALF
        number = self._wide(starts) | self._at(starts + 3) << 48
        flags, lower, upper = (self._at(starts + place) for place in (5, 6, 7))
        sound = (number == pages) & (flags & 0xF == kind) & (lower >= _HEAD) & (lower <= upper)
        sound &= (upper <= PAGE) & (lower % 2 == 0)
        if not sound.all():
            raise Unsound(f"has a damaged page in {name}: {int(pages[~sound][0])}")
        counts = (lower - _HEAD) // 2
        if kind == _BRANCH and (counts < 2).any():
            raise Unsound(f"has an empty page in {name}")
        owner = np.repeat(np.arange(len(pages)), counts)
        first = np.cumsum(counts) - counts
        index = np.arange(len(owner)) - first[owner]
        offsets = self._at(starts[owner] + _HEAD // 2 + index)
        fits = (offsets >= upper[owner]) & (offsets <= PAGE - _NODE) & (offsets % 2 == 0)
        if not fits.all():
            raise Unsound(f"has a damaged page in {name}: {int(pages[owner[~fits]][0])}")
        return starts[owner] + offsets // 2, starts[owner] + _HALF

    def _children(self, pages: NDArray[np.int64], name: str) -> NDArray[np.int64]:
        nodes, ends = self._nodes(pages, _BRANCH, name)
        self._end(nodes, self._at(nodes + 3), ends, name)
        return self._wide(nodes)

    def _leaves(self, pages: NDArray[np.int64], name: str) -> tuple[int, int, list[Tree]]:
        """Entries, overflow pages, and trees in the leaves."""
        nodes, ends = self._nodes(pages, _LEAF, name)
        size = self._at(nodes) | self._at(nodes + 1) << 16
        flags, key = self._at(nodes + 2), self._at(nodes + 3)
        big = flags & _BIG != 0
        self._end(nodes, key + np.where(big, 8, size), ends, name)
        overflow = self._overflow(nodes[big], key[big], size[big], name)
        roots = []
        for node, length in zip(nodes[flags & _TREE != 0], key[flags & _TREE != 0], strict=True):
            start = 2 * int(node) + _NODE + int(length)
            roots.append(Tree(*_TREE_FORMAT.unpack_from(self._halves.view(np.uint8).data, start)))
        return len(nodes), overflow, roots

    def _overflow(
        self,
        nodes: NDArray[np.int64],
        key: NDArray[np.int64],
        size: NDArray[np.int64],
        name: str,
    ) -> int:
        if not len(nodes):
            return 0
        bytes_ = self._halves.view(np.uint8)
        places = (2 * nodes + _NODE + key)[:, None] + np.arange(8)
        pages = np.ascontiguousarray(bytes_[places]).view("<u8")[:, 0].astype(np.int64)
        self._inside(pages, name)
        starts = pages * _HALF
        count = self._at(starts + 6) | self._at(starts + 7) << 16
        number = self._wide(starts) | self._at(starts + 3) << 48
        sound = (number == pages) & (self._at(starts + 5) & 0xF == _OVERFLOW)
        sound &= count == -(-(size + _HEAD) // PAGE)
        if not sound.all():
            raise Unsound(f"has a damaged page in {name}: {int(pages[~sound][0])}")
        self._inside(pages + count - 1, name)
        self.looked_at += len(pages)
        return int(count.sum())

    def _inside(self, pages: NDArray[np.int64], name: str) -> None:
        if ((pages < 2) | (pages >= self._limit)).any():
            raise Unsound(f"ends before a page of {name}, or names one that cannot be")

    @staticmethod
    def _end(
        nodes: NDArray[np.int64], content: NDArray[np.int64], ends: NDArray[np.int64], name: str
    ) -> None:
        if (2 * nodes + _NODE + content > 2 * ends).any():
            raise Unsound(f"has an entry that leaves its page in {name}")

    def _at(self, halves: NDArray[np.int64]) -> NDArray[np.int64]:
        return self._halves[halves].astype(np.int64)

    def _wide(self, halves: NDArray[np.int64]) -> NDArray[np.int64]:
        """48 bits."""
        return self._at(halves) | self._at(halves + 1) << 16 | self._at(halves + 2) << 32
