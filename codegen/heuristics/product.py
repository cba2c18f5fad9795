"""A contraction with its axes in their parts: which lies along the lanes, which along the rows, and which factor has which."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from codegen.analysis.access import Strides, accesses, paired_reads, read_access, size
from codegen.heuristics.packing import separable
from dsl.dim import Term, Var, as_term
from dsl.dtype import Dtype
from dsl.expr import Read
from dsl.nest import Stage

LONG = 16  # terms that are worth adding up in lanes
_DEEP = 64  # terms after which it matters little how a result is stored
COPIED = 8  # results that an element goes into, which repay a copy of it
_BROAD = 16  # lanes that fill the vectors of a register tile
_ROWS = 6  # rows that fill a register tile


@dataclass(frozen=True)
class Product:
    """A contraction with its axes in their parts.

    Attributes:
        stage: the contraction.
        lane, row: the axes of the register tile; no row axis for the product of a matrix and a vector.
        lanes, rows: the factor that has the lane axis, and the one without it; either may be missing (a lane axis of both).
    """

    stage: Stage
    lane: Var
    row: Var | None
    lanes: Read | None
    rows: Read | None

    @property
    def depth(self) -> int:
        """Terms of each sum."""
        out = 1
        for v in self.stage.bound:
            out *= size(v.extent)
        return out

    @property
    def flops(self) -> int:
        """Operations of the whole product."""
        out = 2 * self.depth
        for v in self.stage.axes:
            out *= size(v.extent)
        return out

    @property
    def accumulator(self) -> Dtype:
        """The dtype that sums are kept in."""
        body = self.stage.body
        state: Dtype = body.data[0].state(tuple(a.dtype for a in body.args))[0]
        return state

    @property
    def wider(self) -> Dtype | None:
        """The accumulator's dtype where a factor must be converted to it before it is multiplied."""
        return self.accumulator if any(r is not None and r.dtype != self.accumulator for r in (self.lanes, self.rows)) else None

    @property
    def columns(self) -> int:
        """Extent of the lane axis."""
        return size(self.lane.extent)

    @property
    def lines(self) -> int:
        """Extent of the row axis."""
        return size(self.row.extent) if self.row is not None else 1

    @property
    def reuse(self) -> int:
        """How many results each element of the lane factor goes into."""
        return math.prod(size(v.extent) for v in self.stage.axes if self.lanes is None or v not in self.lanes.free)

    def walk(self, strides: Strides) -> tuple[Var, ...]:
        """The reduction axes, outermost first, as the row factor lies in memory: each row of a tile is read along its cache lines."""
        sides = [read_access(r, strides) for r in (self.rows, self.lanes) if r is not None]
        return tuple(sorted(self.stage.bound, key=lambda v: -next((n for x in sides if (n := x.stride(v))), 0)))

    def contiguous_lanes(self, strides: Strides) -> bool:
        """Whether the lane factor can be loaded as it lies."""
        return self.lanes is None or self.panel is not None or read_access(self.lanes, strides).stride(self.lane) == 1

    @property
    def batch(self) -> tuple[Var, ...]:
        """Axes of both factors: each of their points is a product of its own."""
        return both(self.stage, (self.lanes, self.rows))

    @property
    def panel(self) -> int | None:
        """The width of the panels that the lane factor is kept in; None where it is not."""
        return None if self.lanes is None else panelled(self.lanes, self.lane)

    def contiguous_terms(self, strides: Strides) -> Var | None:
        """The reduction axis along which both factors are contiguous, when there is one that is long enough for lanes."""
        sides = [read_access(r, strides) for r in (self.lanes, self.rows) if r is not None]
        return next((v for v in self.stage.bound if len(sides) == 2 and size(v.extent) >= LONG and all(x.stride(v) == 1 for x in sides)),
                    None)


def both(s: Stage, sides: tuple[Read | None, ...]) -> tuple[Var, ...]:
    """The spatial axes that both factors have."""
    return tuple(v for v in s.axes if all(r is not None and v in r.free for r in sides))


def analyse(s: Stage, strides: Strides, written: Mapping[Var, int] | None = None) -> Product:
    """Choose the axes of the register tile: lanes where result and factor are contiguous, rows along an axis only the other factor has.

    ``written`` are the strides of what is stored, by the contraction's axes, where that is not the contraction itself.
    """
    sides = paired_reads(s.body.args[0], s.bound)
    assert sides is not None
    lane, row = _choose_axes(s, sides, strides, result_strides(s, strides) if written is None else written)
    return Product(s, lane, row, next((r for r in sides if lane in r.free), None), next((r for r in sides if lane not in r.free), None))


def _choose_axes(s: Stage, sides: tuple[Read, Read], strides: Strides, written: Mapping[Var, int]) -> tuple[Var, Var | None]:
    """(lane axis, row axis)."""
    spatial = [v for v in s.axes if size(v.extent) > 1] or list(s.axes)

    batch = both(s, sides)
    deep = math.prod(size(v.extent) for v in s.bound) >= _DEEP

    def ease(r: Read, v: Var) -> int:
        return 2 if panelled(r, v) or read_access(r, strides).stride(v) == 1 else 1 if separable(r, v, batch) else 0

    def fitness(v: Var) -> tuple[bool, bool, bool, bool, bool, bool, bool, int, int]:
        mine = [r for r in sides if v in r.free]
        loads = min((ease(r, v) for r in mine), default=0)
        shared = math.prod(size(a.extent) for a in spatial if not any(a in r.free for r in mine))
        still = not deep or size(v.extent) >= _BROAD and not any(_slides(r, v, s.bound) for r in sides)
        once = not any(_slides(r, a, s.bound) for r in mine for a in spatial)
        return (len(mine) < len(sides), loads > 0, size(v.extent) >= 8, loads > 1 or shared >= COPIED, still, written.get(v) == 1,
                once, loads, min(size(v.extent), 64))

    lane = max(spatial, key=fitness)
    rows = [v for v in spatial if v is not lane and any(v in r.free and lane not in r.free for r in sides)]
    shared = [v for v in rows if all(v not in r.free for r in sides if lane in r.free)]
    return lane, max(shared or rows, key=lambda v: (min(size(v.extent), _ROWS), -written.get(v, 1 << 60), size(v.extent)), default=None)


def _slides(r: Read, v: Var, bound: tuple[Var, ...]) -> bool:
    """Whether an axis is read through a window that the sum moves along it: lanes would begin anywhere in their cache lines."""
    return any(isinstance(i, Term) and v in i.vars and any(size(b.extent) > 1 and b in i.vars for b in bound) for i in r.indices)


def panelled(r: Read, v: Var) -> int | None:
    """The width of the panels that a read walks through along an axis: ``w[v // n, .., v % n]`` of a tensor whose last dimension is n."""
    first, last = (r.indices[0], r.indices[-1]) if r.tensor.ndim > 1 else (None, None)
    width = r.tensor.shape[-1].const if r.tensor.ndim > 1 and r.tensor.shape[-1].is_const else 0
    if width < 2 or any(v in (i.vars if isinstance(i, Term) else i.free) for i in r.indices[1:-1]):
        return None
    return width if first == as_term(v) // width and last == as_term(v) % width else None


def result_strides(s: Stage, strides: Strides) -> dict[Var, int]:
    """Elements between neighbours along each axis of a stage's result."""
    x = next(x for x in accesses(s, strides) if x.write)
    return {v: n for v in s.axes if (n := x.stride(v)) is not None}
