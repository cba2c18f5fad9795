"""Accesses are proved in bounds, or decided point by point; what is outside is refused with a point that reads it."""

from __future__ import annotations

import random

import pytest

import dlc
from dlc import f32
from dsl.check import prove_bounds, verify
from dsl.dim import Term, Var, as_term
from dsl.errors import BoundsError, InternalError
from dsl.expr import Compute, Input, index, op, where
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
