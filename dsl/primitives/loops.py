"""Primitives on the loops of one stage: split, pad, fuse, reorder, and the roles of loops."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from dsl.dependence import again, carried, disorder, needed_elsewhere, once, uncovered
from dsl.dim import Term, as_term
from dsl.errors import ScheduleError
from dsl.expr import Cast, Op
from dsl.nest import GRID_ROLES, TILE_ROLES, Fuse, Nest, Pad, Split, Stage
from dsl.placing import place
from dsl.primitives.record import primitive
from dsl.sought import goal

ROLES = GRID_ROLES | TILE_ROLES | {"serial", "seek"}
TAILS = ("mask", "peel", "pad", "exact")


@primitive
def split(nest: Nest, stage: str, loop: str, factor: int, outer: str = "", inner: str = "", tail: str = "mask") -> Nest:
    """Cut a loop into rounds of ``factor`` iterations.

    before::

        for i in 50

    after ``split(i, 16)``::

        for i.o in 4
          for i.i in 16        # i = 16*i.o + i.i

    ``tail`` says what happens in the last round: ``mask`` (iterations past the end do nothing), ``peel`` (the last round is a copy of the
    code of its own, the others need no mask), ``pad`` (they are computed and stored, in memory made larger), ``exact`` (there are none).

    Raises:
        ScheduleError: no such loop, a factor below 1, an unknown tail, names in use, ``exact`` where the factor does not divide, ``pad`` of
            a loop that is not a whole axis or whose results the caller owns, the loop over blocks of a rolling stage.
    """
    s = nest[stage]
    _need(s, loop)
    _need_plain(s, f"split({loop!r}, {factor})", loop)
    if isinstance(factor, bool) or not isinstance(factor, int) or factor < 1:
        raise ScheduleError(f"split({loop!r}, {factor}): the factor must be a whole number, at least 1")
    if tail not in TAILS:
        raise ScheduleError(f"split({loop!r}): unknown tail {tail!r}", remedy="one of " + ", ".join(TAILS))
    if tail in ("exact", "pad"):
        _check_tail(nest, s, loop, factor, tail)
    o, i = outer or f"{loop}.o", inner or f"{loop}.i"
    _fresh(s, f"split({loop!r})", {o, i}, loop)
    order = [o if x == loop else x for x in s.order]
    after = loop if s.role(loop) not in GRID_ROLES else [x for x in s.order if s.role(x) in GRID_ROLES][-1]
    order.insert(s.order.index(after) + 1, i)  # the inner part of a parallel loop goes inside all the others
    roles = {k: v for k, v in s.roles.items() if k != loop}
    if s.role(loop) != "serial":
        roles[o if s.role(loop) in GRID_ROLES else i] = s.role(loop)
    made = replace(s, relations=(*s.relations, Split(loop, o, i, factor, tail)), order=tuple(order), roles=roles,
                   notes=_renamed(s, loop, o))
    return _reattached(nest.with_stage(made), stage, loop, o if roles.get(i) in TILE_ROLES else i)


@primitive
def pad(nest: Nest, stage: str, loop: str, multiple: int) -> Nest:
    """Let a loop run on to a multiple of a number; what it computes past the end is not kept.

    before::

        for j in 50

    after ``pad(j, 16)``::

        for j.pad in 64        # results are kept where j.pad < 50

    So that a whole loop fits a tile of a fixed size, or a later split divides it exactly.

    Raises:
        ScheduleError: no such loop, a number below 1, or the loop over blocks of a rolling stage.
    """
    s = nest[stage]
    _need(s, loop)
    _need_plain(s, f"pad({loop!r}, {multiple})", loop)
    if isinstance(multiple, bool) or not isinstance(multiple, int) or multiple < 1:
        raise ScheduleError(f"pad({loop!r}, {multiple}): the multiple must be a whole number, at least 1")
    name = f"{loop}.pad"
    _fresh(s, f"pad({loop!r})", {name}, loop)
    order = tuple(name if x == loop else x for x in s.order)
    roles = {name if k == loop else k: v for k, v in s.roles.items()}
    made = replace(s, relations=(*s.relations, Pad(loop, name, multiple)), order=order, roles=roles, notes=_renamed(s, loop, name))
    return _reattached(nest.with_stage(made), stage, loop, name)


@primitive
def fuse(nest: Nest, stage: str, outer: str, inner: str, name: str = "") -> Nest:
    """Make one loop of two, the second directly inside the first.

    before::

        for i in 4
          for j in 50

    after ``fuse(i, j)``::

        for i.j in 200         # i = i.j // 50, j = i.j % 50

    Raises:
        ScheduleError: no such loops, not neighbours, one of a reduction and one not, of different roles, or something is computed
            between them.
    """
    s = nest[stage]
    _need(s, outer, inner)
    what = f"fuse({outer!r}, {inner!r})"
    at = s.order.index(outer)
    if s.order[at + 1:at + 2] != (inner,):
        raise ScheduleError(f"{what}: {inner} is not directly inside {outer}", f"the order is {', '.join(s.order)}", "reorder first")
    reducing = s.reducing()
    if (outer in reducing) != (inner in reducing):
        raise ScheduleError(f"{what}: one is a reduction loop and the other is not",
                            "their iterations combine differently", "fuse loops of the same kind")
    if s.role(outer) != s.role(inner):
        raise ScheduleError(f"{what}: {outer} is {s.role(outer)} and {inner} is {s.role(inner)}", remedy="give them one role first")
    between = next((x.name for x in nest.stages if x.attach == (stage, outer)), None)
    if between is not None:
        raise ScheduleError(f"{what}: {between} is computed between them, at {outer}", remedy=f"compute {between} somewhere else first")
    _check_fused_order(s, what, outer, inner)
    fused = name or f"{outer}.{inner}"
    _fresh(s, what, {fused}, outer, inner)
    order = (*s.order[:at], fused, *s.order[at + 2:])
    roles = {k: v for k, v in s.roles.items() if k not in (outer, inner)}
    if s.role(outer) != "serial":
        roles[fused] = s.role(outer)
    made = replace(s, relations=(*s.relations, Fuse(outer, inner, fused)), order=order, roles=roles)
    return _reattached(nest.with_stage(made), stage, inner, fused)


def _check_fused_order(s: Stage, what: str, outer: str, inner: str) -> None:
    ordered = s.kind == "scan" or (s.kind == "reduce" and not s.body.data[0].commutative)
    pair = any(isinstance(r, Split) and (r.outer, r.inner) == (outer, inner) for r in s.relations)
    if ordered and outer in s.reducing() and not pair:
        raise ScheduleError(f"{what}: {s.name} combines its elements in order", "the fused loop would not run along one axis",
                            "fuse the two parts of one split only")


@primitive
def reorder(nest: Nest, stage: str, loops: Sequence[str]) -> Nest:
    """Put the named loops in this order, in the places that they occupy now.

    before::

        for i
          for j
            for k

    after ``reorder(k, i)``::

        for k
          for j
            for i

    Raises:
        ScheduleError: no such loop, one named twice; a scan (or a reduction that is not commutative) would combine elements in another
            order; a grid loop would lie inside another loop; a stage that is computed at one of the loops would come after its reader.
    """
    s = nest[stage]
    _need(s, *loops)
    what = f"reorder({', '.join(loops)})"
    if len(set(loops)) != len(loops):
        raise ScheduleError(f"{what}: a loop is named twice")
    new = iter(loops)
    order = tuple(next(new) if x in loops else x for x in s.order)
    why = disorder(s, [x for x in order if s.role(x) not in TILE_ROLES])
    if why is not None:
        raise ScheduleError(f"{what}: {stage} combines its elements in the order of the axis", why,
                            "keep the parts of the axis in their order")
    made = nest.with_stage(replace(s, order=order))
    _check_grid(made, made[stage], what)
    _check_attached(made, stage, what)
    for x in order:
        if s.role(x) == "seek":
            _check_seek(made, made[stage], x, what)
    return made


@primitive
def set_role(nest: Nest, stage: str, loop: str, role: str) -> Nest:
    """Say how the iterations of a loop are run.

    before::

        for i in 8

    after ``vectorize(i)``, ``unroll(i)``, ``parallel(i)``, ``grid(i)``, ``dot(i)``, ``seek(i)``, ``serial(i)``::

        for i in 8             # the role

    ``vectorize`` and ``unroll`` make the loop an axis of the tile: along vector lanes, or spelled out in registers (on a GPU both are an
    axis of the block's tensor). ``parallel`` and ``grid`` give each iteration to whichever thread or program is free. ``dot`` makes a
    reduction loop the contracted axis of a matrix instruction. ``seek`` goes to the one iteration at which data equals an index, where the
    terms of all others are neutral. ``serial`` is one after another.

    Raises:
        ScheduleError: no such loop or role; parallel iterations that need one another, or not outermost; a tile whose size is not known,
            or at whose axis something is computed; a dot along anything but a sum of products; no data that says where to seek.
    """
    s = nest[stage]
    _need(s, loop)
    if role not in ROLES:
        raise ScheduleError(f"unknown role {role!r} for {loop}", remedy="one of " + ", ".join(sorted(ROLES)))
    roles = {k: v for k, v in s.roles.items() if k != loop}
    if role != "serial":
        roles[loop] = role
    made = nest.with_stage(replace(s, roles=roles))
    if role in GRID_ROLES:
        _check_parallel(made, s, loop, role)
    elif role in TILE_ROLES:
        _check_tile(made, s, loop, role)
    elif role == "seek":
        _check_seek(made, made[stage], loop, f"seek({loop!r})")
    if role not in GRID_ROLES and s.role(loop) in GRID_ROLES:
        _check_grid(made, made[stage], f"{role}({loop!r})")
    return made


@primitive
def annotate(nest: Nest, stage: str, key: str, value: Any, loop: str = "") -> Nest:
    """Leave a note for the emitters, on a stage or on one of its loops."""
    s = nest[stage]
    notes = dict(s.notes)
    if loop:
        _need(s, loop)
        notes[key] = {**notes.get(key, {}), loop: value}
    else:
        notes[key] = value
    return nest.with_stage(replace(s, notes=notes))


# -- checks --------------------------------------------------------------------------------------------------------
def _check_tail(nest: Nest, s: Stage, loop: str, factor: int, tail: str) -> None:
    what = f"split({loop!r}, {factor}, tail={tail!r})"
    if tail == "exact":
        n = _extent(nest, s, loop)
        if not n.is_const or n.const % factor:
            why = f"{n} = {n.const // factor}*{factor} + {n.const % factor}" if n.is_const else f"its extent is {n}"
            raise ScheduleError(f"{what}: {factor} does not divide the iterations of {loop}", why,
                                "tail='mask', 'peel' or 'pad', or pad the loop first")
        return
    if loop not in s.axis_names().values():
        raise ScheduleError(f"{what}: {loop} is a part of an axis", "memory is padded along whole axes",
                            "split the axis itself with tail='pad'")
    if nest.is_output(s) and loop not in s.reducing():
        raise ScheduleError(f"{what}: the memory of {s.name} cannot be padded", "it is a result, whose memory the caller owns",
                            "tail='mask' or 'peel', or write through cache_write")


def _check_parallel(nest: Nest, s: Stage, loop: str, role: str) -> None:
    what = f"{role}({loop!r})"
    why = carried(nest, s, loop)
    if why is not None:
        remedy = f"rfactor({loop!r}) makes partial results that can be computed in parallel"
        raise ScheduleError(f"{what}: the iterations of {loop} depend on each other", why,
                            remedy if s.kind == "reduce" else "make a loop over its rows parallel")
    if s.attach is not None:
        raise ScheduleError(f"{what}: {s.name} is computed inside {s.attach[0]}", "threads are started once, around the outermost loops",
                            f"make a loop of {s.attach[0]} parallel, or compute_root({s.name!r}) first")
    _check_grid(nest, nest[s.name], what)
    for x in nest.stages:
        if x.beside and x.attach is not None and x.attach[0] == s.name and all(at != loop for at, _, _ in x.beside):
            raise ScheduleError(f"{what}: {x.name} is computed beside {s.name}", f"each iteration of {loop} would compute it again",
                                f"compute_root({x.name!r}) first")
        if x.attach is not None and nest.is_output(x) and (clash := uncovered(nest, x)) is not None:
            raise ScheduleError(f"{what}: {x.name} is a result that is computed inside", clash, f"compute_root({x.name!r}) first")


def _check_grid(nest: Nest, s: Stage, what: str) -> None:
    """Parallel loops are outermost, loops of one iteration aside."""
    inside = [x for x in s.order if s.role(x) in GRID_ROLES]
    if s.order[:len(inside)] == tuple(inside):
        return
    above = next((x for x in s.order if x not in inside and not once(nest, s, x)), None)
    below = next((x for x in inside if above is not None and s.order.index(x) > s.order.index(above)), None)
    if below is not None:
        raise ScheduleError(f"{what}: {below} is {s.role(below)} inside {above}, which is not",
                            "threads are started once, around the outermost loops", f"reorder the parallel loops outside {above}")


def _check_tile(nest: Nest, s: Stage, loop: str, role: str) -> None:
    what = f"{role}({loop!r})"
    here = next((x.name for x in nest.stages if x.attach == (s.name, loop)), None)
    if here is not None:
        raise ScheduleError(f"{what}: {here} is computed at {loop}", "inside a tile nothing is computed apart",
                            f"compute {here} at an outer loop first")
    n = _extent(nest, s, loop)
    if not n.is_const:
        raise ScheduleError(f"{what}: {loop} has {n} iterations", "a tile needs a size that is known", f"split({loop!r}, ...) first")
    second = next((x for x in s.order if x != loop and s.role(x) in TILE_ROLES and x in s.reducing()), None)
    if s.kind == "scan" and loop in s.reducing() and second is not None:
        raise ScheduleError(f"{what}: {second} is an axis of the tile already",
                            f"the prefixes of {s.name} follow one order, along one axis of a tile", f"serial({second!r}) first")
    if role == "dot":
        _check_dot(s, loop, what)
    elif loop in s.reducing():
        why = disorder(nest[s.name], [x for x in s.order if nest[s.name].role(x) not in TILE_ROLES]
                       + [x for x in s.order if nest[s.name].role(x) in TILE_ROLES])
        if s.kind == "reduce" and not s.body.data[0].commutative:
            why = why or f"{loop} = 0 of one round would be combined with {loop} = 0 of the next before {loop} = 1 of its own"
        if why is not None:
            raise ScheduleError(f"{what}: {s.name} combines its elements in the order of the axis", why, "make a loop over its rows a tile")


def _check_seek(nest: Nest, s: Stage, loop: str, what: str) -> None:
    found = goal(s, place(nest)[s.name], loop)
    if isinstance(found, str):
        raise ScheduleError(f"{what}: nothing says at which iteration of {loop} a term of {s.name} counts", found,
                            "seek along an axis that data is compared with, inside of the loops that the data depends on")


def _extent(nest: Nest, s: Stage, loop: str) -> Term:
    """The number of a loop's iterations."""
    factor = next((r.factor for r in s.relations if isinstance(r, Split) and r.inner == loop), None)
    return as_term(factor) if factor is not None else place(nest)[s.name].loop(loop).extent


def _check_dot(s: Stage, loop: str, what: str) -> None:
    if loop not in s.reducing() or s.kind != "reduce":
        raise ScheduleError(f"{what}: {loop} is not a loop of a reduction", remedy="vectorize or unroll it")
    body, arg = s.body, s.body.args[0]
    while isinstance(arg, Cast):
        arg = arg.args[0]
    if body.data[0].name.split(".")[0] != "sum" or not (isinstance(arg, Op) and arg.name == "mul"):
        raise ScheduleError(f"{what}: {s.name} is not a sum of products", f"it is {body}", f"vectorize({loop!r})")


def _check_attached(nest: Nest, stage: str, what: str) -> None:
    for x in nest.stages:
        if x.attach is not None and x.attach[0] == stage:
            why = needed_elsewhere(nest, x, *x.attach)
            why = why or (again(nest, x) if x.beside else None)
            if why is not None:
                raise ScheduleError(f"{what}: {x.name} is computed at {x.attach[1] or 'the start'} of {stage}", why,
                                    f"compute {x.name} at an outer loop first")


# -- names ---------------------------------------------------------------------------------------------------------
def _need(s: Stage, *loops: str) -> None:
    for x in loops:
        if x not in s.order:
            raise ScheduleError(f"{s.name} has no loop `{x}`", remedy="its loops are " + ", ".join(s.order) if s.order else "it has none")


def _need_plain(s: Stage, what: str, loop: str) -> None:
    if s.states and loop in s.reducing():
        raise ScheduleError(f"{what}: {loop} goes over the blocks of a pass, which carry states from one to the next",
                            remedy="roll with blocks of another size")


def _fresh(s: Stage, what: str, names: set[str], *replaced: str) -> None:
    taken = sorted(names & (set(s.order) | _inner_names(s)) - set(replaced))
    if taken:
        raise ScheduleError(f"{what}: a loop called {' or '.join(taken)} exists in {s.name}",
                            remedy="name the parts: split(..., outer=, inner=)")


def _inner_names(s: Stage) -> set[str]:
    """Names that relations use, of loops that are no more."""
    out = set(s.axis_names().values())
    for r in s.relations:
        out |= {r.axis} if isinstance(r, (Split, Pad)) else {r.outer, r.inner}
    return out


def _renamed(s: Stage, loop: str, new: str) -> dict[str, Any]:
    """A stage's notes with those on one loop moved to another."""
    return {k: {new if x == loop else x: v for x, v in notes.items()} if isinstance(notes, dict) else notes for k, notes in s.notes.items()}


def _reattached(nest: Nest, stage: str, loop: str, new: str) -> Nest:
    """What was computed at a loop is computed at the loop that took its place."""
    for x in nest.stages:
        if x.attach is not None and x.attach[0] == stage and any(at == loop for at, _, _ in x.beside):
            raise ScheduleError(f"{loop}: {x.name} is computed beside {stage}, some points in each of its iterations",
                                remedy=f"compute_root({x.name!r}) first")
        if x.attach == (stage, loop):
            nest = nest.with_stage(replace(x, attach=(stage, new)))
    return nest
