"""The primitive that turns a derived cascade into one pass: a loop over blocks of the reduced axis that carries the states.

Before, for every row: ``m = max[k] x[k]``, ``s = sum[k] exp(x[k] - m)``, and whatever reads them. After, a rolling stage with the states
``m`` and ``s`` and, attached in its loop over blocks ``b`` of ``k``::

    m.new[b]   = max of m.before[b] and max[k in block] x[k]
    shift[b]   = -m.new[b]                                  (0 while nothing has been seen)
    factor[b]  = exp(-m.new[b] - -m.before[b])              (0 where nothing had been seen)
    w[b, k]    = exp(x[k] + shift[b])
    s.new[b]   = s.before[b] * factor[b] + sum[k in block] w[b, k]

so every block is several plain stages over a tile, and the correction is made once for a block and not for an element. All formulas are
those of :mod:`dsl.cascade`; nothing here knows an operator.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from dsl.algebra import EXPRS, reads, substitute, substitute_values
from dsl.carrier import MOMENTS, SUM, Carrier, resuming
from dsl.cascade import derive
from dsl.cascade.guards import guarded_product, guards
from dsl.cascade.merge import action, base_of, moved, shift
from dsl.cascade.model import Accumulator, Cascade, Weight
from dsl.dim import Term, Var, as_term, cdiv, tmin
from dsl.errors import ScheduleError
from dsl.expr import Compute, Const, Expr, Read, Reduce, Tensor, cast, const, index, op, where
from dsl.nest import Nest, Stage, State
from dsl.primitives.merged import merge_parts
from dsl.primitives.record import primitive
from dsl.primitives.reduction import neutral_input
from dsl.primitives.rolled import arranged, bare, parted, region, with_pass

_SUMS = (SUM.name, "sum.partial")


@primitive
def roll(nest: Nest, stage: str, block: int, axis: str = "", share: bool = False, parts: int = 1,
         again: bool = False) -> tuple[Nest, str]:
    """Compute the chain of reductions that a stage belongs to in one loop over blocks of an axis.

    before::

        m: for i: for k: m[i] = max[k](x[i, k])
        s: for i: for k: s[i] = sum[k](exp(x[i, k] - m[i]))

    after ``roll(m, 512)``::

        m.roll: for i
                  for k_b in K/512
                    m.new: for k in 512      # the maximum so far
                    weights: for k in 512    # exp(x - the maximum so far)
                    sum.new: for k in 512    # the sum so far, rescaled once

    Args:
        nest: a nest whose reductions are not scheduled yet.
        stage: one of the reductions, as :func:`dsl.cascade.derive` finds their chains.
        block: points of the axis in a block.
        axis: the name of the reduced axis that is cut into blocks; the longest when empty.
        share: whether values that several states are made of are computed once for a block and kept.
        parts: how many passes, each over a share of the blocks, are made and merged in the end: for few rows.
        again: whether what the elements are made of is computed for a block at a time although others read it too, and compute it again
            or keep all of it.

    Returns:
        The new nest, and the name of the rolling stage: a root until it is placed.

    Raises:
        ScheduleError: the stage belongs to no chain, no such axis, or the ragged last block of a carrier without neutral element.
    """
    c = next((c for c in derive(nest).cascades if any(x.stage == stage for x in c.components)), None)
    if c is None:
        raise ScheduleError(f"roll({stage!r}): {stage} shares its axis with no other reduction",
                            "kernel.explain() tells which do, and why others do not")
    along = max(c.axes, key=lambda v: v.extent.const if v.extent is not None and v.extent.is_const else 0)
    if axis:
        along = next((v for v in c.axes if v.name == axis), None)  # type: ignore[assignment]
    if along is None:
        raise ScheduleError(f"roll({stage!r}): {axis} is not an axis it reduces", remedy="one of " + ", ".join(v.name for v in c.axes))
    if not all(v.extent is not None and v.extent.is_const for v in c.axes):
        raise ScheduleError(f"roll({stage!r}): the number of elements is not known", remedy="a nest of known sizes")
    return _Roll(nest, c, along, block, f"{stage}.roll", share, parts, again).run()


@dataclass
class _Roll:
    """The stages as they are made, over canonical variables: rows, extra axes, the block ``at`` and the point ``inner`` in it."""

    nest: Nest
    c: Cascade
    axis: Var
    block: int
    name: str
    share: bool
    parts: int = 1
    again: bool = False
    made: list[Stage] = field(default_factory=list)
    last: list[Stage] = field(default_factory=list)
    states: list[tuple[Tensor, State, Compute, tuple[Var, ...]]] = field(default_factory=list)
    before: dict[Expr, Expr] = field(default_factory=dict)
    after: dict[Expr, Expr] = field(default_factory=dict)
    tiles: dict[tuple[object, ...], Expr] = field(default_factory=dict)
    shifts: dict[tuple[object, ...], Expr] = field(default_factory=dict)

    def run(self) -> tuple[Nest, str]:
        """Make the stages, then the nest."""
        assert self.axis.extent is not None
        each = cdiv(cdiv(self.axis.extent, self.block), self.parts)
        self.at = Var(f"{self.axis.name}_b", each)
        self.part = Var(f"{self.axis.name}_p", as_term(self.parts))
        self.inner = Var(self.axis.name, as_term(self.block))
        first = as_term(self.at) + (as_term(self.part) * each if self.parts > 1 else 0)
        self.point = first * self.block + as_term(self.inner)
        self.rows = (self.part, *self.c.rows) if self.parts > 1 else self.c.rows
        self.bound = tuple(self.inner if v is self.axis else v for v in self.c.axes)
        self.whole = self.axis.extent == each * self.parts * self.block
        self._factors()
        for acc in self.c.accumulators:
            if acc.carrier is MOMENTS:
                self._moments(acc)
            elif acc.weight is None:
                self._plain(acc)
            else:
                self._weighted(acc, acc.weight)
        return self._assemble()

    # -- pieces ------------------------------------------------------------------------------------------------------
    def _local(self, e: Expr) -> Expr:
        """An expression over the reduced axis at a point of the block."""
        return substitute(e, {self.axis: self.point})

    def _inside(self, e: Expr, neutral: Expr) -> Expr:
        """The element, and what changes nothing past the end of the axis."""
        assert self.axis.extent is not None
        return e if self.whole else where(op("lt", index(self.point), index(self.axis.extent)), e, neutral)

    def _define(self, name: str, axes: Sequence[Var], body: Expr | Sequence[Expr], last: bool = False) -> tuple[Compute, ...]:
        """A stage over the block and some canonical axes, with variables of its own."""
        bodies = list(body) if not isinstance(body, Expr) else [body]
        canonical = (self.at, *axes)
        own = tuple(Var(v.name, v.extent) for v in canonical)
        bound = bodies[0].axes if isinstance(bodies[0], Reduce) else ()
        fresh = tuple(Var(v.name, v.extent) for v in bound)
        env: dict[Var, Term] = {v: as_term(o) for v, o in zip((*canonical, *bound), (*own, *fresh))}
        unique = self._unique(name)
        tensors = []
        for n, b in enumerate(bodies):
            new = substitute(b, env)
            if isinstance(b, Reduce):
                new = Reduce(tuple(substitute(a, env) for a in b.args), (b.carrier, fresh, b.out), b.dtype, b.loc)
            tensors.append(Compute(unique if len(bodies) == 1 else f"{unique}{n}", own, new, self.c.components[0].tensor.loc))
        s = Stage(unique, tuple(tensors), own, fresh, attach=(self.name, self.at.name))
        (self.last if last else self.made).append(replace(s, order=tuple(s.axis_names().values())))
        return tuple(tensors)

    def _unique(self, name: str) -> str:
        taken = {s.name for s in (*self.nest.stages, *self.made, *self.last)}
        n, out = 1, name
        while out in taken:
            out, n = f"{name}{n}", n + 1
        return out

    def _read(self, t: Tensor, axes: Sequence[Var]) -> Expr:
        return t.read(index(self.at), *(index(v) for v in axes))

    def _state(self, acc: Accumulator, n: int, initial: Expr) -> Expr:
        """Declare a carried state; the read of the value before the block."""
        axes = (*self.rows, *acc.extra)
        shape = tuple(v.extent for v in (self.at, *axes) if v.extent is not None)
        t = acc.state[n]
        before = Tensor(f"{t.name}.before", shape, t.dtype, acc.loc)
        read = self._read(before, axes)
        self.before[acc.read(self.c.rows, n)] = read
        self.states.append((t, State(before, initial), None, axes))  # type: ignore[arg-type]
        return read

    def _becomes(self, acc: Accumulator, n: int, after: Compute) -> None:
        """The value after the block."""
        self.after[acc.read(self.c.rows, n)] = self._read(after, (*self.rows, *acc.extra))
        self.states = [(t, s, after if t is acc.state[n] else a, axes) for t, s, a, axes in self.states]

    def _initial(self, acc: Accumulator) -> list[Expr]:
        values = acc.carrier.identity(EXPRS, tuple(t.dtype for t in acc.state))
        return [v for v in values if isinstance(v, Expr)]

    # -- products with what depends on rows and the block ----------------------------------------------------------------
    def _factors(self) -> None:
        """Tiles of the factors of plain sums that lack the sums' own axes, all of one shape in one stage: they share what they compute."""
        found: dict[tuple[Var, ...], dict[Expr, Expr]] = {}
        for acc in self.c.accumulators:
            if acc.carrier.name in _SUMS and acc.weight is None and acc.extra:
                shared, rest = parted(acc.inputs[0], frozenset(acc.extra))
                if shared is None or rest is None or isinstance(bare(shared), (Read, Const)):
                    continue
                axes = tuple(v for v in (*self.c.rows, *self.c.axes) if v in shared.free)
                conditions, value = guarded_product(shared)
                for g in dict.fromkeys(reversed(conditions)):
                    value = where(g, value, const(0.0, shared.dtype))
                found.setdefault(axes, {})[shared] = self._inside(self._local(value), const(0.0, shared.dtype))
        for axes, bodies in found.items():
            here = tuple(self.inner if v is self.axis else v for v in ((self.part,) if self.parts > 1 else ()) + axes)
            tensors = self._define("values", here, list(bodies.values()))
            self.tiles |= {("factor", id(e)): self._read(t, here) for e, t in zip(bodies, tensors)}

    def _product(self, acc: Accumulator) -> Expr | None:
        """The element of a plain sum as the product of such a tile and the rest."""
        if acc.carrier.name not in _SUMS or not acc.extra:
            return None
        shared, rest = parted(acc.inputs[0], frozenset(acc.extra))
        tile = self.tiles.get(("factor", id(shared)))
        return None if tile is None or rest is None else op("mul", tile, self._local(rest))

    # -- one accumulator -----------------------------------------------------------------------------------------------
    def _plain(self, acc: Accumulator) -> None:
        """States that earlier results do not touch: the reduction goes on from the value before."""
        before = [self._state(acc, n, e) for n, e in enumerate(self._initial(acc))]
        made = self._product(acc)
        if made is not None:
            self._reduce(acc, SUM, (made,), before)
            return
        elements = tuple(self._local(e) for e in acc.inputs)
        if not self.whole:
            probe = Reduce(elements, (acc.carrier, self.bound, 0), acc.state[0].dtype)
            neutral = [neutral_input(probe, n) for n in range(len(elements))]
            if any(n is None for n in neutral):
                raise ScheduleError(f"`{acc.carrier}` has no neutral input", "the last block is ragged", "a block that divides the axis")
            elements = tuple(self._inside(e, cast(n, e.dtype)) for e, n in zip(elements, neutral))
        if self.share:
            elements = tuple(self._tile(e, acc) for e in elements)
        self._reduce(acc, acc.carrier, elements, before)

    def _reduce(self, acc: Accumulator, carrier: Carrier, elements: tuple[Expr, ...], start: Sequence[Expr]) -> None:
        dtypes = tuple(e.dtype for e in elements)
        c = resuming(carrier, dtypes)
        bodies = [Reduce((*elements, *start), (c, self.bound, n), t.dtype, acc.loc) for n, t in enumerate(acc.state)]
        for n, t in enumerate(self._define(f"{acc.name}.new", (*self.rows, *acc.extra), bodies)):
            self._becomes(acc, n, t)

    def _weighted(self, acc: Accumulator, w: Weight) -> None:
        """``a <- A . a (+) sum of weighted elements at the new earlier results``."""
        (before,) = (self._state(acc, n, e) for n, e in enumerate(self._initial(acc)))
        new, factor, _ = self._shifts(w)
        if acc.centred is not None:
            _, _, step = self._shifts(acc.centred)
            below = self.before[base_of(acc, self.c).read(self.c.rows)]
            before = op("add", before, op("mul", step, below))
        start = op("mul", before, factor)
        weight = self._weights(acc, w, new)
        element = self._local(acc.inputs[0])
        if acc.centred is not None:
            shifted = op("add", self._local(acc.centred.data), self._shifts(acc.centred)[0])
            element = shifted if isinstance(element, Const) and element.value == 1 else op("mul", element, shifted)
        if isinstance(element, Const) and element.value == 1:
            element = weight
        else:
            if acc.extra and not isinstance(bare(element), Read):
                element = self._tile(self._inside(element, const(0.0, element.dtype)), acc)
            element = op("mul", weight, element)
        self._reduce(acc, SUM, (element,), (start,))

    def _shifts(self, w: Weight) -> tuple[Expr, Expr, Expr]:
        """(shift of the exponent, factor of the states before, step of the shift) of a block."""
        if w.key() not in self.shifts:
            e = self.c.resolve(w.earlier)
            old, new = substitute_values(e, self.before), substitute_values(e, self.after)
            shifted, = self._define("shift", self.rows, shift(EXPRS, w, new))
            factor, = self._define("factor", self.rows, action(EXPRS, w, old, new))
            self.shifts[w.key()] = self._read(shifted, self.rows)
            self.shifts[(*w.key(), "factor")] = self._read(factor, self.rows)
            self.shifts[(*w.key(), "step")] = moved(EXPRS, old, new)
        return self.shifts[w.key()], self.shifts[(*w.key(), "factor")], self.shifts[(*w.key(), "step")]

    def _weights(self, acc: Accumulator, w: Weight, shifted: Expr) -> Expr:
        """The tile of weights, made once for all sums of the same weights."""
        key = ("weights", w.key(), *acc.key()[4:])
        if key not in self.tiles:
            e = op(w.base, op("add", self._local(w.data), shifted))
            if acc.inside is not None:
                e = op("mul", e, self._local(acc.inside))
            if acc.rounding is not None:
                e = cast(cast(e, acc.rounding), e.dtype)
            for g in acc.guards:
                e = where(self._local(g), e, const(0.0, e.dtype))
            e = self._inside(e, const(0.0, e.dtype))
            own = tuple(v for v in acc.extra if v in e.free)
            (t,) = self._define("weights", (*self.rows, *own, *self.bound), e)
            self.tiles[key] = self._read(t, (*self.rows, *own, *self.bound))
        return self.tiles[key]

    def _tile(self, e: Expr, acc: Accumulator) -> Expr:
        """A tile of values over the axes they depend on."""
        if isinstance(bare(e), (Read, Const)) or not e.free & set(self.bound):
            return e
        key = ("tile", id(e))
        if key not in self.tiles:
            axes = tuple(v for v in (*self.rows, *acc.extra, *self.bound) if v in e.free)
            (t,) = self._define("values", axes, e)
            self.tiles[key] = self._read(t, axes)
        return self.tiles[key]

    def _moments(self, acc: Accumulator) -> None:
        """Two passes over the block, then a merge: the count is known."""
        if self.parts > 1:
            raise ScheduleError(f"roll: the pass of {acc.name} is not parted", "the last part may hold no values", "parts = 1")
        assert self.axis.extent is not None
        rows, dtype = (*self.rows, *acc.extra), acc.state[1].dtype
        others = 1
        for v in self.c.axes:
            others *= v.extent.const if v is not self.axis and v.extent is not None else 1
        mean, square = (self._state(acc, n, const(0.0, dtype)) for n in (1, 2))
        seen = cast(index(as_term(self.at) * self.block * others), dtype)
        here = cast(index(tmin(as_term(self.block), self.axis.extent - as_term(self.at) * self.block) * others), dtype)
        x, zero = self._local(acc.inputs[0]), const(0.0, dtype)
        total, = self._define(f"{acc.name}.sum", rows, Reduce((self._inside(cast(x, dtype), zero),), (SUM, self.bound, 0), dtype, acc.loc))
        local, = self._define(f"{acc.name}.mean", rows, op("div", self._read(total, rows), here))
        centre = op("sub", cast(x, dtype), self._read(local, rows))
        part, = self._define(f"{acc.name}.square", rows,
                             Reduce((self._inside(op("mul", centre, centre), zero),), (SUM, self.bound, 0), dtype, acc.loc))
        merged = MOMENTS.combine(EXPRS, (seen, mean, square), (here, self._read(local, rows), self._read(part, rows)))
        for n in (2, 1):
            new, = self._define(f"{acc.name}.new", rows, merged[n])
            self._becomes(acc, n, new)
        count = const(float(_count(self.c.axes)), dtype)
        self.before[acc.read(self.c.rows, 0)] = self.after[acc.read(self.c.rows, 0)] = count

    # -- the nest ------------------------------------------------------------------------------------------------------
    def _assemble(self) -> tuple[Nest, str]:
        self._keep()
        rows = tuple(Var(v.name, v.extent) for v in self.rows)
        at = Var(self.at.name, self.at.extent)
        finals: list[Compute] = []
        known: dict[Expr, Expr] = {k: v for k, v in self.after.items() if isinstance(v, Const)}
        for t, _, after, axes in self.states:
            extra = tuple(Var(v.name, v.extent) for v in axes[len(rows):])
            final = Compute(t.name, (*rows, *extra), after.read(index(at), *(_point(v) for v in (*rows, *extra))), t.loc)
            finals.append(final)
            known[t.read(*(index(v) for v in axes[self.parts > 1:]))] = final.read(*(index(v) for v in axes))
        host = Stage(self.name, tuple(finals), rows, (at,), states=tuple(s for _, s, _, _ in self.states))
        names = host.axis_names()
        env = {v: as_term(o) for v, o in zip((*self.rows, self.at), (*rows, at))}
        terms = [g.subs({self.axis: self.point}).subs(env) for g in guards(self.c)]
        if not self.whole and self.axis.extent is not None:
            terms.append(self.axis.extent - 1 - self.point.subs(env))
        host = replace(host, order=tuple(names.values()), notes={"guards": tuple(terms), "inner": self.bound})
        loop = names[at]
        attached = [replace(s, attach=(self.name, loop)) for s in (*self.made, *self.last)]
        merges: list[Stage] = []
        if self.parts > 1:
            merges, known = merge_parts(self.c, self.part, known, self.name)
        results, replaced = self._results(known)
        whole = with_pass(self.nest, [*attached, host, *merges, *results], replaced, {c.stage for c in self.c.components})
        return arranged(whole, host.name, self.again), host.name

    def _keep(self) -> None:
        """A state whose old value others read is copied when the block is done; the rest are brought up to date where they lie."""
        for n, (t, s, after, axes) in enumerate(self.states):
            users = [x for x in self.made if any(r.tensor is s.before for b in x.tensors for r in reads(b.body))]
            if any(after not in x.tensors for x in users):
                kept, = self._define(f"{t.name}.keep", axes, self._read(after, axes), last=True)
                self.states[n] = (t, s, kept, axes)

    def _results(self, known: Mapping[Expr, Expr]) -> tuple[list[Stage], dict[Tensor, Tensor]]:
        """The user's reductions as pointwise definitions over the final states."""
        stages: list[Stage] = []
        replaced: dict[Tensor, Tensor] = {}
        for x in self.c.components:
            own = tuple(Var(v.name, v.extent) for v in x.axes)
            value = substitute_values(self.c.resolve(x.read()), known)
            body = cast(substitute(value, {v: as_term(o) for v, o in zip(x.axes, own)}), x.tensor.dtype)
            new = Compute(x.tensor.name, own, body, x.tensor.loc, x.tensor.dtype)
            replaced[x.tensor] = new
            label = x.stage if x.tensor is self.nest[x.stage].tensors[0] else f"{x.stage}.{x.tensor.name}"
            s = Stage(label, (new,), own)
            stages.append(replace(s, order=tuple(s.axis_names().values())))
        return stages, replaced


def _point(v: Var) -> Expr:
    """Any point along an axis: the first where there is just one."""
    return index(0) if v.extent is not None and v.extent == 1 else index(v)


def _count(axes: Iterable[Var]) -> int:
    n = 1
    for v in axes:
        n *= v.extent.const if v.extent is not None else 1
    return n


__all__ = ["region", "roll"]
