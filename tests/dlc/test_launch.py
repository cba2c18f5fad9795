"""Launchers: a compiled kernel called on arguments that were checked already."""

import pytest
import torch

import dlc
from dlc import f32, i64

M, N = dlc.dims("M N")


@dlc.kernel
def halves(x: f32[M, N]):
    return x * 0.5, dlc.sum(x, 1)


def test_results_and_what_is_known_of_them():
    x = torch.randn(5, 7)
    launcher = halves.plan(x).launcher()
    assert launcher.recipe.outputs == (("f32", (5, 7)), ("f32", (5,)))
    half, total = launcher([x])
    assert torch.equal(half, x * 0.5)
    torch.testing.assert_close(total, x.sum(1))


def test_results_may_be_given():
    x, outs = torch.randn(5, 7), [torch.empty(5, 7), torch.empty(5)]
    assert halves.plan(x).launcher()([x], outs)[0] is outs[0]
    assert torch.equal(outs[0], x * 0.5)


def test_a_failed_check_names_the_index():
    @dlc.kernel
    def taken(i: i64[M], w: f32[N]):
        return dlc.compute((M,), lambda m: w[i[m]])

    args = [torch.tensor([0, 5]), torch.ones(3)]
    with pytest.raises(dlc.errors.BoundsError, match=r"i\[1\] is 5, outside \[0, 3\)"):
        taken.plan(*args).launcher()(args)
