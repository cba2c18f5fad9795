"""What schedules by hand do in several steps: tiles over stages that are computed together, roles that follow a tile, packed copies."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from dsl.algebra import reads
from dsl.dim import Var, as_term, show
from dsl.errors import ScheduleError
from dsl.expr import Read
from dsl.nest import GRID_ROLES, TILE_ROLES, Nest, Stage
from dsl.placing import Placed, place
from dsl.primitives.loops import reorder, set_role, split
from dsl.primitives.placement import compute_at, untile
from dsl.primitives.storage import store_as

_LANES = 8  # elements of a vector in which copies are made


def starts_over(s: Stage) -> set[str]:
    """The axes of a stage that have no loop of their own any more, by name."""
    return {name for v, name in s.axis_names().items() if v is not s.position and name not in s.order}


def tile(nest: Nest, host: str, sizes: Mapping[str, int], tail: str = "mask") -> Nest:
    """Split several loops and bring the outer parts outside, the inner ones inside.

    before::

        for i in 100
          for j in 77
            for k in 60: y[i, j] += f(i, j, k)

    after ``tile(i=32, j=16, k=8)``::

        for i.o in 4
          for j.o in 5
            for k.o in 8
              for i.i in 32
                for j.i in 16
                  for k.i in 8: y[i, j] += f(i, j, k)

    Loops that are not named stay between the outer and the inner parts. Where the loops belong to a stage and to others that are computed
    in it (``k`` to the sum, ``i`` and ``j`` to what finishes it), the others are computed inside the last of the stage's outer parts, tile
    by tile. An axis that has been split already, by the default schedule say, is tiled anew: :func:`untile` first.
    """
    if any(n in starts_over(nest[host]) for n in sizes) or any(n in starts_over(s) for s in _inside(nest, host) for n in sizes):
        nest = untile(nest, host)
    mine = [n for n in sizes if n in nest[host].order]
    others: dict[str, list[str]] = {}
    for n in sizes:
        if n not in mine:
            found = [s.name for s in _inside(nest, host) if n in s.order]
            if len(found) != 1:
                where = f"it is a loop of {' and '.join(found)}" if found else "nor has a stage that is computed in it"
                raise ScheduleError(f"tile: {host} has no loop `{n}`", where, "its loops are " + ", ".join(nest[host].order))
            others.setdefault(found[0], []).append(n)
    nest = _split_all(nest, host, mine, sizes, tail)
    at = f"{mine[-1]}.o" if mine else None
    for name, loops in others.items():
        nest = _split_all(nest, name, loops, sizes, tail)
        if at is not None and nest[name].attach == (host, ""):
            nest = compute_at(nest, name, host, at)
    for s in _inside(nest, host):
        if at is not None and s.attach == (host, ""):
            nest = compute_at(nest, s.name, host, at)
    return nest


def _inside(nest: Nest, host: str) -> list[Stage]:
    """The stages computed in a stage."""
    def runs(s: Stage) -> bool:
        return s.attach is not None and (s.attach[0] == host or runs(nest[s.attach[0]]))
    return [s for s in nest.stages if runs(s)]


def _split_all(nest: Nest, stage: str, loops: list[str], sizes: Mapping[str, int], tail: str) -> Nest:
    before = [x for x in nest[stage].order if x not in loops]
    for x in loops:
        nest = split(nest, stage, x, sizes[x], tail=tail)
    grid = [x for x in before if nest[stage].role(x) in GRID_ROLES]
    rest = [x for x in before if x not in grid]
    return reorder(nest, stage, [*grid, *(f"{x}.o" for x in loops), *rest, *(f"{x}.i" for x in loops)]) if loops else nest


def follow_tile(nest: Nest, loops: Iterable[tuple[str, str]], role: str) -> Nest:
    """Give loops a role; where it makes them axes of a tile, the loops of stages computed for that tile alone that run along it follow."""
    for stage, loop in loops:
        nest = set_role(nest, stage, loop, role)
        if role in TILE_ROLES and role != "dot":
            for s, own in _along(nest, stage, loop):
                nest = set_role(nest, s, own, role)
    return nest


def _along(nest: Nest, host: str, loop: str) -> list[tuple[str, str]]:
    """(stage, loop) of what is computed in ``host`` whose region along one of its axes is the run of ``loop``."""
    placed = place(nest)
    var, out = placed[host].loop(loop).var, list[tuple[str, str]]()
    for s in _inside(nest, host):
        for v, name in s.axis_names().items():
            if (name in s.order and v in s.axes and s.role(name) == "serial" and "copy" not in s.notes
                    and _runs_along(nest, placed, s, v, var)):
                out.append((s.name, name))
    return out


def _runs_along(nest: Nest, placed: Mapping[str, Placed], s: Stage, axis: Var, var: Var) -> bool:
    n = s.axes.index(axis)
    found = False
    for reader in nest.consumers(s):
        for r in (r for t in reader.tensors for r in reads(t.body) if r.tensor in s.tensors):
            i = r.indices[n]
            term = i.subs(placed[reader.name].value) if hasattr(i, "subs") else None
            if term is None or term.coef(var) != 1 or placed[s.name].extent[axis] != var.extent:
                return False
            found = True
    return found


def packed_layout(nest: Nest, reader: str, copy: str, layout: list[str]) -> Nest:
    """Store a copy as ``layout`` says in terms of the reader's axes; when empty, the axes that the reader sums over first."""
    s, c = nest[reader], nest[copy]
    read = next(r for t in s.tensors for r in reads(t.body) if r.tensor in c.tensors)
    names, own = s.axis_names(), c.axis_names()
    called = {names[v]: own[a] for a, i in zip(c.axes, read.indices) for v in names if as_term(v) == i}
    if layout:
        return store_as(nest, copy, [_renamed(t, called) for t in layout])
    order = sorted(c.axes, key=lambda a: not _summed(s, read, c.axes.index(a)))
    if order == list(c.axes):
        return nest
    return store_as(nest, copy, [show(as_term(a), lambda v: own[v]) for a in order])


