"""What a folder may look like after a crash: files as pages, of which some reached the disk.

The rules are those that POSIX gives, and no more:

* ``fsync`` and ``fdatasync`` make a file's bytes and size durable, not its name; ``fsync`` of a
  directory makes the names in it durable. A write through O_DSYNC makes the bytes it wrote durable.
* Until then, each 4 KiB page may hold any of the contents it has had since the last sync, whatever
  the others hold, or 512-byte sectors of two of them (it is torn); the size may be any that the
  file has had since; names of one directory change in order, up to any point.

Content is what the system's cache would hold, so bytes written twice are written as they were last.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Final

from bench.crash.recording import Event, Kind

PAGE_BYTES: Final = 4096
_SECTOR_BYTES: Final = 512
_ZEROS: Final = bytes(PAGE_BYTES)


@dataclass(eq=False)
class File:
    """One file: what programs see, what is durable, and what each page has been since."""

    pages: dict[int, bytes] = field(default_factory=dict)
    size: int = 0
    durable: dict[int, bytes] = field(default_factory=dict)
    durable_size: int = 0
    since: dict[int, list[bytes]] = field(default_factory=dict)
    sizes: list[int] = field(default_factory=list)

    def write(self, at: int, data: bytes) -> list[int]:
        """Returns the pages that were written."""
        touched = []
        end = at + len(data)
        while at < end:
            number, first = divmod(at, PAGE_BYTES)
            part = data[len(data) - (end - at) :][: PAGE_BYTES - first]
            page = self.pages.get(number, _ZEROS)
            self._put(number, page[:first] + part + page[first + len(part) :])
            touched.append(number)
            at += len(part)
        if end > self.size:
            self._resize(end)
        return touched

    def _put(self, number: int, page: bytes) -> None:
        self.pages[number] = page
        self.since.setdefault(number, []).append(page)

    def _resize(self, size: int) -> None:
        self.size = size
        self.sizes.append(size)

    def resize(self, size: int) -> None:
        last = -(-size // PAGE_BYTES)
        for number in [number for number in self.pages if number >= last]:
            self._put(number, _ZEROS)
            del self.pages[number]
        if size % PAGE_BYTES and last - 1 in self.pages:
            page = self.pages[last - 1][: size % PAGE_BYTES]
            self._put(last - 1, page.ljust(PAGE_BYTES, b"\0"))
        self._resize(size)

    def punch(self, at: int, length: int) -> None:
        end = min(at + length, self.size)
        while at < end:
            part = min(PAGE_BYTES - at % PAGE_BYTES, end - at)
            self.write(at, bytes(part))
            at += part

    def sync(self) -> bool:
        """Whether anything became durable."""
        changed = bool(self.since) or self.size != self.durable_size
        for number in self.since:
            self._settle(number)
        self.since.clear()
        self.durable_size = self.size
        self.sizes.clear()
        return changed

    def sync_pages(self, numbers: list[int]) -> None:
        for number in numbers:
            self._settle(number)
            self.since.pop(number, None)
        end = min((max(numbers, default=-1) + 1) * PAGE_BYTES, self.size)
        self.durable_size = max(self.durable_size, end)

    def _settle(self, number: int) -> None:
        page = self.pages.get(number)
        if page is None:
            self.durable.pop(number, None)
        else:
            self.durable[number] = page

    def after_crash(self, rng: random.Random | None) -> tuple[dict[int, bytes], int]:
        """Pages and size: the durable ones, or, with ``rng``, one of what they may be."""
        if rng is None or not (self.since or self.sizes):
            return self.durable, self.durable_size
        found = dict(self.durable)
        share = rng.choice((0.1, 0.5, 0.9))  # of the pages that were written: few, some, most
        for number, versions in self.since.items():
            if rng.random() < share:
                before = self.durable.get(number, _ZEROS)
                found[number] = _one_of(before, versions, rng)
        return found, rng.choice([self.durable_size, *self.sizes, self.size])


def _one_of(before: bytes, versions: list[bytes], rng: random.Random) -> bytes:
    chosen = rng.choice(versions)
    if rng.random() < 0.75:
        return chosen
    other = rng.choice([before, *versions])  # torn: sectors of two
    cuts = range(0, PAGE_BYTES, _SECTOR_BYTES)
    return b"".join(rng.choice((chosen, other))[at : at + _SECTOR_BYTES] for at in cuts)


@dataclass(eq=False)
class Folder:
    """One directory, and the names in it: what programs see, and what is durable."""

    names: dict[str, Entry] = field(default_factory=dict)
    durable: dict[str, Entry] = field(default_factory=dict)


Entry = File | Folder
_Edit = tuple[Folder, str, Entry | None]  # what a name is of from now on; None: of nothing
Contents = Iterator[tuple[str, dict[int, bytes] | None, int]]
"""(path, pages, size) of every file, and (path, None, 0) of every directory, parents first."""


class Disk:
    """A folder as events leave it. ``apply`` them in order; ``contents`` is what a crash leaves."""

    def __init__(self) -> None:
        self.root = Folder()
        self._since: list[tuple[_Edit, ...]] = []  # changes of names, each whole or not at all
        self._handles: dict[int, tuple[Entry, bool]] = {}

    def apply(self, event: Event) -> bool:
        """Whether something became durable by it."""
        kind = event.kind
        if kind == Kind.OPEN:
            path = event.data.decode()
            if event.is_made:
                self._name(path, File())
            self._handles[event.handle] = self.at(path), event.syncs_itself
        elif kind == Kind.DIRECTORY:
            self._name(event.data.decode(), Folder())
        elif kind == Kind.RENAME:
            source, target = (name.decode() for name in event.data.split(b"\0"))
            moved = self.at(source)
            self._change((*self._place(source), None), (*self._place(target), moved))
        elif kind == Kind.UNLINK:
            self._name(event.data.decode(), None)
        elif kind == Kind.RESIZE:
            self.file(event.data.decode()).resize(event.size)
        elif kind == Kind.SYNC:
            entry, _ = self._handles[event.handle]
            return entry.sync() if isinstance(entry, File) else self._sync_names(entry)
        else:
            return self._write(event)
        return False

    def _write(self, event: Event) -> bool:
        entry, syncs_itself = self._handles[event.handle]
        if not isinstance(entry, File):
            raise TypeError("a directory has no bytes")
        if event.kind == Kind.SIZE:
            entry.resize(event.size)
        elif event.kind == Kind.HOLE:
            entry.punch(event.at, event.size)
        else:
            touched = entry.write(event.at, event.data)
            if syncs_itself:
                entry.sync_pages(touched)
            return syncs_itself
        return False

    # --- names -----------------------------------------------------------------------------

    def at(self, path: str) -> Entry:
        """What programs see there."""
        found: Entry = self.root
        for part in PurePosixPath(path).parts:
            if not isinstance(found, Folder):
                raise NotADirectoryError(path)
            found = found.names[part]
        return found

    def file(self, path: str) -> File:
        found = self.at(path)
        if not isinstance(found, File):
            raise IsADirectoryError(path)
        return found

    def _place(self, path: str) -> tuple[Folder, str]:
        where = PurePosixPath(path)
        folder = self.at(str(where.parent))
        if not isinstance(folder, Folder):
            raise NotADirectoryError(path)
        return folder, where.name

    def _name(self, path: str, entry: Entry | None) -> None:
        self._change((*self._place(path), entry))

    def _change(self, *edits: _Edit) -> None:
        for folder, name, entry in edits:
            _edit(folder.names, name, entry)
        self._since.append(edits)

    def _sync_names(self, folder: Folder) -> bool:
        """A change that touches the directory becomes durable with what it does to another."""
        mine = [one for one in self._since if any(edit[0] is folder for edit in one)]
        for change in mine:
            for where, name, entry in change:
                _edit(where.durable, name, entry)
        self._since = [one for one in self._since if one not in mine]
        return bool(mine)

    # --- a crash ---------------------------------------------------------------------------

    def contents(self, rng: random.Random | None = None) -> Contents:
        """What is durable; with ``rng``, one of what may have reached the disk."""
        names: dict[Folder, dict[str, Entry]] = {}
        if rng is not None:
            cuts = {edit[0]: rng.randint(0, len(self._since))
                    for change in self._since for edit in change}  # fmt: skip
            for number, change in enumerate(self._since):
                if all(number < cuts[folder] for folder, _, _ in change):
                    for folder, name, entry in change:
                        _edit(names.setdefault(folder, dict(folder.durable)), name, entry)
        yield from self._walk(
            lambda folder: names.get(folder, folder.durable), lambda file: file.after_crash(rng)
        )

    def seen(self) -> Contents:
        """What programs see, which is what a process that is killed leaves."""
        yield from self._walk(lambda folder: folder.names, lambda file: (file.pages, file.size))

    def _walk(
        self,
        names: Callable[[Folder], dict[str, Entry]],
        content: Callable[[File], tuple[dict[int, bytes], int]],
    ) -> Contents:
        open_ = [("", self.root)]
        while open_:
            path, folder = open_.pop()
            for name, entry in sorted(names(folder).items()):
                here = f"{path}/{name}" if path else name
                if isinstance(entry, File):
                    yield here, *content(entry)
                else:
                    open_.append((here, entry))
                    yield here, None, 0


def _edit(names: dict[str, Entry], name: str, entry: Entry | None) -> None:
    if entry is None:
        names.pop(name, None)
    else:
        names[name] = entry


def lay_out(contents: Contents, folder: Path) -> None:
    """Make real files of it in an empty folder; pages of zeros are holes."""
    for path, pages, size in contents:
        if pages is None:
            (folder / path).mkdir(mode=0o700)
            continue
        with open(folder / path, "wb") as handle:
            last = -(-size // PAGE_BYTES)
            for first, run in _runs(pages, last):
                handle.seek(first * PAGE_BYTES)
                handle.write(run)
            handle.truncate(size)


def _runs(pages: dict[int, bytes], last: int) -> Iterator[tuple[int, bytes]]:
    """Pages before ``last``, neighbours together."""
    numbers = sorted(number for number in pages if number < last)
    start = 0
    for i in range(1, len(numbers) + 1):
        if i == len(numbers) or numbers[i] != numbers[i - 1] + 1:
            if numbers:
                yield numbers[start], b"".join(pages[n] for n in numbers[start:i])
            start = i
