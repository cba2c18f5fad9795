"""From definitions to stages: one for each reduction and scan, shared ones once, and the same numbers in the end."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import dlc
from codegen.lower import lower
from codegen.tile.interp import run
from dlc import f64, i64
from dsl.algebra import walk
from dsl.dim import as_term
from dsl.expr import Index, Read, Reduce, Scan, index
from dsl.interp import evaluate
from dsl.program import Program
from dsl.stages import at, build_nest, inline_reads
from tests.strategies import random_case

M, N = dlc.dims("M N")


@dlc.kernel
def spread(x: f64[M, N]):
    k, q = dlc.reduce_axis(N), dlc.reduce_axis(N)
    return dlc.compute((M, N), lambda i, j: x[i, j] / dlc.sum(x[i, k], k) + dlc.sum(x[i, q], q), name="y")


@dlc.kernel
def picked(x: f64[M, N], p: i64[M]):
    s = dlc.compute((M, N), lambda i, j: x[i, j] * (i + 2 * j), name="s")
    return dlc.compute((M,), lambda i: s[i, p[i]], name="y")


@pytest.mark.parametrize("seed", range(30))
def test_reductions_stand_alone_and_the_nest_computes_the_program(seed: int) -> None:
    case = random_case(seed)
    nest = build_nest(case.program)
    for stage in nest.stages:
        for t in stage.tensors:
            assert not any(isinstance(e, (Reduce, Scan)) for e in walk(t.body) if e is not t.body), stage.name
    assert len({s.name for s in nest.stages}) == len(nest.stages)
    arrays = {t.name: a for t, a in zip(case.program.inputs, case.arrays)}
    got = run(lower(nest, {}, "k"), arrays, {v: n for v, n in case.sizes.items() if v in nest.program.dims})
    for o, want in zip(nest.program.outputs, evaluate(case.program, *case.arrays)):
        np.testing.assert_allclose(np.asarray(got[o.name], np.float64), np.asarray(want, np.float64), rtol=3e-2, atol=3e-2)


def test_a_reduction_written_twice_is_one_stage() -> None:
    nest = build_nest(spread.program)
    assert [s.kind for s in nest.stages].count("reduce") == 1 and nest.stages[-1].name == "y"


def test_an_element_of_a_definition() -> None:
    """Its body with the axes replaced; by data too, where the place itself is a value of the body."""
    s, y = picked.program.computes
    i, j = s.axes
    moved = at(s, (as_term(i) + 1, as_term(3)))
    assert moved.free == {i} and str(moved) == "x[i + 1, 3] * f64(i + 7)"
    inlined = inline_reads(y.body, {s: s})
    assert not any(isinstance(e, Read) and e.tensor is s for e in walk(inlined))
    x, p = np.random.default_rng(0).standard_normal((3, 4)), np.array([3, 0, 2])
    again = type(y)("y", y.axes, inlined, y.loc, y.dtype)
    (want,), (got,) = (evaluate(Program("p", picked.program.inputs, (t,), True, picked.program.loc), x, p) for t in (y, again))
    np.testing.assert_array_equal(got, want)
    assert isinstance(index(i), Index)


def test_results_of_one_reduction_share_a_stage() -> None:
    @dlc.kernel
    def both(x: f64[M, N]):
        return dlc.var(x, 1, correction=0), dlc.mean(x * x, 1), dlc.argmax(x, 1), dlc.argmax(x, 1) * 2

    nest = build_nest(both.program)
    arg = [s for s in nest.stages if any(isinstance(t.body, Reduce) and t.body.carrier.name == "argmax" for t in s.tensors)]
    assert len(arg) == 1
    x = np.random.default_rng(0).standard_normal((3, 5))
    want = x.var(1), (x * x).mean(1), x.argmax(1), x.argmax(1) * 2
    for found, expected in zip(run(lower(nest, {}, "k"), {"x": x}, dict(zip(nest.program.dims, x.shape))).values(), want):
        np.testing.assert_allclose(found, expected)


@dlc.kernel
def sampled(x: f64[M, N], p: i64[M], w: f64[N, M]):
    known = (p >= 0) & (p < M)
    k = dlc.reduce_axis(N)
    return dlc.compute((M,), lambda i: dlc.where(known[i], dlc.sum(x[p[i], k] * w[k, i], k), -1.0), name="y")


def test_what_a_reduction_gathers_need_only_be_inside_where_the_selection_around_it_takes_it() -> None:
    generator = np.random.default_rng(0)
    x, w, p = generator.standard_normal((5, 7)), generator.standard_normal((7, 5)), np.array([-3, 4, 0, 5, 99])
    expected = np.where((p >= 0) & (p < 5), (x[p.clip(0, 4)] * w.T).sum(1), -1.0)
    np.testing.assert_allclose(sampled(x, p, w), expected)
    (numbers,) = evaluate(sampled.program, x, p, w)
    np.testing.assert_allclose(numbers, expected)


@dlc.kernel
def shifted(x: f64[3, N], at: f64[M]):
    left = dlc.floor(at)
    p = dlc.cast(left, i64) + 1
    known = (p >= 0) & (p < N)
    return dlc.compute((3, M), lambda c, i: dlc.where(known[i], x[c, p[i]], 0.0) * (at[i] - left[i]))


def test_the_backward_of_a_selected_gather_reads_nothing_outside() -> None:
    x, at = torch.randn(3, 5, dtype=torch.float64, requires_grad=True), torch.tensor([-2.3, 0.5, 2.2, 4.4, 6.1], dtype=torch.float64)
    at.requires_grad_()
    seed = torch.randn(3, 5, dtype=torch.float64)
    found = torch.autograd.grad(shifted(x, at), (x, at), seed)
    p = at.detach().floor().long() + 1
    taken = torch.where((p >= 0) & (p < 5), x[:, p.clamp(0, 4)], 0.0) * (at - at.detach().floor())
    for a, b in zip(found, torch.autograd.grad(taken, (x, at), seed)):
        torch.testing.assert_close(a, b)


@dlc.kernel
def weighted(x: f64[3, N], p: i64[M], a: f64[M], b: f64[M]):
    known = (p >= 0) & (p < N)
    return dlc.compute((3, M), lambda c, i: dlc.where(known[i], x[c, p[i]], 0.0) * a[i] * b[i])


def test_sums_that_two_gradients_share_read_nothing_outside() -> None:
    x, a, b = (torch.randn(*shape, dtype=torch.float64, requires_grad=True) for shape in ((3, 5), (6,), (6,)))
    p, seed = torch.tensor([-7, 4, 5, 0, 2, 99]), torch.randn(3, 6, dtype=torch.float64)
    found = torch.autograd.grad(weighted(x, p, a, b), (x, a, b), seed)
    taken = torch.where((p >= 0) & (p < 5), x[:, p.clamp(0, 4)], 0.0) * a * b
    for one, other in zip(found, torch.autograd.grad(taken, (x, a, b), seed)):
        torch.testing.assert_close(one, other)
