#!/usr/bin/env python3
"""One verb per task for whoever works on memdb: ``python3 dev.py VERB`` or ``make VERB``.

Knows how to turn a bare checkout into a working environment: it checks the machine and names the
command that installs what is missing, makes ``.venv``, installs the requirements written in
pyproject.toml, builds the native kernels and installs the checkout editable. What has not changed
since the last call is not done again. It must run on Python alone, so it imports only the standard
library, and on a Python too old for memdb, so that it can say so: no syntax newer than 3.7.

Environment variables: MEMDB_VENV (another place for .venv), CXX (the C++ compiler).
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parent
VENV = Path(os.environ.get("MEMDB_VENV") or ROOT / ".venv").absolute()
STAMP = VENV / "memdb-setup.json"
OLDEST_PYTHON = (3, 11)
LINKS = ("index", "ingest", "query", "server", "storage")
WINDOWS = os.name == "nt"
BIN = VENV / ("Scripts" if WINDOWS else "bin")
PYTHON = BIN / ("python.exe" if WINDOWS else "python")

# What to install, by package manager: how it is called, then its names for a Python with headers
# and venv, and for a C++ compiler.
PACKAGE_MANAGERS = (
    ("apt-get", "sudo apt-get install -y", "python3 python3-dev python3-venv", "g++"),
    ("dnf", "sudo dnf install -y", "python3 python3-devel", "gcc-c++"),
    ("zypper", "sudo zypper install -y", "python3 python3-devel", "gcc-c++"),
    ("pacman", "sudo pacman -S --needed", "python", "gcc"),
    ("apk", "sudo apk add", "python3 python3-dev py3-pip", "g++ musl-dev linux-headers"),
)
VISUAL_STUDIO = (
    "winget install Microsoft.VisualStudio.2022.BuildTools --override "
    '"--add Microsoft.VisualStudio.Workload.VCTools --passive --wait"'
)


class SetupError(Exception):
    """The machine or the checkout lacks something; the message says what to type."""


# --- what the machine must have -----------------------------------------------------------------


def install_command(python: bool, compiler: bool) -> str:
    """The command that installs a Python with headers, a C++ compiler, or both, on this system."""
    if sys.platform == "darwin":
        commands = (["brew install python@3.13"] if python else []) + (
            ["xcode-select --install"] if compiler else []
        )
        return " && ".join(commands)
    if WINDOWS:
        commands = (["winget install Python.Python.3.13"] if python else []) + (
            [VISUAL_STUDIO] if compiler else []
        )
        return " && ".join(commands)
    for program, command, python_packages, compiler_packages in PACKAGE_MANAGERS:
        if shutil.which(program):
            if hasattr(os, "geteuid") and os.geteuid() == 0:
                command = command.replace("sudo ", "")
            wanted = [python_packages] * python + [compiler_packages] * compiler
            return " ".join([command, *wanted])
    return "your system's package manager"


def has_compiler() -> bool:
    if os.environ.get("CXX") or any(map(shutil.which, ("c++", "g++", "clang++", "cl"))):
        return True
    installer = Path(os.environ.get("PROGRAMFILES(X86)", "")) / "Microsoft Visual Studio"
    return WINDOWS and (installer / "Installer" / "vswhere.exe").is_file()


def newer_python() -> str | None:
    """Another Python on PATH that memdb runs on, where this one is too old; else None."""
    if sys.version_info >= OLDEST_PYTHON:
        return None
    names = (f"python3.{minor}" for minor in (13, 12, 11, 14))
    return next(filter(None, map(shutil.which, names)), None)


def check_machine() -> None:
    """Raise one SetupError that lists everything missing and the one command that installs it."""
    problems = []
    python = compiler = False
    if sys.version_info < OLDEST_PYTHON:
        problems.append(
            "Python {}.{} or newer (this is {}.{})".format(*OLDEST_PYTHON, *sys.version_info[:2])
        )
        python = True
    elif not can_make_venv():
        problems.append("Python's venv module with ensurepip, or pip")
        python = True
    if not (Path(sysconfig.get_paths()["include"]) / "Python.h").is_file():
        problems.append("Python's C headers (Python.h)")
        python = True
    if not has_compiler():
        problems.append("a C++ compiler")
        compiler = True
    if problems:
        raise SetupError(
            "missing on this machine: {}\ninstall it with:\n    {}".format(
                "; ".join(problems), install_command(python, compiler)
            )
        )
    lost = [name for name in LINKS if not (ROOT / "memdb" / name / "__init__.py").is_file()]
    if lost:
        raise SetupError(
            "the checkout lost its symbolic links: "
            + ", ".join("memdb/" + name for name in lost)
            + "\nrestore them with:\n    git config core.symlinks true && git checkout -- memdb"
            + ("\n(Windows: switch on Developer Mode first)" if WINDOWS else "")
        )


def ensure_browser() -> None:
    """Chromium and its driver, with which tests drive the page: installed where that needs no
    question (root on a Debian with apt-get). Without them those tests are skipped, and say why."""
    programs = ("chromium", "chromedriver")
    if all(map(shutil.which, programs)) or not shutil.which("apt-get"):
        return
    if not hasattr(os, "geteuid") or os.geteuid() != 0:
        return
    say("installing chromium and chromium-driver, for the tests of the page")
    os.environ.setdefault("DEBIAN_FRONTEND", "noninteractive")
    quiet = ("-y", "-qq", "--no-install-recommends")
    install = ("apt-get", "install", *quiet, "chromium", "chromium-driver")
    # Debian's images ship no lists of packages: without them nothing is found.
    if not succeeds(*install) and not (succeeds("apt-get", "update", "-qq") and succeeds(*install)):
        say("they cannot be installed here: the tests of the page in a browser are skipped")


def can_make_venv() -> bool:
    has = importlib.util.find_spec
    return bool(has("venv")) and bool(has("ensurepip") or has("pip"))


# --- .venv ----------------------------------------------------------------------------------------


def run(*command: str | Path, quiet: bool = False) -> None:
    """Run a command in the checkout; its failure is a SetupError that repeats the command."""
    words = [str(word) for word in command]
    output = subprocess.DEVNULL if quiet else None
    status = subprocess.run(words, check=False, cwd=str(ROOT), stdout=output).returncode
    if status:
        raise SetupError(f"failed with status {status}: {' '.join(words)}")


def succeeds(*command: str | Path) -> bool:
    words = [str(word) for word in command]
    try:
        result = subprocess.run(words, check=False, capture_output=True)
    except OSError:
        return False
    return result.returncode == 0


def say(text: str) -> None:
    print("-- " + text, flush=True)


def ensure_venv() -> None:
    """Make the environment, or mend it where its Python is gone or too old or has no pip."""
    version_ok = f"import sys; sys.exit(sys.version_info < {OLDEST_PYTHON!r})"
    has_ensurepip = importlib.util.find_spec("ensurepip") is not None
    if not succeeds(PYTHON, "-c", version_ok):
        say("making {} with Python {}.{}".format(VENV, *sys.version_info[:2]))
        # Without pip first: Debian splits ensurepip off, and then pip comes from outside.
        run(sys.executable, "-m", "venv", "--clear", "--without-pip", VENV)
    if succeeds(PYTHON, "-c", "import pip"):
        return
    if has_ensurepip:
        run(PYTHON, "-m", "ensurepip", "--upgrade", "--default-pip", quiet=True)
    else:
        run(sys.executable, "-m", "pip", "--python", PYTHON, "install", "--quiet", "pip")


def read_stamp() -> dict:
    """What the last successful setup installed; empty where there was none."""
    try:
        stamp = json.loads(STAMP.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return stamp if stamp.get("root") == str(ROOT) else {}


def write_stamp(stamp: dict) -> None:
    STAMP.write_text(json.dumps(dict(stamp, root=str(ROOT)), indent=1), encoding="utf-8")


def requirements(groups: tuple, extras: bool = True) -> list:
    """The given groups of pyproject.toml; with them the package's dependencies and ``[all]``."""
    import tomllib  # not in a Python that is too old, which check_machine has refused by now

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    wanted = []
    if extras:
        wanted += project["project"]["dependencies"]
        for name, packages in project["project"]["optional-dependencies"].items():
            if name != "all":
                wanted += packages

    def add_group(name: str) -> None:
        for entry in project["dependency-groups"][name]:
            if isinstance(entry, dict):
                add_group(entry["include-group"])
            else:
                wanted.append(entry)

    for group in groups:
        add_group(group)
    return sorted(set(wanted))


