"""The native kernels under sanitizers, and those of another architecture under its emulator.

``native/agreement.cpp`` compares every kernel table with the scalar one and searches on several
threads. It is compiled here with the sources of the module, without Python.
"""

from __future__ import annotations

import platform
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NATIVE = ROOT / "index" / "native"
PROGRAM = Path(__file__).parent / "native" / "agreement.cpp"
AVX2 = (
    ["-mavx2", "-mfma", "-mf16c", "-mpopcnt", "-msse4.2"]
    if platform.machine().lower() in ("x86_64", "amd64")
    else []
)
COMMON = ["-std=c++17", "-ffp-contract=off", "-g", f"-I{NATIVE}"]


def built(compiler: str, flags: list[str], folder: Path) -> Path:
    """The program of all sources but the Python module.

    Files of an instruction set say that this build lacks it when their flags are missing: so does
    that of AVX-512, which few machines that run this could run.
    """

    def compiled(source: Path) -> str:
        target = folder / f"{source.stem}.o"
        own = AVX2 if source.name == "kernels_avx2.cpp" and "aarch64" not in compiler else []
        command = [compiler, *COMMON, *flags, *own, "-c", str(source), "-o", str(target)]
        subprocess.run(command, check=True, timeout=100)
        return str(target)

    sources = [path for path in NATIVE.glob("*.cpp") if path.name != "module.cpp"]
    with ThreadPoolExecutor(2) as pool:
        objects = list(pool.map(compiled, [*sources, PROGRAM]))
    program = folder / "agreement"
    subprocess.run([compiler, *flags, *objects, "-pthread", "-o", str(program)], check=True)
    return program


def links(compiler: str, flags: list[str], folder: Path) -> bool:
    """Whether the least of programs can be made with these flags."""
    source = folder / "least.cc"
    source.write_text("int main() { return 0; }\n")
    command = [compiler, *flags, str(source), "-o", str(folder / "least")]
    return subprocess.run(command, check=False, capture_output=True).returncode == 0


@pytest.mark.parametrize("sanitizer", ["address,undefined", "thread"])
def test_native_code_is_clean_under_sanitizers(tmp_path: Path, sanitizer: str) -> None:
    compiler = shutil.which("g++") or shutil.which("clang++")
    if compiler is None:
        pytest.skip("no g++ or clang++")
    flags = ["-O1", f"-fsanitize={sanitizer}", "-fno-sanitize-recover=all"]
    if not links(compiler, flags, tmp_path):
        pytest.skip(f"the compiler has no runtime for {sanitizer}")
    program = built(compiler, flags, tmp_path)
    found = subprocess.run([str(program)], check=False, capture_output=True, text=True, timeout=100)
    assert found.returncode == 0, found.stdout + found.stderr
    assert "scalar agrees" in found.stdout


def test_neon_kernels_agree_under_emulation(tmp_path: Path) -> None:
    compiler, emulator = shutil.which("aarch64-linux-gnu-g++"), shutil.which("qemu-aarch64-static")
    if compiler is None or emulator is None:
        pytest.skip("needs g++-aarch64-linux-gnu and qemu-user-static")
    program = built(compiler, ["-O2", "-static"], tmp_path)
    command = [emulator, str(program)]
    found = subprocess.run(command, check=False, capture_output=True, text=True, timeout=110)
    assert found.returncode == 0, found.stdout + found.stderr
    assert "neon agrees" in found.stdout
