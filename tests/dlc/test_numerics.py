"""The numerical report of a kernel; orders of the same name give the same bits."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

import dlc
from dlc import f32, i64
from dlc.compiler import Plan
from dlc.numerics import study
from dlc.tune.adversary import KINDS

M, N, K = dlc.dims("M N K")


@dlc.kernel
def softmax(x: f32[M, N]):
    return dlc.softmax(x, 1)


@dlc.kernel
def product(x: f32[M, K], w: f32[N, K]):
    k = dlc.reduce_axis(K)
    return dlc.compute((M, N), lambda i, j: dlc.sum(x[i, k] * w[j, k], k))


@dlc.kernel
def picked(x: f32[M, N], at: i64[M]):
    return dlc.compute((M,), lambda i: x[i, at[i]] * 2)


def test_every_kind_of_data_with_bounds_that_hold() -> None:
    r = study(softmax, torch.randn(20, 70), against=lambda x: torch.softmax(x, 1))
    assert [row.data for row in r.rows] == list(KINDS)
    for row in r.rows:
        assert set(row.errors) == {"dlc", "peer"} and row.bound.relative is not None
        assert row.errors["dlc"].relative <= row.bound.relative
    assert r.order.startswith("sum: sum[") and "order: sum: sum[" in str(r)
    assert json.loads(json.dumps(r.as_dict()))["data"]["cancel"]["bound"] > 0


def test_integers_stay_and_a_peer_that_fails_is_told() -> None:
    def peer(x, at):
        raise RuntimeError("no")

    r = study(picked, torch.randn(4, 6), torch.tensor([0, 5, 2, 1]), against=peer, data="ordinary,offset")
    assert [row.failures for row in r.rows] == [{"peer": "RuntimeError: no"}] * 2 and "RuntimeError: no" in str(r)
    assert all(row.errors["dlc"].relative == 0 for row in r.rows)


def test_numpy_arguments_and_strides() -> None:
    x = np.random.default_rng(0).standard_normal((6, 9), np.float32)
    assert study(softmax, x, data="denormal").rows[0].errors["dlc"].relative < 1e-6
    wide = torch.randn(9, 6).T
    assert study(softmax, wide, data=["extreme"]).rows[0].errors["dlc"].relative < 1e-6


def test_a_product_too_large_for_a_bound_says_so(monkeypatch) -> None:
    monkeypatch.setattr("dlc.tune.bounds.MOST_FLOPS", 10)
    r = study(product, torch.randn(3, 4), torch.randn(5, 4), data="ordinary")
    assert r.rows[0].bound.relative is None and "no bound: too large to evaluate" in str(r)


@pytest.mark.parametrize("kernel", [softmax, product], ids=lambda k: k.__name__)
def test_equal_orders_give_equal_bits(kernel) -> None:
    """Every choice of the heuristics, alone: schedules whose orders have one name agree in every bit."""
    g = torch.Generator().manual_seed(1)
    args = [torch.randn(40, 100, generator=g), torch.randn(50, 100, generator=g)][:len(kernel.program.inputs)]
    default = kernel.plan(*args)
    assert default.nest
    seen: dict[str, list[np.ndarray]] = {}
    for choice in default.decisions.made.values():
        for option in list(choice.options)[:6]:
            plan = Plan(replace(default.request, decisions={choice.name: option}))
            seen.setdefault(plan.order, []).append(plan.launcher()(args)[0].numpy())
    for results in seen.values():
        assert all(np.array_equal(results[0], r) for r in results[1:])
    assert sum(map(len, seen.values())) > len(seen) >= 1
