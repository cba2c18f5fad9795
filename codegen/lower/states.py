"""States of reductions and scans that lie in memory: where loops over elements run inside those that a state is carried along."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from codegen.lower.context import Context
from codegen.tile.ir import Buffer, Load, Store, Value
from codegen.tile.layout import contiguous
from dsl.dim import ZERO, Term, Var, as_term
from dsl.dtype import Dtype
from dsl.errors import ScheduleError
from dsl.nest import Stage
from dsl.placing import PlacedLoop


@dataclass(frozen=True)
class StateMemory:
    """One private buffer for each component of a state.

    It has an element for every iteration of ``loops`` and every point of the tile ``axes``.
    """

    buffers: tuple[Buffer, ...]
    loops: tuple[PlacedLoop, ...]
    axes: tuple[Var, ...]

    @staticmethod
    def of(cx: Context, stage: Stage, loops: Sequence[PlacedLoop], axes: tuple[Var, ...], dtypes: Sequence[Dtype]) -> StateMemory:
        """Memory for the states of a stage.

        Raises:
            ScheduleError: a loop whose number of iterations is not known.
        """
        shape = tuple([x.extent.subs(cx.env) for x in loops] + [as_term(a.size) for a in axes])
        if not all(n.is_const for n in shape):
            raise ScheduleError(
                f"{stage.name}: loops over its elements run inside those of its {stage.kind}, so their states are kept in memory",
                f"its size, {' x '.join(map(str, shape))}, is not known", "move them outside")
        buffers = tuple(Buffer(cx.unique(f"{stage.name}_state"), d, shape, contiguous(shape), "scratch") for d in dtypes)
        cx.scratch.extend(buffers)
        return StateMemory(buffers, tuple(loops), axes)

    def _slots(self, cx: Context) -> tuple[Term, ...]:
        at = [ZERO if x.extent.is_const and x.extent.const == 1 else as_term(x.var).subs(cx.env) for x in self.loops]
        return (*at, *map(as_term, self.axes))

    def load(self, cx: Context) -> tuple[Value, ...]:
        """The states of the element that the loops are at."""
        slots = self._slots(cx)
        return tuple(cx.builder.add(Load(b, slots, cx.unproved(self._inside(slots))), Value(b.dtype, self.axes, "state"))
                     for b in self.buffers)

    def store(self, cx: Context, states: Sequence[Value]) -> None:
        """Keep the states of the element that the loops are at."""
        slots = self._slots(cx)
        for b, v in zip(self.buffers, states):
            cx.builder.add(Store(b, slots, v, cx.unproved(self._inside(slots))))

    def _inside(self, slots: tuple[Term, ...]) -> list[Term]:
        return [t for s, n in zip(slots, self.buffers[0].shape) for t in (s, n - 1 - s)]
