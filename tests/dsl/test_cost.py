"""Arithmetic and traffic of known programs, exactly."""

from __future__ import annotations

from typing import Any

import pytest

from dsl.carrier import LOGSUMEXP, MAX, SUM
from dsl.cost import bytes_moved, bytes_term, combine_flops, flops, flops_term, points
from dsl.dim import Var, as_term
from dsl.dtype import bf16, f32, i32
from dsl.errors import ShapeError
from dsl.expr import op, where
from dsl.program import Program, compute, dims, reduce_axis, reduce_over, trace

M, N, K = dims("M N K")


def linear(x: bf16[M, K], w: bf16[N, K], b: f32[N]):
    k = reduce_axis(K)
    return compute((M, N), lambda i, j: reduce_over(SUM, (x.read(i, k) * w.read(j, k),), (k,)) + b.read(j))


def known(program: Program, *sizes: int) -> Program:
    return program.specialize(dict(zip(program.dims, sizes)))


def test_a_product_with_bias() -> None:
    program = trace(linear)
    assert flops_term(program) == 2 * M.term * K.term * N.term + M.term * N.term
    special = known(program, 5, 7, 3)  # M, K, N in the order of the parameters
    assert flops(special) == 2 * 5 * 7 * 3 + 5 * 3
    assert bytes_moved(special) == 2 * (5 * 7 + 3 * 7) + 4 * 3 + 4 * 15


def test_each_operation_counts_over_the_axes_it_depends_on() -> None:
    def outer(x: f32[M], y: f32[N]):
        return compute((M, N), lambda i, j: op("exp", x.read(i)) * y.read(j))

    assert flops_term(trace(outer)) == 10 * M.term + M.term * N.term


def test_indices_and_selections_are_free() -> None:
    def shifted(x: f32[M]):
        return compute(M, lambda i: where((i > 0) & (i * i < 7), x.read(i - 1), 0.0))

    assert flops_term(trace(shifted)) == 0


def test_ragged_reductions_count_their_mean() -> None:
    def triangle(x: f32[M, M]):
        def at(i: Any) -> Any:
            k = reduce_axis(0, i + 1)
            return reduce_over(SUM, (x.read(i, k),), (k,))
        return compute(M, at)

    program = known(trace(triangle), 9)
    assert flops(program) == 45
    assert bytes_moved(program) == 4 * 45 + 4 * 9
    i = Var("i", M.term)
    assert points(frozenset({Var("k", as_term(i) + 1)})).subs({next(iter(M.term.vars)): 10}) == 55


def test_carriers_cost_their_formula() -> None:
    assert combine_flops(SUM, (f32,)) == combine_flops(MAX, (f32,)) == 1
    assert combine_flops(LOGSUMEXP, (f32, f32)) > 20


def test_an_embedding_moves_the_rows_it_looks_up() -> None:
    def embed(table: f32[N, K], idx: i32[M]):
        return compute((M, K), lambda i, j: table.read(idx.read(i), j))

    program = trace(embed)
    assert bytes_moved(known(program, 1000, 8, 5)) == 4 * (5 * 8 + 5 + 5 * 8)
    assert bytes_moved(known(program, 2, 8, 5)) == 4 * (2 * 8 + 5 + 5 * 8)


def test_inputs_that_are_not_read_do_not_move() -> None:
    def first(x: f32[M], y: f32[N]):
        return compute((), lambda: x.read(0))

    assert bytes_term(trace(first)) == 8


def test_symbolic_sizes_are_refused() -> None:
    with pytest.raises(ShapeError, match="the size . is not known"):
        flops(trace(linear))
    with pytest.raises(ShapeError, match="specialize the program"):
        bytes_moved(trace(linear))
