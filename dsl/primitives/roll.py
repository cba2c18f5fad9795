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

from collections.abc import Mapping, Sequence
from dataclasses import replace

from dsl.algebra import EXPRS, reads, substitute, substitute_values
from dsl.carrier import COMOMENTS, MOMENTS, SUM, Carrier, resuming
from dsl.cascade import derive
from dsl.cascade.crossing import SUMS, crossing
from dsl.cascade.guards import guarded_product, guards
from dsl.cascade.merge import action, base_of, moved, shift
from dsl.cascade.model import Accumulator, Cascade, Component, Weight, ids
from dsl.dim import Var, as_term
from dsl.errors import ScheduleError
from dsl.expr import Compute, Const, Expr, Read, Reduce, Tensor, cast, const, index, op, where
from dsl.nest import Nest, Stage
from dsl.primitives.merged import merge_parts
from dsl.primitives.record import primitive
from dsl.primitives.reduction import neutral_input
from dsl.primitives.roll_across import final_sums, sum_across
from dsl.primitives.roll_moments import merge_moments, sum_by_blocks
from dsl.primitives.roll_pass import Pass
from dsl.primitives.rolled import arranged, bare, beside, parted, point_of, region, with_pass, without_casts


@primitive
def roll(nest: Nest, stage: str, block: int, axis: str = "", share: bool = False, parts: int = 1,
         again: bool = False, cross: Sequence[str] = ()) -> tuple[Nest, str]:
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
        cross: reductions along a row axis of the pass, of what it makes (see :mod:`dsl.cascade.crossing`): they go along, in the memory of
            their results, so that their axis is a loop in which blocks of rows follow one another.

    Returns:
        The new nest, and the name of the rolling stage: a root until it is placed.

    Raises:
        ScheduleError: the stage belongs to no chain, no such axis, the ragged last block of a carrier without neutral element, or a
            reduction that cannot go along.
    """
    found = derive(nest).cascades
    c = next((c for c in found if any(x.stage == stage for x in c.components)), None)
    if c is None:
        raise ScheduleError(f"roll({stage!r}): {stage} shares its axis with no other reduction",
                            "kernel.explain() tells which do, and why others do not")
    longest = max(c.axes, key=lambda v: v.extent.const if v.extent is not None and v.extent.is_const else 0)
    along = next((v for v in c.axes if v.name == axis), None) if axis else longest
    if along is None:
        raise ScheduleError(f"roll({stage!r}): {axis} is not an axis it reduces", remedy="one of " + ", ".join(v.name for v in c.axes))
    if not all(v.extent is not None and v.extent.is_const for v in c.axes):
        raise ScheduleError(f"roll({stage!r}): the number of elements is not known", remedy="a nest of known sizes")
    going = [x for x in found if any(y.stage in cross for y in x.components)]
    made = [crossing(nest, c, x, along) if len(c.axes) == 1 and parts == 1 else None for x in going]
    if cross and (not going or None in made):
        raise ScheduleError(f"roll({stage!r}): {', '.join(cross)} cannot go along",
                            "it is no plain sum along one row of this pass, of the elements that this pass reads")
    return _Roll(nest, c, along, block, f"{stage}.roll", share, parts, again, tuple(x for x in made if x is not None)).run()


class _Roll(Pass):
    """What becomes of every accumulator, and the nest that results."""

    def run(self) -> tuple[Nest, str]:
        """Make the stages, then the nest."""
        self._factors()
        for acc in self.c.accumulators:
            if self._fixed(acc):
                self._aside(acc)
            elif acc.carrier in (MOMENTS, COMOMENTS):
                merge_moments(self, acc)
            elif acc.weight is not None:
                self._weighted(acc, acc.weight)
            elif acc.centred is not None:
                self._centred(acc, acc.centred)
            else:
                self._plain(acc)
        for x in self.crossing:
            for acc in x.sums:
                sum_across(self, x, acc, *self._initial(acc))
        return self._assemble()

    def _initial(self, acc: Accumulator) -> list[Expr]:
        values = acc.carrier.identity(EXPRS, tuple(t.dtype for t in acc.state))
        return [v for v in values if isinstance(v, Expr)]

    # -- what no row changes -------------------------------------------------------------------------------------------
    def _fixed(self, acc: Accumulator) -> bool:
        """Whether every row would reduce the same elements: a weight's column sums beside a product with it."""
        return _plain(acc) and bool(acc.extra) and not any(e.free & set(self.c.rows) for e in acc.inputs)

    def _aside(self, acc: Accumulator) -> None:
        """A reduction of its own, outside of the pass."""
        own = beside(acc, self.c, self.unique(f"{self.name}.{acc.name}"))
        self.aside.append(own)
        for n, t in enumerate(own.tensors):
            placeholder = acc.read(self.c.rows, n)
            self.fixed[placeholder] = self.before[placeholder] = self.after[placeholder] = t.read(*(index(v) for v in acc.extra))
        if any(x.centred is not None and x.weight is None and base_of(x, self.c) is acc for x in self.c.accumulators):
            sum_by_blocks(self, acc)

    # -- products with what depends on rows and the block ----------------------------------------------------------------
    def _factors(self) -> None:
        """Tiles of the factors of plain sums that lack the sums' own axes, all of one shape in one stage: they share what they compute.

        A tile is zero past the end of the axis. Exact conversions, and how a factor may be multiplied, stay outside of it.
        """
        found: dict[tuple[Var, ...], dict[Expr, Expr]] = {}
        across = [acc for x in self.crossing for acc in x.sums]
        for acc in (*self.c.accumulators, *across):
            if acc in across or (acc.carrier.name in SUMS and _plain(acc) and acc.extra and not self._fixed(acc)):
                shared, rest = parted(acc.inputs[0], frozenset(acc.extra))
                if shared is None or (rest is None and acc.extra):
                    continue
                core, _ = without_casts(shared)
                if isinstance(core, (Read, Const)) and self.whole and acc not in across:
                    continue
                axes = tuple(v for v in (*self.c.rows, *self.c.axes) if v in core.free)
                conditions, value = guarded_product(core)
                for g in dict.fromkeys(reversed(conditions)):
                    value = where(g, value, const(0.0, core.dtype))
                found.setdefault(axes, {})[core] = self.inside(self.local(value), const(0.0, core.dtype))
        for axes, bodies in found.items():
            here = tuple(self.inner if v is self.axis else v for v in ((self.part,) if self.parts > 1 else ()) + axes)
            tensors = self.define("values", here, list(bodies.values()))
            self.tiles |= {("factor", id(e)): self.read(t, here) for e, t in zip(bodies, tensors)}

    def _product(self, acc: Accumulator) -> Expr | None:
        """The element of a plain sum as the product of such a tile and the rest."""
        if acc.carrier.name not in SUMS or not acc.extra:
            return None
        shared, rest = parted(acc.inputs[0], frozenset(acc.extra))
        if shared is None or rest is None:
            return None
        core, around = without_casts(shared)
        tile = self.tiles.get(("factor", id(core)))
        return None if tile is None else op("mul", around(tile), self.local(rest))

    # -- one accumulator -----------------------------------------------------------------------------------------------
    def _plain(self, acc: Accumulator) -> None:
        """States that earlier results do not touch: the reduction goes on from the value before."""
        before = [self.state(acc, n, e) for n, e in enumerate(self._initial(acc))]
        made = self._product(acc)
        if made is not None:
            self._reduce(acc, SUM, (made,), before)
            return
        elements = tuple(self.local(e) for e in acc.inputs)
        if not self.whole:
            probe = Reduce(elements, (acc.carrier, self.bound, 0), acc.state[0].dtype)
            neutral = [neutral_input(probe, n) for n in range(len(elements))]
            if any(n is None for n in neutral):
                raise ScheduleError(f"`{acc.carrier}` has no neutral input", "the last block is ragged", "a block that divides the axis")
            elements = tuple(self.inside(e, cast(n, e.dtype)) for e, n in zip(elements, neutral))
        if self.share:
            elements = tuple(self.tile(e, acc) for e in elements)
        self._reduce(acc, acc.carrier, elements, before)

    def _reduce(self, acc: Accumulator, carrier: Carrier, elements: tuple[Expr, ...], start: Sequence[Expr]) -> None:
        dtypes = tuple(e.dtype for e in elements)
        c = resuming(carrier, dtypes)
        bodies = [Reduce((*elements, *start), (c, self.bound, n), t.dtype, acc.loc) for n, t in enumerate(acc.state)]
        for n, t in enumerate(self.define(f"{acc.name}.new", (*self.rows, *acc.extra), bodies)):
            self.becomes(acc, n, t)

    def _weighted(self, acc: Accumulator, w: Weight) -> None:
        """``a <- A . a (+) sum of weighted elements at the new earlier results``."""
        (before,) = (self.state(acc, n, e) for n, e in enumerate(self._initial(acc)))
        new, factor, _ = self._shifts(w)
        if acc.centred is not None:
            _, _, step = self._shifts(acc.centred)
            below = self.before[base_of(acc, self.c).read(self.c.rows)]
            before = op("add", before, op("mul", step, below))
        start = op("mul", before, factor)
        weight = self._weights(acc, w, new)
        element = self.local(acc.inputs[0])
        if acc.centred is not None:
            shifted = op("add", self.local(acc.centred.data), self._shifts(acc.centred)[0])
            element = shifted if isinstance(element, Const) and element.value == 1 else op("mul", element, shifted)
        weight, element = self._row_factors(acc, weight, element)
        if isinstance(element, Const) and element.value == 1:
            element = weight
        else:
            if acc.extra and not isinstance(bare(element), Read):
                element = self.tile(self.inside(element, const(0.0, element.dtype)), acc)
            element = op("mul", op(acc.permit, weight) if acc.permit else weight, element)
        self._reduce(acc, SUM, (element,), (start,))

    def _row_factors(self, acc: Accumulator, weight: Expr, element: Expr) -> tuple[Expr, Expr]:
        """Factors that lack the sums' own axes are multiplied into the weights once for a block, so that rows share a product."""
        shared, rest = parted(element, frozenset(acc.extra))
        if not acc.extra or shared is None or rest is None or not shared.free & set(self.bound) or weight.free & set(acc.extra):
            return weight, element
        key = ("weighted", id(weight), id(shared), *ids(acc.guards))
        if key not in self.tiles:
            value = op("mul", weight, shared)
            for g in acc.guards:
                value = where(self.local(g), value, const(0.0, value.dtype))
            axes = (*self.rows, *self.bound)
            (t,) = self.define("values", axes, self.inside(value, const(0.0, value.dtype)))
            self.tiles[key] = self.read(t, axes)
        return self.tiles[key], rest

    def _centred(self, acc: Accumulator, w: Weight) -> None:
        """``a <- a + (d_new - d_old) * sum g (+) sum of g (x + d_new)``: nothing is large beside what is left of it."""
        (before,) = (self.state(acc, n, e) for n, e in enumerate(self._initial(acc)))
        shifted, step = self._translation(w)
        start = op("add", before, op("mul", step, self.before[base_of(acc, self.c).read(self.c.rows)]))
        element = op("add", self.local(w.data), shifted)
        if not (isinstance(acc.inputs[0], Const) and acc.inputs[0].value == 1):
            element = op("mul", element, self.local(acc.inputs[0]))
        mine, rest = parted(element, frozenset(acc.extra))
        if acc.extra and mine is not None and rest is not None:
            core, around = without_casts(mine)
            left = around(self.tile(self.inside(core, const(0.0, core.dtype)), acc))
            element = op("mul", op(acc.permit, left) if acc.permit else left, rest)
        else:
            element = self.inside(element, const(0.0, element.dtype))
        self._reduce(acc, SUM, (element,), (start,))

    def _translation(self, w: Weight) -> tuple[Expr, Expr]:
        """(what is added to the data, its step from the blocks before) for a sum that is centred."""
        key = (*w.key(), "centre")
        if key not in self.shifts:
            e = self.c.resolve(w.earlier)
            old, new = substitute_values(e, self.before), substitute_values(e, self.after)
            for name, value in (("centre", shift(EXPRS, w, new)), ("step", moved(EXPRS, old, new))):
                made, = self.define(name, self.rows, value)
                self.shifts[(*w.key(), name)] = self.read(made, self.rows)
        return self.shifts[key], self.shifts[(*w.key(), "step")]

    def _shifts(self, w: Weight) -> tuple[Expr, Expr, Expr]:
        """(shift of the exponent, factor of the states before, step of the shift) of a block."""
        if w.key() not in self.shifts:
            e = self.c.resolve(w.earlier)
            old, new = substitute_values(e, self.before), substitute_values(e, self.after)
            shifted, = self.define("shift", self.rows, shift(EXPRS, w, new))
            factor, = self.define("factor", self.rows, action(EXPRS, w, e, old, new))
            self.shifts[w.key()] = self.read(shifted, self.rows)
            self.shifts[(*w.key(), "factor")] = self.read(factor, self.rows)
            self.shifts[(*w.key(), "step")] = moved(EXPRS, old, new)
        return self.shifts[w.key()], self.shifts[(*w.key(), "factor")], self.shifts[(*w.key(), "step")]

    def _weights(self, acc: Accumulator, w: Weight, shifted: Expr) -> Expr:
        """The tile of weights, made once for all sums of the same weights."""
        key = ("weights", w.key(), *acc.key()[4:7])
        if key not in self.tiles:
            e = op(w.base, op("add", self.local(w.data), shifted))
            if acc.inside is not None:
                e = op("mul", e, self.local(acc.inside))
            if acc.rounding is not None:
                e = cast(cast(e, acc.rounding), e.dtype)
            for g in acc.guards:
                e = where(self.local(g), e, const(0.0, e.dtype))
            e = self.inside(e, const(0.0, e.dtype))
            if not acc.extra and sum(x.weight is not None and x.weight.key() == w.key() for x in self.c.accumulators) == 1:
                return e  # nobody else reads them
            own = tuple(v for v in acc.extra if v in e.free)
            (t,) = self.define("weights", (*self.rows, *own, *self.bound), e)
            self.tiles[key] = self.read(t, (*self.rows, *own, *self.bound))
        return self.tiles[key]

    # -- the nest ------------------------------------------------------------------------------------------------------
    def _assemble(self) -> tuple[Nest, str]:
        self._keep()
        rows = tuple(Var(v.name, v.extent) for v in self.rows)
        at = Var(self.at.name, self.at.extent)
        finals: list[Compute] = []
        known: dict[Expr, Expr] = {k: v for k, v in self.after.items() if isinstance(v, Const) or k in self.fixed}
        for t, _, after, axes in self.states:
            extra = tuple(Var(v.name, v.extent) for v in axes[len(rows):])
            final = Compute(t.name, (*rows, *extra), after.read(index(at), *(point_of(v) for v in (*rows, *extra))), t.loc)
            finals.append(final)
            known[t.read(*(index(v) for v in axes[self.parts > 1:]))] = final.read(*(index(v) for v in axes))
        env = {v: as_term(o) for v, o in zip((*self.rows, self.at), (*rows, at))}
        across = final_sums(self, env)
        known |= {k.acc.read(k.crossing.cascade.rows): f.read(*(index(v) for v in k.places)) for k, f in zip(self.crossed, across)}
        states = (*(s for _, s, _, _ in self.states), *(k.state for k in self.crossed))
        host = Stage(self.name, (*finals, *across), rows, (at,), states=states)
        names = host.axis_names()
        everything = replace(self.c, accumulators=(*self.c.accumulators, *(a for x in self.crossing for a in x.sums)))
        terms = [g.subs({self.axis: self.point}).subs(env) for g in guards(everything)]
        if not self.whole and self.axis.extent is not None:
            terms.append(self.axis.extent - 1 - self.point.subs(env))
        host = replace(host, order=tuple(names.values()), notes={"guards": tuple(terms), "inner": self.bound})
        loop = names[at]
        along = {k.after: rows[self.rows.index(k.crossing.along)] for k in self.crossed}
        attached = [replace(s, attach=(self.name, loop), along={s.bound[0]: along[s.tensors[0]]} if s.tensors[0] in along else {})
                    for s in (*self.made, *self.last)]
        merges: list[Stage] = []
        if self.parts > 1:
            merges, known = merge_parts(self.c, self.part, known, self.name)
        results, replaced = self._results(known)
        replaced |= {k.alone.tensor: f for k, f in zip(self.crossed, across) if k.alone is not None}
        new = [*self.aside, *attached, host, *merges, *results]
        whole = with_pass(self.nest, new, replaced, {x.stage for _, x in self._wanted()})
        return arranged(whole, host.name, self.again), host.name

    def _keep(self) -> None:
        """A state whose old value others read is copied when the block is done; the rest are brought up to date where they lie."""
        for n, (t, s, after, axes) in enumerate(self.states):
            users = [x for x in self.made if any(r.tensor is s.before for b in x.tensors for r in reads(b.body))]
            if any(after not in x.tensors for x in users):
                kept, = self.define(f"{t.name}.keep", axes, self.read(after, axes), last=True)
                self.states[n] = (t, s, kept, axes)

    def _wanted(self) -> list[tuple[Cascade, Component]]:
        """Every reduction that the pass gives, with its cascade."""
        return [(c, x) for c in (self.c, *(x.cascade for x in self.crossing)) for x in c.components]

    def _results(self, known: Mapping[Expr, Expr]) -> tuple[list[Stage], dict[Tensor, Tensor]]:
        """The user's reductions as pointwise definitions over the final states."""
        stages: list[Stage] = []
        replaced: dict[Tensor, Tensor] = {}
        alone = {k.alone.tensor for k in self.crossed if k.alone is not None}
        for cascade, x in self._wanted():
            if x.tensor in alone:
                continue
            own = tuple(Var(v.name, v.extent) for v in x.axes)
            value = substitute_values(cascade.resolve(x.read()), known)
            body = cast(substitute(value, {v: as_term(o) for v, o in zip(x.axes, own)}), x.tensor.dtype)
            new = Compute(x.tensor.name, own, body, x.tensor.loc, x.tensor.dtype)
            replaced[x.tensor] = new
            label = x.stage if x.tensor is self.nest[x.stage].tensors[0] else f"{x.stage}.{x.tensor.name}"
            s = Stage(label, (new,), own)
            stages.append(replace(s, order=tuple(s.axis_names().values())))
        return stages, replaced


def _plain(acc: Accumulator) -> bool:
    """Whether no earlier result has a part in its elements."""
    return acc.weight is None and acc.centred is None


__all__ = ["region", "roll"]
