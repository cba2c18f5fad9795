"""Expressions and programs as readable mathematics: the text itself. Reading it back is tested with the parser."""

from __future__ import annotations

import dlc
from dlc import f32, i64
from dsl.carrier import ARGMAX, SUM
from dsl.dim import Var, as_term, tmin
from dsl.dtype import f16
from dsl.expr import Input, Op, const, index, op, reduce, scan
from dsl.text import show, show_compute, show_expr

M, N, K = dlc.dims("M N K")
i, k = Var("i", 8), Var("k", 5)
x = Input("x", (as_term(8), as_term(5)), f32)
element = x.read(index(i), index(k))


def test_parentheses_only_where_they_are_needed() -> None:
    a, b = x.read(0, 0), x.read(1, 1)
    assert show_expr((a + b) * 2.0 - b / (a * b)) == "(x[0, 0] + x[1, 1]) * 2.0 - x[1, 1] / (x[0, 0] * x[1, 1])"
    assert show_expr(a - (b - a)) == "x[0, 0] - (x[1, 1] - x[0, 0])"
    assert show_expr(-(a ** b) + (-a) ** b) == "-x[0, 0] ** x[1, 1] + (-x[0, 0]) ** x[1, 1]"
    assert show_expr((a < b) == (b < a)) == "(x[0, 0] < x[1, 1]) == (x[1, 1] < x[0, 0])"


def test_numbers_take_the_dtype_beside_them() -> None:
    a = x.read(0, 0)
    assert show_expr(a + 1) == "x[0, 0] + 1.0"
    assert show_expr(op("add", index(i), 3)) == "i + 3"
    assert show_expr(op("max", const(0.5, f16), const(2.0, f16))) == "max(const(0.5, f16), const(2.0, f16))"
    assert show_expr(op("neg", const(2.0))) == "neg(2.0)"
    assert show_expr(dlc.where(a > 0, a, float("-inf"))) == "where(x[0, 0] > 0.0, x[0, 0], -inf)"


def test_indices() -> None:
    assert show_expr(index(as_term(i) * 2 - 3)) == "2*i - 3"
    assert show_expr(index(tmin(i, 3))) == "index(min(i, 3))"
    assert show_expr(index(-(-as_term(i) // 2))) == "-(-i // 2)"
    assert show_expr(x.read(op("min", index(i), 3), 0)) == "x[value(min(i, 3)), 0]"
    assert show_expr(Op((index(i), index(k)), ("add",), i64)) == "exact.add(i, k)"


def test_reductions_and_scans() -> None:
    assert show_expr(reduce(SUM, (element,), (k,))) == "sum[k](x[i, k])"
    assert show_expr(reduce(ARGMAX, (element, index(k)), (k,), 1)) == "argmax[k](x[i, k], k)[1]"
    words = {(False, False): "upto", (True, False): "before", (False, True): "since", (True, True): "after"}
    for (exclusive, reverse), word in words.items():
        e = scan(SUM, (element,), k, as_term(i), exclusive=exclusive, reverse=reverse)
        assert show_expr(e) == f"scan.sum[k](x[i, k], {word}=i)"


def test_a_definition() -> None:
    def product(x: f32[M, K], w: f32[N, K]):
        r = dlc.reduce_axis(K)
        return dlc.compute((M, N), lambda i, j: dlc.sum(x[i, r] * w[j, r], r), name="y")

    program = dlc.kernel(product).program
    assert show_compute(program.outputs[0]) == "y[i, j] = sum[r](x[i, r] * w[j, r])"
    assert show(program) == """\
M, N, K = dims("M N K")

def product(x: f32[M, K], w: f32[N, K]):
    y[i < M, j < N] = sum[r < K](x[i, r] * w[j, r])
    return y
"""


def test_what_is_used_twice_gets_a_name() -> None:
    def softplus(x: f32[M], s: f32):
        return dlc.compute((M,), lambda i: dlc.exp(x[i] * s) / (1.0 + dlc.exp(x[i] * s)), name="y")

    assert show(dlc.kernel(softplus).program) == """\
M = dims("M")

def softplus(x: f32[M], s: f32):
    t0 = exp(x[i] * s)
    y[i < M] = t0 / (1.0 + t0)
    return y
"""


def test_names_are_made_unique() -> None:
    def twice(x: f32[M]):
        y = dlc.compute((M,), lambda x_: x[x_] + 1.0, name="x")
        return y * 2.0

    text = show(dlc.kernel(twice).program)
    assert "x_1[x_ < M] = x[x_] + 1.0" in text


def test_depth_is_no_limit_and_what_is_long_is_cut() -> None:
    e = element
    for _ in range(5000):
        e = dlc.sin(e) + e
    assert "..." in show_expr(e) and len(show_expr(e)) < 10000
