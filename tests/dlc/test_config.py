"""dlc.config: every variable is read with its type; what makes no sense is refused by name."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from dlc.config import VARIABLES, cache_dir, cpus, settings
from dsl.errors import UserError

ROOT = Path(__file__).resolve().parents[2]


def test_defaults() -> None:
    s = settings({})
    assert s.cache_dir == Path.home() / ".cache" / "dlc"
    assert (s.target, s.records, s.jobs, s.verify_all) == ("", True, cpus(), False)
    assert settings({"DLC_VERIFY": "all"}).verify_all


def test_values_are_read() -> None:
    s = settings({"DLC_CACHE_DIR": "/a", "XDG_CACHE_HOME": "/b", "DLC_TARGET": "x86-64", "DLC_RECORDS": "off", "DLC_JOBS": "3"})
    assert (str(s.cache_dir), s.target, s.records, s.jobs) == ("/a", "x86-64", False, 3)
    assert settings({"XDG_CACHE_HOME": "/b"}).cache_dir == Path("/b/dlc")


@pytest.mark.parametrize("name, value", [("DLC_RECORDS", "perhaps"), ("DLC_JOBS", "0"), ("DLC_JOBS", "many"), ("DLC_VERIFY", "never")])
def test_nonsense_is_refused_by_name(name: str, value: str) -> None:
    with pytest.raises(UserError, match=name):
        settings({name: value})


def test_the_directory_follows_the_environment_of_the_moment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DLC_CACHE_DIR", str(tmp_path))
    assert cache_dir() == tmp_path


def test_every_setting_is_documented_and_nothing_else_reads_the_environment() -> None:
    readers = {str(p.relative_to(ROOT)) for p in (ROOT / "dlc").rglob("*.py") if _reads_environment(p.read_text())}
    # A child process inherits the environment, which names no setting of dlc.
    assert readers <= {"dlc/config.py", "dlc/runtime/child.py", "dlc/runtime/nursery.py"}
    text = (ROOT / "dlc" / "config.py").read_text()
    assert all(text.count(f'"{name}"') >= 2 for name in VARIABLES)


def _reads_environment(source: str) -> bool:
    return any(isinstance(n, ast.Attribute) and n.attr in ("environ", "getenv") for n in ast.walk(ast.parse(source)))
