"""What is in the archives: all of the package, its data and its kernels, and nothing else.

Without MEMDB_DIST the archives are built here, in the folder cmake already knows, so that only the
packing is done again. ``dev.py build`` sets it to the folder of the archives to be published.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import pytest

from tests.source_tree import LINKED, ROOT, walk

NATIVE = ["index", "storage"]  # the packages with a native module, its sources in native/


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one wheel and one sdist of this checkout."""
    if "MEMDB_DIST" in os.environ:
        return Path(os.environ["MEMDB_DIST"])
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--sdist", "--wheel"]
    result = subprocess.run(
        [*command, "--outdir", str(folder), str(ROOT)], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stdout[-4000:] + result.stderr[-4000:]
    return folder


@pytest.fixture(scope="module")
def wheel(dist: Path) -> Iterator[zipfile.ZipFile]:
    (path,) = dist.glob("personal_memdb-*.whl")
    with zipfile.ZipFile(path) as archive:
        yield archive


@pytest.fixture(scope="module")
def sdist_names(dist: Path) -> set[str]:
    """The files in the sdist, without the name of its one top folder."""
    (path,) = dist.glob("personal_memdb-*.tar.gz")
    with tarfile.open(path) as archive:
        names = [PurePosixPath(entry.name) for entry in archive if not entry.isdir()]
    return {str(PurePosixPath(*name.parts[1:])) for name in names}


def package_files() -> set[str]:
    """Every file of the package as the wheel should name it; kernels' sources are not shipped."""
    found = {path.relative_to(ROOT).as_posix() for path in walk(ROOT / "memdb")}
    for name in LINKED:
        paths = (path.relative_to(ROOT) for path in walk(ROOT / name))
        found |= {f"memdb/{path.as_posix()}" for path in paths if "native" not in path.parts}
    return found


def test_the_wheel_holds_every_file_of_the_package(wheel: zipfile.ZipFile) -> None:
    assert not package_files() - set(wheel.namelist())


def test_the_wheel_holds_nothing_but_the_package_and_its_native_modules(
    wheel: zipfile.ZipFile,
) -> None:
    extra = {
        name
        for name in set(wheel.namelist()) - package_files()
        if ".dist-info/" not in name and not name.endswith("/")
    }
    module = re.compile(r"memdb/(\w+)/_native(\.[\w-]+)?\.(so|pyd)")
    found = [module.fullmatch(name) for name in sorted(extra)]
    assert [native and native[1] for native in found] == NATIVE


def test_the_wheel_says_what_it_is(wheel: zipfile.ZipFile) -> None:
    (metadata,) = [name for name in wheel.namelist() if name.endswith(".dist-info/METADATA")]
    (entry_points,) = [name for name in wheel.namelist() if name.endswith("/entry_points.txt")]
    text = wheel.read(metadata).decode()
    assert "Name: personal-memdb" in text
    assert "License-Expression: Apache-2.0" in text
    assert "memdb = memdb.cli:main" in wheel.read(entry_points).decode()
    assert [name for name in wheel.namelist() if name.endswith("/licenses/LICENSE")]


def test_the_sdist_holds_what_a_wheel_is_built_from(sdist_names: set[str]) -> None:
    folders = [ROOT / name / "native" for name in NATIVE]
    kernels = {path.relative_to(ROOT).as_posix() for one in folders for path in walk(one)}
    assert not {"pyproject.toml", "README.md", "LICENSE"} - sdist_names
    assert not (package_files() | kernels) - sdist_names


def test_the_sdist_holds_nothing_twice(sdist_names: set[str]) -> None:
    folders = {PurePosixPath(name).parts[0] for name in sdist_names if "/" in name}
    assert folders == {"memdb", *NATIVE}
    assert not [name for name in sdist_names if re.match(r"memdb/\w+/native/", name)]


def test_the_sdist_holds_no_build_output(sdist_names: set[str]) -> None:
    assert not [name for name in sdist_names if name.endswith((".so", ".pyd", ".pyc"))]


def test_the_wheel_works_without_the_checkout(dist: Path, tmp_path: Path) -> None:
    (path,) = dist.glob("personal_memdb-*.whl")
    with zipfile.ZipFile(path) as archive:
        archive.extractall(tmp_path / "installed")
    program = (
        "import memdb, memdb.index._native as native, memdb.storage._native as second;"
        "db = memdb.open('life'); db.remember('Ana is allergic to peanuts');"
        "print(db.recall('what is Ana allergic to?', k=1)[0].text);"
        "print(memdb.__file__); print(native.__file__); print(second.__file__)"
    )
    # -S: no .pth file, so the editable install of the checkout is not seen.
    libraries = os.pathsep.join([str(tmp_path / "installed"), sysconfig.get_path("platlib")])
    result = subprocess.run(
        [sys.executable, "-S", "-c", program],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": libraries},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr[-4000:]
    text, *files = result.stdout.splitlines()
    assert text == "Ana is allergic to peanuts"
    assert all(Path(file).is_relative_to(tmp_path.resolve()) for file in files)
