"""dlc.host: facts that are the same each time they are asked for."""

from __future__ import annotations

import pytest

from dlc import host
from dlc.host import cache_bytes, cpus, description, fingerprint


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
