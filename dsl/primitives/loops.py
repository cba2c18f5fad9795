"""Primitives on the loops of one stage: split, fuse, reorder, and the roles of loops."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from dsl.errors import ScheduleError
from dsl.nest import GRID_ROLES, TILE_ROLES, Fuse, Nest, Split, Stage

ROLES = GRID_ROLES | TILE_ROLES | {"serial"}
TAILS = ("mask", "peel", "pad", "exact")


def split(nest: Nest, stage: str, loop: str, factor: int, outer: str = "", inner: str = "", tail: str = "mask") -> Nest:
    """``for i`` -> ``for i.o: for i.i in factor``."""
    s = nest[stage]
    _need(s, loop)
    if factor < 1:
        raise ScheduleError(f"split({loop!r}, {factor}): the factor must be at least 1")
    if tail not in TAILS:
        raise ScheduleError(f"split({loop!r}): unknown tail {tail!r}", remedy="one of " + ", ".join(TAILS))
    o, i = outer or f"{loop}.o", inner or f"{loop}.i"
    if {o, i} & set(s.order) - {loop}:
        raise ScheduleError(f"split({loop!r}): a loop called {o} or {i} exists in {stage}", remedy="name the parts: split(..., outer=, inner=)")
    order = tuple(n for x in s.order for n in ((o, i) if x == loop else (x,)))
    roles = {k: v for k, v in s.roles.items() if k != loop}
    if s.role(loop) != "serial":
        roles[i if s.role(loop) in TILE_ROLES else o] = s.role(loop)
    return nest.with_stage(replace(s, relations=(*s.relations, Split(loop, o, i, factor, tail)), order=order, roles=roles))


def fuse(nest: Nest, stage: str, outer: str, inner: str, name: str = "") -> Nest:
    """``for i: for j`` -> ``for i*j``, when ``j`` stands directly inside ``i``."""
    s = nest[stage]
    _need(s, outer, inner)
    at = s.order.index(outer)
    if s.order[at + 1:at + 2] != (inner,):
        raise ScheduleError(f"fuse({outer!r}, {inner!r}): {inner} is not directly inside {outer}", f"the order is {', '.join(s.order)}", "reorder first")
    reducing = s.reducing()
    if (outer in reducing) != (inner in reducing):
        raise ScheduleError(f"fuse({outer!r}, {inner!r}): one is a reduction loop and the other is not",
                            "their iterations combine differently", "fuse loops of the same kind")
    fused = name or f"{outer}.{inner}"
    order = (*s.order[:at], fused, *s.order[at + 2:])
    roles = {k: v for k, v in s.roles.items() if k not in (outer, inner)}
    return nest.with_stage(replace(s, relations=(*s.relations, Fuse(outer, inner, fused)), order=order, roles=roles))


def reorder(nest: Nest, stage: str, loops: Sequence[str]) -> Nest:
    """Put the named loops in this order, in the places they occupy now."""
    s = nest[stage]
    _need(s, *loops)
    if len(set(loops)) != len(loops):
        raise ScheduleError(f"reorder({', '.join(loops)}): a loop is named twice")
    new = iter(loops)
    return nest.with_stage(replace(s, order=tuple(next(new) if x in loops else x for x in s.order)))


def set_role(nest: Nest, stage: str, loop: str, role: str) -> Nest:
    """Give a loop a role: serial, parallel, grid, unroll, vectorize or dot."""
    s = nest[stage]
    _need(s, loop)
    if role not in ROLES:
        raise ScheduleError(f"unknown role {role!r} for {loop}", remedy="one of " + ", ".join(sorted(ROLES)))
    roles = {k: v for k, v in s.roles.items() if k != loop}
    if role != "serial":
        roles[loop] = role
    return nest.with_stage(replace(s, roles=roles))


def annotate(nest: Nest, stage: str, key: str, value: object, loop: str = "") -> Nest:
    """Leave a note for the emitters, on a stage or on one of its loops."""
    s = nest[stage]
    notes = dict(s.notes)
    if loop:
        _need(s, loop)
        notes[key] = {**notes.get(key, {}), loop: value}
    else:
        notes[key] = value
    return nest.with_stage(replace(s, notes=notes))


def _need(s: Stage, *loops: str) -> None:
    for x in loops:
        if x not in s.order:
            raise ScheduleError(f"{s.name} has no loop `{x}`", remedy="its loops are " + ", ".join(s.order))
