"""Loops as the program runs them: one piece, or a full part and a ragged one."""

from __future__ import annotations

from collections.abc import Callable

from codegen.lower.context import Context
from codegen.lower.placing import single
from codegen.tile.ir import Block, For
from dsl.dim import ZERO, Term, Var, as_term, cdiv, tile_bound, tmax, tmin
from dsl.nest import GRID_ROLES
from dsl.placing import Placed, PlacedLoop

Body = Callable[[], None]


def pieces(cx: Context, p: Placed, x: PlacedLoop) -> list[tuple[Var, Term, Term, list[Term]]]:
    """The loop as (variable, from, to, facts): one piece, or a full part and a ragged part when its tail is peeled.

    The full part ends where one of the stage's guards could first fail for some point of the tile; inside it the guards
    are facts, so no mask is left. Iterations in which no point is real, or none matters, are not run at all.
    """
    real = p.bound if x.reduce else p.spatial
    guards = [g for g in (t.subs(cx.env) for t in real) if (g.coef(x.var) or 0) < 0 and not cx.holds(g)]
    start, end = _relevant(cx, p, x)
    for g in guards:
        end = tmin(end, _last(g, x.var, cx, best=True))
    var = Var(x.name, x.extent)
    from_start = [as_term(var) - start] if start != 0 else []
    if x.tail != "peel" or not guards:
        return [(var, start, end, [*from_start, *([end - 1 - as_term(var)] if not end.is_const else [])])]
    full = end
    for g in guards:
        full = tmin(full, _last(g, x.var, cx, best=False))
    full = tmax(full, start)
    head = Var(x.name, full if full.is_const else x.extent)
    inner = (cx.tile | inner_vars(cx)) - {x.var}
    least = [tile_bound(g, inner, best=False) for g in guards]  # for what is computed inside, with axes of its own
    known = [g.subs({x.var: as_term(head)}) for g in dict.fromkeys((*guards, *least))]
    out = [(head, start, full, [*known, *(f.subs({var: as_term(head)}) for f in from_start)])] if full != start else []
    return out if full == end else [*out, (var, full, end, from_start)]


def _relevant(cx: Context, p: Placed, x: PlacedLoop) -> tuple[Term, Term]:
    """The iterations with a point that matters, as far as :func:`codegen.lower.relevant.relevant` knows: from, to."""
    start, end = ZERO, x.extent.subs(cx.env)
    for t in cx.relevant.get(p.stage.name, ()):
        g = cx.term(t, p)
        coef = (g.coef(x.var) or 0) if x.reduce == bool(t.vars & set(p.stage.bound)) else 0
        if coef < 0:
            end = tmin(end, _last(g, x.var, cx, best=True))
        elif coef > 0:
            start = tmax(start, _first(g, x.var, cx))
    return tmin(start, x.extent.subs(cx.env)), end


def _first(g: Term, var: Var, cx: Context) -> Term:
    """The first value of ``var`` for which ``g >= 0`` at the best point of the tile axes and inner loops; ``g`` grows with it."""
    coef = g.coef(var)
    assert coef is not None and coef > 0
    return cdiv(-tile_bound(g.subs({var: ZERO}), cx.tile | inner_vars(cx), True), coef)


def _last(g: Term, var: Var, cx: Context, best: bool) -> Term:
    """One past the last value of ``var`` for which ``g >= 0`` at the best (or worst) point of the tile axes and inner loops."""
    coef = g.coef(var)
    assert coef is not None and coef < 0
    rest = tile_bound(g.subs({var: ZERO}), cx.tile | inner_vars(cx), best)
    return rest // (-coef) + 1


def inner_vars(cx: Context) -> set[Var]:
    """Loop variables of no enclosing For, so that their range is still free, and points of regions, which have no loop."""
    open_vars = {v for t in cx.env.values() for v in t.vars}
    return {v for p in cx.placed.values() for v in (*(x.var for x in p.loops if x.role not in GRID_ROLES), *p.region)
            if v not in cx.env and v not in open_vars}


def bare_loops(cx: Context, p: Placed, loops: list[PlacedLoop], body: Body) -> None:
    """Loops at which nothing is computed."""
    if not loops:
        body()
        return
    if single(loops[0]):
        bare_loops(cx, p, loops[1:], body)
        return
    for var, lo, hi, facts in pieces(cx, p, loops[0]):
        block = Block()
        cx.builder.add(For(var, lo, hi, (), block))
        with cx.block(block, {loops[0].var: as_term(var)}, facts):
            bare_loops(cx, p, loops[1:], body)
