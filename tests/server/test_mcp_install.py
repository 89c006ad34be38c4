"""``memdb mcp install``: a host's own file gets an entry, loses nothing, and is copied first."""

from __future__ import annotations

import json
import os
import shutil
import stat
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import memdb
from memdb.cli import main
from memdb.cli.mcp import HOSTS as OFFERED
from memdb.server.mcp.install import HOSTS, Host, entry, install

EXISTING = """\
{
    "theme": "dark", "zoom": 1.25e-07, "big": 123456789012345678901234567890,
    "mcpServers": {
        "files": {"command": "npx", "args": ["-y", "ü 漢字", "</x>"], "env": {"A": ""}}
    },
    "numbers": [1, 1.0, -0.5, 1E3, true, null], "empty": {}
}
"""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(name, str(tmp_path))
    monkeypatch.setenv("APPDATA", str(tmp_path / "AppData"))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    monkeypatch.setenv("MEMDB_PATH", str(tmp_path / "life"))
    return tmp_path


def written(host: str) -> Path:
    path = HOSTS[host].place()
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def copies(path: Path) -> list[Path]:
    return sorted(path.parent.glob(f"{path.name}.memdb-*"))


@pytest.mark.parametrize("name", OFFERED)
def test_a_host_without_a_file_gets_one(name: str, home: Path) -> None:
    assert main(["mcp", "install", name]) == 0
    path = HOSTS[name].place()
    assert path.is_relative_to(home) and copies(path) == []
    (servers,) = json.loads(path.read_text(encoding="utf-8")).values()
    (added,) = servers.values()
    assert Path(added["command"]).is_absolute()
    assert os.path.samefile(added["command"], sys.executable)
    assert added["args"] == ["-m", "memdb", "--db", str(home / "life"), "mcp", "--as", name]
    assert added.get("type", "stdio") == "stdio"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_each_host_has_its_own_place_on_each_platform(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def places(platform: str) -> list[str]:
        monkeypatch.setattr(sys, "platform", platform)
        return [HOSTS[name].place().relative_to(home).as_posix() for name in OFFERED]

    rest = [".claude.json", ".cursor/mcp.json"]
    support = "Library/Application Support"
    assert tuple(HOSTS) == OFFERED
    assert places("darwin") == [
        f"{support}/Claude/claude_desktop_config.json", f"{support}/Code/User/mcp.json", *rest,
    ]  # fmt: skip
    assert places("win32") == [
        "AppData/Claude/claude_desktop_config.json", "AppData/Code/User/mcp.json", *rest,
    ]  # fmt: skip
    assert places("linux") == [
        ".config/Claude/claude_desktop_config.json", ".config/Code/User/mcp.json", *rest,
    ]  # fmt: skip
    monkeypatch.setenv("XDG_CONFIG_HOME", str(home / "own"))
    assert places("linux")[1] == "own/Code/User/mcp.json"


def test_everything_else_in_the_file_stays_in_its_order(home: Path) -> None:
    path = written("claude-desktop")
    path.write_text(EXISTING, encoding="utf-8")
    os.chmod(path, 0o640)
    assert main(["mcp", "install", "claude-desktop"]) == 0
    text = path.read_text(encoding="utf-8")
    before, after = json.loads(EXISTING), json.loads(text)
    assert list(after) == list(before) and list(after["mcpServers"]) == ["files", "memdb"]
    del after["mcpServers"]["memdb"]
    assert after == before and text.startswith('{\n    "theme"') and "漢字" in text
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    (copy,) = copies(path)
    assert copy.read_text(encoding="utf-8") == EXISTING
    assert sorted(one.name for one in path.parent.iterdir()) == sorted([path.name, copy.name])


def test_installing_again_changes_nothing_and_copies_nothing(home: Path) -> None:
    path = written("cursor")
    assert main(["mcp", "install", "cursor"]) == 0
    once = path.read_bytes()
    assert main(["mcp", "install", "cursor"]) == 0
    assert path.read_bytes() == once and copies(path) == []
    assert main(["mcp", "install", "cursor", "--as", "other"]) == 0
    assert json.loads(path.read_text())["mcpServers"]["memdb"]["args"][-1] == "other"
    assert copies(path)[0].read_bytes() == once


@pytest.mark.parametrize(
    "text",
    [
        '{\n  // my servers\n  "servers": {}\n}',
        '{"servers": {},}',
        '{"servers": {}, "servers": {"a": {}}}',
        '{"servers": []}',
        '{"zoom": 1e999}',
        '{"zoom": NaN}',
        "[]",
        "nonsense",
        '"\udcff"',
    ],
)
def test_what_cannot_be_kept_is_left_alone_and_the_entry_is_printed(
    text: str, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = written("vscode")
    raw = text.encode(errors="surrogateescape")
    path.write_bytes(raw)
    assert main(["mcp", "install", "vscode"]) == 1
    told = capsys.readouterr()
    assert path.read_bytes() == raw and copies(path) == []
    assert str(path) in told.err and "left alone" in told.err
    printed = json.loads(told.out[told.out.index("{") :])
    assert printed["servers"]["memdb"]["args"][:2] == ["-m", "memdb"]


def test_printing_changes_nothing(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["mcp", "install", "claude-code", "--print"]) == 0
    out = capsys.readouterr().out
    assert json.loads(out[out.index("{") :])["mcpServers"]["memdb"]["type"] == "stdio"
    assert list(home.iterdir()) == []
    assert main(["mcp", "install", "claude-code", "--print", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["path"] == str(home / ".claude.json")


def test_without_the_sdk_the_extra_is_named(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "mcp", None)
    for words in (["mcp"], ["mcp", "install", "cursor"]):
        assert main(words) == 1
        assert "personal-memdb[server]" in capsys.readouterr().err
    assert list(home.iterdir()) == []


def test_a_link_stays_a_link_and_its_target_is_changed(home: Path, tmp_path: Path) -> None:
    kept = tmp_path / "dotfiles" / "mcp.json"
    kept.parent.mkdir()
    kept.write_text("{}", encoding="utf-8")
    path = written("cursor")
    path.symlink_to(kept)
    assert main(["mcp", "install", "cursor"]) == 0
    assert path.is_symlink() and "memdb" in json.loads(kept.read_text())["mcpServers"]


def test_a_file_that_changes_meanwhile_is_left_alone(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = written("cursor")
    path.write_text("{}", encoding="utf-8")
    copying = shutil.copy2

    def copied(source: Any, target: Any) -> Any:
        done = copying(source, target)
        path.write_text('{"the": "host wrote this"}', encoding="utf-8")
        return done

    monkeypatch.setattr(shutil, "copy2", copied)
    with pytest.raises(memdb.Conflict):
        install(HOSTS["cursor"], {"command": "x"})
    assert path.read_text(encoding="utf-8") == '{"the": "host wrote this"}'
    assert not list(path.parent.glob(".*memdb*"))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab漢\n\"", max_size=3),
                                                                inner, max_size=3),
    max_leaves=8,
)  # fmt: skip


@settings(max_examples=25)
@given(
    before=st.dictionaries(st.text("abc", min_size=1), JSON, max_size=4),
    indent=st.sampled_from([None, 2, 4, "\t"]),
    newline=st.sampled_from(["\n", "\r\n"]),
    bom=st.booleans(),
)
def test_any_settings_are_kept(
    before: dict[str, Any], indent: Any, newline: str, bom: bool, tmp_path_factory: Any
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.json"
    text = json.dumps(before, indent=indent, ensure_ascii=False).replace("\n", newline)
    path.write_bytes((b"\xef\xbb\xbf" if bom else b"") + text.encode())
    host = Host("any", "servers", lambda: path)
    added = entry(host, Path("life"), "agent")
    done = install(host, added)
    raw = path.read_bytes().decode()
    assert json.loads(raw) == {**before, "servers": {"memdb": added}}
    assert ("\r" in raw) == ("\r" in text)
    assert done.backup is not None and done.backup.read_bytes().decode("utf-8-sig") == text
    done.backup.unlink()
