"""Axes by what data has to do with them."""

from __future__ import annotations

import dlc
from codegen.analysis.arrangement import arrange, visits
from dlc import f32, i64
from dsl.program import trace
from dsl.stages import build_nest


def of(fn):
    (s,) = (s for s in build_nest(trace(fn)).stages if s.kind == "reduce")
    return s


def named(axes) -> str:
    return "".join(v.name for v in axes)


def test_batches_rows_and_columns() -> None:
    def fn(x: f32[3, 20, 4, 5], i: i64[3, 20, 5]):
        k = dlc.reduce_axis(20, name="k")
        return dlc.compute((3, 9, 4, 5), lambda b, r, c, f: dlc.sum(dlc.where(i[b, k, f] == r, x[b, k, c, f], 0.0), k))
    s = of(fn)
    a = arrange(s)
    assert a is not None and [named(v) for v in (a.outer, a.followed, a.sought, a.columns)] == ["b", "f", "r", "c"]
    assert visits(s) == 3 * 20 * 4 * 5


def test_two_rows() -> None:
    def fn(x: f32[20], i: i64[20], j: i64[20]):
        k = dlc.reduce_axis(20, name="k")
        return dlc.compute((9, 8), lambda r, c: dlc.sum(dlc.where((i[k] == r) & (j[k] == c), x[k], 0.0), k))
    a = arrange(of(fn))
    assert a is not None and named(a.sought) == "rc" and not a.columns


def test_one_equation_finds_one_row() -> None:
    def fn(x: f32[20], i: i64[20]):
        k = dlc.reduce_axis(20, name="k")
        return dlc.compute((9, 8), lambda r, c: dlc.sum(dlc.where(i[k] == r - c, x[k], 0.0), k))
    a = arrange(of(fn))
    assert a is not None and named(a.sought) == "r" and named(a.followed) == "c"


def test_none() -> None:
    def fn(x: f32[20, 9]):
        return dlc.sum(x, 0)
    s = of(fn)
    assert arrange(s) is None and visits(s) == 180
