"""A stage brought into the loop of another that goes over the same rows, though neither need read the other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from dsl.dependence import outside, within
from dsl.dim import cdiv
from dsl.errors import ScheduleError
from dsl.nest import GRID_ROLES, TILE_ROLES, Nest, Stage
from dsl.placing import place, region, whole
from dsl.primitives.placement import check_free, check_reached, check_whole, depends
from dsl.primitives.record import primitive


@primitive
def compute_beside(nest: Nest, stage: str, host: str, loop: str, axis: str | Sequence[str], points: int | Sequence[int]) -> Nest:
    """Compute so many points of an axis of a stage in every round of a loop of another, before what the round does otherwise.

    before::

        z: for i in 64: for j in 50: z[i, j] = g(x[i, j])
        s: for b in 4                              # parallel
             for i in 16: for j in 50: s[b, j] += f(x[16*b + i, j])

    after ``compute_beside(z, s, b, i, 16)``::

        s: for b in 4                              # parallel
             z: for i in 16: for j in 50: z[16*b + i, j] = g(x[16*b + i, j])
             for i in 16: for j in 50: s[b, j] += f(x[16*b + i, j])

    Rows that both read are read once. The stage is kept whole, in the memory it had before, for whoever reads it.

    Args:
        nest: the nest.
        stage: a stage in a nest of its own.
        host: another one, which it does not need.
        loop: the outermost loop of ``host``, loops of one iteration aside; with several axes the last of its outermost ones.
        axis: the axis of ``stage``, by its loop name; or one for each of those loops.
        points: points of the axis in a round; the rounds make all of them, each once.

    Raises:
        ScheduleError: no such loop or axis; loops of the stage are parallel; the rounds do not make every point once; the stage needs what
            the host makes; somebody inside the loop reads other points than those of the round.
    """
    s, h = nest[stage], nest[host]
    what = f"compute_beside({stage!r}, {f'{host}:{loop}'!r}, {axis!r}, {points})"
    made = _in_order(nest.with_stage(_attached(nest, s, h, loop, axis, points, what)), stage, host, what)
    placed, inside = place(made), [c for c in made.consumers(made[stage]) if within(made, c, host, loop)]
    read = region(made, made[stage], placed, inside)
    axes = {name: a for a, name in s.axis_names().items()}
    for _, name, most in made[stage].beside if inside else ():
        start, count = read[axes[name]]
        if start != placed[stage].start[axes[name]] or not count.is_const or count.const > most:
            raise ScheduleError(f"{what}: {inside[0].name} reads other points of {name} than those of its round",
                                f"{count} from {start} on")
    check_reached(made, what)
    return made


def _attached(nest: Nest, s: Stage, h: Stage, loop: str, axis: str | Sequence[str], points: int | Sequence[int], what: str) -> Stage:
    """The stage at its place, which is checked."""
    axes = [axis] if isinstance(axis, str) else list(axis)
    counts = [points] if isinstance(points, int) else list(points)
    at = h.order.index(loop) + 1 if loop in h.order else 0
    loops = h.order[max(0, at - len(axes)):at]
    if len(loops) != len(axes) or len(counts) != len(axes) or any(h.role(x) in TILE_ROLES for x in loops) or outside(nest, h, loops[0]):
        raise ScheduleError(f"{what}: {loop} is not the outermost loop of {h.name}", remedy="its loops are " + ", ".join(h.order))
    made = replace(s, attach=(h.name, loop), beside=tuple(zip(loops, axes, counts)))
    _check(nest, s, h, made.beside, what)
    return made


def _check(nest: Nest, s: Stage, h: Stage, share: Sequence[tuple[str, str, int]], what: str) -> None:
    own = {name: a for a, name in s.axis_names().items() if a in s.axes and a is not s.position}
    for _, axis, _ in share:
        if axis not in own or own[axis].extent is None or s.kind == "roll" or sum(axis == x for _, x, _ in share) > 1:
            raise ScheduleError(f"{what}: {axis} is no axis of {s.name} that has points of its own")
    check_free(nest, s, what)
    check_whole(nest, s, what)
    if s.attach is not None or h.attach is not None or s.name == h.name:
        raise ScheduleError(f"{what}: {s.name if s.attach else h.name} is computed inside another stage", remedy="compute_root first")
    grid = [x for x in s.order if s.role(x) in GRID_ROLES]
    if grid:
        raise ScheduleError(f"{what}: {s.name} has parallel loops", "threads are started once, around the outermost loops",
                            f"serial({', '.join(map(repr, grid))}) of {s.name} first")
    others = [x for x in h.order if h.role(x) in GRID_ROLES and all(x != loop for loop, _, _ in share)]
    for loop, axis, points in share:
        rounds, extent = place(nest)[h.name].loop(loop).extent, whole(own[axis])
        if others or isinstance(points, bool) or points < 1 or cdiv(extent, points) != rounds:
            why = f"{', '.join(others)} repeat each of them" if others else f"{extent} points, {points} in each of {rounds} rounds"
            raise ScheduleError(f"{what}: the rounds of {loop} would not make every point of {axis} once", why)
    if depends(nest, s, h):
        raise ScheduleError(f"{what}: {s.name} needs what {h.name} makes", "of later rounds, for all that is known")


def _in_order(nest: Nest, stage: str, host: str, what: str) -> Nest:
    """The stages such that what is computed in rounds comes before its host, and readers of it come after that."""
    home = {s.name: s.attach[0] for s in nest.stages if s.attach is not None}
    left, out, done = dict.fromkeys(s.name for s in nest.stages), list[Stage](), set[str]()
    needs = {s.name: {p.name for t in s.sources() if (p := nest.producer(t)) is not None} for s in nest.stages}
    for s in (s for s in nest.stages if s.beside):
        needs[home[s.name]].add(s.name)
        for c in (c.name for c in nest.consumers(s) if not _runs_in(home, c.name, home[s.name])):
            needs[c].add(home[s.name])
    while left:
        ready = next((name for name in left if needs[name] <= done), None)
        if ready is None:
            raise ScheduleError(f"{what}: {host} needs what is made of {stage}", "that is not whole before the last round")
        del left[ready]
        out.append(nest[ready])
        done.add(ready)
    return replace(nest, stages=tuple(out))


def _runs_in(home: dict[str, str], name: str, host: str) -> bool:
    while name in home:
        name = home[name]
        if name == host:
            return True
    return name == host


__all__ = ["compute_beside"]
