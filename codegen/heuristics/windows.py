"""Reductions over windows that overlap, and have no other reuse: several results along an axis share what they load."""

from __future__ import annotations

import math

from codegen.analysis.access import size
from codegen.heuristics.decisions import Setting
from dsl.algebra import reads
from dsl.dim import Term, Var
from dsl.nest import Nest, Stage
from dsl.primitives.loops import set_role, split
from dsl.primitives.mapping import unroll_by

WINDOW = 64  # terms of a reduction that is computed for several results at a time
_SPELLED = 25  # terms that are spelled out
_TOGETHER = 4  # results of overlapping windows that are computed together


def overlapping(stage: Stage, lane: Var) -> Var | None:
    """A row axis whose neighbours read much of the same: a short sum, a window, moves along with it."""
    if stage.kind != "reduce" or math.prod(size(v.extent) for v in stage.bound) > WINDOW:
        return None
    windows = [i for t in stage.tensors for r in reads(t.body) for i in r.indices if isinstance(i, Term) and len(i.vars) > 1]
    found = [a for a in stage.axes
             if a is not lane and size(a.extent) >= _TOGETHER and any(_slides(i, a, v) for i in windows for v in stage.bound)]
    return found[-1] if found else None


def _slides(index: Term, axis: Var, offset: Var) -> bool:
    """Whether an index is a window's: places along ``axis`` that the offsets of several results share."""
    steps, gap = index.coef(axis), index.coef(offset)
    return bool(steps and gap) and steps is not None and gap is not None and steps % gap == 0 and steps // gap < size(offset.extent) > 1


def spell_out(nest: Nest, name: str) -> Nest:
    """The terms of a short sum one after another, so that what neighbouring results share is loaded once for all of them."""
    s, terms = nest[name], 1
    for v in reversed(s.bound):
        terms *= size(v.extent)
        if size(v.extent) > 1 and terms <= _SPELLED:
            nest = unroll_by(nest, name, s.axis_names()[v], size(v.extent))
    return nest


def unroll_rows(nest: Nest, name: str, axis: Var, loops: list[str], setting: Setting) -> tuple[Nest, list[str]]:
    """Several results of overlapping windows at a time: what they share is loaded once, and their sums do not wait for each other."""
    loop = nest[name].axis_names()[axis]
    count = setting.choose(f"{name}.rows", _TOGETHER, (1, 2, 4, 8))
    nest = split(nest, name, loop, count, tail="peel")
    nest = set_role(nest, name, f"{loop}.i", "unroll")
    return nest, [x if x != loop else f"{loop}.o" for x in loops]
