"""Which paths a sync takes: include and exclude patterns with the semantics of gitignore.

* A pattern without ``/`` (other than a last one) matches a name at any depth; one with ``/`` is
  anchored at the root.
* ``*`` and ``?`` do not match ``/``; ``**/`` matches any number of folders; ``[a-z]``, ``[!a]``.
* A last ``/`` matches folders only. A pattern that matches a folder matches all below it.
* Of several patterns the last that matches decides; ``!`` in front makes it take the opposite.

It knows strings, not files.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from memdb.errors import InvalidArgument

MAX_PATTERNS = 256
MAX_PATTERN_CHARS = 512

# Hidden files and folders (.git, .obsidian, .venv, .trash), and what tools generate.
DEFAULT_EXCLUDE = (".*", "node_modules/", "__pycache__/", "*~", "#*#")


class Globs:
    """A list of patterns. Raises ``InvalidArgument`` naming ``field`` for one that is malformed."""

    __slots__ = ("_rules", "patterns")

    def __init__(self, patterns: Sequence[str], field: str) -> None:
        if isinstance(patterns, str):
            raise InvalidArgument(f"{field} is a list of patterns, not one string", field=field)
        self.patterns = tuple(patterns)
        if len(self.patterns) > MAX_PATTERNS:
            raise InvalidArgument(f"{field} has more than {MAX_PATTERNS} patterns", field=field)
        self._rules = [_compile(pattern, field) for pattern in self.patterns]

    def __bool__(self) -> bool:
        return bool(self.patterns)

    def match(self, path: str) -> bool:
        """Whether ``path`` (relative, ``/``; a folder ends with ``/``) is matched."""
        for wanted, expression in reversed(self._rules):
            if expression.fullmatch(path):
                return wanted
        return False


def _compile(pattern: str, field: str) -> tuple[bool, re.Pattern[str]]:
    if not isinstance(pattern, str) or not 0 < len(pattern) <= MAX_PATTERN_CHARS:
        raise InvalidArgument(
            f"a pattern in {field} is a string of 1 to {MAX_PATTERN_CHARS} characters", field=field
        )
    wanted = not pattern.startswith("!")
    body = pattern if wanted else pattern[1:]
    folder = body.endswith("/")
    body = body.removesuffix("/")
    anchored = "/" in body
    body = body.removeprefix("/")
    if not body:
        raise InvalidArgument(f"the pattern {pattern!r} in {field} names nothing", field=field)
    head = "" if anchored else "(?:.*/)?"
    tail = "/.*" if folder else "(?:/.*)?"
    try:
        expression = re.compile(head + _translate(body) + tail, re.DOTALL)
    except re.error as error:
        raise InvalidArgument(f"the pattern {pattern!r} in {field}: {error}", field=field) from None
    return wanted, expression


def _translate(body: str) -> str:
    out = []
    index = 0
    while index < len(body):
        char = body[index]
        if body.startswith("**/", index) and (index == 0 or body[index - 1] == "/"):
            out.append("(?:.*/)?")
            index += 3
            while body.startswith("**/", index):  # again says no more, but costs much to match
                index += 3
        elif body[index:] == "**" and (index == 0 or body[index - 1] == "/"):
            out.append(".+")
            index += 2
        elif char == "*":
            while body.startswith("*", index):
                index += 1
            out.append("[^/]*")
        elif char == "?":
            out.append("[^/]")
            index += 1
        elif char == "[" and (close := _class_end(body, index)):
            inner = body[index + 1 : close].replace("\\", "\\\\").replace("[", "\\[")
            if inner[0] in "!^":
                inner = "^/" + inner[1:]
            out.append(f"(?!/)[{inner}]")
            index = close + 1
        else:
            out.append(re.escape(char))
            index += 1
    return "".join(out)


def _class_end(body: str, index: int) -> int:
    """The index of the ``]`` that closes the class opened at ``index``, or 0."""
    start = index + 1
    if body[start : start + 1] in ("!", "^"):
        start += 1
    return max(body.find("]", start + 1), 0)
