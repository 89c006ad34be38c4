"""The native kernels under sanitizers, and those of another architecture under its emulator.

``native/agreement.cpp`` compares every kernel table with the scalar one, searches on several
threads, walks a graph that several threads link, and one that is changed in place meanwhile. It is
compiled here with the sources of the module, without Python.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.native_programs import ROOT, built, sanitized

NATIVE = ROOT / "index" / "native"
PROGRAM = Path(__file__).parent / "native" / "agreement.cpp"
# Not that of AVX-512, which few machines that run this could run.
OWN = {"kernels_avx2.cpp": ["-mavx2", "-mfma", "-mf16c", "-mpopcnt", "-msse4.2"]}


@pytest.mark.timeout(300)
@pytest.mark.parametrize("sanitizer", ["address,undefined", "thread"])
def test_native_code_is_clean_under_sanitizers(tmp_path: Path, sanitizer: str) -> None:
    compiler = shutil.which("g++") or shutil.which("clang++")
    flags = sanitized(sanitizer, tmp_path, compiler)
    if compiler is None or flags is None:
        pytest.skip(f"no g++ or clang++ with a runtime for {sanitizer}")
    program = built(PROGRAM, NATIVE, compiler, flags, OWN, tmp_path)
    found = subprocess.run([str(program)], check=False, capture_output=True, text=True, timeout=100)
    assert found.returncode == 0, found.stdout + found.stderr
    assert "scalar agrees" in found.stdout


def test_neon_kernels_agree_under_emulation(tmp_path: Path) -> None:
    compiler, emulator = shutil.which("aarch64-linux-gnu-g++"), shutil.which("qemu-aarch64-static")
    if compiler is None or emulator is None:
        pytest.skip("needs g++-aarch64-linux-gnu and qemu-user-static")
    program = built(PROGRAM, NATIVE, compiler, ["-O2", "-static"], OWN, tmp_path)
    command = [emulator, str(program)]
    found = subprocess.run(command, check=False, capture_output=True, text=True, timeout=110)
    assert found.returncode == 0, found.stdout + found.stderr
    assert "neon agrees" in found.stdout
