"""``dlc.emulate``: kernels of dlc against their definition, kernels of the user's own, and what is wrong with either."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
import triton
import triton.language as tl

import dlc
from dsl.errors import ArgumentError, TargetError
from tests.dlc.gpu_cases import brain_product, looked_up, softmax


@triton.jit
def add(x, y, out, n, BLOCK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(out + i, tl.load(x + i, mask=i < n) + tl.load(y + i, mask=i < n), mask=i < n)


@triton.jit
def stray(x, out, n, BLOCK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(out + i, tl.load(x + i), mask=i < n)


@triton.jit
def lost_update(x, total, BLOCK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(total, tl.load(total) + tl.sum(tl.load(x + i), axis=0))


def test_a_kernel_is_held_against_its_definition():
    seen = dlc.emulate(softmax, torch.randn(9, 50), target="sm_80")
    assert seen.ok and seen.how == "ptx" and seen.traffic.bytes_read + seen.traffic.bytes_written == seen.least
    assert "results right" in str(seen) and json.loads(json.dumps(seen.as_dict()))["ok"]


def test_low_precision_runs_on_the_matrix_instructions():
    b = torch.bfloat16
    seen = dlc.emulate(brain_product, torch.randn(40, 64).to(b), torch.randn(64, 48).to(b))
    assert seen.ok and seen.traffic.matrix_flops > 0


def test_other_targets_run_as_source():
    seen = dlc.emulate(softmax, torch.randn(3, 20), target="gfx942")
    assert seen.ok and seen.how == "interpreter" and seen.traffic is None and "not the lowered kernel" in str(seen)


def test_a_failed_check_is_a_finding():
    seen = dlc.emulate(looked_up, torch.randn(5, 20), torch.tensor([1, 7]))
    assert not seen.ok and "outside [0, 5)" in seen.findings[0]


def test_a_right_kernel_of_the_users_own():
    x, y = torch.randn(1000), torch.randn(1000)
    seen = dlc.emulate.triton(add, (4,), x, y, torch.empty(1000), 1000, BLOCK=256, expected=lambda x, y, out, n: {"out": x + y})
    assert seen.ok and np.array_equal(seen.outputs[2], (x + y).numpy())


def test_wrong_kernels_of_the_users_own():
    x = torch.randn(1000)
    seen = dlc.emulate.triton(stray, (4,), x, torch.empty(1000), 1000, BLOCK=256)
    assert "bounds" in seen.findings[0] and "'x'" in seen.findings[0] and not seen.ok
    seen = dlc.emulate.triton(lost_update, (4,), x[:1024], torch.zeros(1), BLOCK=128, target="sm_80")
    assert any("conflict" in f for f in seen.findings)
    seen = dlc.emulate.triton(add, (1,), x[:64], x[:64], torch.empty(64), 64, BLOCK=64, expected={"out": torch.zeros(64)})
    assert not seen.findings and not seen.accurate and "WRONG" in str(seen)


def test_bad_arguments():
    x = torch.randn(8)
    with pytest.raises(TargetError, match="runs PTX"):
        dlc.emulate.triton(add, (1,), x, x, x, 8, BLOCK=8, target="gfx942")
    with pytest.raises(TargetError, match="is a CPU"):
        dlc.emulate(softmax, torch.randn(3, 20), target="x86-64")
    with pytest.raises(ArgumentError, match="takes x, y, out, n"):
        dlc.emulate.triton(add, (1,), x, x, BLOCK=8)
    with pytest.raises(ArgumentError, match="not a Triton kernel"):
        dlc.emulate.triton(len, (1,), x)
    with pytest.raises(ArgumentError, match="no tensor|not a tensor"):
        dlc.emulate.triton(add, (1,), x, x, torch.empty(8), 8, BLOCK=8, expected={"z": x})
