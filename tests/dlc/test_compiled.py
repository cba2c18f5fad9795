"""Object code of CPUs that need not be here, and what every target's code has in common."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import dlc
from codegen.target import TARGETS
from dlc import f32
from dlc.compiled import Compiled, plain
from dlc.errors import LaunchError, TargetError

M, N = dlc.dims("M N")
CPUS = [t.name for t in TARGETS.values() if t.kind == "cpu"]


@dlc.kernel
def softmax(x: f32[M, N]):
    return dlc.softmax(x, 1)


@pytest.mark.parametrize("target", ["cpu", *CPUS])
def test_code_and_how_it_is_called(target: str) -> None:
    made = softmax.compile(target, torch.empty(5, 7, device="meta"))
    assert isinstance(made, Compiled) and made.code[:4] == b"\x7fELF"
    assert f"@\"{made.recipe.entry}\"" in made.source and made.recipe.entry in made.assembly
    facts = json.loads(made.to_json())
    assert facts["inputs"] == [["x", "f32", [5, 7], [7, 1]]] and facts["outputs"] == [["f32", [5, 7]]]
    assert str(made).startswith(f"softmax for {made.target.name}: {len(made.code)} bytes")


def test_files(tmp_path: Path) -> None:
    made = softmax.compile("aarch64-neon", torch.empty(5, 7, device="meta"))
    paths = made.save(tmp_path / "new" / "folder")
    assert [p.name for p in paths] == ["softmax.ll", "softmax.s", "softmax.o", "softmax.json"]
    assert paths[2].read_bytes() == made.code
    with pytest.raises(LaunchError, match="cannot write to"):
        made.save(paths[0])


def test_another_cpu_is_compiled_for_but_not_tuned_for() -> None:
    with pytest.raises(TargetError, match="aarch64-neon is not the CPU here"):
        softmax.tune(torch.randn(5, 7), target="aarch64-neon", budget=1)
    with pytest.raises(TargetError, match="unknown target 'tpu'"):
        softmax.compile("tpu", torch.empty(5, 7))


def test_numbers_of_numpy_are_plain_in_json() -> None:
    assert plain(torch.zeros(1).numpy()[0]) == 0.0 and plain(Path("a")) == "a"
