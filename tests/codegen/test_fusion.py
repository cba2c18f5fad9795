"""Which definitions share loops: what is inlined, what is stored, which outputs are computed together, what is a product."""

from __future__ import annotations

import dsl as dlc
from codegen.heuristics.fusion import computed_by_reader, fuse_stages, identity_axes, is_contraction, iterations
from codegen.target import TARGETS
from dsl import f32, i64
from dsl.program import trace
from dsl.stages import build_nest

M = dlc.dims("M")
CPU = TARGETS["x86-64-avx2"]


def nest_of(fn):
    return build_nest(trace(fn))


def names(nest) -> list[str]:
    return [s.name for s in nest.stages]


def test_what_is_read_once_is_inlined_whatever_it_costs() -> None:
    def chain(x: f32[8, 9]):
        return dlc.tanh(dlc.exp(x) + 1.0) * 2.0

    assert len(fuse_stages(nest_of(chain), CPU).stages) == 1


def test_what_costs_much_and_is_read_often_is_stored() -> None:
    def spread(x: f32[8]):
        y = dlc.compute((8,), lambda i: dlc.tanh(dlc.exp(x[i])), name="y")
        return dlc.compute((8, 100), lambda i, j: y[i] * j)

    def cheap(x: f32[8]):
        y = dlc.compute((8,), lambda i: x[i] + 1.0, name="y")
        return dlc.compute((8, 100), lambda i, j: y[i] * j)

    assert names(fuse_stages(nest_of(spread), CPU)) == ["y", "t"] and names(fuse_stages(nest_of(cheap), CPU)) == ["t"]


def test_slow_operations_in_inner_loops_are_stored() -> None:
    """A quotient that every step of a window would make again takes more cycles than a pass of its own, unless a loop leaves it alone."""
    def window(x: f32[4096], d: f32[4096]):
        k = dlc.reduce_axis(25)
        y = dlc.compute((4096,), lambda i: x[i] / d[i], name="y")
        return dlc.compute((4072,), lambda i: dlc.sum(y[i + k], k))

    def halves(x: f32[4096]):
        k = dlc.reduce_axis(25)
        y = dlc.compute((4096,), lambda i: x[i] / 2.0, name="y")
        return dlc.compute((4072,), lambda i: dlc.sum(y[i + k], k))

    def rows(x: f32[4096, 512], d: f32[4096]):
        y = dlc.compute((4096,), lambda i: 1.0 / d[i], name="y")
        return dlc.compute((4096, 512), lambda i, j: x[i, j] * y[i])

    assert "y" in names(fuse_stages(nest_of(window), CPU))
    assert all("y" not in names(fuse_stages(nest_of(f), CPU)) for f in (halves, rows))


def test_guards_are_not_evaluated_in_the_inner_loop_of_a_product() -> None:
    def padded(x: f32[8, 8], w: f32[8, 30]):
        y = dlc.compute((8, 8), lambda i, k: dlc.where(k > i, x[i, k], 0.0), name="y")
        return y @ w

    assert "y" in names(fuse_stages(nest_of(padded), CPU))


def test_outputs_that_read_the_same_share_loops() -> None:
    def both(x: f32[8, 9]):
        return dlc.exp(x), dlc.sin(x)

    def apart(x: f32[8, 9], y: f32[8, 9]):
        return dlc.exp(x), dlc.sin(y)

    assert len(fuse_stages(nest_of(both), CPU).stages) == 1 and len(fuse_stages(nest_of(apart), CPU).stages) == 2


def test_reads_at_the_readers_own_point() -> None:
    def straight(x: f32[8, 9]):
        y = dlc.compute((8, 9), lambda i, j: dlc.exp(x[i, j]), name="y")
        return y * 2.0

    def turned(x: f32[8, 9]):
        y = dlc.compute((8, 9), lambda i, j: dlc.exp(x[i, j]), name="y")
        return dlc.compute((8, 9), lambda i, j: y[7 - i, j])

    made, reader = nest_of(straight).stages
    assert identity_axes(reader, made) == dict(zip(made.axes, reader.axes))
    made, reader = nest_of(turned).stages
    assert identity_axes(reader, made) is None


def test_products_reuse_both_factors() -> None:
    def product(x: f32[8, 9], w: f32[9, 7]):
        return x @ w

    def dot(x: f32[9], w: f32[9]):
        return dlc.dot(x, w)

    def distances(x: f32[8, 9], w: f32[7, 9]):
        k = dlc.reduce_axis(9)
        return dlc.compute((8, 7), lambda i, j: dlc.sum((x[i, k] - w[j, k]) ** 2, k))

    def moved(w: f32[8, 9], x: f32[8, 7], c: f32[9, 7]):
        k = dlc.reduce_axis(9)
        return dlc.compute((8, 7), lambda i, j: dlc.sum(w[i, k] * (x[i, j] - c[k, j]), k))

    reduces = [next(s for s in nest_of(f).stages if s.kind == "reduce") for f in (product, dot, distances, moved)]
    assert [is_contraction(s) for s in reduces] == [True, False, True, True]
    assert iterations(reduces[0]) == 8 * 9 * 7


def test_what_a_product_packs_is_computed_there_unless_it_is_an_epilogue() -> None:
    def before(x: f32[8, 9], w: f32[9, 7]):
        return dlc.exp(x) @ w

    def after(x: f32[8, 9], w: f32[9, 7], v: f32[7, 5]):
        return dlc.exp(x @ w) @ v

    nest = nest_of(before)
    assert computed_by_reader(nest, next(s for s in nest.stages if s.kind == "map"))
    nest = nest_of(after)
    assert not computed_by_reader(nest, next(s for s in nest.stages if s.kind == "map"))


def test_results_read_at_places_that_are_data_keep_their_axes() -> None:
    def program(x: f32[M, 8], at: i64[M]):
        n = dlc.reduce_axis(M)
        top = dlc.compute((6, 8), lambda s, d: dlc.max(dlc.where(dlc.equal(at[n], s), x[n, d], -1e30), n))
        return dlc.compute((M, 8), lambda i, d: top[at[i], d] * x[i, d])

    assert [s.kind for s in fuse_stages(nest_of(program), CPU).stages][-1] == "map"
