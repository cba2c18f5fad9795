"""Prefix scans: the state is carried along the scanned axis, one element or one tile at a time, and every prefix is stored.

A stage's scan is canonical (:mod:`dsl.stages`): inclusive, one result for every element. In reverse the loops run from the last element
to the first, so that here every scan goes forward; what comes later in that order stands first in the order of the axis.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from codegen.lower.context import Context
from codegen.lower.prefetch import emit_prefetches
from codegen.lower.reduction import Update, identity_states, lift_masked, widen
from codegen.lower.values import TileAlgebra, predicate
from codegen.tile.ir import Block, For, Reduce, Scan, Value
from dsl.carrier import ANY, SUM, Algebra, Carrier, Values
from dsl.dim import Term, Var, as_term
from dsl.dtype import bool_
from dsl.errors import ScheduleError
from dsl.nest import Stage
from dsl.placing import Placed, PlacedLoop

Pieces = Callable[[Context, Placed, PlacedLoop], list[tuple[Var, Term, Term, list[Term]]]]
Store = Callable[[tuple[Value, ...]], None]


@dataclass
class Along:
    """The loops along a scanned axis at one point of the rows.

    Attributes:
        cx: where the operations go.
        stage: a canonical scan.
        p: where it stands.
        pieces: how a loop is cut into a full and a ragged part.
        attached: emits what is computed at a loop.
        u: the step; ``rows`` the same for states, which have no axis along the scan.

    Raises:
        ScheduleError: the scanned axis has several tile axes.
    """

    cx: Context
    stage: Stage
    p: Placed
    pieces: Pieces
    attached: Callable[[str], None]

    def __post_init__(self) -> None:
        u = Update.of(self.cx, self.stage, self.p)
        if len(u.inner) > 1:
            raise ScheduleError(f"{self.stage.name} is scanned along {len(u.inner)} tile axes", "prefixes follow one order",
                                "tile the scanned axis once")
        if self.stage.body.data[5]:
            u.carrier = _swapped(u.carrier)
        self.u, self.rows = u, replace(u, inner=())

    def emit(self, loops: list[PlacedLoop], store: Store, states: tuple[Value, ...] | None = None) -> tuple[Value, ...]:
        """Prefixes along ``loops``, outermost first, from ``states`` on (the identity when None).

        Returns the states after the last element. ``store`` says what to do with the prefixes of one step.
        """
        if states is None and (loops or not self.u.inner):
            states = identity_states(self.cx, self.rows)
        return self._carry(loops, states, store)

    def _carry(self, loops: list[PlacedLoop], states: tuple[Value, ...] | None, store: Store) -> tuple[Value, ...]:
        if not loops:
            return _step(self.cx, self.u, self.rows, states, store)
        x, cx = loops[0], self.cx
        if x.extent == 1:
            self.attached(x.name)
            return self._carry(loops[1:], states, store)
        assert states is not None
        unroll = int(self.stage.notes.get("unroll_by", {}).get(x.name, 1))
        for var, lo, hi, facts in self.pieces(cx, self.p, x):
            block = Block(params=tuple(Value(s.dtype, s.axes, s.hint) for s in states))
            loop = For(var, lo, hi, states, block, unroll=unroll)
            with cx.block(block, {x.var: as_term(var)}, facts):
                emit_prefetches(cx, self.stage, self.p, x, var)
                self.attached(x.name)
                block.yields = self._carry(loops[1:], block.params, store)
            states = tuple(Value(s.dtype, s.axes, s.hint) for s in states)
            cx.builder.add(loop, *states)
        return states


def _step(cx: Context, u: Update, rows: Update, before: tuple[Value, ...] | None, store: Store) -> tuple[Value, ...]:
    """The prefixes that end in this element, or in each element of this tile; returns the last one."""
    algebra = TileAlgebra(cx)
    lifted = lift_masked(cx, u)
    if not u.inner:
        assert before is not None
        last = tuple(widen(cx, v, rows.axes) for v in u.carrier.combine(algebra, before, lifted))
        store(last)
        return last
    if before is not None:
        first = predicate(cx, (-as_term(u.inner[0]),))
        joined = u.carrier.combine(algebra, before, lifted)
        lifted = tuple(cx.builder.map("where", (first, widen(cx, j, u.axes), v), v.dtype) for j, v in zip(joined, lifted))
    made = cx.builder.add(Scan(u.carrier, lifted, u.inner[0]), *(Value(s.dtype, s.axes, s.hint) for s in lifted))
    prefixes = made if isinstance(made, tuple) else (made,)
    store(prefixes)
    return prefixes if before is None else tuple(_last(cx, v, u.inner[0]) for v in prefixes)


def _last(cx: Context, v: Value, axis: Var) -> Value:
    """The last element along a tile axis: past the end every element is the identity, so it is the state of all.

    As a sum of it and of negative zeros, which change no float.
    """
    at_end = predicate(cx, (as_term(axis) - (axis.size - 1),))
    zero = cx.builder.const(False if v.dtype == bool_ else -0.0 if v.dtype.is_float else 0, v.dtype)
    alone = cx.builder.map("where", (at_end, v, zero), v.dtype)
    kept = tuple(a for a in v.axes if a is not axis)
    last = Reduce(ANY if v.dtype == bool_ else SUM, (alone,), (axis,))
    return cx.builder.define(last, Value(v.dtype, kept, v.hint))


def _swapped(c: Carrier) -> Carrier:
    """The carrier for elements that come in the opposite order."""
    if c.commutative:
        return c

    def combine(a: Algebra, x: Values, y: Values) -> Values:
        return c.combine(a, y, x)

    return replace(c, name=f"{c.name}.swapped", combine=combine)
