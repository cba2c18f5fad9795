"""dlc.host: facts that are the same each time they are asked for."""

from __future__ import annotations

from pathlib import Path

import pytest

from dlc import host
from dlc.host import cache_bytes, cache_dir, cpus, description, fingerprint


def test_facts_have_plausible_values() -> None:
    assert cpus() >= 1
    sizes = cache_bytes()
    assert 4096 <= sizes["L1"] < sizes["L2"]
    assert str(cpus()) in description()


def test_the_fingerprint_is_short_stable_and_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    first = fingerprint()
    assert first == fingerprint.__wrapped__() and len(first) < 32 and "/" not in first
    monkeypatch.setattr(host, "_cpu_facts", lambda: {"model name": "another"})
    assert fingerprint.__wrapped__() != first


def test_results_are_kept_where_the_user_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DLC_CACHE_DIR", str(tmp_path))
    assert cache_dir() == tmp_path
    monkeypatch.delenv("DLC_CACHE_DIR")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert cache_dir() == tmp_path / "cache" / "dlc"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_dir() == Path.home() / ".cache" / "dlc"
