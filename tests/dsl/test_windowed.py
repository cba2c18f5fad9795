"""Dense forms: the same values as the guarded sums they replace, plain products, and no read that may not exist."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest

from dsl import compute, dims, f64, reduce_axis, where
from dsl import sum as total
from dsl.algebra import inputs_and_computes, walk
from dsl.check import prove_bounds
from dsl.dim import Div, Term, Var, as_term
from dsl.expr import Compute, Input, Read, Reduce, Where, index
from dsl.interp import evaluate
from dsl.ops.conv import conv_transpose1d
from dsl.program import Program, axis_of
from dsl.windowed import dense, dense_windows

H, K = dims("H K")


def _input(name: str, *shape: Any) -> Input:
    return Input(name, tuple(map(as_term, shape)), f64)


def _program(output: Compute) -> Program:
    return Program("p", tuple(inputs_and_computes((output,))[0]), (output,), True, None)


def _spread(stride: int, taps: int, extra: int, size: Any = 7) -> Any:
    """A transposed convolution in gather form: what the gradient of a strided one is."""
    dy, w = _input("dy", size, 3), _input("w", 3, taps)
    f, r = reduce_axis(3, name="f"), reduce_axis(-(-taps // stride), name="r")

    def body(i: Any) -> Any:
        at, tap = i // stride - r, r * stride + i % stride
        return total(where((at >= 0) & (at < size) & (tap < taps), dy[at, f] * w[f, tap], 0.0), f, r)

    return compute((size * stride + extra,), body, name="dx")


def _sums(output: Compute) -> list[Reduce]:
    return [e for c in inputs_and_computes((output,))[1] for e in walk(c.body) if isinstance(e, Reduce)]


def _same(old: Compute, new: Compute, rng: np.random.Generator) -> None:
    arrays = {t.name: rng.standard_normal([int(n.const) for n in t.shape]) for t in _program(old).inputs}
    want, got = (evaluate(p, *(arrays[t.name] for t in p.inputs))[0] for p in (_program(old), _program(new)))
    np.testing.assert_allclose(got, want, rtol=1e-13, atol=1e-13)
    prove_bounds(_program(new))


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("taps", [1, 2, 3, 5])
@pytest.mark.parametrize("extra", [-1, 0, 1, 2])
def test_strided_windows_become_products(stride: int, taps: int, extra: int, rng: np.random.Generator) -> None:
    old = _spread(stride, taps, extra)
    new = dense(old)
    _same(old, new, rng)
    (s,) = _sums(new)
    assert not any(isinstance(e, Where) for e in walk(s))
    assert all(not isinstance(a, Div) for e in walk(s) if isinstance(e, Read) for i in e.indices if isinstance(i, Term)
               for mono in i.parts for a in mono)


def test_unknown_sizes(rng: np.random.Generator) -> None:
    new = dense(_spread(2, 3, 1, size=H))
    assert not any(isinstance(e, Where) for s in _sums(new) for e in walk(s))
    prove_bounds(_program(new))


def test_transposed_convolutions_of_unknown_sizes_are_parted() -> None:
    n, c = dims("N C")
    x, w = Input("x", tuple(map(as_term, (n.term, c.term, H.term))), f64), Input("w", (c.term, as_term(5), as_term(4)), f64)
    made = conv_transpose1d(x, w, stride=2, padding=1)
    definitions = inputs_and_computes((made,))[1]
    (parts,) = [d for d in definitions if isinstance(d.body, Reduce)]
    assert [str(v.extent) for v in parts.axes] == ["2", "N", "5", "H"]
    assert not any(isinstance(e, Where) for e in walk(parts.body))
    prove_bounds(Program("p", (x, w), (made,), True, made.loc))


def test_what_is_no_window_stays() -> None:
    x, y = _input("x", 9, 9), _input("y", 9)
    k = reduce_axis(9, name="k")
    kept = [
        compute((9,), lambda i: total(where(k <= i, x[i, k] * y[k], 0.0), k)),  # a condition about something else: a triangle
        compute((9,), lambda i: total(where(i + k < 9, x[i + k, k] + 1.0, 0.0), k)),  # not zero where the read is
        compute((9,), lambda i: x[i % 3, i // 3] * 2.0),  # no sum
        compute((9,), lambda i: total(x[i % 3, k] * x[i % 2, k], k)),  # remainders of two numbers
        compute((9,), lambda i: total(where((500 * i + k >= 0) & (500 * i + k < 9), y[500 * i + k] * x[i, k], 0.0), k)),  # nearly all zeros
    ]
    assert all(dense(c) is c for c in kept)


def test_definitions_that_are_kept_stay_in_a_graph() -> None:
    first = _spread(2, 3, 0)
    last = compute(first.shape, lambda i: first[i] * 2.0)
    assert dense_windows([last], kept=[first]) == [last]
    (new,) = dense_windows([last])
    assert new is not last and new.name == last.name


@pytest.mark.parametrize("block", range(3))
def test_random_windows(block: int, rng: np.random.Generator) -> None:
    changed = 0
    for seed in range(block * 40, block * 40 + 40):
        pick = random.Random(seed)
        size, taps, count = pick.randint(1, 6), pick.randint(1, 4), pick.randint(1, 12)
        a, b, c = pick.choice([-2, -1, 1, 1, 2]), pick.choice([-2, -1, 1, 1, 2]), pick.randint(-4, 6)
        period, shift = pick.choice([1, 2, 3]), pick.randint(0, 2)
        x, w = _input("x", size), _input("w", taps, 3)
        k = reduce_axis(taps, name="k")

        i = Var("i", count)
        at = index(a * ((as_term(i) + shift) // period) + b * as_term(axis_of(k)) + c)
        terms = where((at >= 0) & (at < size), x[at] * w[k, index((as_term(i) + shift) % period)], 0.0)
        old = Compute("t", (i,), total(terms, k))
        new = dense(old)
        changed += new is not old
        _same(old, new, rng)
    assert changed > 10


def test_steps_over_more_than_the_window_leave_most_remainders_out(rng: np.random.Generator) -> None:
    dy, w = _input("dy", 7, 3), _input("w", 3, 2)
    f = reduce_axis(3, name="f")
    old = compute((21,), lambda i: where(i % 3 < 2, total(dy[i // 3, f] * w[f, i % 3], f), 0.0), name="dx")
    new = dense(old)
    (parts,) = [c for c in inputs_and_computes((new,))[1] if c is not new]
    assert isinstance(parts.body, Reduce) and [int(n.const) for n in parts.shape] == [2, 7]
    _same(old, new, rng)
