"""The target of this machine: the best whose instruction sets it has, or the one asked for, or a clear refusal."""

from __future__ import annotations

import pytest

from codegen.target import by_name
from dlc.config import cpus
from dlc.runtime import device
from dlc.runtime.device import host_target
from dsl.errors import TargetError


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch):
    """A machine with the instruction sets of a target, and nothing else."""
    def with_features_of(name: str) -> None:
        monkeypatch.setattr(device, "host_features", lambda: frozenset(by_name(name).features))
        host_target.cache_clear()

    monkeypatch.delenv("DLC_TARGET", raising=False)
    yield with_features_of
    monkeypatch.undo()
    host_target.cache_clear()


@pytest.mark.parametrize("name", ["x86-64-avx512-bf16", "x86-64-avx512", "x86-64-avx2", "x86-64"])
def test_the_best_it_can_run_is_taken(name: str, machine) -> None:
    machine(name)
    t = host_target()
    assert t.name == name and t.threads == cpus() and len(t.caches) == len(by_name(name).caches) and all(n > 0 for n in t.caches)


def test_a_lesser_one_can_be_asked_for_and_a_better_one_not(machine, monkeypatch: pytest.MonkeyPatch) -> None:
    machine("x86-64-avx2")
    assert host_target("x86-64").name == "x86-64"
    with pytest.raises(TargetError) as e:
        host_target("x86-64-avx512")
    assert e.value.title == "this machine cannot run x86-64-avx512" and "avx512f" in e.value.reason and "DLC_TARGET" in e.value.remedy
    with pytest.raises(TargetError, match="unknown target"):
        host_target("x87")
    monkeypatch.setenv("DLC_TARGET", "x86-64")
    host_target.cache_clear()
    assert host_target().name == "x86-64"


def test_this_machine_runs_what_it_is_compiled_for() -> None:
    host_target.cache_clear()
    assert set(host_target().features) <= device.host_features()
