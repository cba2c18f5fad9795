"""The long list of GPU cases: a few of each kind here, all of them on every target with ``--slow``."""

from __future__ import annotations

import pytest
import torch

import dlc
from dsl.errors import TargetError
from tests.dlc.gpu_sweep import SWEEP

# One of each kind that once went wrong: factors of two dtypes, masked low-precision factors, unsigned bytes, run-time checks with ragged
# neighbours, gates, split sums, several passes over a row, products under a norm.
SOURCE = ["mixed factors", "quantised weights", "product u8", "3x3 convolution bf16", "7x7 convolution f16", "embedding f16",
          "concatenation", "silu gate", "few by few, long sum", "product of a norm", "rms norm of long rows", "two contracted axes",
          "nothing contracted", "no rows", "cumsum down", "batch norm", "backward of silu gate", "depthwise convolution", "mathematics"]
LOWERED = ["mixed factors", "quantised weights", "3x3 convolution bf16", "silu gate", "few by few, long sum", "product f8e4m3",
           "embedding f16"]
NO_FP8 = {"sm_80": ("f8e4m3", "float8")}  # Triton has no instructions for it there


def arguments(name: str):
    torch.manual_seed(0)
    kernel, make = SWEEP[name]
    return kernel, make()


@pytest.mark.parametrize("name", SOURCE)
def test_source(name: str) -> None:
    kernel, args = arguments(name)
    seen = dlc.emulate(kernel, *args, target="gfx942")
    assert seen.ok, seen


@pytest.mark.parametrize("name", LOWERED)
def test_lowered(name: str) -> None:
    kernel, args = arguments(name)
    seen = dlc.emulate(kernel, *args, target="sm_90")
    assert seen.ok, seen


@pytest.mark.slow
@pytest.mark.parametrize("target", ["sm_80", "sm_90", "gfx942"])
@pytest.mark.parametrize("name", SWEEP)
def test_everything(name: str, target: str) -> None:
    kernel, args = arguments(name)
    if any(word in name for word in NO_FP8.get(target, ())):
        with pytest.raises(TargetError, match="no instructions for fp8"):
            dlc.emulate(kernel, *args, target=target)
        return
    seen = dlc.emulate(kernel, *args, target=target)
    assert seen.ok, seen


@pytest.mark.slow
@pytest.mark.parametrize("target", ["sm_80", "sm_90", "sm_100", "gfx942"])
@pytest.mark.parametrize("name", SWEEP)
def test_everything_compiles_without_spills(name: str, target: str) -> None:
    kernel, args = arguments(name)
    if any(word in name for word in NO_FP8.get(target, ())):
        return
    made = kernel.compile(target, *args)
    assert made.launchable and not made.spills, made
    for k in made.kernels:
        if "tl.dot" in k.kernel.source and 'input_precision="ieee"' not in k.kernel.source:
            assert k.resources.matrix_instructions, made
