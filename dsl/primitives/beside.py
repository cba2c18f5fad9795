"""A stage brought into the loop of another that goes over the same rows, though neither need read the other."""

from __future__ import annotations

from dataclasses import replace

from dsl.dependence import outside, within
from dsl.dim import cdiv
from dsl.errors import ScheduleError
from dsl.nest import GRID_ROLES, TILE_ROLES, Nest, Stage
from dsl.placing import place, region
from dsl.primitives.placement import check_free, check_reached, depends
from dsl.primitives.record import primitive


@primitive
def compute_beside(nest: Nest, stage: str, host: str, loop: str, axis: str, points: int) -> Nest:
    """Compute so many points of one axis of a stage in every round of a loop of another, before what the round does otherwise.

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
        loop: the outermost loop of ``host``, loops of one iteration aside.
        axis: the axis of ``stage``, by its loop name.
        points: points of the axis in a round; the rounds make all of them, each once.

    Raises:
        ScheduleError: no such loop or axis; loops of the stage are parallel; the rounds do not make every point once; the stage needs what
            the host makes; somebody inside the loop reads other points than those of the round.
    """
    s, h = nest[stage], nest[host]
    what = f"compute_beside({stage!r}, {f'{host}:{loop}'!r}, {axis!r}, {points})"
    _check(nest, s, h, loop, axis, points, what)
    made = _in_order(nest.with_stage(replace(s, attach=(host, loop), beside=(axis, points))), stage, host, what)
    placed = place(made)
    mine = next(a for a, name in s.axis_names().items() if name == axis)
    inside = [c for c in made.consumers(made[stage]) if within(made, c, host, loop)]
    start, count = region(made, made[stage], placed, inside)[mine]
    if inside and (start != placed[stage].start[mine] or not count.is_const or count.const > points):
        raise ScheduleError(f"{what}: {inside[0].name} reads other points of {axis} than those of its round", f"{count} from {start} on")
    check_reached(made, what)
    return made


def _check(nest: Nest, s: Stage, h: Stage, loop: str, axis: str, points: int, what: str) -> None:
    mine = next((a for a, name in s.axis_names().items() if name == axis and a in s.axes and a is not s.position), None)
    if loop not in h.order or h.role(loop) in TILE_ROLES or outside(nest, h, loop) is not None:
        raise ScheduleError(f"{what}: {loop} is not the outermost loop of {h.name}", remedy="its loops are " + ", ".join(h.order))
    if mine is None or mine.extent is None or s.kind == "roll":
        raise ScheduleError(f"{what}: {axis} is no axis of {s.name} that has points of its own")
    check_free(nest, s, what)
    if s.attach is not None or h.attach is not None or s.name == h.name:
        raise ScheduleError(f"{what}: {s.name if s.attach else h.name} is computed inside another stage", remedy="compute_root first")
    grid = [x for x in s.order if s.role(x) in GRID_ROLES]
    if grid:
        raise ScheduleError(f"{what}: {s.name} has parallel loops", "threads are started once, around the outermost loops",
                            f"serial({', '.join(map(repr, grid))}) of {s.name} first")
    others = [x for x in h.order if x != loop and h.role(x) in GRID_ROLES]
    rounds = place(nest)[h.name].loop(loop).extent
    if others or isinstance(points, bool) or points < 1 or cdiv(mine.extent, points) != rounds:
        why = f"{', '.join(others)} repeat each of them" if others else f"{mine.extent} points, {points} in each of {rounds} rounds"
        raise ScheduleError(f"{what}: the rounds of {loop} would not make every point of {axis} once", why)
    if depends(nest, s, h):
        raise ScheduleError(f"{what}: {s.name} needs what {h.name} makes", "of later rounds, for all that is known")


def _in_order(nest: Nest, stage: str, host: str, what: str) -> Nest:
    """The stages such that what is computed in rounds comes before its host, and readers of it come after that."""
    home = {s.name: s.attach[0] for s in nest.stages if s.attach is not None}
    left, out, done = dict.fromkeys(s.name for s in nest.stages), list[Stage](), set[str]()
    needs = {s.name: {p.name for t in s.sources() if (p := nest.producer(t)) is not None} for s in nest.stages}
    for s in (s for s in nest.stages if s.beside is not None):
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
