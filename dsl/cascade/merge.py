"""The derived carrier: the states of a pass, and how partial results at different earlier results are brought to one.

``a = A(Da, D) . a_a (+) A(Db, D) . a_b`` with ``D`` the merged earlier results. The formulas are written over any
:class:`dsl.carrier.Algebra`, so that expressions, tiles and numpy evaluate the same text.
"""

from __future__ import annotations

import math
import sys
import zlib
from collections.abc import Mapping
from typing import Any

from dsl.algebra import walk
from dsl.carrier import SUM, Algebra, Carrier, Dtypes, Values
from dsl.cascade.factored import Mixed, leaves
from dsl.cascade.model import Accumulator, Cascade, Weight
from dsl.expr import Cast, Const, Expr, Op, Where


def shift(a: Algebra, w: Weight, c: Any) -> Any:
    """The earlier part of a weight's exponent where nothing has been seen yet: an infinite one is no shift at all."""
    d = a.dtype(c)
    nothing = a.op("eq", c, a.const(math.inf, d)) if w.strict else a.op("isinf", c)
    return a.where(nothing, a.const(0.0, d), c)


def action(a: Algebra, w: Weight, earlier: Expr, old: Any, new: Any) -> Any:
    """``A``: the factor from partial results at one shift to those at another: ``base(new - old)``.

    Nothing has been seen at ``old = inf``, and no factor is needed where the two are equal, infinite or not. Where ``earlier``, which they
    are values of, has cases (``where(m == -inf, 0, m)``) a shift may be finite though nothing has been seen: the factor stays finite too,
    so that a sum of nothing stays zero.
    """
    d = a.dtype(old)
    factor = a.op(w.base, a.op("sub", new, old))
    if any(isinstance(e, Where) for e in walk(earlier)):
        factor = a.op("min", factor, a.const(sys.float_info.max if d.bits == 64 else _LARGEST, d))
    factor = a.where(a.op("eq", old, new), a.const(1.0, d), factor)
    return a.where(a.op("eq", old, a.const(math.inf, d)), a.const(0.0, d), factor)


_LARGEST = (2 - 2**-23) * 2.0**127  # in f32


def moved(a: Algebra, old: Any, new: Any) -> Any:
    """``new - old``, and zero where nothing has been seen at ``old``."""
    return a.where(a.op("isfinite", old), a.op("sub", new, old), a.const(0.0, a.dtype(old)))


def base_of(acc: Accumulator, c: Cascade) -> Accumulator:
    """The sum of the bare weights under a centred one."""
    def parts(x: Accumulator) -> tuple[object, ...]:
        k = x.key()
        return (*k[:2], x.weight.key() if x.weight is not None else None, *k[4:7])

    return next(x for x in c.accumulators if x.centred is None and parts(x) == parts(acc) and set(x.extra) <= set(acc.extra))


def evaluate_in(a: Algebra, e: Expr, env: Mapping[Expr, Any]) -> Any:
    """An expression over an algebra's values.

    Raises:
        Mixed: it reads something that is not given.
    """
    memo: dict[Expr, Any] = dict(env)

    def go(n: Expr) -> Any:
        if n not in memo:
            memo[n] = step(n)
        return memo[n]

    def step(n: Expr) -> Any:
        if isinstance(n, Const):
            return a.const(n.value, n.dtype)
        if isinstance(n, Where):
            return a.where(go(n.args[0]), go(n.args[1]), go(n.args[2]))
        if isinstance(n, Cast):
            return a.cast(go(n.args[0]), n.dtype)
        if isinstance(n, Op):
            return a.op(n.name, *(go(x) for x in n.args))
        raise Mixed(f"`{n}` is neither a state nor an input of the carrier")

    return go(e)


def derived_carrier(c: Cascade) -> tuple[Carrier, tuple[Expr, ...]]:
    """The carrier of a cascade whose components have no axes besides the rows, and its inputs for one element.

    Raises:
        Mixed: a component has axes of its own, or a shift or a result reads more than earlier results.
    """
    if any(x.extra for x in c.accumulators):
        raise Mixed("a component has axes that the others lack: it has no state of their shape")
    inputs: dict[Expr, int] = {}
    for acc in c.accumulators:
        weights = [w for w in (acc.weight, acc.centred) if w is not None]
        for e in (*acc.inputs, *acc.guards, *((acc.inside,) if acc.inside is not None else ()), *(w.data for w in weights)):
            if not isinstance(e, Const):
                inputs.setdefault(e, len(inputs))
    formulas = _Formulas(c, inputs)
    formulas.check()
    slots = tuple(t.dtype for acc in c.accumulators for t in acc.state)
    text = "; ".join(f"{x.value} of {x.element}" for x in c.components)
    carrier = Carrier(f"derived.{zlib.crc32(text.encode()):08x}", len(inputs), lambda d: slots, formulas.identity, formulas.lift,
                      formulas.combine, formulas.finalize, lambda d: tuple(x.tensor.body.dtype for x in c.components))
    return carrier, tuple(inputs)


