"""Schedules by hand: an object whose methods are the primitives, and whose trace can be kept, read and replayed at other sizes.

``s = kernel.schedule("cpu", x, w)`` gives the default schedule to read and change; every method applies one step and returns the
schedule, or raises :class:`dsl.errors.ScheduleError` and changes nothing. Loops are named by where they come from: ``i.o`` and ``i.i`` are
the parts of ``i``. A name that several stages have means the stage in which the others are computed, where there is one; ``"y:i"`` and
``s.stage("y")`` say which.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from dsl.errors import ScheduleError
from dsl.loc import here
from dsl.machine import CPU, Machine
from dsl.naming import Names
from dsl.nest import Nest, Step
from dsl.nest_text import show_nest
from dsl.primitives import axes, beside, epilogue, loops, mapping, placement, recompute, reduction, roll, storage, terms
from dsl.program import Program
from dsl.replay import FORMAT, read_trace, replay
from dsl.tiling import copy_fast, follow_tile, packed_layout, tile

Made = Nest | tuple[Nest, str]


@dataclass
class _Box:
    """What the views of one schedule share."""

    nest: Nest
    machine: Machine
    shown: Callable[[str, Nest], str] | None = None
    origin: Program | None = None


class Schedule:
    """A loop nest on its way, and the steps that made it.

    Args:
        nest: where it starts; its trace begins the schedule's.
        machine: what the steps must fit.
        shown: text of another level of a nest, by the level's name: what :meth:`source` asks.
        origin: the program at the sizes it is made for; at others its axes of one point are kept where these were longer.
    """

    def __init__(self, nest: Nest, machine: Machine = CPU, shown: Callable[[str, Nest], str] | None = None,
                 origin: Program | None = None) -> None:
        self._box = _Box(nest, machine, shown, origin)
        self._focus: str | None = None

    # -- reading -----------------------------------------------------------------------------------------------
    @property
    def nest(self) -> Nest:
        """The nest as it stands."""
        return self._box.nest

    @property
    def names(self) -> Names:
        """What names mean here."""
        return Names(self._box.nest, self._focus)

    @property
    def machine(self) -> Machine:
        """What it is a schedule for."""
        return self._box.machine

    @property
    def origin(self) -> Program | None:
        """The program at the sizes it is made for."""
        return self._box.origin

    @property
    def steps(self) -> tuple[Step, ...]:
        """What was done, in order; those of the heuristics come first in a default schedule, and have no line."""
        return self._box.nest.trace

    @property
    def trace(self) -> list[dict[str, Any]]:
        """:attr:`steps` as plain data for JSON: ``step``, ``args``, and the line ``at`` which it was asked for."""
        return [s.as_data() for s in self.steps]

    def to_json(self) -> str:
        """The trace as text, with the version of its format."""
        return json.dumps({"dlc schedule": FORMAT, "program": self.nest.program.name, "machine": self.machine.name, "steps": self.trace},
                          indent=1)

    def __str__(self) -> str:
        return show_nest(self.nest)

    __repr__ = __str__

    def source(self, level: str = "tile") -> str:
        """The text of the nest at another level: ``tile``, and ``llvm`` and ``asm`` on a CPU or ``triton`` on a GPU.

        Raises:
            ScheduleError: this schedule was made without a compiler behind it.
        """
        if self._box.shown is None:
            raise ScheduleError("this schedule has no compiler behind it", remedy="make it with kernel.schedule(...)")
        return self._box.shown(level, self.nest)

    @staticmethod
    def replay(trace: str | Mapping[str, Any] | Sequence[Any], onto: Schedule | Nest) -> Schedule:
        """The schedule that a trace makes of another nest, that of the same program at other sizes.

        Args:
            trace: :attr:`trace`, :attr:`steps`, or what :meth:`to_json` gave, as text or parsed.
            onto: the plain schedule for those sizes, ``kernel.schedule(..., default=False)``, or an unscheduled nest.

        Raises:
            ScheduleError: it is no trace of this version, or a step is illegal there; the message cites the line that asked for it.
        """
        out = Schedule(onto) if isinstance(onto, Nest) else onto.copy()
        out._box.nest = replay(out.nest, read_trace(trace), out.machine)
        return out

    def copy(self) -> Schedule:
        """Another schedule that begins where this one stands."""
        return Schedule(self.nest, self.machine, self._box.shown, self.origin)

    def stage(self, name: str) -> Schedule:
        """The same schedule with names meaning the loops of one stage first.

        Raises:
            ScheduleError: no such stage.
        """
        out = Schedule.__new__(Schedule)
        out._box, out._focus = self._box, self.names.stage(name).name
        return out

    # -- loops -------------------------------------------------------------------------------------------------
    def split(self, loop: str, factor: int, tail: str = "mask", outer: str = "", inner: str = "") -> Schedule:
        """``for i`` -> ``for i.o: for i.i in factor``; see :func:`dsl.primitives.loops.split`."""
        stage, loop = self.names.loop(loop)
        return self._do(loops.split, stage, loop, factor, outer, inner, tail)

    def tile(self, sizes: Mapping[str, int] | None = None, tail: str = "mask", **named: int) -> Schedule:
        """Split several loops, the outer parts outside; see :func:`dsl.tiling.tile`."""
        wanted = {**(sizes or {}), **named}
        if not wanted:
            raise ScheduleError("tile() without loops", remedy="tile(i=64, j=96)")
        host = self.names.host(next(iter(wanted)))
        return self._do(tile, host, wanted, tail)

    def pad(self, loop: str, multiple: int) -> Schedule:
        """``for j in 50`` -> ``for j.pad in 64``; see :func:`dsl.primitives.loops.pad`."""
        stage, loop = self.names.loop(loop)
        return self._do(loops.pad, stage, loop, multiple)

    def fuse(self, outer: str, inner: str, name: str = "") -> Schedule:
        """``for i: for j`` -> ``for i.j``; see :func:`dsl.primitives.loops.fuse`."""
        stage, outer = self.names.loop(outer)
        return self._do(loops.fuse, stage, outer, self.names.inside(stage, inner), name)

    def reorder(self, *names: str) -> Schedule:
        """Put loops of one stage in this order; see :func:`dsl.primitives.loops.reorder`."""
        if not names:
            raise ScheduleError("reorder() without loops", remedy='reorder("k", "i")')
        stage, first = self.names.loop(names[0])
        return self._do(loops.reorder, stage, [first, *(self.names.inside(stage, x) for x in names[1:])])

    def serial(self, *names: str) -> Schedule:
        """One iteration after another; see :func:`dsl.primitives.loops.set_role`."""
        return self._roles("serial", names)

    def parallel(self, *names: str) -> Schedule:
        """Iterations shared out among threads (programs of a GPU); see :func:`dsl.primitives.loops.set_role`."""
        return self._roles("parallel", names)

    def grid(self, *names: str) -> Schedule:
        """The programs of a launch: on a CPU the same as :meth:`parallel`; see :func:`dsl.primitives.loops.set_role`."""
        return self._roles("grid", names)

    def bind(self, loop: str, role: str) -> Schedule:
        """Give a loop a role by its name; see :func:`dsl.primitives.loops.set_role`."""
        return self._roles(role, (loop,))

    def vectorize(self, *names: str) -> Schedule:
        """Along the lanes; what is computed for the same tile alone follows. See :func:`dsl.primitives.loops.set_role`."""
        return self._roles("vectorize", names)

    def unroll(self, *names: str, by: int | None = None) -> Schedule:
        """Spelled out in registers; ``by=4`` repeats the body of a loop that stays, see :func:`dsl.primitives.mapping.unroll_by`."""
        if by is None:
            return self._roles("unroll", names)
        for name in names:
            self._do(mapping.unroll_by, *self.names.loop(name), by)
        return self

    def dot(self, *names: str) -> Schedule:
        """Reduction loops contracted by a matrix instruction; see :func:`dsl.primitives.loops.set_role`."""
        return self._roles("dot", names)

    tensorize = dot

    def seek(self, *names: str) -> Schedule:
        """Loops that go to the iteration which data names: ``where(ids[k] == r, ..)``; see :func:`dsl.primitives.loops.set_role`."""
        return self._roles("seek", names)

    # -- places ------------------------------------------------------------------------------------------------
    def compute_at(self, stage: str, at: str | None = None) -> Schedule:
        """Compute a stage inside a loop of a reader; see :func:`dsl.primitives.placement.compute_at`.

        With one argument, the stage in focus.
        """
        producer = self.names.stage(stage).name if at is not None else self.names.focused("compute_at")
        return self._do(placement.compute_at, producer, *self.names.place(at if at is not None else stage, producer))

    def compute_root(self, stage: str | None = None) -> Schedule:
        """Give a stage a nest of its own again; see :func:`dsl.primitives.placement.compute_root`."""
        return self._do(placement.compute_root, self.names.named(stage, "compute_root"))

    def compute_inline(self, stage: str | None = None) -> Schedule:
        """Replace the reads of a stage by its definition; see :func:`dsl.primitives.placement.compute_inline`."""
        return self._do(placement.compute_inline, self.names.named(stage, "compute_inline"))

    def reverse_compute_at(self, stage: str, at: str | None = None) -> Schedule:
        """Compute a reader inside a loop of what it reads; see :func:`dsl.primitives.epilogue.reverse_compute_at`."""
        reader = self.names.stage(stage).name if at is not None else self.names.focused("reverse_compute_at")
        return self._do(epilogue.reverse_compute_at, reader, *self.names.place(at if at is not None else stage, reader))

    def compute_beside(self, axis: str, at: str, points: int) -> Schedule:
        """So many points of an axis in every round of another stage's loop; see :func:`dsl.primitives.beside.compute_beside`."""
        stage, loop = self.names.loop(axis)
        return self._do(beside.compute_beside, stage, *self.names.place(at, stage), loop, points)

    def merge(self, first: str, second: str) -> Schedule:
        """Compute two pointwise stages in one set of loops; see :func:`dsl.primitives.placement.merge`."""
        return self._do(placement.merge, self.names.stage(first).name, self.names.stage(second).name)

    def part_axis(self, loop: str, size: int) -> Schedule:
        """Two axes in place of one, of a stage that has no schedule yet; see :func:`dsl.primitives.axes.part_axis`."""
        return self._do(axes.part_axis, *self.names.loop(loop), size)

    def join_axes(self, outer: str, inner: str) -> Schedule:
        """One axis in place of two of a reduction that has no schedule yet; see :func:`dsl.primitives.axes.join_axes`."""
        stage, loop = self.names.loop(outer)
        return self._do(axes.join_axes, stage, loop, self.names.loop(inner)[1])

    def untile(self, stage: str | None = None) -> Schedule:
        """Forget how the loops of a stage, and of what is computed in it, were arranged; see :func:`dsl.primitives.placement.untile`."""
        return self._do(placement.untile, self.names.named(stage, "untile"))

    # -- reductions --------------------------------------------------------------------------------------------
    def rfactor(self, loop: str) -> Schedule:
        """Partial results for every iteration of a reduction loop; see :func:`dsl.primitives.reduction.rfactor`."""
        return self._do(reduction.rfactor, *self.names.loop(loop))

    def define_terms(self, axis: str) -> Schedule:
        """Definitions for what a sum computes of one axis alone; see :func:`dsl.primitives.terms.define_terms`."""
        return self._do(terms.define_terms, *self.names.loop(axis))

    def split_k(self, loop: str, parts: int) -> Schedule:
        """``parts`` partial results of a reduction, each over a chunk of the loop: :meth:`split` and :meth:`rfactor`.

        before::

            for k in 64: y += f(k)

        after ``split_k(k, 4)``::

            y.part: for k.o in 4: for k.i in 16: y.part[k.o] += f(16*k.o + k.i)
            y:      for k.o in 4: y += y.part[k.o]
        """
        stage, loop = self.names.loop(loop)
        return self._do(split_k, stage, loop, parts)

    def roll(self, stage: str, block: int, axis: str = "", share: bool = False) -> Schedule:
        """A chain of reductions in one loop over blocks of an axis; see :func:`dsl.primitives.roll.roll`."""
        return self._do(roll.roll, self.names.stage(stage).name, block, axis, share)

    def region(self, stage: str, loop: str) -> Schedule:
        """Several rows of a rolling stage at a time; see :func:`dsl.primitives.roll.region`."""
        return self._do(roll.region, self.names.stage(stage).name, loop)

    def recompute(self, reader: str, stage: str) -> Schedule:
        """Elements of a reduction that a reader picks by data, on their own; see :func:`dsl.primitives.recompute.recompute`."""
        return self._do(recompute.recompute, self.names.stage(reader).name, self.names.stage(stage).name)

    # -- memory ------------------------------------------------------------------------------------------------
    def cache_read(self, tensor: str, at: str | None = None, name: str = "", dtype: str | None = None) -> Schedule:
        """Read a tensor through a copy, made at a loop of its reader; see :func:`dsl.primitives.storage.cache_read`."""
        place = None if at is None else self.names.place(at, None, tensor)
        reader = self.names.reader(tensor, place)
        return self._do(_cache, reader, tensor, place, name or f"{_word(tensor)}.copy", dtype, None, self.machine.gpu)

    def pack(self, tensor: str, at: str, layout: Sequence[str] | None = None, name: str = "", dtype: str | None = None) -> Schedule:
        """Read a tensor through a copy of the part in use, in the order in which it is read: :meth:`cache_read` and a layout.

        before::

            for j.o: for k.o: for j.i: for k.i: y += x[k] * w[j, k]

        after ``pack(w, at=k.o)``::

            for j.o: for k.o:
              w.packed: for w0 in 16: for w1 in 32: w.packed[w1, w0] = w[w0, w1]      # stored with j last
              for j.i: for k.i: y += x[k] * w.packed[j, k]

        Args:
            tensor: what is copied.
            at: a loop of the reader.
            layout: the index in each storage dimension as a term of the reader's axes, counted from the start of the region, such as
                ``["j // 8", "k", "j % 8"]``; when omitted the axes that the reader sums over come first and the others last.
            name: of the copy's stage.
            dtype: what the elements are converted to.
        """
        place = self.names.place(at, None, tensor)
        reader = self.names.reader(tensor, place)
        return self._do(_cache, reader, tensor, place, name or f"{_word(tensor)}.packed", dtype, list(layout) if layout else [],
                        self.machine.gpu)

    def cache_write(self, stage: str | None = None, name: str = "") -> Schedule:
        """Compute a stage into memory of its own, then copy; see :func:`dsl.primitives.storage.cache_write`."""
        return self._do(storage.cache_write, self.names.named(stage, "cache_write"), name)

    def store_as(self, stage: str, dimensions: Sequence[str]) -> Schedule:
        """Store what a stage computes in another layout; see :func:`dsl.primitives.storage.store_as`."""
        return self._do(storage.store_as, self.names.stage(stage).name, list(dimensions))

    # -- the machine -------------------------------------------------------------------------------------------
    def pipeline(self, loop: str, stages: int) -> Schedule:
        """Loads of later iterations beside the work of earlier ones; see :func:`dsl.primitives.mapping.pipeline`."""
        self.machine.need_gpu("pipeline", "an out-of-order core overlaps iterations by itself", "prefetch, or unroll(..., by=)")
        return self._do(mapping.pipeline, *self.names.loop(loop), stages)

    def prefetch(self, tensor: str, at: str, ahead: int = 1) -> Schedule:
        """Ask early for what later iterations read; see :func:`dsl.primitives.mapping.prefetch`."""
        self.machine.need_cpu("prefetch", "a GPU hides latency by its pipeline", "pipeline")
        stage, loop = self.names.loop(at)
        return self._do(mapping.prefetch, stage, tensor, loop, ahead)

    def swizzle(self, group: int, stage: str | None = None) -> Schedule:
        """Walk the last two parallel loops in groups of rows; see :func:`dsl.primitives.mapping.swizzle`."""
        return self._do(mapping.swizzle, self.names.only_root(stage, "swizzle"), group)

    def warps(self, count: int, stage: str | None = None) -> Schedule:
        """Warps of each program; see :func:`dsl.primitives.mapping.warps`."""
        self.machine.need_gpu("warps", "a CPU has threads, one per core", "parallel")
        return self._do(mapping.warps, self.names.only_root(stage, "warps"), count)

    # -- one step ----------------------------------------------------------------------------------------------
    def _do(self, fn: Callable[..., Made], *args: Any) -> Schedule:
        """Apply a step and give its parts the user's line; nothing has changed when it raises."""
        before = self._box.nest
        made = fn(before, *args)
        nest = made if isinstance(made, Nest) else made[0]
        self.machine.check(nest)
        loc, n = here(), len(before.trace)
        self._box.nest = replace(nest, trace=(*nest.trace[:n], *(replace(s, loc=loc) for s in nest.trace[n:])))
        return self

    def _roles(self, role: str, names: Iterable[str]) -> Schedule:
        found = [self.names.loop(x) for x in names]
        if not found:
            raise ScheduleError(f"{role}() without loops", remedy=f'{role}("i")')
        order = sorted(found, key=lambda x: self.nest[x[0]].order.index(x[1]))
        return self._do(follow_tile, order, role)


