"""Cumulative operations against torch; what scan refuses."""

import pytest
import torch

import dlc
from dlc import errors, f32

M, N = dlc.dims("M N")


@pytest.mark.parametrize("name", ["cumsum", "cumprod", "logcumsumexp", "cummax", "cummin"])
@pytest.mark.parametrize("axis", [0, 1, -1])
def test_as_torch(name, axis):
    @dlc.kernel
    def kernel(x: f32[M, N]):
        return getattr(dlc, name)(x, axis)

    x = torch.randn(9, 14)
    got, want = kernel(x), getattr(torch, name)(x, axis)
    for g, w in zip(got if isinstance(got, tuple) else (got,), want if isinstance(want, tuple) else (want,)):
        torch.testing.assert_close(g, w, rtol=1e-4, atol=1e-5)


def test_reverse_and_elements():
    @dlc.kernel
    def both(x: f32[M, N]):
        k = dlc.reduce_axis(N)
        later = dlc.compute((M, N), lambda i, j: dlc.scan(x[i, k], k, j, reverse=True, exclusive=True))
        return dlc.cumsum(x, 1, reverse=True), later

    x = torch.randn(5, 8)
    whole, later = both(x)
    torch.testing.assert_close(whole, x.flip(1).cumsum(1).flip(1), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(later, whole - x, rtol=1e-4, atol=1e-5)


def refused(make):
    @dlc.kernel
    def kernel(x: f32[N]):
        k = dlc.reduce_axis(N)
        return dlc.compute((N,), lambda i: make(x, k, i))

    with pytest.raises(errors.UserError) as e:
        _ = kernel.program
    return str(e.value)


def test_refusals():
    assert "there is no scan `mean`" in refused(lambda x, k, i: dlc.scan(x[k], k, i, "mean"))
    assert "ends at an index" in refused(lambda x, k, i: dlc.scan(x[k], k, dlc.cast(x[i], dlc.i64)))
