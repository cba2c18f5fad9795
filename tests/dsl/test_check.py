"""Accesses are proved in bounds, or decided point by point; what is outside is refused with a point that reads it."""

from __future__ import annotations

import random

import pytest

import dlc
from dlc import f32
from dsl.carrier import SUM
from dsl.check import prove_bounds, verify
from dsl.dim import Term, Var, as_term
from dsl.dtype import i64
from dsl.errors import BoundsError, InternalError
from dsl.expr import Compute, Input, Op, Read, Reduce, Where, const, index, op, where
from dsl.program import Program

M = dlc.dims("M")


def _program(shape: tuple[int, ...], axes: list[Var], at: tuple[Term, ...], guard: Term | None = None) -> Program:
    x = Input("x", tuple(as_term(n) for n in shape), f32)
    body = x.read(*at)
    if guard is not None:
        body = where(op("ge", index(guard), 0), body, 0.0)
    return Program("p", (x,), (Compute("y", tuple(axes), body),))


def test_a_witness_names_the_point_and_the_line() -> None:
    def outside(x: f32[M]):
        return dlc.compute((M,), lambda i: x[i + 1])

    with pytest.raises(BoundsError, match=r"x\[i \+ 1\] is out of bounds") as e:
        prove_bounds(dlc.kernel(outside).program)
    assert "at i = 0 index 0 is 1, but x has 1 elements" in e.value.reason and "x[i + 1]" in e.value.loc.text


@pytest.mark.parametrize("seed", range(200))
def test_verdicts_against_every_point(seed: int) -> None:
    rng = random.Random(seed)
    axes = [Var(n, rng.randint(1, 6)) for n in "ijk"]
    at = tuple(_random_index(rng, axes) for _ in range(2))
    shape = tuple(max(int(t.bounds[1]) + rng.randint(-1, 1), 1) for t in at)
    guard = _random_index(rng, axes) if rng.random() < 0.5 else None
    points = [{axes[0]: a, axes[1]: b, axes[2]: c} for a in range(axes[0].size) for b in range(axes[1].size) for c in range(axes[2].size)]
    inside = all(0 <= t.eval(p) < n for p in points if guard is None or guard.eval(p) >= 0 for t, n in zip(at, shape))
    program = _program(shape, axes, at, guard)
    if inside:
        prove_bounds(program)
    else:
        with pytest.raises(BoundsError, match="is out of bounds"):
            prove_bounds(program)


def _random_index(rng: random.Random, variables: list[Var]) -> Term:
    out = as_term(rng.randint(-3, 1))
    for v in rng.sample(variables, rng.randint(1, 3)):
        part = as_term(v) * rng.choice((1, 1, 2, 3, 5, -1, -2))
        out = out + rng.choice((part, part, part // rng.randint(2, 4), part % rng.randint(2, 6)))
    return out


def test_two_digits_of_one_number() -> None:
    u, v = Var("u", 4), Var("v", 16)
    prove_bounds(_program((8, 8), [u, v], (as_term(u) * 2 + as_term(v) // 8, as_term(v) % 8)))


def test_malformed_programs_are_refused() -> None:
    i, k = Var("i", 4), Var("k", 4)
    x = Input("x", (as_term(4),), f32)
    with pytest.raises(InternalError, match="uses the unbound axis k"):
        verify(Program("p", (x,), (Compute("y", (i,), x.read(k)),)))


@pytest.mark.parametrize(("body", "message"), [
    (lambda x: Op((x, const(1, i64)), ("add",), f32), "operands of dtypes f32, i64, not all f32"),
    (lambda x: Op((x, x), ("add",), i64), "`add` of f32 is f32, not i64"),
    (lambda x: Op((x,), ("add",), f32), "no operation `add` of 1 operands"),
    (lambda x: Where((x, x, x), (), f32), "a condition of dtype f32"),
    (lambda x: Where((op("gt", x, 0.0), x, const(1, i64)), (), f32), "branches of dtypes f32 and i64 for f32"),
    (lambda x: Reduce((x, x), (SUM, (Var("k", as_term(3)),), 0), f32), "`sum` takes 1 inputs, not 2"),
    (lambda x: Reduce((const(1, i64),), (SUM, (Var("k", as_term(3)),), 0), f32), "result 0 of `sum` is i64, not f32"),
    (lambda x: Read((), (x.tensor, x.data[1]), i64), "a read of dtype i64 from x, which is f32"),
    (lambda x: Read((x,), (x.tensor, (None,)), f32), "an index of dtype f32"),
])
def test_the_rule_of_every_node(body, message) -> None:
    x, i = Input("x", (as_term(5),), f32), Var("i", as_term(5))
    e = body(x.read(as_term(i)))
    with pytest.raises(InternalError) as caught:
        verify(Program("p", (x,), (Compute("y", (i,), e),)))
    assert message in str(caught.value)


def test_a_body_has_the_dtype_of_its_tensor() -> None:
    x, i = Input("x", (as_term(5),), f32), Var("i", as_term(5))
    with pytest.raises(InternalError, match="y is i64, its body f32"):
        verify(Program("p", (x,), (Compute("y", (i,), x.read(as_term(i)), None, i64),)))
