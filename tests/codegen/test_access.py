"""How stages walk through memory: strides of reads and writes, products and their factors, costs."""

from __future__ import annotations

import dsl as dlc
from codegen.analysis.access import accesses, cost, paired_reads, product_factors, product_reads, size
from dsl import bf16, f32, i64
from dsl.dim import Var, as_term
from dsl.expr import Reduce
from dsl.program import trace
from dsl.stages import build_nest

M, N, K = dlc.dims("M N K")


def stage(fn, n: int = 0):
    return build_nest(trace(fn)).stages[n]


def test_strides_of_reads_and_of_the_write() -> None:
    def shifted(x: f32[8, 6]):
        return dlc.compute((6, 4), lambda i, j: x[2 * j, 5 - i])

    s = stage(shifted)
    i, j = s.axes
    write, read = accesses(s, {})
    assert write.write and (write.stride(i), write.stride(j)) == (4, 1)
    assert not read.write and (read.stride(i), read.stride(j)) == (-1, 12) and read.uses(i) and str(read.offset) == "12*j - i + 5"


def test_strides_that_are_given_go_before_those_of_rows() -> None:
    def copy(x: f32[8, 6]):
        return dlc.compute((8, 6), lambda i, j: x[i, j])

    s = stage(copy)
    (x,) = s.sources()
    read = accesses(s, {x: (as_term(1), as_term(8))})[1]
    assert [read.stride(a) for a in s.axes] == [1, 8]


def test_addresses_that_are_data_are_unknown() -> None:
    def taken(x: f32[9], i: i64[4]):
        return dlc.compute((4,), lambda n: x[i[n]])

    gathers = [a for a in accesses(stage(taken), {}) if a.offset is None]
    (axis,) = stage(taken).axes
    assert len(gathers) == 1 and gathers[0].stride(axis) is None and gathers[0].uses(axis)


def test_each_access_is_told_once() -> None:
    def square(x: f32[5]):
        return dlc.compute((5,), lambda i: x[i] * x[i] + x[i])

    assert len(accesses(stage(square), {})) == 2


def body_of(fn):
    s = next(s for s in build_nest(trace(fn)).stages if s.kind == "reduce")
    assert isinstance(s.body, Reduce)
    return s.body.args[0]


def test_products_are_seen_through_conversions_and_permissions() -> None:
    def low(x: bf16[4, 5], w: bf16[5, 6]):
        k = dlc.reduce_axis(5)
        return dlc.compute((4, 6), lambda i, j: dlc.sum(dlc.cast(x[i, k], f32) * dlc.cast(w[k, j], f32), k))

    def permitted(x: f32[4, 5], w: f32[5, 6]):
        return dlc.matmul(x, w, precision="tf32")

    for body in (body_of(low), body_of(permitted)):
        pair = product_reads(body)
        assert pair is not None and len(product_factors(body)) == 2


def test_pairs_that_are_no_products() -> None:
    def distances(x: f32[4, 5], y: f32[6, 5]):
        k = dlc.reduce_axis(5)
        return dlc.compute((4, 6), lambda i, j: dlc.sum(dlc.abs(x[i, k] - y[j, k]), k))

    def masked(x: f32[4, 5], y: f32[6, 5]):
        k = dlc.reduce_axis(5)
        return dlc.compute((4, 6), lambda i, j: dlc.sum(dlc.where(k < i, x[i, k], y[j, k]), k))

    def moved(w: f32[4, 5], x: f32[4, 6], c: f32[5, 6]):
        k = dlc.reduce_axis(5)
        return dlc.compute((4, 6), lambda i, j: dlc.sum(w[i, k] * (x[i, j] - c[k, j]), k))

    sums = next(s for s in build_nest(trace(moved)).stages if s.kind == "reduce")
    pair = paired_reads(sums.body.args[0], sums.bound)
    assert paired_reads(sums.body.args[0]) is None and pair is not None and [r.tensor.name for r in pair] == ["w", "c"]
    assert product_reads(body_of(distances)) is None
    assert [r.tensor.name for r in paired_reads(body_of(distances))] == ["x", "y"]
    assert paired_reads(body_of(masked)) is None


def test_costs_count_functions_as_more_than_sums() -> None:
    def cheap(x: f32[4]):
        return dlc.compute((4,), lambda i: x[i] + 1.0)

    def dear(x: f32[4]):
        return dlc.compute((4,), lambda i: dlc.tanh(x[i]) + 1.0)

    assert cost(stage(cheap).tensors[0].body) == 1 and cost(stage(dear).tensors[0].body) > 10


def test_sizes_are_known_likely_or_stand_ins() -> None:
    n, m = Var("N", kind="dim", likely=30), Var("M", kind="dim")
    assert size(as_term(7)) == 7 and size(as_term(n) * 2 + 1) == 61
    assert size(as_term(n) * m, 99) == 99 and size(None, 5) == 5
