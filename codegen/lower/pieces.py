"""Loops as the program runs them: one piece, or a full part and a ragged one."""

from __future__ import annotations

from collections.abc import Callable

from codegen.lower.context import Context
from codegen.lower.placing import single
from codegen.tile.ir import Block, For
from dsl.dim import ZERO, Term, Var, as_term, tile_bound, tmax, tmin
from dsl.nest import GRID_ROLES
from dsl.placing import Placed, PlacedLoop

Body = Callable[[], None]


def pieces(cx: Context, p: Placed, x: PlacedLoop) -> list[tuple[Var, Term, Term, list[Term]]]:
    """The loop as (variable, from, to, facts): one piece, or a full part and a ragged part when its tail is peeled.

    The full part ends where one of the stage's guards could first fail for some point of the tile; inside it the guards
    are facts, so no mask is left. Iterations in which no point is real are not run at all.
    """
    guards = [g for g in (t.subs(cx.env) for t in (*p.spatial, *p.bound)) if not cx.holds(g) and (g.coef(x.var) or 0) < 0]
    end = x.extent.subs(cx.env)
    for g in guards:
        end = tmin(end, _last(g, x.var, cx, best=True))
    var = Var(x.name, x.extent)
    if x.tail != "peel" or not guards:
        return [(var, ZERO, end, [end - 1 - as_term(var)] if not end.is_const else [])]
    full = end
    for g in guards:
        full = tmin(full, _last(g, x.var, cx, best=False))
    full = tmax(full, ZERO)
    head = Var(x.name, full if full.is_const else x.extent)
    inner = (cx.tile | inner_vars(cx)) - {x.var}
    least = [tile_bound(g, inner, best=False) for g in guards]  # for what is computed inside, with axes of its own
    known = [g.subs({x.var: as_term(head)}) for g in dict.fromkeys((*guards, *least))]
    out = [(head, ZERO, full, known)] if full != 0 else []
    return out if full == end else [*out, (var, full, end, [])]


def _last(g: Term, var: Var, cx: Context, best: bool) -> Term:
    """One past the last value of ``var`` for which ``g >= 0`` at the best (or worst) point of the tile axes and inner loops."""
    coef = g.coef(var)
    assert coef is not None and coef < 0
    rest = tile_bound(g.subs({var: ZERO}), cx.tile | inner_vars(cx), best)
    return rest // (-coef) + 1


def inner_vars(cx: Context) -> set[Var]:
    """Loop variables that are not open at this point: those of no enclosing For, so their range is still free."""
    open_vars = {v for t in cx.env.values() for v in t.vars}
    return {x.var for p in cx.placed.values() for x in p.loops
            if x.var not in cx.env and x.var not in open_vars and x.role not in GRID_ROLES}


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
