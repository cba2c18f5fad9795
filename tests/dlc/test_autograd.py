"""Derived backwards through torch autograd: gradcheck in float64, agreement with torch, second derivatives."""

import pytest
import torch
import torch.nn.functional as F

import dlc
from dlc import errors, f32, f64

B, H, W, M, N, K = dlc.dims("B H W M N K")


@dlc.kernel
def linear(x: f64[M, K], w: f64[N, K], b: f64[N]):
    return dlc.gelu(dlc.linear(x, w, b))


@dlc.kernel
def softmax(x: f64[M, N]):
    return dlc.softmax(x, 1)


@dlc.kernel
def norm(x: f64[M, N], w: f64[N], b: f64[N]):
    return dlc.layer_norm(x, w, b)


@dlc.kernel
def conv(x: f64[B, 2, H, W], w: f64[3, 2, 3, 3], b: f64[3]):
    return dlc.conv2d(x, w, b, stride=2, padding=1)


@dlc.kernel
def pair(x: f64[M], y: f64[M]):
    return dlc.exp(x) * y, dlc.sum(x * y)


def leaf(*shape):
    return torch.randn(*shape, dtype=torch.float64, requires_grad=True)


CASES = {
    "linear": (linear, [(5, 4), (3, 4), (3,)]),
    "softmax": (softmax, [(4, 7)]),
    "norm": (norm, [(3, 6), (6,), (6,)]),
    "conv": (conv, [(2, 2, 6, 5), (3, 2, 3, 3), (3,)]),
    "pair": (pair, [(5,), (5,)]),
}


@pytest.mark.parametrize("name", CASES)
def test_gradients(name):
    kernel, shapes = CASES[name]
    torch.manual_seed(0)
    assert torch.autograd.gradcheck(kernel, [leaf(*s) for s in shapes])


@pytest.mark.parametrize("name", ["linear", "softmax", "pair"])
def test_second_derivatives(name):
    kernel, shapes = CASES[name]
    torch.manual_seed(0)
    assert torch.autograd.gradgradcheck(kernel, [leaf(*s) for s in shapes])


def test_only_what_is_needed():
    x, w, b = leaf(5, 4).detach(), leaf(3, 4), leaf(3).detach()
    linear(x, w, b).sum().backward()
    expected = w.detach().clone().requires_grad_()
    F.gelu(F.linear(x, expected, b)).sum().backward()
    torch.testing.assert_close(w.grad, expected.grad)
    assert x.grad is None


def test_backward_is_a_kernel():
    assert "d_x" in repr(linear.vjp) and [t.name for t in linear.vjp.program.outputs] == ["d_x", "d_w", "d_b"]


def test_training_learns():
    @dlc.kernel
    def layer(x: f32[M, K], w: f32[N, K], b: f32[N]):
        return dlc.relu(dlc.linear(x, w, b))

    torch.manual_seed(0)
    x = torch.randn(64, 10)
    target = (x[:, :1] * x[:, 1:2] > 0).float()
    w1, b1, w2 = (torch.randn(*s).mul_(0.3).requires_grad_() for s in ((32, 10), (32,), (1, 32)))
    optimiser = torch.optim.Adam([w1, b1, w2], 0.02)
    losses = []
    for _ in range(150):
        optimiser.zero_grad()
        loss = F.binary_cross_entropy_with_logits(layer(x, w1, b1) @ w2.T, target)
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.35 * losses[0]


def test_out_refuses_grad():
    x = leaf(3, 4)
    with pytest.raises(errors.ArgumentError):
        softmax(x, out=torch.empty(3, 4, dtype=torch.float64))


@dlc.kernel
def places(x: f32[M, N]):
    return dlc.argmax(x, 1), dlc.sum(dlc.cast(x > 0.0, dlc.i32))


def test_integers_carry_no_gradient_and_need_none():
    x = torch.randn(4, 5, requires_grad=True)
    for _ in range(3):
        at, count = places(x)
        assert not at.requires_grad and torch.equal(at, x.argmax(1)) and int(count) == int((x > 0).sum())
    (x[torch.arange(4), places(x)[0]].sum()).backward()
    assert int((x.grad != 0).sum()) == 4
