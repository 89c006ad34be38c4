"""Programs of native sources, compiled by a test with the flags of a sanitizer or emulator."""

from __future__ import annotations

import platform
import subprocess
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).parents[1]
COMMON = ["-std=c++17", "-ffp-contract=off", "-g1"]
_X86 = platform.machine().lower() in ("x86_64", "amd64")


def built(
    program: Path,
    native: Path,
    compiler: str,
    flags: list[str],
    own: Mapping[str, list[str]],
    folder: Path,
) -> Path:
    """``program`` with the sources in ``native`` that know no Python, as a file in ``folder``.

    ``own``: the flags that a source of an instruction set of x86 is given on such a machine. Files
    say that this build lacks their set when its flags are missing.
    """

    def compiled(source: Path) -> str:
        target = folder / f"{source.stem}.o"
        more = own.get(source.name, []) if _X86 and "aarch64" not in compiler else []
        command = [compiler, *COMMON, f"-I{native}", *flags, *more, "-c", str(source)]
        subprocess.run([*command, "-o", str(target)], check=True, timeout=100)
        return str(target)

    sources = [path for path in native.glob("*.cpp") if not path.stem.endswith("module")]
    with ThreadPoolExecutor(2) as pool:
        objects = list(pool.map(compiled, [*sources, program]))
    made = folder / program.stem
    subprocess.run([compiler, *flags, *objects, "-pthread", "-o", str(made)], check=True)
    return made


def links(compiler: str, flags: list[str], folder: Path) -> bool:
    """Whether the least of programs can be made with these flags."""
    source = folder / "least.cc"
    source.write_text("int main() { return 0; }\n")
    command = [compiler, *flags, str(source), "-o", str(folder / "least")]
    return subprocess.run(command, check=False, capture_output=True).returncode == 0


def sanitized(sanitizer: str, folder: Path, compiler: str | None) -> list[str] | None:
    """The flags of a sanitizer; None where the compiler or its runtime is missing.

    The checks of addresses take longer to optimise than they then save; races take long to run.
    """
    level = "-O1" if sanitizer == "thread" else "-O0"
    flags = [level, f"-fsanitize={sanitizer}", "-fno-sanitize-recover=all"]
    return flags if compiler is not None and links(compiler, flags, folder) else None
