"""Division, minima and substitution of index terms: simplification keeps the value, ranges enclose it, what is proved holds."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from typing import Any

import pytest

from dsl.dim import ZERO, Term, Var, as_term, cdiv, nonneg, product, tmax, tmin
from tests.dsl.terms import A, B, J, M, N, Y, box, random_term, random_variables


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


def test_divisors_must_be_positive() -> None:
    for c in (0, -2):
        with pytest.raises(ZeroDivisionError, match="the divisor of an index must be positive"):
            as_term(Y) // c


def test_digits_of_a_number_are_put_together_again():
    """Whatever a loop over several axes at once is cut into: no division is left in the place of an element."""
    rng = random.Random(1)
    for _ in range(200):
        sizes = [rng.choice([2, 3, 4, 5, 7, 8, 12, 20, 29, 64, 77, 644, 1000]) for _ in range(rng.randint(2, 5))]
        step, lanes, count = rng.choice([4096, 3840, 1000, 777, 64]), rng.choice([4, 8, 16]), rng.choice([1, 2, 4])
        total = math.prod(sizes)
        extents = {"o": -(-total // step), "i": -(-step // (lanes * count)), "u": count, "v": lanes}
        o, i, u, v = (Var(x, as_term(n)) for x, n in extents.items())
        whole = step * as_term(o) + lanes * count * as_term(i) + lanes * as_term(u) + v
        left, place, stride = whole, ZERO, 1
        for n in reversed(sizes):
            place, left, stride = place + left % n * stride, left // n, stride * n
        place = place + left * stride
        env = {x: rng.randrange(max(1, int(x.extent))) for x in (o, i, u, v)}
        assert place.eval(env) == whole.eval(env)
        assert all(isinstance(a, Var) for mono in place.parts for a in mono)


@pytest.mark.parametrize("sizes", [(64, 20, 20), (64, 28, 28), (64, 7, 7), (12, 36, 44), (3, 4, 5)])
@pytest.mark.parametrize("step", [1, 4])
def test_addresses_of_fused_axes_take_no_division(sizes, step):
    c, h, w = sizes
    flat = as_term(Var("o", as_term(c * h * w // step))) * step + as_term(Var("v", as_term(step)))
    joined = as_term(Var("j", as_term(c * h * w)))
    address = (joined // w // h) * (h * w) + (joined // w % h) * w + joined % w
    assert address == joined and address.subs({next(iter(joined.vars)): flat}) == flat
    assert (flat // (h * w)) * (h * w) + (flat // w % h) * w + flat % w == flat
