"""dlc.realize: where kernels begin and end, what is stored, what is launched, and the counters that tell."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import dlc
from dlc import Watch
from dlc.realize import counts
from dsl.errors import BoundsError


def kernels(*tensors: dlc.Tensor) -> int:
    return sum(t.explain().count("\n\n") + 1 for t in tensors)


def test_a_layer_with_its_activation_and_loss_is_one_kernel() -> None:
    x, w = dlc.ones(8, 5), dlc.ones(4, 5)
    assert kernels(dlc.log_softmax(dlc.gelu(dlc.linear(x.realize(), w.realize())), 1).mean()) == 1


def test_phases_are_kernels_of_their_own() -> None:
    x = dlc.tensor(np.ones((4, 5), np.float32), requires_grad=True)
    with Watch() as w:
        loss = dlc.exp(x * 2).sum()
        loss.backward()
        x.grad.realize()
    assert loss.is_realized
    assert w.counts.launches == {"forward": 1, "backward": 1} and not w.torch_ops


def test_the_watch_counts_what_torch_computes() -> None:
    with Watch() as w:
        (torch.ones(3) * 2).sum()
    assert w.torch_ops["mul"] == w.torch_ops["sum"] == 1 and not w.counts.launches


def test_cheap_definitions_are_computed_again_instead_of_stored() -> None:
    """The activation between two products is not written: the first product is, and both its readers apply the activation."""
    torch.manual_seed(0)
    w1, w2 = (dlc.tensor(torch.randn(16, 16), requires_grad=True) for _ in range(2))
    x = dlc.tensor(torch.randn(8, 16))
    loss = dlc.linear(dlc.relu(dlc.linear(x, w1)), w2).sum()
    loss.backward()
    text = w1.grad.explain()
    assert text.count("# forward") == 2 and text.count("= max(") == 2


def test_long_chains_are_cut() -> None:
    x = dlc.ones(4).realize()
    y = x
    for n in range(100):
        y = dlc.sin(y) if n % 2 else dlc.cos(y)
    assert 3 <= kernels(y) <= 5
    theirs = torch.ones(4, dtype=torch.float64)
    for n in range(100):
        theirs = theirs.sin() if n % 2 else theirs.cos()
    torch.testing.assert_close(y.torch().double(), theirs, atol=1e-5, rtol=1e-5)


def test_equal_graphs_share_a_plan_and_equal_kernels_their_code() -> None:
    def run(n: int) -> None:
        ((dlc.tensor(np.full(n, 2.0, np.float32)) * 3).exp() + 1).realize()

    run(7)
    before = counts.copy()
    run(7)
    assert counts.since(before).plans == 0
    run(9)
    done = counts.since(before)
    assert done.plans == 1 and done.compiled == 1


def test_strides_are_part_of_the_plan() -> None:
    base = torch.arange(20.0).reshape(4, 5)
    for t in (base, base.t().contiguous().t(), base[:, ::2], base[1:]):
        torch.testing.assert_close((dlc.from_torch(t) * 2).torch(), t * 2)


def test_an_index_out_of_range_is_an_error_with_the_reason() -> None:
    with pytest.raises(BoundsError, match="out of range"):
        dlc.ones(3).realize()[dlc.tensor([0, 7])].realize()


def test_the_same_operation_twice_in_one_kernel() -> None:
    x = dlc.tensor(np.random.default_rng(0).normal(size=(5, 6)).astype(np.float32))
    y = dlc.softmax(dlc.softmax(x, 1) * 3, 1)
    torch.testing.assert_close(y.torch(), torch.softmax(torch.softmax(x.torch(), 1) * 3, 1))
    z = dlc.cumsum(dlc.cumsum(x, 1), 1)
    torch.testing.assert_close(z.torch(), x.torch().cumsum(1).cumsum(1))
