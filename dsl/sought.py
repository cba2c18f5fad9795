"""Loops that data sends to one iteration: the equations under which the terms of a reduction count at all.

In ``y[r] = sum[k](where(ids[k] == r, x[k], 0))`` a term is the carrier's identity for every ``r`` but one, which ``ids[k]`` names. A loop
over ``r`` inside of the one over ``k`` may *seek* it: go to that iteration, if there is one, and leave the others out. Scatters,
histograms, sums over segments and the gradients of gathers are such reductions; nothing here knows them by name.
"""

from __future__ import annotations

from dataclasses import dataclass

from dsl.dim import ZERO, Term, Var
from dsl.equation import Equation, equations
from dsl.nest import TILE_ROLES, Stage
from dsl.placing import Placed, PlacedLoop


@dataclass(frozen=True)
class Goal:
    """The one iteration of a loop at which an equation holds: ``sign * (data - rest)``."""

    equation: Equation
    rest: Term
    sign: int


def goal(stage: Stage, p: Placed, loop: str) -> Goal | str:
    """Where data sends a loop; the reason, as text, where it does not."""
    x = p.loop(loop)
    known = equations(stage.body)
    if x.reduce or not known:
        return f"nothing in `{stage.body}` says that its terms are neutral unless data equals an index"
    reason = f"no data is compared with {loop}"
    for equation in known:
        term = equation.term.subs(p.value)
        sign = term.coef(x.var)
        if sign not in (1, -1):
            continue
        found = Goal(equation, term.subs({x.var: ZERO}), sign)
        if x.var in found.rest.vars:
            continue
        late = _late(found, p, x)
        if late is None:
            return found
        reason = f"`{equation.data}` is known inside of {late} only"
    return reason


def goals(stage: Stage, p: Placed) -> dict[str, Goal]:
    """The goals of a stage's seeking loops of more than one iteration."""
    loops = [x.name for x in p.loops if x.role == "seek" and x.extent != 1]
    return {name: g for name in loops if isinstance(g := goal(stage, p, name), Goal)}


def _late(g: Goal, p: Placed, x: PlacedLoop) -> str | None:
    """A loop of the stage, no further out than ``x``, that the data or the rest of the equation depends on; None where there is none."""
    names = {y.var: y for y in p.loops}
    needed: set[Var] = {v for axis in g.equation.guarded.free for v in (p.value[axis].vars if axis in p.value else ())} | set(g.rest.vars)
    before = {y.name for y in p.loops[:p.loops.index(x)] if y.role not in TILE_ROLES}
    return next((names[v].name for v in sorted(needed, key=lambda v: v.uid) if v in names and names[v].name not in before), None)
