"""Whole operators: softmax, norms, attention, random programs; saving, signatures, lower-level use."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dsl.carrier import ARGMAX, LOGSUMEXP, MAX, MIN, SUM
from dsl.derivative import asides, choose_saved, forward_with_saves, plan_saved, pullback, split_program, vjp
from dsl.derivative.split import is_pointwise
from dsl.dtype import f64, i8
from dsl.errors import DerivativeError
from dsl.expr import Input, op, where
from dsl.interp import evaluate
from dsl.ops.conv import conv2d
from dsl.ops.pooling import max_pool2d
from dsl.program import Program, compute, dims, reduce_axis, reduce_over, trace
from dsl.text import show_compute
from tests.dsl.gradcheck import check, gradients, reductions

M, N, K, D = dims("M N K D")


def total(e, *axes):
    return reduce_over(SUM, (e,), axes)


def softmax_rows(x, rows, columns, name="p"):
    a, b = reduce_axis(columns, name="a"), reduce_axis(columns, name="b")
    m = compute((rows,), lambda i: reduce_over(MAX, (x[i, a],), (a,)), name="m")
    e = compute((rows, columns), lambda i, j: op("exp", x[i, j] - m[i]), name="e")
    s = compute((rows,), lambda i: total(e[i, b], b), name="s")
    return compute((rows, columns), lambda i, j: e[i, j] / s[i], name=name)


def softmax(x: f64[M, N]):
    return softmax_rows(x, M, N)


def layer_norm(x: f64[M, N], w: f64[N], b: f64[N]):
    k, q = reduce_axis(N), reduce_axis(N)
    mean = compute((M,), lambda i: total(x[i, k], k) / N, name="mean")
    var = compute((M,), lambda i: total((x[i, q] - mean[i]) ** 2, q) / N, name="var")
    return compute((M, N), lambda i, j: (x[i, j] - mean[i]) * op("rsqrt", var[i] + 1e-5) * w[j] + b[j], name="y")


def attention(q: f64[M, D], k: f64[N, D], v: f64[N, D]):
    d, j = reduce_axis(D, name="d"), reduce_axis(N, name="j")
    scores = compute((M, N), lambda i, c: where(c <= i + 1, total(q[i, d] * k[c, d], d) * 0.5, -np.inf), name="scores")
    p = softmax_rows(scores, M, N)
    return compute((M, D), lambda i, c: total(p[i, j] * v[j, c], j), name="y")


def test_softmax_needs_one_reduction_and_no_ties(rng: np.random.Generator) -> None:
    backward = check(softmax, rng.standard_normal((3, 5)), rng=rng, order=2)
    mine = [c for c in backward.computes if c.name.startswith("d_")]
    assert [show_compute(c) for c in mine] == [
        "d_s[i] = -(sum[j](p[i, j] * d_p[i, j]) / s[i])", "d_x[i, j] = (d_p[i, j] / s[i] + d_s[i]) * e[i, j]"]
    assert not any("ties" in c.name for c in backward.computes)


def test_a_maximum_that_matters_keeps_its_derivative(rng: np.random.Generator) -> None:
    def kernel(x: f64[M, N]):
        k = reduce_axis(N)
        m = compute((M,), lambda i: reduce_over(MAX, (x[i, k],), (k,)), name="m")
        return compute((M, N), lambda i, j: op("exp", x[i, j] - m[i] * 2), name="y")

    assert any("ties" in c.name for c in check(kernel, rng.standard_normal((3, 5)), rng=rng).computes)


def test_a_maximum_that_is_returned_keeps_its_derivative(rng: np.random.Generator) -> None:
    def kernel(x: f64[M, N]):
        p = softmax_rows(x, M, N)
        k = reduce_axis(N)
        return p, compute((M,), lambda i: reduce_over(MAX, (p[i, k],), (k,)), name="top")

    check(kernel, rng.standard_normal((3, 4)), rng=rng, tol=1e-5)


def test_shifted_logsumexp_is_invariant(rng: np.random.Generator) -> None:
    def kernel(x: f64[M, N]):
        a, b = reduce_axis(N, name="a"), reduce_axis(N, name="b")
        m = compute((M,), lambda i: reduce_over(MAX, (x[i, a],), (a,)), name="m")
        return compute((M,), lambda i: op("log", total(op("exp", x[i, b] - m[i]), b)) + m[i], name="y")

    assert not any("ties" in c.name for c in check(kernel, rng.standard_normal((3, 5)), rng=rng, order=2).computes)


def test_softmax_by_logsumexp(rng: np.random.Generator) -> None:
    def kernel(x: f64[M, N]):
        k = reduce_axis(N)
        lse = compute((M,), lambda i: reduce_over(LOGSUMEXP, (x[i, k],), (k,)), name="lse")
        return compute((M, N), lambda i, j: op("exp", x[i, j] - lse[i]), name="p")

    assert len(reductions(check(kernel, rng.standard_normal((3, 5)), rng=rng, order=2))) == 2


def test_layer_norm_against_torch(rng: np.random.Generator) -> None:
    x, w, b, g = (rng.standard_normal(s) for s in ((4, 6), (6,), (6,), (4, 6)))
    tensors = [torch.tensor(t, requires_grad=True) for t in (x, w, b)]
    torch.nn.functional.layer_norm(tensors[0], (6,), tensors[1], tensors[2]).backward(torch.tensor(g))
    got = gradients(layer_norm, x, w, b, cotangents=[g])
    for name, t in zip(("d_x", "d_w", "d_b"), tensors):
        np.testing.assert_allclose(got[name], t.grad.numpy(), atol=1e-10)
    check(layer_norm, x, w, b, rng=rng, order=2, tol=1e-5)


def test_attention_against_torch(rng: np.random.Generator) -> None:
    arrays = [rng.standard_normal(s) for s in ((4, 3), (6, 3), (6, 3))]
    g = rng.standard_normal((4, 3))
    q, k, v = tensors = [torch.tensor(t, requires_grad=True) for t in arrays]
    mask = torch.arange(6)[None] <= torch.arange(4)[:, None] + 1
    scores = torch.where(mask, q @ k.T * 0.5, -torch.inf)
    (scores.softmax(1) @ v).backward(torch.tensor(g))
    got = gradients(attention, *arrays, cotangents=[g])
    for name, t in zip(("d_q", "d_k", "d_v"), tensors):
        np.testing.assert_allclose(got[name], t.grad.numpy(), atol=1e-10)
    check(attention, *arrays, rng=rng, order=2, tol=1e-5)


# -- saving --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("kernel,shapes", [(softmax, [(4, 6)]), (layer_norm, [(4, 6), (6,), (6,)]), (attention, [(4, 3), (6, 3), (6, 3)])])
def test_saved_and_recomputed_agree(kernel, shapes, rng: np.random.Generator) -> None:
    form = split_program(trace(kernel))
    arrays = [rng.standard_normal(s) for s in shapes]
    for saved in ((), choose_saved(form), [c.name for c in form.computes]):
        forward, backward = forward_with_saves(form, saved), vjp(form, saved=saved)
        results = evaluate(forward, *arrays, float64=True)
        values = dict(zip((t.name for t in form.inputs), arrays)) | dict(zip((c.name for c in forward.outputs), results))
        values |= {t.name: np.cos(results[0]) for t in backward.inputs if t.name == f"d_{form.outputs[0].name}"}
        got = evaluate(backward, *(values[t.name] for t in backward.inputs), float64=True)
        if not saved:
            expected = got
        for a, b in zip(got, expected):
            np.testing.assert_allclose(a, b, atol=1e-12)


def test_carrier_states_are_saved_and_pointwise_parts_are_not() -> None:
    assert {c.name for c in choose_saved(trace(softmax))} >= {"s"}
    assert "e" not in {c.name for c in choose_saved(trace(softmax))}


def test_attention_scores_are_recomputed() -> None:
    program = trace(attention)
    sizes = {v: 64 if v.name == "D" else 8192 for v in program.dims}
    plan = plan_saved(program, sizes)
    assert [c.name for c in plan.saved] == ["m", "s", "y"]  # what the sum's adjoint needs of the scores is in the result
    assert "recompute" in str(plan) and "flops" in str(plan)


def test_sums_of_rows_are_saved_and_of_few_elements_made_again() -> None:
    """The deviations of short rows from their means: few operations, yet a pass over all elements before the backward can begin."""
    def program(x: f64[M, N]):
        return (x - x.mean(1, keepdim=True)) ** 3

    form = trace(program)
    for n, kept in ((24, True), (4, False)):
        plan = plan_saved(form, {v: 1000 if v.name == "M" else n for v in form.dims})
        assert bool(plan.saved) is kept
        assert f"a pass over {1000 * n * 8} bytes" in str(plan)


def test_a_saved_quotient_stands_for_its_dividend(rng: np.random.Generator) -> None:
    def kernel(x: f64[M, N]):
        return softmax_rows(x, M, N)

    form = split_program(trace(kernel))
    plan = plan_saved(form)
    assert {c.name for c in plan.saved} == {"s", form.outputs[0].name}
    backward = vjp(form, saved=plan.saved)
    assert [t.name for t in backward.inputs[:-1]] == ["s", form.outputs[0].name]
    x, g = rng.standard_normal((4, 6)), rng.standard_normal((4, 6))
    y = np.exp(x) / np.exp(x).sum(1, keepdims=True)
    (got,) = evaluate(backward, np.exp(x - x.max(1, keepdims=True)).sum(1), y, g, float64=True)
    np.testing.assert_allclose(got, y * (g - (y * g).sum(1, keepdims=True)), atol=1e-12)


def test_saving_what_does_not_exist_is_refused() -> None:
    with pytest.raises(DerivativeError, match="no definition `nothing`"):
        vjp(trace(softmax), saved=["nothing"])


# -- signatures ----------------------------------------------------------------------------------------------------
def test_inputs_are_what_is_needed_in_order() -> None:
    assert [t.name for t in vjp(trace(layer_norm), ["b"]).inputs] == ["d_y"]
    assert [t.name for t in vjp(trace(layer_norm)).inputs] == ["x", "w", "d_y"]


def test_an_input_that_does_not_matter_has_a_zero_gradient(rng: np.random.Generator) -> None:
    def kernel(x: f64[N], unused: f64[M]):
        return compute((N,), lambda i: x[i] * 2, name="y")

    got = gradients(kernel, rng.standard_normal(3), rng.standard_normal(2), rng=rng)
    np.testing.assert_array_equal(got["d_unused"], np.zeros(2))


def test_derivation_leaves_the_program_as_it_was() -> None:
    program = trace(attention)
    before = [show_compute(c) for c in program.computes]
    vjp(vjp(program))
    assert [show_compute(c) for c in program.computes] == before
    form = split_program(program)
    assert split_program(form) is form


def test_pullback_of_a_graph_refers_to_its_definitions(rng: np.random.Generator) -> None:
    x = Input("x", (M.term,), f64)
    y = compute((M,), lambda i: op("exp", x[i]), name="y")
    z = compute((M,), lambda i: y[i] * y[i], name="z")
    g = Input("g", (M.term,), f64)
    found = pullback([z], {z: g}, [x, y])
    assert show_compute(found[y]) == "d_y[i] = g[i] * y[i] * 2.0"
    values = rng.standard_normal(4)
    out = evaluate(Program("p", (x, g), (found[x],)), values, np.ones(4), float64=True)[0]
    np.testing.assert_allclose(out, 2 * np.exp(2 * values))


# -- random programs -----------------------------------------------------------------------------------------------
def random_program(rng: np.random.Generator) -> Program:
    """A chain of definitions that read earlier ones straight, transposed, shifted, reduced or scanned."""
    def kernel(x: f64[4, 4], y: f64[4, 4]):
        known = [x, y]
        for _ in range(int(rng.integers(2, 5))):
            a, b = (known[int(rng.integers(len(known)))] for _ in range(2))
            known.append(random_definition(a, b, int(rng.integers(7)), len(known)))
        return known[-1], known[-2] if len(known) > 3 else known[-1]
    kernel.__annotations__ = {"x": f64[4, 4], "y": f64[4, 4]}
    return trace(kernel)


def random_definition(a, b, kind: int, n: int):
    k = reduce_axis(4, name="k")
    bodies = [
        lambda i, j: op("sin", a[i, j]) * b[j, i],
        lambda i, j: total(a[i, k] * b[j, k], k) * 0.3,
        lambda i, j: where(i >= 1, a[i - 1, j], b[i, 3 - j]) + op("tanh", a[i, j]),
        lambda i, j: a[(i + 1) % 4, j] * b[i, (i * 4 + j) % 4],
        lambda i, j: op("exp", a[i, j] * 0.3 - reduce_over(MIN, (b[i, k] * 0.3,), (k,))),
        lambda i, j: where(op("gt", a[i, j], b[i, j]), a[i, j] * b[i, i], op("cos", b[j, j])),
        lambda i, j: a[i, j] / (total(b[k, j] ** 2, k) + 1) + reduce_over(LOGSUMEXP, (a[k, i],), (k,)),
    ]
    return compute((4, 4), bodies[kind], name=f"t{n}")


def test_random_programs(rng: np.random.Generator) -> None:
    for _ in range(40):
        check(random_program(rng), rng.standard_normal((4, 4)), rng.standard_normal((4, 4)), rng=rng, tol=2e-5)


def test_random_programs_twice(rng: np.random.Generator) -> None:
    for _ in range(6):
        check(random_program(rng), rng.standard_normal((4, 4)), rng.standard_normal((4, 4)), rng=rng, order=2, tol=1e-4)


def padded_convolution(x: f64[1, 4, 9, 9], w: f64[6, 4, 3, 3]):
    return conv2d(x, w, padding=1)


def test_the_gradient_of_what_was_padded_is_made_for_the_inside_alone(rng: np.random.Generator) -> None:
    back = vjp(trace(padded_convolution), ["x"])
    (d,) = [c for c in back.computes if not is_pointwise(c.body)]
    assert d is back.outputs[0] and [int(n.const) for n in d.shape] == [1, 4, 9, 9]


def test_where_maxima_are_is_found_with_them_and_saved(rng: np.random.Generator) -> None:
    def pool(x: f64[2, 3, 12, 10]):
        return max_pool2d(x, 3, 2, 1)

    form = split_program(trace(pool))
    saved = choose_saved(form)
    (position,) = (c for c in saved if c not in form.outputs)
    assert position.dtype == i8 and [c.name for c in asides(form)] == [position.name]
    forward, backward = forward_with_saves(form, [position.name]), vjp(form, saved=[position.name])
    assert [c.body.carrier for c in forward.outputs] == [ARGMAX, ARGMAX]
    assert [t.name for t in backward.inputs] == [position.name, f"d_{form.outputs[0].name}"]
    x, g = rng.standard_normal((2, 3, 12, 10)), rng.standard_normal((2, 3, 6, 5))
    (_, places), (want,) = evaluate(forward, x), evaluate(vjp(form), x, g)
    np.testing.assert_array_equal(evaluate(backward, places, g)[0], want)
