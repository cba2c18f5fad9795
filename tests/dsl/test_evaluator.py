"""Expressions as arrays with named dimensions: alignment, views, boxes, ragged extents, and the point that reads out of bounds."""

from __future__ import annotations

import numpy as np
import pytest

from dsl.carrier import MAX, SUM
from dsl.dim import Var, as_term
from dsl.dtype import f32
from dsl.errors import BoundsError
from dsl.evaluator import Evaluator, Named, contracted, use_counts
from dsl.expr import Input, const, index, op, reduce, scan, where

A, B, N = Var("i", 4), Var("j", 3), Var("N", kind="dim")
X = Input("x", (as_term(4), as_term(3)), f32)
DATA = np.arange(12, dtype=np.float32).reshape(4, 3)


def evaluator(ranges=None, float64: bool = False, data=DATA, sizes=None) -> Evaluator:
    return Evaluator({X: data}, sizes or {}, ranges or {A: (0, 4), B: (0, 3)}, {A: 0, B: 1}, float64)


def test_arrays_are_aligned_by_the_names_of_their_dimensions() -> None:
    named = Named((B,), np.arange(3))
    assert named.over((A, B)).shape == (1, 3) and named.over((B, A)).shape == (3, 1)
    got = evaluator().body(X.read(index(B), index(B)) + index(A))
    assert got.axes == (A, B) and got.data.tolist() == [[DATA[j, j] + i for j in range(3)] for i in range(4)]


def test_a_part_of_the_box() -> None:
    got = evaluator({A: (1, 3), B: (2, 3)}).body(X.read(index(A), index(B)))
    assert got.data.tolist() == [[5], [8]]


def test_plain_reads_are_views_and_others_are_gathered() -> None:
    plain = evaluator().body(X.read(index(A), index(B)))
    assert np.shares_memory(plain.data, DATA)
    strided = evaluator({B: (0, 2)}).body(X.read(as_term(B) * 2, 1))
    assert strided.data.tolist() == [1, 7] and np.shares_memory(strided.data, DATA)
    reversed_ = evaluator().body(X.read(3 - as_term(A), 0))
    assert reversed_.data.tolist() == [9, 6, 3, 0]


def test_the_first_point_that_reads_out_of_bounds_is_named() -> None:
    with pytest.raises(BoundsError, match=r"(?s)x\[i \+ 1, 0\] is out of .*i = 3 reads x\[4, 0\], but x has 4 elements in dimension 0"):
        evaluator().body(X.read(as_term(A) + 1, 0))
    guarded = where(op("lt", index(A), 3), X.read(as_term(A) + 1, 0), 0.0)
    assert evaluator().body(guarded).data.tolist() == [3, 6, 9, 0]
    with pytest.raises(BoundsError, match="i = 3"):
        evaluator().body(guarded + X.read(as_term(A) + 1, 0))


def test_reductions_keep_to_extents_that_depend_on_other_axes() -> None:
    k = Var("k", as_term(A))
    got = evaluator().body(reduce(SUM, (X.read(index(k), 0),), (k,)))
    assert got.data.tolist() == [0, 0, 3, 9]
    most = evaluator().body(reduce(MAX, (X.read(index(k), 0),), (k,)))
    assert most.data.tolist() == [-np.inf, 0, 3, 6]


@pytest.mark.parametrize(("exclusive", "reverse", "expected"), [
    (False, False, [0, 1, 3]), (True, False, [0, 0, 1]), (False, True, [3, 3, 2]), (True, True, [3, 2, 0])])
def test_prefixes(exclusive: bool, reverse: bool, expected: list[float]) -> None:
    k = Var("k", 3)
    got = evaluator().body(scan(SUM, (X.read(0, index(k)),), k, as_term(B), exclusive=exclusive, reverse=reverse))
    assert got.data.tolist() == expected


def test_sums_of_products_are_contracted_where_nothing_else_reads_the_product() -> None:
    k = Var("k", 3)
    product = X.read(index(A), index(k)) * X.read(index(B), index(k))
    total = reduce(SUM, (product,), (k,))
    nodes = [*total.args[0].args, product, total]
    assert contracted(nodes, use_counts(nodes)) == {total: product}
    other = op("exp", product)
    assert not contracted([*nodes, other], use_counts([*nodes, other]))
    np.testing.assert_allclose(evaluator(float64=True).body(total).data, DATA.astype(np.float64) @ DATA.T[:, :3])


def test_sizes_and_constants() -> None:
    got = evaluator(sizes={N: 7}).body(index(as_term(N) * 2) + const(1))
    assert got.axes == () and got.data == 15
