"""The command line: a thin face on the public interface.

Everything it does a program can do with ``import memdb``; it uses the public names only. ``spec``
describes commands as data, ``parser``, ``completion`` and the tests are made from that; each
command's code is beside its description in ``memories``, ``faces`` and ``upkeep``.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence

__all__ = ["main"]

INTERRUPTED = 130  # what a shell reports of a program ended by SIGINT
BROKEN_PIPE = 141  # and by SIGPIPE


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; the exit status: 0, 1 for an error, 2 for wrong usage.

    Errors are one line on stderr with the remedy below it, or one JSON object with ``--json``.
    """
    import memdb
    from memdb.cli.calls import Call
    from memdb.cli.commands import COMMANDS
    from memdb.cli.output import Output
    from memdb.cli.parser import build

    _make_output_safe()
    try:
        args = build(COMMANDS, memdb.__version__).parse_args(argv)
    except SystemExit as stop:
        return int(stop.code or 0)
    as_json = bool(getattr(args, "json", False))
    try:
        status = args.command.run(Call(args.command, args, Output(as_json)))
        sys.stdout.flush()
    except memdb.MemdbError as error:
        return _fail(error.code, error.message, error.hint, as_json)
    except BrokenPipeError:
        # Python flushes stdout once more at exit, and would complain again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    except KeyboardInterrupt:
        return INTERRUPTED
    except UnicodeDecodeError:
        return _fail("invalid_argument", "standard input is not UTF-8", "convert it first", as_json)
    except OSError as error:
        return _fail("os_error", str(error), "check the path and its permissions", as_json)
    return int(status or 0)


def _fail(code: str, message: str, hint: str, as_json: bool) -> int:
    from memdb.cli.terminal import Style, printable

    if as_json:
        problem = {"error": {"code": code, "message": message, "hint": hint}}
        print(json.dumps(problem, ensure_ascii=False), file=sys.stderr)
        return 1
    style = Style(sys.stderr)
    print(f"{style('memdb:', 'red', 'bold')} {printable(message)}", file=sys.stderr)
    print(f"  {style('hint:', 'bold')} {printable(hint)}", file=sys.stderr)
    return 1


def _make_output_safe() -> None:
    """A character that the terminal's encoding lacks must not end the program."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="replace")
