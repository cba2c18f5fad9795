"""What goes with loops that seek: where data sends them, rounds that are skipped, elements that nothing is sent to."""

from __future__ import annotations

import functools

from codegen.lower.context import Context
from codegen.lower.pieces import Body, bare_loops, pieces
from codegen.lower.placing import single
from codegen.lower.values import TileAlgebra, iota, lower_value
from codegen.tile.ir import Block, For, Reduce, Value
from dsl.carrier import ANY
from dsl.dim import ZERO, Var, as_term, tmax
from dsl.dtype import bool_, i64
from dsl.nest import Stage
from dsl.placing import Placed, PlacedLoop
from dsl.sought import Goal, goals


def fill(cx: Context, stage: Stage, p: Placed, loops: list[PlacedLoop], body: Body) -> None:
    """Loops over elements that are all alike, in the order in which they are stored; several at a time along a loop to ``fill``.

    before: ``for r in 1000: y[r] = 0``
    after ``fill`` 32: ``for r.o in 31: y[32*r.o + r.w] = 0`` for a tile ``r.w`` of 32, then what is left one by one
    """
    loops = sorted(loops, key=lambda x: max((n for n, a in enumerate(stage.axes) if x.var in p.value[a].vars), default=-1))
    width = int(stage.notes.get("fill", {}).get(loops[-1].name, 0)) if loops else 0
    if width <= 1 or single(loops[-1]):
        bare_loops(cx, p, loops, body)
        return
    bare_loops(cx, p, loops[:-1], lambda: _fill_along(cx, p, loops[-1], width, body))


def _fill_along(cx: Context, p: Placed, x: PlacedLoop, width: int, body: Body) -> None:
    """The innermost of those loops."""
    for var, start, end, facts in pieces(cx, p, x):
        rounds = tmax((end - start) // width, ZERO)
        lane, step, tiles, rest = Var(f"{x.name}.w", as_term(width)), Var(f"{x.name}.f", x.extent), Block(), Block()
        cx.tile.add(lane)
        cx.lanes.add(lane)
        at = start + as_term(step) * width
        cx.builder.add(For(step, ZERO, rounds, (), tiles))
        with cx.block(tiles, {x.var: at + as_term(lane)}, [end - width - at]):
            body()
        cx.builder.add(For(var, start + rounds * width, end, (), rest))
        with cx.block(rest, {x.var: as_term(var)}, facts):
            body()


def met(cx: Context, stage: Stage, p: Placed, x: PlacedLoop) -> tuple[Value, ...]:
    """Whether data sends any iteration of a loop to where seeking loops run, looked at for all of them at once.

    Past the end of the loop it may say yes.
    """
    lane, to = Var(f"{x.name}.w", x.extent), TileAlgebra(cx)
    cx.tile.add(lane)
    cx.lanes.add(lane)
    inside: list[Value] = []
    with cx.block(cx.builder.block, {x.var: as_term(lane)}):
        for name, g in goals(stage, p).items():
            needed = {v for a in g.equation.guarded.free for v in p.value[a].vars if a in p.value} | set(g.rest.vars)
            if needed <= {y.var for y in p.loops[:p.loops.index(x) + 1]}:
                at = place_of(cx, p, g)
                ends = [hi for _, _, hi, _ in pieces(cx, p, p.loop(name))]
                inside += [to.op("ge", at, cx.builder.const(0, i64)), to.op("lt", at, iota(cx, ends[-1]))]
    if not inside:
        return ()
    some = functools.reduce(lambda a, b: cx.builder.map("and", (a, b), bool_), inside)
    return (cx.builder.add(Reduce(ANY, (some,), (lane,)), Value(bool_, ())) if lane in some.axes else some,)


def place_of(cx: Context, p: Placed, g: Goal) -> Value:
    """The iteration that data names."""
    data, rest, to = lower_value(cx, g.equation.guarded, p), iota(cx, g.rest.subs(cx.env)), TileAlgebra(cx)
    return to.op("sub", data, rest) if g.sign > 0 else to.op("sub", rest, data)
