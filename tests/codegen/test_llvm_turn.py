"""Loads and stores whose lanes run across memory: when they are turned, and that turned code gives the right elements."""

import pytest
import torch

import dlc
from codegen.emit.llvm_regs import Shape
from codegen.emit.llvm_turn import Interleave, Turn
from dlc import bf16, bool_, f32, f64
from dsl.dim import Var, as_term
from dsl.primitives.loops import set_role, split
from tests.codegen.products import run

M, N = dlc.dims("M N")
U, V = Var("i", 16), Var("j", 32)
FIRST, SECOND = as_term(U), as_term(V)


def test_lanes_across_contiguous_rows_are_turned():
    turns = Turn.of(FIRST * 100 + SECOND, Shape((V,), U, 16, 1))
    assert [(t.first, t.block) for t in turns] == [(0, 16), (16, 16)]
    assert all(t.contiguous is V and t.memory == Shape((U,), V, 16, 1) for t in turns)


@pytest.mark.parametrize("size, runs", [
    (4, [(0, 4)]), (5, [(0, 4), (3, 2)]), (7, [(0, 4), (3, 4)]), (10, [(0, 8), (8, 2)]), (13, [(0, 8), (5, 8)]), (12, [(0, 8), (8, 4)]),
    (6, [(0, 4), (4, 2)]), (3, []), (2, [(0, 2)]), (1, []),
])
def test_runs_are_powers_of_two_and_the_last_may_overlap(size, runs):
    short = Var("k", size)
    assert [(t.first, t.block) for t in Turn.of(FIRST * 100 + as_term(short), Shape((short,), U, 8, 2))] == runs


def test_lanes_near_each_other_are_turned_in_runs_that_divide_the_axis():
    short = Var("k", 7)
    assert Turn.of(FIRST * 2 + as_term(short), Shape((short,), U, 8, 2)) == []


@pytest.mark.parametrize("offset, shape", [
    (FIRST + SECOND * 100, Shape((V,), U, 16, 1)),            # lanes are contiguous
    (FIRST * 100 + SECOND * 2, Shape((V,), U, 16, 1)),        # nothing is
    (FIRST * 100, Shape((), U, 16, 1)),                  # no other axis
    (FIRST * 100 + SECOND, Shape((V,), U, 12, 1)),            # no power of two
])
def test_others_are_not(offset, shape):
    assert Turn.of(offset, shape) == []


def test_lanes_that_alternate_with_an_axis_interleave():
    pair = Var("p", 4)
    offset = FIRST * 2 + (as_term(pair) // 2) * 64 + as_term(pair) % 2
    mixed = Interleave.of(offset, Shape((pair,), U, 16, 1))
    assert mixed is not None and (mixed.axis, mixed.terms) == (pair, 2)
    assert Interleave.of(FIRST * 2 + as_term(pair) * 64, Shape((pair,), U, 16, 1)) is None
    assert Interleave.of(FIRST + as_term(pair) * 64, Shape((pair,), U, 16, 1)) is None


def across(nest, rows: int, lanes: int):
    """Lanes along the first axis, which is not contiguous in the input, with the second unrolled."""
    s = nest.stages[-1]
    i, j = (s.axis_names()[a] for a in s.axes)
    nest = split(split(nest, s.name, i, lanes), s.name, j, rows)
    nest = set_role(set_role(nest, s.name, f"{i}.i", "vectorize"), s.name, f"{j}.i", "unroll")
    order = (f"{i}.o", f"{j}.o", f"{j}.i", f"{i}.i")
    from dataclasses import replace
    return nest.with_stage(replace(nest[s.name], order=order))


@pytest.mark.parametrize("dtype", [f32, f64, bf16, bool_], ids=str)
@pytest.mark.parametrize("rows, lanes", [(4, 16), (16, 16), (8, 32), (16, 4), (32, 16), (7, 16), (10, 8)])
def test_turned_copies(dtype, rows, lanes):
    @dlc.kernel
    def copy(x: dtype[M, N]):
        return dlc.compute((M, N), lambda i, j: x[i, j])

    for shape in [(16, 16), (37, 29), (3, 70), (65, 1)]:
        x = ((torch.randn(shape) > 0) if dtype is bool_
             else torch.randn(shape).to({f32: torch.float32, f64: torch.float64, bf16: torch.bfloat16}[dtype]))
        plan = copy.plan(x)
        plan = dlc.compiler.Plan(type(plan.request)(**{**plan.request.__dict__, "scheduler": lambda n: across(n, rows, lanes)}))
        got = plan.launcher()([x])[0]
        assert torch.equal(got, x), shape
    assert "gather" not in plan.module.text and "scatter" not in plan.module.text


def test_default_products_of_transposed_factors_do_not_gather():
    from tests.codegen.products import PRODUCTS, operands
    for kind in PRODUCTS:
        plan, _ = run(PRODUCTS[kind], *operands(kind, 200, 192, 96))
        assert "masked.gather" not in plan.module.text, kind
