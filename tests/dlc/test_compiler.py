"""The driver: every level on request, decisions that change the code and not the result, schedulers."""

from dataclasses import replace

import pytest
import torch

import dlc
from codegen.target import by_name
from dlc import f32
from dlc.compiler import Plan
from dsl.errors import TargetError
from dsl.primitives.loops import set_role

M, N, K = dlc.dims("M N K")


@dlc.kernel
def product(x: f32[M, K], w: f32[K, N]):
    return x @ w


@dlc.kernel
def doubled(x: f32[M, N]):
    return x * 2.0


def arguments():
    return torch.randn(37, 29), torch.randn(29, 41)


def test_levels_are_made_on_request():
    plan = product.plan(*arguments())
    assert plan.program.outputs[0].shape[0] == 37
    assert plan.nest.stages and plan.tile.phases and "define" in plan.module.text
    assert plan.made.seconds["lower"] > 0 and plan.made.seconds["verify"] > 0 and not plan.made.notes


def test_every_decision_met_gives_the_same_result():
    x, w = arguments()
    met = product.plan(x, w)
    assert met.nest.stages
    exact = (x.double() @ w.double()).float()
    for choice in met.decisions.made.values():
        for value in choice.options:
            request = product.request([x.shape, w.shape], [x.stride(), w.stride()])
            plan = Plan(replace(request, decisions={choice.name: value}))
            torch.testing.assert_close(plan.launcher()([x, w])[0], exact)
            assert plan.decisions.made[choice.name].value == value


def test_a_matrix_product_has_choices():
    plan = product.plan(*arguments())
    assert plan.nest.stages
    assert any(len(c.options) > 1 for c in plan.decisions.made.values())


def test_a_scheduler_replaces_the_heuristics():
    x = torch.randn(5, 7)
    request = doubled.request([x.shape], [x.stride()])
    plan = Plan(replace(request, scheduler=lambda nest: set_role(nest, nest.stages[0].name, nest.stages[0].order[0], "parallel")))
    assert torch.equal(plan.launcher()([x])[0], x * 2)
    assert plan.decisions.made == {}


def test_llvm_modules_are_for_cpus():
    x = torch.randn(5, 7)
    with pytest.raises(TargetError):
        _ = Plan(doubled.request([x.shape], [x.stride()], by_name("sm_90"))).module
