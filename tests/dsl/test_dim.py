"""Index terms: simplification keeps the value, ranges enclose it, proofs are sound, and what programs need is proved."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from dsl.dim import Term, Var, as_term, cdiv, floordiv, mod, nonneg, product, tmax, tmin

Env = dict[Var, int]
Meaning = Callable[[Env], int]


def random_term(rng: random.Random, variables: list[Var], depth: int) -> tuple[Term, Meaning]:
    """A random quasi-affine term beside its meaning in Python integers."""
    if depth == 0 or rng.random() < 0.15:
        if rng.random() < 0.75:
            v = rng.choice(variables)
            return as_term(v), lambda e: e[v]
        c = rng.randint(-6, 9)
        return as_term(c), lambda e: c
    a, fa = random_term(rng, variables, depth - 1)
    kind = rng.choice(["+", "+", "-", "*", "*", "//", "//", "%", "%", "min", "max"])
    if kind in ("//", "%"):
        sizes: list[Any] = [1, 2, 3, 4, 5, 6, 8] + [v for v in variables if v.kind == "dim"]
        d = rng.choice(sizes)
        fd: Meaning = (lambda e: e[d]) if isinstance(d, Var) else lambda e: d
        t = floordiv(a, as_term(d)) if kind == "//" else mod(a, as_term(d))
        return t, (lambda e: fa(e) // fd(e)) if kind == "//" else lambda e: fa(e) % fd(e)
    if kind == "*" and rng.random() < 0.8:
        c = rng.randint(-4, 8)
        return a * c, lambda e: fa(e) * c
    b, fb = random_term(rng, variables, 0 if kind == "*" else depth - 1)
    build: dict[str, tuple[Callable[[Term, Term], Term], Callable[[int, int], int]]] = {
        "+": (lambda x, y: x + y, lambda x, y: x + y), "-": (lambda x, y: x - y, lambda x, y: x - y),
        "*": (lambda x, y: x * y, lambda x, y: x * y), "min": (tmin, min), "max": (tmax, max)}
    f, g = build[kind]
    return f(a, b), lambda e: g(fa(e), fb(e))


def box(variables: list[Var]) -> Iterator[Env]:
    """Every assignment with sizes from 1 to 4."""
    sizes, axes = [v for v in variables if v.kind == "dim"], [v for v in variables if v.kind == "axis"]
    for values in itertools.product(range(1, 5), repeat=len(sizes)):
        env = dict(zip(sizes, values))
        for point in itertools.product(*(range(int(a.extent.eval(env))) for a in axes if a.extent is not None)):
            yield {**env, **dict(zip(axes, point))}


def random_variables(rng: random.Random) -> list[Var]:
    sizes = [Var(n, kind="dim") for n in "MN"[:rng.randint(0, 2)]]
    extents: list[Any] = [2, 3, 4, 8, *sizes, *(as_term(s) * 2 for s in sizes)]
    return sizes + [Var(n, rng.choice(extents)) for n in "ijk"[:rng.randint(1, 3)]]


@pytest.mark.parametrize("block", range(20))
def test_random_terms_over_every_point_of_small_boxes(block: int) -> None:
    for seed in range(block * 100, block * 100 + 100):
        rng = random.Random(seed)
        variables = random_variables(rng)
        t, meaning = random_term(rng, variables, rng.randint(1, 4))
        facts = [random_term(rng, variables, 1)[0] for _ in range(rng.randint(0, 3))]
        proved = nonneg(t, facts)
        lo, hi = t.bounds
        for env in box(variables):
            value = t.eval(env)
            assert value == meaning(env), (seed, t, env)
            assert lo <= value <= hi, (seed, t, t.bounds, env)
            if proved and all(f.eval(env) >= 0 for f in facts):
                assert value >= 0, (seed, t, facts, env)


@pytest.mark.parametrize("block", range(10))
def test_facts_that_decide_a_random_term(block: int) -> None:
    """Proofs under facts that hold on a part of the box only: the case in which a wrong step would show."""
    for seed in range(block * 100, block * 100 + 100):
        rng = random.Random(seed)
        variables = random_variables(rng)
        t, _ = random_term(rng, variables, rng.randint(1, 3))
        facts = [t * rng.choice([1, 1, 2, -1]) + random_term(rng, variables, 1)[0] for _ in range(rng.randint(1, 3))]
        if nonneg(t, facts):
            assert all(t.eval(e) >= 0 for e in box(variables) if all(f.eval(e) >= 0 for f in facts)), (seed, t, facts)


@pytest.mark.parametrize("seed", range(60))
def test_substitution_commutes_with_evaluation(seed: int) -> None:
    rng = random.Random(seed)
    variables = random_variables(rng)
    t, _ = random_term(rng, variables, 3)
    v = rng.choice(variables)
    value = random_term(rng, [u for u in variables if u is not v] or [v], 1)[0]
    for env in box(variables):
        new = int(value.eval(env))
        if v.kind == "axis" or new >= 1:
            if v.extent is None or 0 <= new < v.extent.eval(env):
                assert t.subs({v: value}).eval(env) == t.eval({**env, v: new}), (t, v, value, env)


def test_terms_evaluate_on_arrays() -> None:
    i, j = Var("i", 5), Var("j", 7)
    t = tmin((i_ := as_term(i)) * 3 // 2, as_term(j) % 4) + tmax(i_, j)
    got = t.eval({i: np.arange(5)[:, None], j: np.arange(7)[None, :]})
    want = [[min(a * 3 // 2, b % 4) + max(a, b) for b in range(7)] for a in range(5)]
    np.testing.assert_array_equal(got, want)


# -- identities that schedules rely on -------------------------------------------------------------------------------
M, N, K = (Var(n, kind="dim") for n in "MNK")
Y, J, R = Var("i", M), Var("j", N), Var("r", 3)
A, B = Var("a", 8), Var("b", 32)


@pytest.mark.parametrize(("got", "want"), [
    (lambda: (32 * as_term(A) + B) // 32, A),
    (lambda: (32 * as_term(A) + B) % 32, B),
    (lambda: 4 * (as_term(Y) // 4) + as_term(Y) % 4, Y),
    (lambda: 15 * (as_term(Y) // 15) + 3 * (as_term(Y) // 3 % 5) + as_term(Y) % 3, Y),
    (lambda: (as_term(Y) * N + J) // as_term(N), Y),
    (lambda: (as_term(Y) * N + J) % as_term(N), J),
    (lambda: (as_term(B) // 4) // 8, as_term(B) // 32),
    (lambda: as_term(B) // 4 // 8, 0),
    (lambda: (2 * as_term(Y) + 4) // 2, as_term(Y) + 2),
    (lambda: as_term(Y) % 1, 0),
    (lambda: tmin(as_term(Y), as_term(M)), Y),
    (lambda: tmax(as_term(Y) + 1, as_term(Y)), as_term(Y) + 1),
    (lambda: cdiv(as_term(M) * 4, 4), M),
    (lambda: product([M, N, 2]), as_term(M) * N * 2),
    (lambda: (as_term(M) * N - 1) // as_term(N), as_term(M) - 1),
])
def test_identities(got: Callable[[], Term], want: Any) -> None:
    assert got() == as_term(want)


# -- obligations of real programs --------------------------------------------------------------------------------------
def _conv_out() -> Term:
    return (as_term(N) - 3) // 2 + 1


@pytest.mark.parametrize(("name", "t", "facts"), [
    ("plain", lambda: as_term(M) - 1 - Y, []),
    ("reversed", lambda: as_term(M) - 1 - Y, []),
    ("flattened", lambda: as_term(M) * N - 1 - (as_term(Y) * N + J), []),
    ("shift under its guard", lambda: as_term(M) - 1 - (as_term(Y) + 1), [lambda: as_term(M) - 2 - Y]),
    ("scaled guard", lambda: as_term(M) * 2 - 2 - (as_term(Y) * 2 + 2), [lambda: as_term(M) - 2 - Y]),
    ("padded convolution", lambda: as_term(M) - 1 - (2 * as_term(Y) + R - 1), [lambda: as_term(M) - (2 * as_term(Y) + R)]),
    ("valid convolution", lambda: as_term(N) - 1 - (2 * as_term(Var("o", _conv_out())) + R), []),
    ("pooling", lambda: as_term(M) - 1 - (3 * as_term(Var("o", as_term(M) // 3)) + R), []),
    ("upsampling", lambda: as_term(N) - 1 - as_term(Var("o", as_term(N) * 2)) // 2, []),
    ("repeat", lambda: as_term(N) - 1 - as_term(Var("o", as_term(N) * M)) // as_term(M), []),
    ("tile", lambda: as_term(N) - 1 - as_term(Var("o", as_term(N) * M)) % as_term(N), []),
    ("concatenation", lambda: as_term(N) - 1 - (as_term(Var("o", as_term(M) + N)) - M), []),
    ("clamped", lambda: as_term(M) - 1 - tmin(as_term(Y) + R, as_term(M) - 1), []),
    ("clamped below", lambda: tmax(as_term(Y) - 5, as_term(0)), []),
    ("clamped twice", lambda: as_term(M) - 1 - tmax(tmin(as_term(Y) * 2, as_term(M) - 1), as_term(0)), []),
    ("blocked", lambda: as_term(M) - 1 - (as_term(Y) // 4 * 4), []),
    ("ragged", lambda: as_term(M) - 1 - Var("k", as_term(Y) + 1), []),
    ("ragged twice", lambda: as_term(M) - 1 - Var("q", as_term(Var("k", as_term(Y) + 1)) + 1), []),
    ("rows of vectors", lambda: 999 - (2 * as_term(Y) + Var("u", 2)) // 125, [lambda: 999984 - 16 * as_term(Y)]),
    ("two facts", lambda: as_term(N) - 1 - (as_term(Y) + J), [lambda: as_term(K) - J - Y, lambda: as_term(N) - 1 - K]),
    ("three facts", lambda: as_term(Y) - 3, [lambda: as_term(Y) - J - 1, lambda: as_term(J) - K - 1, lambda: as_term(K) - 1]),
    ("band", lambda: as_term(M) * 2 - 2 - (as_term(Y) + Var("b", M)), []),
    ("sizes", lambda: as_term(M) * N - M, []),
    ("halves", lambda: as_term(M) - 2 * (as_term(M) // 2), []),
    ("space to depth", lambda: as_term(N) * 2 - 1 - (as_term(J) * 2 + as_term(Var("c", as_term(M) * 2)) // as_term(M)), []),
], ids=lambda x: x if isinstance(x, str) else "")
def test_what_programs_need_is_proved(name: str, t: Callable[[], Any], facts: list[Callable[[], Term]]) -> None:
    assert nonneg(as_term(t()), [f() for f in facts])


@pytest.mark.parametrize(("t", "facts"), [
    (lambda: as_term(M) - 2 - Y, []),
    (lambda: as_term(Y) - 1, []),
    (lambda: as_term(N) - 1 - Y, []),
    (lambda: as_term(M) - 1 - 2 * as_term(Y), [lambda: as_term(M) - 1 - Y]),
    (lambda: as_term(M) - N, []),
    (lambda: tmin(as_term(Y) - 1, as_term(J)), []),
    (lambda: as_term(N) - 1 - as_term(Var("o", as_term(N) * 3)) // 2, []),
])
def test_what_is_false_is_not_proved(t: Callable[[], Any], facts: list[Callable[[], Term]]) -> None:
    assert not nonneg(as_term(t()), [f() for f in facts])


def test_divisors_must_be_positive() -> None:
    for c in (0, -2):
        with pytest.raises(ZeroDivisionError, match="the divisor of an index must be positive"):
            as_term(Y) // c


def test_coefficients_and_structure() -> None:
    t = 3 * as_term(Y) + as_term(Y) * N + as_term(J) // 2 + 5
    assert t.coef(Y) is None and t.coef(R) == 0 and t.coef(J) is None
    assert t.coef_term(Y) == as_term(N) + 3
    assert t.coef_term(J) is None
    assert t.vars == {Y, N, J}
    assert (2 * as_term(Y) - 1).coef(Y) == 2
    with pytest.raises(TypeError, match="not a constant"):
        int(t)


def test_text_is_readable() -> None:
    assert str(as_term(Y) * N + J - 1) == "N*i + j - 1"
    assert str(-as_term(Y) + 2 * as_term(J)) == "2*j - i"
    assert str((as_term(Y) + 1) // 4 * 4) == "4*((i + 1) // 4)"
    assert str(tmin(as_term(Y) + 1, as_term(J))) == "min(i + 1, j)"
    assert str(as_term(0)) == "0"
