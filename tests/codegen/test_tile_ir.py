"""The tile program's values, operations and builder; programs whole are the subject of the verifier's and the text's tests."""

from __future__ import annotations

from codegen.tile.ir import PURE, Block, Builder, Const, For, If, Iota, Load, Map, Store, Value, tile_axes_of, union_axes, walk_ops
from dsl.dim import ZERO, Var, as_term
from dsl.dtype import bool_, f32, i64
from dsl.loc import Loc

A, B = Var("i", 4), Var("j", 8)


def test_axes_are_joined_by_name_in_the_order_of_creation() -> None:
    a, b = Value(f32, (B,)), Value(f32, (A,))
    assert union_axes(a, b) == (A, B) == union_axes(b, a, a) and union_axes() == ()
    assert tile_axes_of(as_term(B) + as_term(A) * 2, {B, A}) == (A, B) and tile_axes_of(as_term(B) * 3, {A}) == ()


def test_the_builder_gives_results_their_place() -> None:
    block = Block()
    builder = Builder(block, {A, B})
    builder.loc = Loc("file.py", 3, "f")
    one = builder.const(1.0, f32)
    rows = builder.add(Iota(as_term(A)), Value(i64, (A,)))
    both = builder.map("lt", (rows, builder.const(2, i64)), bool_, "small")
    assert [type(op) for op in block.ops] == [Const, Iota, Const, Map]
    assert one.op is block.ops[0] and one.op.results == (one,) and one.op.loc == Loc("file.py", 3, "f")
    assert both.axes == (A,) and both.dtype is bool_ and repr(both) == "small{i}"
    assert block.ops[3].operands() == (rows, block.ops[2].results[0])


def test_several_results_are_a_tuple() -> None:
    block = Block()
    results = Builder(block, set()).add(Const(1), Value(f32, ()), Value(f32, ()))
    assert isinstance(results, tuple) and all(r.op is block.ops[0] for r in results)


def test_operations_are_walked_in_order_with_what_is_inside() -> None:
    inner, body, outer = Block(), Block(), Block()
    Builder(inner, set()).const(2.0, f32)
    Builder(body, set()).add(If((ZERO,), inner))
    b = Builder(outer, set())
    start = b.const(1.0, f32)
    b.add(For(Var("k", 3), ZERO, as_term(3), (start,), body), Value(f32, ()))
    assert [type(op) for op in walk_ops(outer)] == [Const, For, If, Const]
    assert outer.ops[1].operands() == (start,) and outer.ops[1].blocks() == (body,)


def test_what_only_makes_a_value() -> None:
    assert Load in PURE and Const in PURE and Store not in PURE and For not in PURE
