"""Sums in derivatives: what does not vary moves out, deviations leave, equal ones are made once."""

from __future__ import annotations

import numpy as np

from dsl.algebra import walk
from dsl.carrier import SUM
from dsl.derivative import vjp
from dsl.dtype import f64
from dsl.expr import Reduce, op
from dsl.program import Program, compute, dims, reduce_axis, reduce_over, trace
from tests.dsl.gradcheck import check

M, N, K = dims("M N K")


def total(e, *axes):
    return reduce_over(SUM, (e,), axes)


def sums(program: Program) -> list[Reduce]:
    """Every sum of a program."""
    return [e for c in program.computes for e in walk(c.body) if isinstance(e, Reduce)]


def column_norm(x: f64[M, N], w: f64[N], b: f64[N]):
    k, q = reduce_axis(M), reduce_axis(M)
    mean = compute((N,), lambda j: total(x[k, j], k) / M, name="mean")
    centred = compute((M, N), lambda i, j: x[i, j] - mean[j], name="centred")
    var = compute((N,), lambda j: total(centred[q, j] * centred[q, j], q) / M, name="var")
    scale = compute((N,), lambda j: op("rsqrt", var[j] + 1e-5), name="scale")
    return compute((M, N), lambda i, j: centred[i, j] * scale[j] * w[j] + b[j], name="y")


def row_norm(x: f64[M, N], w: f64[N]):
    k, q = reduce_axis(N), reduce_axis(N)
    mean = compute((M,), lambda i: total(x[i, k], k) / N, name="mean")
    centred = compute((M, N), lambda i, j: x[i, j] - mean[i], name="centred")
    var = compute((M,), lambda i: total(centred[i, q] * centred[i, q], q) / N, name="var")
    return compute((M, N), lambda i, j: centred[i, j] * op("rsqrt", var[i] + 1e-5) * w[j], name="y")


def test_the_sums_of_a_norm_over_columns_are_two(rng: np.random.Generator) -> None:
    back = check(column_norm, rng.standard_normal((5, 3)), rng.standard_normal(3), rng.standard_normal(3), rng=rng, order=2)
    mine = [e for c in back.computes if c.name.startswith("d_") for e in walk(c.body) if isinstance(e, Reduce)]
    assert len(mine) == 2  # of the gradients, and of the gradients times the deviations


def group_norm(x: f64[M, 2, 3, N], w: f64[2, 3], b: f64[2, 3]):
    def over(f):
        c, k = reduce_axis(3), reduce_axis(N)
        return lambda i, g: total(f(i, g, c, k), c, k) / (3 * N)

    mean = compute((M, 2), over(lambda i, g, c, k: x[i, g, c, k]), name="mean")
    centred = compute((M, 2, 3, N), lambda i, g, c, j: x[i, g, c, j] - mean[i, g], name="centred")
    var = compute((M, 2), over(lambda i, g, c, k: centred[i, g, c, k] * centred[i, g, c, k]), name="var")
    scale = compute((M, 2), lambda i, g: op("rsqrt", var[i, g] + 1e-5), name="scale")
    return compute((M, 2, 3, N), lambda i, g, c, j: centred[i, g, c, j] * scale[i, g] * w[g, c] + b[g, c], name="y")


def test_sums_over_several_axes_share_those_over_the_last(rng: np.random.Generator) -> None:
    """Two sums over each channel; of groups, weights and biases only these are added up."""
    shapes = (4, 2, 3, 5), (2, 3), (2, 3)
    back = check(group_norm, *(rng.standard_normal(s) for s in shapes), rng=rng, order=2)
    mine = [e for c in back.computes if c.name.startswith("d_") for e in walk(c.body) if isinstance(e, Reduce)]
    assert sorted(str(v.extent) for e in mine for v in e.axes) == ["3", "3", "M", "M", "N", "N"]


def added_in_two_shapes(x: f64[M, N, K], a: f64[K], b: f64[M, K]):
    return compute((M, N, K), lambda i, j, k: x[i, j, k] * x[i, j, k] + a[k] + b[i, k], name="y")


def test_a_sum_over_two_axes_is_one_of_sums_that_are_wanted_anyway(rng: np.random.Generator) -> None:
    back = check(added_in_two_shapes, *(rng.standard_normal(s) for s in ((3, 4, 5), (5,), (3, 5))), rng=rng)
    assert sorted(len(e.axes) for e in sums(back)) == [1, 1]


def test_deviations_from_a_mean_add_up_to_nothing(rng: np.random.Generator) -> None:
    back = check(row_norm, rng.standard_normal((3, 6)), rng.standard_normal(6), rng=rng, order=2)
    (d_mean,) = [c for c in back.computes if c.name == "d_mean"]
    (e,) = [e for e in walk(d_mean.body) if isinstance(e, Reduce)]
    assert not any(getattr(r, "tensor", None) is not None and r.tensor.name == "centred" for r in walk(e))


def shifted(x: f64[M, N]):
    k, q = reduce_axis(N), reduce_axis(N)
    mean = compute((M,), lambda i: total(x[i, k], k) / (N + 1), name="mean")
    centred = compute((M, N), lambda i, j: x[i, j] - mean[i], name="centred")
    return compute((M,), lambda i: total(centred[i, q] * centred[i, q], q), name="y")


def test_deviations_from_something_else_do_not(rng: np.random.Generator) -> None:
    check(shifted, rng.standard_normal((3, 4)), rng=rng, order=2)


def scaled_product(x: f64[M, K], w: f64[N, K], s: f64[M]):
    k = reduce_axis(K)
    scaled = compute((M, K), lambda i, c: x[i, c] * s[i], name="scaled")
    return compute((M, N), lambda i, j: total(scaled[i, k] * w[j, k], k), name="y")


def test_products_whose_factors_are_reused_stay(rng: np.random.Generator) -> None:
    arrays = rng.standard_normal((3, 4)), rng.standard_normal((5, 4)), rng.standard_normal(3)
    check(scaled_product, *arrays, rng=rng, order=1)
    back = vjp(trace(scaled_product), ["w"])
    (e,) = sums(back)
    assert any(getattr(r, "tensor", None) is not None and r.tensor.name == "scaled" for r in walk(e))
