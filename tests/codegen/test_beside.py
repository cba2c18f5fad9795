"""Sums over rows beside a pass over the rows: gradients of weights and biases along with that of the input."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import dlc
from dlc import f32
from dlc.runtime.device import host_target
from dsl.order import order_class

M, N, B, C = dlc.dims("M N B C")
LARGE = 1 << 12


@dlc.kernel
def relu_bias(x: f32[M, N], b: f32[N]):
    return dlc.relu(x + b)


@dlc.kernel
def scaled_softmax(x: f32[M, N], s: f32[N]):
    return dlc.softmax(x * s, -1)


@dlc.kernel
def layer_norm(x: f32[M, N], w: f32[N], b: f32[N]):
    return dlc.layer_norm(x, None, w, b)


@dlc.kernel
def columns(x: f32[M, N]):
    """The sum of a softmax of columns needs their maximum: one pass makes both."""
    return dlc.softmax(x, axis=0)


@dlc.kernel
def mixed(x: f32[M, N], y: f32[M, N]):
    """A sum over what a later map makes, which itself needs the sum over an earlier one: only one of them is made along."""
    a = dlc.exp(x)
    s = dlc.sum(a, axis=0)
    b = dlc.tanh(y) * s
    return a, b, dlc.sum(b, axis=0), dlc.sum(a * b, axis=0)


@dlc.kernel
def relu_channels(x: f32[B, C, M, N], b: f32[C]):
    return dlc.relu(x + b[:, None, None])


def arguments(*shapes: tuple[int, ...]) -> list[torch.Tensor]:
    g = torch.Generator().manual_seed(0)
    return [torch.randn(s, generator=g) for s in shapes]


def plan(kernel, rows: int, columns: int):
    """The nest of a backward whose inputs are matrices, and vectors as long as their rows."""
    back = kernel.vjp
    return back.plan(*(torch.empty(rows, columns) if t.ndim == 2 else torch.empty(columns) for t in back.program.inputs)).nest


@pytest.mark.parametrize("kernel", [relu_bias, scaled_softmax, layer_norm])
def test_gradients_go_over_the_rows_once(kernel):
    """One phase reads the rows; what others there are adds up partial sums."""
    nest = plan(kernel, LARGE, 600)
    roots = [s for s in nest.stages if s.attach is None]
    passes = [s.name for s in roots if any(x.beside and x.attach and x.attach[0] == s.name for x in nest.stages)]
    assert len(passes) == 1
    large = {t.name for t in nest.program.inputs if t.ndim == 2}
    assert all(s.name in passes for s in roots if {t.name for t in s.sources()} & large)


@pytest.mark.parametrize("rows", [LARGE, LARGE + 9, 2039 * 3])
def test_ragged_blocks(rows):
    x, w, b = arguments((rows, 600), (600,), (600,))
    assert any(s.beside for s in plan(layer_norm, rows, 600).stages)
    leaves = [t.clone().requires_grad_() for t in (x, w, b)]
    wide = [t.double().requires_grad_() for t in (x, w, b)]
    g = arguments((rows, 600))[0]
    got = torch.autograd.grad(layer_norm(*leaves), leaves, g)
    want = torch.autograd.grad(torch.nn.functional.layer_norm(wide[0], (600,), wide[1], wide[2]), wide, g.double())
    for a, e in zip(got, want):
        np.testing.assert_allclose(a, e, rtol=2e-5, atol=2e-5 * float(e.abs().max()))


def test_small_and_few_rows_stay_apart():
    """What the caches hold anyway is not read twice from memory; few long rows have partial sums as large as themselves."""
    for shape in ((64, 64), (8, 1 << 18)):
        assert not any(s.beside for s in plan(relu_bias, *shape).stages)


def test_passes_that_make_two_reductions_keep_them():
    assert not any(s.beside for s in columns.plan(torch.empty(LARGE, LARGE, device="meta")).nest.stages)


def test_what_one_sum_makes_for_another_map():
    x, y = arguments((LARGE, 600), (LARGE, 600))
    for got, want in zip(mixed(x, y), mixed_of(x.double(), y.double())):
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4 * float(want.abs().max()))


def mixed_of(x, y):
    a = x.exp()
    b = y.tanh() * a.sum(0)
    return a, b, b.sum(0), (a * b).sum(0)


def test_the_order_names_the_block():
    """Threads are no part of it where results are to be reproducible; a block chosen otherwise is another order."""
    args = [*arguments((LARGE, 600), (600,)), torch.empty(LARGE, 600)]
    kernel = dlc.kernel(relu_bias.fn).vjp
    found = order_class(kernel.plan(*args, target=host_target()).nest)
    kernel.decisions = {"d_x.beside": 8}
    eight = kernel.plan(*args, target=host_target()).nest
    assert any(share[1:] == ("i", 8) for s in eight.stages for share in s.beside) and order_class(eight) != found
    kernel.decisions = {"d_x.beside": 0}
    assert not any(s.beside for s in kernel.plan(*args, target=host_target()).nest.stages)


def test_images_that_a_block_holds():
    """The first axis of several is that of the rows, whatever loops of the map were parallel."""
    x, b, g = arguments((64, 8, 40, 36), (8,), (64, 8, 40, 36))
    assert any(s.beside for s in relu_channels.vjp.plan(x, b, g).nest.stages)
    leaves, wide = [t.clone().requires_grad_() for t in (x, b)], [t.double().requires_grad_() for t in (x, b)]
    got = torch.autograd.grad(relu_channels(*leaves), leaves, g)
    want = torch.autograd.grad(torch.relu(wide[0] + wide[1][:, None, None]), wide, g.double())
    for a, e in zip(got, want):
        np.testing.assert_allclose(a, e, rtol=1e-5, atol=1e-5 * float(e.abs().max()))