class _Formulas:
    """Identity, lift, combine and finalize of a cascade."""

    def __init__(self, c: Cascade, inputs: Mapping[Expr, int]) -> None:
        self.c, self.inputs = c, inputs
        self.at: dict[Accumulator, int] = {}
        n = 0
        for acc in c.accumulators:
            self.at[acc] = n
            n += len(acc.state)
        self.shifts = {id(w): c.resolve(w.earlier) for acc in c.accumulators for w in (acc.weight, acc.centred) if w is not None}
        self.results = [c.resolve(x.read()) for x in c.components]

    def check(self) -> None:
        """Every shift and result must be made of states."""
        known = {x.read(self.c.rows, n) for x in self.c.accumulators for n in range(len(x.state))}
        for e in (*self.shifts.values(), *self.results):
            for r in leaves(e):
                if r not in known:
                    raise Mixed(f"`{r}` is read by a shift or a result, and is neither an earlier result nor data")

    def env(self, values: Values) -> dict[Expr, Any]:
        """Values of the states by the reads that stand for them; those not computed yet are left out."""
        out: dict[Expr, Any] = {}
        for acc, at in self.at.items():
            for n in range(len(acc.state)):
                if at + n < len(values):
                    out[acc.read(self.c.rows, n)] = values[at + n]
        return out

    def identity(self, a: Algebra, s: Dtypes) -> Values:
        """The identities of the parts."""
        return tuple(v for acc, at in self.at.items() for v in acc.carrier.identity(a, s[at:at + len(acc.state)]))

    def lift(self, a: Algebra, x: Values, s: Dtypes) -> Values:
        """One element: earlier results are those of the element alone."""
        given = {e: x[n] for e, n in self.inputs.items()}
        out: Values = ()
        for acc, at in self.at.items():
            parts = tuple(evaluate_in(a, e, given) for e in acc.inputs)
            if acc.weight is not None or acc.centred is not None:
                parts = (self._weighted(a, acc, parts[0], given, self.env(out)),)
            out = (*out, *acc.carrier.lift(a, parts, s[at:at + len(acc.state)]))
        return out

    def _weighted(self, a: Algebra, acc: Accumulator, element: Any, given: Mapping[Expr, Any], states: Mapping[Expr, Any]) -> Any:
        value, w = element, acc.weight
        if w is not None:
            c = shift(a, w, evaluate_in(a, self.shifts[id(w)], states))
            value = a.op(w.base, a.op("add", evaluate_in(a, w.data, given), c))
            if acc.inside is not None:
                value = a.op("mul", value, evaluate_in(a, acc.inside, given))
            if acc.rounding is not None:
                value = a.cast(a.cast(value, acc.rounding), a.dtype(value))
            value = a.op("mul", value, element)
        if acc.centred is not None:
            d = shift(a, acc.centred, evaluate_in(a, self.shifts[id(acc.centred)], states))
            value = a.op("mul", value, a.op("add", evaluate_in(a, acc.centred.data, given), d))
        for g in acc.guards:
            value = a.where(evaluate_in(a, g, given), value, a.const(0.0, a.dtype(value)))
        return value

    def combine(self, a: Algebra, x: Values, y: Values) -> Values:
        """Both sides brought to the merged earlier results, then combined."""
        out: Values = ()
        for acc, at in self.at.items():
            mine = slice(at, at + len(acc.state))
            left, right = x[mine], y[mine]
            if acc.weight is not None or acc.centred is not None:
                new = self.env(out)
                left, right = (self._moved(a, acc, v, self.env(side), new) for v, side in ((left, x), (right, y)))
            out = (*out, *acc.carrier.combine(a, left, right))
        return out

    def _moved(self, a: Algebra, acc: Accumulator, state: Values, old: Mapping[Expr, Any], new: Mapping[Expr, Any]) -> Values:
        assert acc.carrier is SUM
        value, w = state[0], acc.weight
        if acc.centred is not None:
            e = self.shifts[id(acc.centred)]
            step = moved(a, evaluate_in(a, e, old), evaluate_in(a, e, new))
            value = a.op("add", value, a.op("mul", step, old[base_of(acc, self.c).read(self.c.rows)]))
        if w is None:
            return (value,)
        e = self.shifts[id(w)]
        return (a.op("mul", value, action(a, w, e, evaluate_in(a, e, old), evaluate_in(a, e, new))),)

    def finalize(self, a: Algebra, s: Values) -> Values:
        """The results of the components."""
        env = self.env(s)
        return tuple(evaluate_in(a, e, env) for e in self.results)
