"""Primitives that say how the machine runs a loop or a stage, without changing which iterations there are."""

from __future__ import annotations

from dsl.errors import ScheduleError
from dsl.nest import GRID_ROLES, TILE_ROLES, Nest, Stage
from dsl.primitives.loops import annotate
from dsl.primitives.record import primitive
from dsl.primitives.storage import find_tensor


@primitive
def unroll_by(nest: Nest, stage: str, loop: str, count: int) -> Nest:
    """Repeat the body of a serial loop, so that it is tested less often.

    before::

        for k in 50: f(k)

    after ``unroll(k, by=4)``::

        for k.4 in 12: f(4*k.4); f(4*k.4 + 1); f(4*k.4 + 2); f(4*k.4 + 3)
        for k in 48..50: f(k)

    Raises:
        ScheduleError: no such loop, one that is not serial, or a count below 1.
    """
    _serial(nest[stage], loop, f"unroll({loop!r}, by={count})")
    _positive(count, f"unroll({loop!r}, by={count})")
    return annotate(nest, stage, "unroll_by", count, loop)


@primitive
def pipeline(nest: Nest, stage: str, loop: str, stages: int) -> Nest:
    """Overlap the loads of later iterations of a loop with the work of earlier ones (GPUs).

    before::

        for k.o in 8: load(k.o); work(k.o)

    after ``pipeline(k.o, 3)``::

        load(0); load(1)
        for k.o in 8: load(k.o + 2); work(k.o)      # copies in flight, in three buffers

    Raises:
        ScheduleError: no such loop, one that is not serial, or a number below 1.
    """
    _serial(nest[stage], loop, f"pipeline({loop!r}, {stages})")
    _positive(stages, f"pipeline({loop!r}, {stages})")
    return annotate(nest, stage, "pipeline", stages, loop)


@primitive
def prefetch(nest: Nest, stage: str, tensor: str, loop: str, ahead: int = 1) -> Nest:
    """Ask for the elements that a later iteration of a loop reads, so that they are in the cache by then (CPUs).

    before::

        for k in 64: y += x[k, j] * w[k]

    after ``prefetch(x, at=k, ahead=4)``::

        for k in 64: prefetch x[k + 4, j]; y += x[k, j] * w[k]

    Raises:
        ScheduleError: no such loop, one that is not serial, a number below 1, or the stage does not read the tensor.
    """
    what = f"prefetch({tensor!r}, at={loop!r})"
    s = nest[stage]
    _serial(s, loop, what)
    _positive(ahead, what)
    find_tensor(nest, stage, tensor)
    known = dict(s.notes.get("prefetch", {}).get(loop, {}))
    return annotate(nest, stage, "prefetch", {**known, tensor: ahead}, loop)


@primitive
def swizzle(nest: Nest, stage: str, group: int) -> Nest:
    """Walk the last two parallel loops in groups of rows, column by column, so that neighbours share what they read.

    before::

        for i.o in 64          # grid
          for j.o in 64        # grid

    after ``swizzle(8)``::

        for g in 8             # grid
          for j.o in 64        # grid
            for r in 8         # grid; i.o = 8*g + r

    Raises:
        ScheduleError: fewer than two parallel loops, or a group below 1.
    """
    s = nest[stage]
    _positive(group, f"swizzle({group})")
    grid = [x for x in s.order if s.role(x) in GRID_ROLES]
    if len(grid) < 2:
        raise ScheduleError(f"swizzle({group}): {stage} has {len(grid)} parallel loops", "rows and columns are walked in another order",
                            "make two loops parallel or grid first")
    return annotate(nest, stage, "group", group)


@primitive
def warps(nest: Nest, stage: str, count: int) -> Nest:
    """Give each program of a stage's grid so many warps (GPUs).

    before::

        kernel: grid 64, 4 warps

    after ``warps(8)``::

        kernel: grid 64, 8 warps

    Raises:
        ScheduleError: not a power of two from 1 to 32, or the stage is computed inside another.
    """
    s = nest[stage]
    if s.attach is not None:
        raise ScheduleError(f"warps({count}): {stage} is computed inside {s.attach[0]}", "a kernel has one number of warps",
                            f"stage({s.attach[0]!r}).warps")
    if isinstance(count, bool) or not isinstance(count, int) or count not in (1, 2, 4, 8, 16, 32):
        raise ScheduleError(f"warps({count}): a program has 1, 2, 4, 8, 16 or 32 warps")
    return annotate(nest, stage, "warps", count)


def _serial(s: Stage, loop: str, what: str) -> None:
    if loop not in s.order:
        raise ScheduleError(f"{s.name} has no loop `{loop}`", remedy="its loops are " + ", ".join(s.order) if s.order else "it has none")
    if s.role(loop) in TILE_ROLES | GRID_ROLES:
        raise ScheduleError(f"{what}: {loop} is {s.role(loop)}", "its iterations do not follow one another", "a serial loop")


def _positive(n: int, what: str) -> None:
    if isinstance(n, bool) or not isinstance(n, int) or n < 1:
        raise ScheduleError(f"{what}: {n!r} is not a whole number of at least 1")
