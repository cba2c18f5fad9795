"""Where one pass pays, and how its stages are scheduled."""

from __future__ import annotations

import torch

import dlc
from dlc import f32
from dsl.replay import replay

M, N, D = dlc.dims("M N D")


@dlc.kernel
def softmax(x: f32[M, N]):
    return dlc.softmax(x)


@dlc.kernel
def columns(x: f32[M, N]):
    return dlc.softmax(x, axis=0)


@dlc.kernel
def attention(q: f32[M, D], k: f32[N, D], v: f32[N, D]):
    return dlc.softmax(q @ k.T) @ v


@dlc.kernel
def normed_product(x: f32[M, D], w: f32[N, D]):
    return dlc.rms_norm(x) @ w.T


def empty(*shape: int) -> torch.Tensor:
    return torch.empty(shape, device="meta")


def kinds(k, *args):
    return [s.kind for s in k.plan(*args).nest.stages]


def test_rows_longer_than_the_cache_are_read_once():
    assert "roll" in kinds(softmax, empty(8, 1 << 20))
    assert "roll" not in kinds(softmax, empty(8, 1 << 10))


def test_interleaved_rows_are_reduced_side_by_side():
    assert "roll" not in kinds(columns, empty(1 << 20, 8))
    assert "interleaved" in columns.explain(empty(1 << 20, 8))


def test_scores_are_never_stored():
    assert "roll" in kinds(attention, empty(64, 32), empty(80, 32), empty(80, 32))


def test_a_product_of_normalised_rows_keeps_its_own_loop():
    assert "roll" not in kinds(normed_product, empty(64, 128), empty(32, 128))
    assert "deferred" in normed_product.explain(empty(64, 128), empty(32, 128))


def test_the_schedule_is_a_trace_that_replays():
    args = [torch.randn(40, 16), torch.randn(300, 16), torch.randn(300, 16)]
    plan = attention.plan(*args)
    again = dlc.kernel(attention.fn)
    again.scheduler = lambda nest: replay(nest, plan.nest.trace)
    torch.testing.assert_close(again(*args), attention(*args), rtol=0, atol=0)


def test_several_passes_can_be_asked_for():
    args = [torch.randn(40, 16), torch.randn(300, 16), torch.randn(300, 16)]
    several = dlc.kernel(attention.fn)
    several.decisions = {"max.pass": "several"}
    assert "roll" not in kinds(several, *args)
    torch.testing.assert_close(several(*args), attention(*args), rtol=1e-5, atol=1e-6)
