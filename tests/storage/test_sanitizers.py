"""The native code of storage under sanitizers, compiled here without Python.

``native/agreement.cpp`` compares it with plain forms of itself, on buffers of exactly the size that
each call may touch.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.native_programs import ROOT, built, sanitized

NATIVE = ROOT / "storage" / "native"
PROGRAM = Path(__file__).parent / "native" / "agreement.cpp"
OWN = {"crc32c_sse42.cpp": ["-msse4.2"]}


def test_native_code_is_clean_under_sanitizers(tmp_path: Path) -> None:
    compiler = shutil.which("g++") or shutil.which("clang++")
    flags = sanitized("address,undefined", tmp_path, compiler)
    if compiler is None or flags is None:
        pytest.skip("no g++ or clang++ with a runtime for the sanitizers")
    program = built(PROGRAM, NATIVE, compiler, flags, OWN, tmp_path)
    found = subprocess.run([str(program)], check=False, capture_output=True, text=True, timeout=100)
    assert found.returncode == 0, found.stdout + found.stderr
    assert "all agree" in found.stdout


def test_native_code_agrees_under_emulation_of_arm(tmp_path: Path) -> None:
    compiler, emulator = shutil.which("aarch64-linux-gnu-g++"), shutil.which("qemu-aarch64-static")
    if compiler is None or emulator is None:
        pytest.skip("needs g++-aarch64-linux-gnu and qemu-user-static")
    flags = ["-O0", "-static", "-march=armv8-a+crc"]
    program = built(PROGRAM, NATIVE, compiler, flags, OWN, tmp_path)
    command = [emulator, str(program)]
    found = subprocess.run(command, check=False, capture_output=True, text=True, timeout=110)
    assert found.returncode == 0, found.stdout + found.stderr
    assert "all agree" in found.stdout