def build_fingerprint() -> str:
    """Hash of what the installed checkout was built from: metadata, scripts and kernels."""
    folders = (ROOT / name / "native" for name in ("index", "storage"))
    native = (path for folder in folders for path in folder.rglob("*") if path.is_file())
    digest = hashlib.sha256(sys.version.encode())
    for path in [ROOT / "pyproject.toml", *sorted(native)]:
        digest.update(str(path.relative_to(ROOT)).encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


# The build backend itself: what it compiles stays in the build folder, where pip's call finds it.
COMPILE = """
import sys
from scikit_build_core.build import build_editable
build_editable(sys.argv[1])
"""


def compile_kernels() -> None:
    """Fill the build folder. A failure is not told here: pip's own call meets it again."""
    with tempfile.TemporaryDirectory() as folder:
        command = [str(PYTHON), "-c", COMPILE, folder]
        subprocess.run(command, check=False, cwd=str(ROOT), capture_output=True)


def setup(groups: tuple) -> None:
    """Bring .venv up to date: requirements first, then the checkout itself, editable.

    pip keeps one core busy at most, so the kernels are compiled while it fetches and unpacks.
    """
    check_machine()
    start = time.monotonic()
    ensure_venv()
    stamp = read_stamp()
    wanted = requirements(groups)
    fingerprint = build_fingerprint()
    done_something = False
    if not set(wanted) <= set(stamp.get("requirements", ())):
        say(f"installing {len(wanted)} requirements into {VENV}")
        with ThreadPoolExecutor(1) as beside:
            if stamp.get("build") != fingerprint:
                install(requirements(("build",), extras=False))
                beside.submit(compile_kernels)
            install(wanted)
        stamp["requirements"] = wanted
        write_stamp(stamp)
        done_something = True
    if stamp.get("build") != fingerprint:
        say("building the native kernels and installing the checkout, editable")
        # Without isolation cmake keeps its build folder, and only what changed is compiled again.
        pip("install", "--no-build-isolation", "--no-deps", "--editable", str(ROOT))
        stamp["build"] = fingerprint
        write_stamp(stamp)
        done_something = True
    if done_something:
        say(f"ready after {time.monotonic() - start:.0f} s")


def install(wanted: list) -> None:
    # Compiling all of torch and transformers to bytecode would take longer than the demo; what is
    # imported is compiled then (see call).
    pip("install", "--no-compile", *wanted)


def pip(*arguments: str) -> None:
    run(PYTHON, "-m", "pip", "--disable-pip-version-check", *arguments)


# --- the verbs ------------------------------------------------------------------------------------


def call(*command: str | Path) -> int:
    """Run the last command of a verb; its exit status is the verb's."""
    environment = dict(os.environ, VIRTUAL_ENV=str(VENV))
    environment["PATH"] = str(BIN) + os.pathsep + environment.get("PATH", "")
    # Tests and benchmarks start hundreds of processes. Each would compile all that it imports, if
    # the machine is told to keep no bytecode; .venv is a place for it that litters no sources.
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    environment.setdefault("PYTHONPYCACHEPREFIX", str(VENV / "bytecode"))
    words = [str(word) for word in command]
    sys.stdout.flush()
    return subprocess.run(words, check=False, cwd=str(ROOT), env=environment).returncode


def verb_setup(arguments: list) -> int:
    """make .venv and install everything; rebuild the kernels where they changed"""
    setup(("dev",))
    return 0


def verb_demo(arguments: list) -> int:
    """the tour: ingest a sample life, ask it questions, see why"""
    setup(("build", "constraints"))
    return call(PYTHON, "-m", "memdb.cli", "demo", *arguments)


def verb_test(arguments: list) -> int:
    """run the tests, all of them on all cores; further arguments go to pytest instead"""
    with ThreadPoolExecutor(1) as beside:
        browser = beside.submit(ensure_browser)
        setup(("dev",))
    browser.result()
    return call(PYTHON, "-m", "pytest", *(arguments or ("-n", "auto", "--dist", "worksteal")))


def verb_lint(arguments: list) -> int:
    """ruff, as linter and formatter, and mypy --strict"""
    setup(("dev",))
    tools = (("ruff", "check", "."), ("ruff", "format", "--check", "."), ("mypy",))
    return max([call(PYTHON, "-m", *tool) for tool in tools])


def verb_bench(arguments: list) -> int:
    """the benchmarks; further arguments go to python -m bench"""
    setup(("dev",))
    return call(PYTHON, "-m", "bench", *arguments)


def verb_build(arguments: list) -> int:
    """sdist, and the wheel built from it, into dist/; their contents are checked"""
    setup(("dev",))
    dist = ROOT / "dist"
    for old in dist.glob("personal_memdb-*"):
        old.unlink()
    run(PYTHON, "-m", "build", "--no-isolation", "--outdir", dist, ROOT)
    os.environ["MEMDB_DIST"] = str(dist)
    return call(PYTHON, "-m", "pytest", "-q", "tests/test_packaging.py")


def verb_clean(arguments: list) -> int:
    """remove what builds and tests leave behind; with --all the environment too"""
    trash = [ROOT / name for name in ("build", "dist", ".mypy_cache", ".ruff_cache")]
    trash += [ROOT / name for name in (".pytest_cache", ".hypothesis")]
    sources = [ROOT / name for name in (*LINKS, "memdb", "bench", "tests")]
    for folder in sources:
        trash += folder.rglob("__pycache__")
    if "--all" in arguments:
        trash.append(VENV)
    elif STAMP.is_file():
        # The editable install lives in build/ in part: the next verb must make it again.
        write_stamp({key: value for key, value in read_stamp().items() if key == "requirements"})
    for path in trash:
        if path.is_dir():
            say(f"removing {path}")
            shutil.rmtree(str(path))
    return 0


VERBS = {
    "setup": verb_setup,
    "demo": verb_demo,
    "test": verb_test,
    "lint": verb_lint,
    "bench": verb_bench,
    "build": verb_build,
    "clean": verb_clean,
}


def main() -> int:
    listing = "\n".join(f"  {name:7}{verb.__doc__}" for name, verb in VERBS.items())
    parser = argparse.ArgumentParser(
        prog="dev.py",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        usage="python3 dev.py VERB [ARGUMENT ...]     or: make VERB [ARGS='...']",
        description="verbs:\n" + listing,
        epilog="Everything is installed in .venv; MEMDB_VENV names another place.",
    )
    parser.add_argument("verb", choices=list(VERBS), metavar="VERB", help="one of the above")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, metavar="ARGUMENT")
    options = parser.parse_args()
    newer = newer_python()
    if newer:
        return subprocess.run([newer, *sys.argv], check=False).returncode
    try:
        return VERBS[options.verb](options.arguments)
    except SetupError as error:
        print(f"dev.py: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
