"""Products of more than two things: parted into two factors, each computed while it is packed."""

import pytest
import torch

import dlc
from dlc import f32
from tests.codegen.products import agrees

M, N, K = dlc.dims("M N K")


@dlc.kernel
def scaled(x: f32[M, K], w: f32[N, K], s: f32[K]):
    k = dlc.reduce_axis(K)
    return dlc.compute((M, N), lambda i, j: dlc.sum(x[i, k] * w[j, k] * s[k], k))


@dlc.kernel
def computed(x: f32[M, K], w: f32[N, K], s: f32[K]):
    k = dlc.reduce_axis(K)
    return dlc.compute((M, N), lambda i, j: dlc.sum(dlc.maximum(x[i, k], 0.0) * (w[j, k] - s[k]), k))


@dlc.kernel
def chained(x: f32[M, K], w: f32[N, K], s: f32[K]):
    return dlc.linear(dlc.gelu(x) * s, w) + 1.0


@dlc.kernel
def turned(x: f32[K, M], w: f32[K, N], s: f32[M]):
    k = dlc.reduce_axis(K)
    return dlc.compute((M, N), lambda i, j: dlc.sum(x[k, i] * s[i] * dlc.abs(w[k, j]), k))


CASES = {
    "scaled": (scaled, lambda x, w, s: (x * s) @ w.T),
    "computed": (computed, lambda x, w, s: x.relu() @ (w - s).T),
    "chained": (chained, lambda x, w, s: (torch.nn.functional.gelu(x) * s) @ w.T + 1),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("m, n, k", [(9, 33, 20), (64, 128, 70), (200, 150, 96), (3, 5, 7)])
def test_prologues(name, m, n, k):
    kernel, definition = CASES[name]
    x, w, s = torch.randn(m, k), torch.randn(n, k), torch.randn(k)
    agrees(kernel(x, w, s), definition(x.double(), w.double(), s.double()), k)


def test_prologues_of_transposed_factors():
    x, w, s = torch.randn(50, 70), torch.randn(50, 90), torch.randn(70)
    agrees(turned(x, w, s), (x.double() * s.double()).T @ w.double().abs(), 50)


@pytest.mark.parametrize("name", CASES)
def test_factors_are_computed_while_they_are_packed(name):
    plan = CASES[name][0].plan(torch.randn(200, 96), torch.randn(150, 96), torch.randn(96))
    assert [s.name for s in plan.nest.stages if s.attach is None] == [plan.nest.stages[-1].name]
    assert any(s.name.endswith(".packed") for s in plan.nest.stages)


def test_what_is_not_reused_stays_where_it_is():
    @dlc.kernel
    def pointwise(x: f32[M, K], w: f32[M, K], s: f32[K]):
        k = dlc.reduce_axis(K)
        return dlc.compute((M,), lambda i: dlc.sum(x[i, k] * w[i, k] * s[k], k))

    x, w, s = torch.randn(40, 50), torch.randn(40, 50), torch.randn(50)
    plan = pointwise.plan(x, w, s)
    assert not any("factor" in stage.name for stage in plan.nest.stages)
    agrees(pointwise(x, w, s), (x.double() * w.double() * s.double()).sum(1), 50)


def test_a_factor_made_of_indices_alone():
    @dlc.kernel
    def cosines(x: f32[M, K], s: f32[K]):
        k = dlc.reduce_axis(K)
        return dlc.compute((M, 30), lambda i, j: dlc.sum(x[i, k] * s[k] * dlc.cos(dlc.cast(j * k, f32) * 0.1), k))

    x, s = torch.randn(20, 24), torch.randn(24)
    table = torch.cos(torch.arange(30)[:, None] * torch.arange(24) * 0.1)
    agrees(cosines(x, s), (x * s).double() @ table.double().T, 24)


@dlc.kernel
def moved(g: f32[M, K], d: f32[M, K], x: f32[M, N], c: f32[K, N]):
    k = dlc.reduce_axis(K)
    return dlc.compute((M, N), lambda i, j: dlc.sum(g[i, k] * (x[i, j] - c[k, j]) / d[i, k], k))


@pytest.mark.parametrize("m, n, k", [(9, 33, 20), (100, 64, 150), (7, 8, 9)])
def test_what_lacks_an_axis_of_the_rest_is_parted_from_it(m, n, k):
    """The gradient of distances: a quotient for every pair of points, the rest in register tiles."""
    g, d, x, c = torch.randn(m, k), torch.rand(m, k) + 1, torch.randn(m, n), torch.randn(k, n)
    want = ((g / d).double()[:, :, None] * (x.double()[:, None] - c.double()[None])).sum(1)
    agrees(moved(g, d, x, c), want, k)
    plan = moved.plan(g, d, x, c)
    stage = next(s for s in plan.nest.stages if s.kind == "reduce")
    assert "/" not in str(stage.body) and any("factor" in s.name for s in plan.nest.stages)
