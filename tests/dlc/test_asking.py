"""What a kernel answers, without and with arguments."""

import pytest
import torch

import dlc
from dlc import errors, f32

M, N = dlc.dims("M N")


@dlc.kernel
def scaled(x: f32[M, N]):
    return x * 2.0


def test_text_of_every_level():
    x = torch.empty(4, 5, device="meta")
    assert "x[" in scaled.source("expr") and "for" in scaled.source("schedule", x) and "load" in scaled.source("tile", x)
    assert "define" in scaled.source("cpu", x) and "tl." in scaled.source("sm_90", x)


def test_unknown_levels_and_targets_are_named():
    with pytest.raises(errors.TargetError, match="no source of kind 'wasm'"):
        scaled.source("wasm", torch.ones(2, 2))
    with pytest.raises(errors.TargetError):
        scaled.compile("sm_13", torch.ones(2, 2))


def test_the_reference_is_exact():
    x = torch.randn(3, 4)
    assert (scaled.reference(x) == x.double().numpy() * 2).all()
