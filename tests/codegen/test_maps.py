"""Pointwise stages: lanes along what is stored, blocks turned in registers where something is read across them."""

import pytest
import torch

import dlc
from dlc import f32
from tests.codegen.products import planned, run


@dlc.kernel
def plus_turned(x: f32[100, 75], y: f32[75, 100]):
    return x + dlc.transpose(y, 1, 0)


@pytest.mark.parametrize("across", [4, 8, 16])
def test_blocks_are_turned_in_registers(across):
    x, y = torch.randn(100, 75), torch.randn(75, 100)
    stage = plus_turned.plan(x, y).unscheduled.stages[-1].name
    plan, got = run(plus_turned, x, y, decisions={"across": across}, stage=stage)
    assert torch.equal(got, x + y.T)
    assert "masked.gather" not in plan.module.text


def test_lanes_follow_what_is_stored():
    x, y = torch.randn(100, 75), torch.randn(75, 100)
    s = planned(plus_turned, x, y).nest.stages[-1]
    rows, columns = (s.axis_names()[a] for a in s.axes)
    assert s.roles[f"{columns}.i"] == "vectorize" and s.roles[f"{rows}.i"] == "unroll"
