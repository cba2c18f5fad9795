"""Strides of tensors of symbolic shape, and the run-time sizes they bring."""

from __future__ import annotations

from codegen.tile.layout import contiguous, size_values, stride_terms
from dsl.dim import Var, as_term

M, N = Var("M", kind="dim"), Var("N", kind="dim")
SHAPE = (as_term(M), as_term(N))


def test_row_major() -> None:
    assert contiguous((as_term(2), *SHAPE)) == (as_term(M) * N, as_term(N), as_term(1))


def test_row_major_tensors_stay_row_major_whatever_their_sizes() -> None:
    assert stride_terms("x", SHAPE, (4, 6), (6, 1)) == (as_term(N), as_term(1))
    assert stride_terms("x", SHAPE, (1, 6), (1, 1)) == (as_term(N), as_term(1))


def test_other_strides_are_sizes_of_their_own() -> None:
    rows, one = stride_terms("x", SHAPE, (4, 6), (12, 1))
    (own,) = rows.vars
    assert (own.name, own.likely, own.kind) == ("x_stride0", 12, "dim") and one == 1
    assert stride_terms("x", SHAPE, (4, 6), (0, 1)) == (as_term(0), as_term(1))


def test_known_shapes_keep_known_strides() -> None:
    assert stride_terms("x", (as_term(4), as_term(6)), (4, 6), (12, 2)) == (as_term(12), as_term(2))


def test_values_of_the_sizes() -> None:
    rows, one = stride_terms("x", SHAPE, (4, 6), (12, 1))
    (own,) = rows.vars
    assert size_values((M, N, own), {M: 3, N: 5}, [(rows, 40), (one, 1)]) == (3, 5, 40)
    assert size_values((M, N, own), {M: 3, N: 5}, [(rows, 40), (one, 2)]) is None
    assert size_values((M, N), {M: 3, N: 5}, [(as_term(N), 6)]) is None