def _summed(s: Stage, r: Read, n: int) -> bool:
    return any(v in s.bound for v in getattr(r.indices[n], "vars", ()))


def _renamed(text: str, names: Mapping[str, str]) -> str:
    return re.sub(r"[A-Za-z_][\w.]*", lambda m: names.get(m[0], m[0]), text)


def copy_fast(nest: Nest, copy: str, gpu: bool) -> Nest:
    """Tile the loops of a copy.

    On a CPU vectors along the axis stored last, squares that are turned where memory is contiguous along another;
    on a GPU every axis that is a power of two.
    """
    extents = {x.name: x.extent for x in place(nest)[copy].loops}
    if gpu:
        for x, n in extents.items():
            nest = set_role(nest, copy, x, "vectorize") if n.is_const and not n.const & (n.const - 1) else nest
        return nest
    s = nest[copy]
    if not s.axes or not all(n.is_const for n in extents.values()):
        return nest
    names = s.axis_names()
    stored = s.layout or tuple(as_term(v) for v in s.axes)
    lane = next((v for v in reversed(s.axes) if stored[-1] == as_term(v) or v in stored[-1].vars), s.axes[-1])
    near = s.axes[-1]
    sides = [(names[near], "unroll")] if near is not lane else []
    for x, role in (*sides, (names[lane], "vectorize")):
        nest = split(nest, copy, x, _at_most(_LANES, extents[x].const), tail="peel")
        nest = set_role(nest, copy, f"{x}.i", role)
    order = nest[copy].order
    inner = [f"{x}.i" for x, _ in (*sides, (names[lane], "vectorize"))]
    return reorder(nest, copy, [*(x for x in order if x not in inner), *inner])


def _at_most(lanes: int, extent: int) -> int:
    while lanes > 1 and lanes // 2 >= extent:
        lanes //= 2
    return lanes
