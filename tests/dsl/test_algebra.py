"""Walks and rewrites of expressions: order, sharing, identity of what is left alone, and the meaning of what is replaced."""

from __future__ import annotations

import numpy as np
import pytest

import dlc
from dlc import f64
from dsl.algebra import (
    bound_axes,
    combine_formula,
    fresh_axes,
    index_condition,
    index_term,
    inputs_and_computes,
    reads,
    substitute,
    substitute_values,
    transform,
    walk,
)
from dsl.carrier import ARGMAX, MAX, MIN, PROD, SUM
from dsl.dim import Var, as_term
from dsl.dtype import f32, i64
from dsl.expr import Const, Op, const, index, op, reduce, where
from dsl.interp import evaluate
from dsl.program import Program
from tests.strategies import random_case

M, N = dlc.dims("M N")


@dlc.kernel
def rows(x: f64[M, N]):
    k = dlc.reduce_axis(N)
    s = dlc.compute((M,), lambda i: dlc.sum(x[i, k] * x[i, k], k), name="s")
    return dlc.compute((M, N), lambda i, j: dlc.where(j >= 1, x[i, j - 1] / s[i], 0.0) + x[i, j], name="y")


@pytest.mark.parametrize("seed", range(20))
def test_operands_come_before_users_and_each_node_once(seed: int) -> None:
    for c in random_case(seed).program.computes:
        seen: set[object] = set()
        for e in walk(c.body):
            assert e not in seen and all(a in seen for a in e.args)
            seen.add(e)
        assert c.body in seen and set(reads(c.body)) <= seen


@pytest.mark.parametrize("seed", range(20))
def test_a_rewrite_that_changes_nothing_returns_the_same_nodes(seed: int) -> None:
    for c in random_case(seed).program.computes:
        assert transform(c.body, lambda e: None) is c.body
        assert substitute(c.body, {Var("z"): as_term(3)}) is c.body


def test_a_rewrite_keeps_sharing() -> None:
    x = const(2.0, f32)
    shared = op("exp", x)
    calls = []
    out = transform(op("add", shared, shared), lambda e: calls.append(e) or (const(3.0, f32) if isinstance(e, Const) else None))
    assert isinstance(out, Op) and out.args[0] is out.args[1] and len(calls) == 3


def test_substituted_indices_mean_the_other_element() -> None:
    """``y`` at ``(i, N - 1 - j)`` is ``y`` with its columns reversed; bound axes are left alone."""
    (y,) = rows.program.outputs
    i, j = y.axes
    turned = type(y)("turned", y.axes, substitute(y.body, {j: y.axes[1].extent - 1 - as_term(j)}), y.loc, y.dtype)
    x = np.random.default_rng(0).standard_normal((3, 5))
    (a,), (b,) = (evaluate(Program("p", rows.program.inputs, (t,), True, rows.program.loc), x) for t in (y, turned))
    np.testing.assert_array_equal(b, a[:, ::-1])


def test_whole_values_are_replaced_without_looking_inside() -> None:
    a, b = const(1.0, f32), const(2.0, f32)
    e = op("exp", a)
    assert substitute_values(op("add", e, a), {e: b, a: b}).args == (b, b)


def test_fresh_axes_are_new_and_mean_the_same() -> None:
    (y,) = rows.program.outputs
    s = next(c for c in rows.program.computes if c.name == "s")
    again = fresh_axes(s.body)
    assert again is not s.body and not set(bound_axes(again)) & set(bound_axes(s.body)) and again.free == s.body.free
    assert bound_axes(reduce(SUM, (again,), (Var("q", 2),)))[0].name == "q"


def test_definitions_come_in_the_order_of_dependence() -> None:
    inputs, computes = inputs_and_computes(rows.program.outputs)
    assert [t.name for t in inputs] == ["x"] and [c.name for c in computes] == ["s", "y"]


def test_conditions_on_indices() -> None:
    i, j = Var("i", 9), Var("j", 9)
    both = op("and", op("ge", index(i), index(j)), op("lt", index(i), 7))
    assert set(index_condition(both) or ()) == {as_term(i) - j, 6 - as_term(i)}
    assert index_condition(op("or", both, both)) is None and index_condition(where(both, both, both)) is None
    assert index_term(index(i)) == as_term(i) and index_term(const(3.0, f32)) is None


def test_a_combination_as_a_formula() -> None:
    """What carriers with one number of state do, written down over placeholders."""
    assert [combine_formula(c, (f32,))[0].name for c in (SUM, PROD, MAX, MIN)] == ["add", "mul", "max", "min"]
    values, positions = combine_formula(ARGMAX, (f32, i64))
    assert values.dtype is f32 and positions.dtype is i64
