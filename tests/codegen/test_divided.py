"""Sums over merged axes: their addresses take no divisions, and their results are those of the plain product."""

import pytest
import torch

import dlc
from codegen.analysis.access import read_access
from dlc import f32
from dsl.algebra import reads
from dsl.dim import Div, Mod

B, T, N = dlc.dims("B T N")


@dlc.kernel
def merged_heads(o: f32[B, 4, T, 16], w: f32[N, 64]):
    return dlc.linear(o.transpose(1, 2).reshape(B, T, 64), w)


@dlc.kernel
def patches(x: f32[B, 3, 24, 16], w: f32[N, 48]):
    rows = x.reshape(B, 3, 6, 4, 4, 4).permute(0, 2, 4, 1, 3, 5)
    return dlc.linear(rows.reshape(B, 24, 48), w)


@dlc.kernel
def greatest(o: f32[B, 3, T, 10]):
    return dlc.max(o.transpose(1, 2).reshape(B, T, 30), -1), dlc.argmax(o.transpose(1, 2).reshape(B, T, 30), -1)


def _divisions(plan) -> set[str]:
    """The sums whose own axes stand in a quotient or a remainder."""
    return {s.name for s in plan.nest.stages if s.kind == "reduce" for t in s.tensors for r in reads(t.body)
            for mono in (read_access(r, plan.strides).offset or 0).parts for a in mono
            if isinstance(a, (Div, Mod)) and a.num.vars & set(s.bound)}


@pytest.mark.parametrize(("b", "t", "n"), [(1, 1, 1), (2, 9, 33), (3, 130, 70)])
def test_heads_before_a_projection(b, t, n):
    o, w = torch.randn(b, 4, t, 16), torch.randn(n, 64)
    torch.testing.assert_close(merged_heads(o, w), o.transpose(1, 2).reshape(b, t, 64) @ w.T, rtol=1e-4, atol=1e-4)
    o = torch.randn(b, t, 4, 16).transpose(1, 2)  # side by side in memory already: one axis
    torch.testing.assert_close(merged_heads(o, w), o.transpose(1, 2).reshape(b, t, 64) @ w.T, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("b", "n"), [(1, 1), (2, 40), (9, 130)])
def test_patches_of_an_image(b, n):
    x, w = torch.randn(b, 3, 24, 16), torch.randn(n, 48)
    rows = x.reshape(b, 3, 6, 4, 4, 4).permute(0, 2, 4, 1, 3, 5).reshape(b, 24, 48)
    torch.testing.assert_close(patches(x, w), rows @ w.T, rtol=1e-4, atol=1e-4)


def test_sums_have_the_axes_of_their_operands():
    assert not _divisions(merged_heads.plan(torch.randn(2, 4, 9, 16), torch.randn(33, 64)))
    assert not _divisions(patches.plan(torch.randn(2, 3, 24, 16), torch.randn(40, 48)))
    plan = merged_heads.plan(torch.randn(2, 9, 4, 16).transpose(1, 2), torch.randn(33, 64))
    assert [len(s.bound) for s in plan.nest.stages if s.name == "linear"] == [1]


def test_positions_count_along_the_merged_axis():
    o = torch.randn(2, 3, 7, 10)
    flat = o.transpose(1, 2).reshape(2, 7, 30)
    values, places = greatest(o)
    assert torch.equal(values, flat.amax(-1)) and torch.equal(places, flat.argmax(-1))
