"""Proofs that a term is never negative: sound on random terms and facts, and enough for what programs need."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest

from dsl.dim import Term, Var, as_term, nonneg, tmax, tmin
from tests.dsl.terms import J, K, M, N, R, Y, box, random_term, random_variables


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
    ("a fact itself", lambda: as_term(M) - 1 - (as_term(Y) - as_term(J) % 2 + 1) // 2, [
        lambda: as_term(M) - 1 - (as_term(Y) - as_term(J) % 2 + 1) // 2]),
    ("a slice from 2 on", lambda: as_term(N) - 1 - (tmin(2, as_term(N)) + Var("i", tmax(as_term(N) - 2, 0))), []),
    ("a slice from 2 to 5", lambda: as_term(N) - 1 - (tmin(2, as_term(N)) + Var("i", tmax(tmin(5, as_term(N)) - 2, 0))), []),
    ("products of quotients", lambda: (as_term(N) + 1) // 2 * ((as_term(M) + 1) // 2) - (as_term(N) + 1) // 2, []),
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


def test_what_is_false_somewhere_is_not_proved_however_many_facts_there_are() -> None:
    axes = [Var(f"i{n}", 40) for n in range(6)]
    terms = [as_term(v) for v in axes]
    facts = [tmin(7 * a, 9 * b + 5) - c // 3 for a, b, c in zip(terms, terms[1:], terms[2:])]
    facts += [a + b - 1 for a, b in zip(terms, terms[1:])]
    assert not nonneg(terms[0] - terms[1] // 2, facts)
    assert nonneg(terms[0] + terms[1] - 1, facts)


def test_an_axis_whose_range_depends_on_another_goes_to_its_end_first() -> None:
    """``i - j`` is never negative for ``j < i + 1``, although it is where ``i`` alone is taken for least."""
    i = Var("i", 8)
    j = Var("j", as_term(i) + 1)
    assert nonneg(as_term(i) - as_term(j))
    assert not nonneg(as_term(i) - as_term(j) - 1)