# -- composites ----------------------------------------------------------------------------------------------------
def split_k(nest: Nest, stage: str, loop: str, parts: int) -> tuple[Nest, str]:
    """Partial results of a reduction over ``parts`` chunks of a loop: a split and an rfactor."""
    s = nest[stage]
    axis = next((v for v, name in s.axis_names().items() if name == loop and v in s.bound), None)
    if isinstance(parts, bool) or not isinstance(parts, int) or parts < 1:
        raise ScheduleError(f"split_k({loop!r}, {parts}): {parts!r} is not a whole number of at least 1")
    if axis is None or axis.extent is None or not axis.extent.is_const:
        raise ScheduleError(f"split_k({loop!r}, {parts}): {loop} is not an axis that {stage} sums over",
                            remedy="its axes: " + ", ".join(v.name for v in s.bound))
    return reduction.rfactor(loops.split(nest, stage, loop, max(1, -(-axis.extent.const // parts))), stage, f"{loop}.o")


def _cache(nest: Nest, reader: str, tensor: str, place: tuple[str, str] | None, name: str, dtype: str | None, layout: list[str] | None,
           gpu: bool) -> Nest:
    """A copy, where it is made, and how it is stored (None: as the tensor; empty: sums first)."""
    storage.find_tensor(nest, reader, tensor)
    if dtype is not None and dtype not in storage.DTYPES:
        raise ScheduleError(f"no dtype is called `{dtype}`", remedy="one of " + ", ".join(storage.DTYPES))
    nest, copy = storage.cache_read(nest, reader, tensor, name, dtype=None if dtype is None else storage.DTYPES[dtype])
    if place is not None:
        nest = placement.compute_at(nest, copy, *place)
    return nest if layout is None else copy_fast(packed_layout(nest, reader, copy, layout), copy, gpu)


def _word(tensor: str) -> str:
    return tensor.removeprefix("input ")
