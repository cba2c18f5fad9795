"""Random integer terms beside their meaning, every point of small boxes, and the variables that tests of terms share."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator
from typing import Any

from dsl.dim import Term, Var, as_term, floordiv, mod, tmax, tmin

M, N, K = (Var(n, kind="dim") for n in "MNK")
Y, J, R = Var("i", M), Var("j", N), Var("r", 3)
A, B = Var("a", 8), Var("b", 32)
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
