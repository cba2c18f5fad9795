"""Sizes from shapes: solving, agreement, and the whole message of each error."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from dsl.bind import bind_sizes, sizes_of
from dsl.dtype import f32
from dsl.errors import ShapeError
from dsl.program import compute, dims, reduce_axis, trace

M, N, K = dims("M N K")


def bind(fn: Callable[..., Any], *shapes: tuple[int, ...]) -> dict[str, int]:
    return {v.name: n for v, n in bind_sizes(trace(fn), shapes).items()}


def message(fn: Callable[..., Any], *shapes: tuple[int, ...]) -> str:
    with pytest.raises(ShapeError) as e:
        bind(fn, *shapes)
    return "\n".join([e.value.title, e.value.reason, e.value.remedy]).strip()


def pair(x: f32[M, K], w: f32[N, K]):
    return compute((M, N), lambda i, j: x.read(i, 0) * w.read(j, 0))


def halves(x: f32[2 * N + 1, N * M], y: f32[M + 3]):
    return compute(N, lambda i: x.read(i, 0) + y.read(0))


def test_plain_dims() -> None:
    assert bind(pair, (2, 3), (5, 3)) == {"M": 2, "K": 3, "N": 5}
    assert bind(pair, (0, 3), (5, 3))["M"] == 0


def test_expressions_are_solved_and_then_checked() -> None:
    assert bind(halves, (9, 20), (8,)) == {"N": 4, "M": 5}
    assert message(halves, (9, 21), (8,)) == (
        "dimension 1 of `x` is 21, which is not M*N for any M; N = 4 from dimension 0 of `x`\nit is declared x: f32[2*N + 1, M*N]")
    assert message(halves, (9, 20), (9,)) == (
        "dimension 0 of `y` is 9, not 8\nit is declared M + 3 = 8, with M = 5 from dimension 1 of `x`")
    assert message(halves, (8, 20), (8,)) == "dimension 0 of `x` is 8, which is not 2*N + 1 for any N\nit is declared x: f32[2*N + 1, M*N]"


def test_disagreement_names_both_parameters() -> None:
    assert message(pair, (2, 3), (5, 4)) == (
        "`w` and dimension 1 of `x` disagree about K\n"
        "dimension 1 of `w` is 4, but K = 3 from dimension 1 of `x`\nit is declared w: f32[N, K]")


def test_rank_count_and_constants() -> None:
    assert message(pair, (2, 3, 1), (5, 3)) == (
        "`x` has 3 dimensions, its declaration 2\nit is declared x: f32[M, K]; the argument has shape (2, 3, 1)")
    assert message(pair, (2, 3)) == "pair takes 2 arguments, 1 were given\nits parameters are x: f32[M, K], w: f32[N, K]"

    def fixed(x: f32[4, M]):
        return compute(M, lambda i: x.read(0, i))

    assert message(fixed, (5, 2)) == "dimension 0 of `x` is 5, not 4\nit is declared x: f32[4, M]"


def test_undetermined_dims() -> None:
    def product(x: f32[M * N]):
        return compute(1, lambda i: x.read(i))

    def free(x: f32[M]):
        k = reduce_axis(K)
        return compute(M, lambda i: x.read(i) + k * 0)

    assert message(product, (6,)) == (
        "M and N cannot be determined from the arguments\n"
        "dimension 0 of `x` is declared M*N and is 6: one equation for M and N\ngive one parameter a dimension that is just M")
    def wide(x: f32[M]):
        return compute((M, K), lambda i, j: x.read(i))

    assert message(wide, (6,)) == (
        "K cannot be determined from the arguments\n"
        "t uses it, but no parameter has it in its shape\ngive a parameter a dimension K, or use a number")


def test_sizes_of_a_definition() -> None:
    program = trace(pair)
    assert {v.name for v in sizes_of(program.outputs[0])} == {"M", "N", "K"}
