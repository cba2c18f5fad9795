"""Formulas over sizes are the terms they were made from; what decides the code decides the key; the access of a sequence of kernels."""

from __future__ import annotations

import dataclasses
import random

import pytest

from codegen.artifact import Arg, TritonArtifact, TritonKernel, Workspace, evaluate, formula
from dsl.dim import Term, Var, as_term, cdiv, tmax, tmin
from dsl.dtype import f32, i32
from dsl.errors import InternalError


def random_term(rng: random.Random, sizes: list[Var], depth: int = 3) -> Term:
    if depth == 0 or rng.random() < 0.3:
        return as_term(rng.choice(sizes)) if rng.random() < 0.7 else as_term(rng.randint(-9, 9))
    a, b = (random_term(rng, sizes, depth - 1) for _ in range(2))
    n = rng.randint(1, 9)
    return rng.choice([a + b, a - b, a * n, a // n, a % n, cdiv(a, n), tmin(a, b), tmax(a, b), a * as_term(rng.choice(sizes)),
                       a // as_term(rng.choice(sizes))])


def test_a_formula_is_its_term() -> None:
    rng = random.Random(0)
    sizes = [Var(n, kind="dim") for n in ("M", "N", "K")]
    names = {v: v.name for v in sizes}
    for _ in range(400):
        t = random_term(rng, sizes)
        values = {v: rng.randint(1, 60) for v in sizes}
        assert evaluate(formula(t, names), {v.name: n for v, n in values.items()}) == int(t.eval(values)), t


@pytest.mark.parametrize("text", ["M +", "__import__('os')", "M ** 2", "N", "M // 0", "f(M)", "M.real"])
def test_what_is_no_formula_is_refused(text: str) -> None:
    with pytest.raises(InternalError, match="cannot evaluate"):
        evaluate(text, {"M": 3})


def kernel(*args: Arg, **more) -> TritonKernel:
    return TritonKernel("k", "def k(): pass", args, **more)


def test_the_key_holds_what_decides_the_code() -> None:
    k = kernel(Arg.pointer("x", f32), Arg.scalar("n", i32))
    others = [dataclasses.replace(k, num_warps=8), dataclasses.replace(k, source="def k(): 1"), dataclasses.replace(k, fp_fusion=False),
              dataclasses.replace(k, constexprs={"B": 2}), kernel(Arg.pointer("x", f32, multiple=4), Arg.scalar("n", i32)),
              dataclasses.replace(k, options=(("waves_per_eu", 2),)), dataclasses.replace(k, max_registers=64)]
    assert len({k.key, *(o.key for o in others)}) == 1 + len(others)
    assert dataclasses.replace(k, grid=("n", 3)).key == k.key
    assert dataclasses.replace(k, grid=("cdiv(n, 4)",)).grid_of({"n": 9}) == (3, 1, 1)


def test_the_access_of_kernels_in_a_row() -> None:
    """Written before it is read is written; read before it is written is both."""
    def access(*kinds: str) -> str:
        return TritonArtifact(tuple(kernel(Arg.pointer("x", f32, kind)) for kind in kinds)).pointers()["x"].access

    assert [access("w", "r"), access("r", "w"), access("r", "r"), access("rw", "r"), access("w", "rw")] == ["w", "rw", "r", "rw", "w"]
    assert Workspace("s", f32, ("M * 2", 3)).shape_of({"M": 5}) == (10, 3)
