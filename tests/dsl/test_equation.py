"""Equations between data and indices, and sums over indices that they make gathers."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import dlc
from dlc import bf16, f32, i32, i64
from dsl.algebra import walk
from dsl.equation import assuming, equations, picked
from dsl.program import trace
from dsl.stages import build_nest

K, R, C = 12, 7, 5


def reducing(fn):
    (stage,) = (s for s in build_nest(trace(fn)).stages if s.kind == "reduce")
    return stage


def scattered(term):
    """``sum[k](term(k, r, c))``."""
    def fn(x: f32[K, C], i: i32[K], j: i64[K, C], y: f32[R, C]):
        k = dlc.reduce_axis(K, name="k")
        return dlc.compute((R, C), lambda r, c: term(x, i, j, y, k, r, c))
    return reducing(fn)


FOUND = {
    "scatter": lambda x, i, j, y, k, r, c: dlc.sum(dlc.where(i[k] == r, x[k, c], 0.0), k),
    "shifted": lambda x, i, j, y, k, r, c: dlc.sum(dlc.where(i[k] == r + 2, x[k, c], 0.0), k),
    "turned": lambda x, i, j, y, k, r, c: dlc.sum(dlc.where(6 - r == i[k], x[k, c], 0.0), k),
    "clamped": lambda x, i, j, y, k, r, c: dlc.sum(dlc.where(dlc.clamp(i[k], 0, 3) == r, x[k, c], 0.0), k),
    "among others": lambda x, i, j, y, k, r, c: dlc.sum(dlc.where((x[k, c] > 0.0) & (i[k] == r), x[k, c] * y[r, c], 0.0), k),
    "below another": lambda x, i, j, y, k, r, c: dlc.sum(dlc.where(x[k, c] > 0.0, dlc.where(i[k] == r, x[k, c], 0.0), 0.0), k),
    "counted": lambda x, i, j, y, k, r, c: dlc.sum(dlc.cast(i[k] == r, i64), k),
    "some": lambda x, i, j, y, k, r, c: dlc.any((j[k, c] == r) & (x[k, c] > 0.0), k),
    "greatest": lambda x, i, j, y, k, r, c: dlc.max(dlc.where(i[k] == r, x[k, c], -float("inf")), k),
    "product": lambda x, i, j, y, k, r, c: dlc.prod(dlc.where(i[k] == r, x[k, c], 1.0), k),
}
NOT = {
    "another default": lambda x, i, j, y, k, r, c: dlc.sum(dlc.where(i[k] == r, x[k, c], 1.0), k),
    "minus zero": lambda x, i, j, y, k, r, c: dlc.sum(dlc.where(i[k] == r, x[k, c], -0.0), k),
    "greatest of zeros": lambda x, i, j, y, k, r, c: dlc.max(dlc.where(i[k] == r, x[k, c], 0.0), k),
    "not equal": lambda x, i, j, y, k, r, c: dlc.sum(dlc.where(i[k] != r, x[k, c], 0.0), k),
    "either": lambda x, i, j, y, k, r, c: dlc.sum(dlc.where((i[k] == r) | (x[k, c] > 0.0), x[k, c], 0.0), k),
    "times": lambda x, i, j, y, k, r, c: dlc.sum(dlc.cast(i[k] == r, f32) * x[k, c], k),  # 0 * inf
    "indices": lambda x, i, j, y, k, r, c: dlc.sum(dlc.where(k == r, x[k, c], 0.0), k),
    "moments": lambda x, i, j, y, k, r, c: dlc.mean(dlc.where(i[k] == r, x[k, c], 1.0), k),
}


@pytest.mark.parametrize("name", FOUND)
def test_what_data_decides(name: str) -> None:
    s = scattered(FOUND[name])
    (e,) = equations(s.body)
    assert e.condition.name == "eq" and s.axes[0] in e.term.vars and e.data.dtype.is_int
    assert len(e.guards) == (name == "below another")
    assert not any(n is e.condition for n in walk(assuming(s.body, e.condition)))


@pytest.mark.parametrize("name", NOT)
def test_what_it_does_not(name: str) -> None:
    assert equations(scattered(NOT[name]).body) == ()


PICKED = {
    "rows": lambda x, i, k, c: dlc.sum(dlc.where(i[c] == k, x[k, c], 0.0), k),
    "shifted": lambda x, i, k, c: dlc.sum(dlc.where(i[c] == k + 3, x[k, c] * 2.0, 0.0), k),
    "turned": lambda x, i, k, c: dlc.sum(dlc.where(4 - k - c == i[c], x[k, c], 0.0), k),
    "quotients": lambda x, i, k, c: dlc.sum(dlc.where(i[c] == k, x[k // 2 + (k % 3), c], 0.0), k),
    "greatest": lambda x, i, k, c: dlc.max(dlc.where(i[c] == k, x[k, c], -float("inf")), k),
    "found": lambda x, i, k, c: dlc.sum(dlc.cast(i[c] == k, i64), k),
    "any": lambda x, i, k, c: dlc.any((i[c] == k) & (x[k, c] > 0.0), k),
    "guarded": lambda x, i, k, c: dlc.sum(dlc.where(c > 0, dlc.where(i[c - 1] == k, x[k, c], 0.0), 0.0), k),
}


@pytest.mark.parametrize("name", PICKED)
def test_a_sum_of_one_term_is_a_read(name: str, rng: np.random.Generator) -> None:
    @dlc.kernel
    def fn(x: f32[K, C], i: i32[C]):
        k = dlc.reduce_axis(K, name="k")
        return dlc.compute((C,), lambda c: PICKED[name](x, i, k, c))

    assert all(s.kind == "map" for s in build_nest(fn.program).stages)
    for _ in range(4):
        x, i = rng.normal(size=(K, C)).astype(np.float32), rng.integers(-4, K + 4, C).astype(np.int32)
        np.testing.assert_array_equal(fn(x, i), fn.reference(x, i))


def test_what_is_left_is_summed(rng: np.random.Generator) -> None:
    @dlc.kernel
    def fn(x: bf16[K, C], i: i32[R]):
        k, c = dlc.reduce_axis(K, name="k"), dlc.reduce_axis(C, name="c")
        return dlc.compute((R,), lambda r: dlc.sum(dlc.where(i[r] == k, x[k, c], 0.0), k, c))

    (stage,) = (s for s in build_nest(fn.program).stages if s.kind == "reduce")
    assert [v.name for v in stage.bound] == ["c"] and picked(stage.body) is stage.body
    x, i = torch.randn(K, C).bfloat16(), torch.randint(-3, K + 3, (R,), dtype=torch.int32)
    rows = torch.cat([x.float(), torch.zeros(1, C)])[torch.where((i < 0) | (i >= K), K, i).long()]
    torch.testing.assert_close(fn(x, i), rows.sum(1).bfloat16())


def test_scatters_stay_sums() -> None:
    for term in FOUND.values():
        body = scattered(term).body
        assert picked(body) is body
