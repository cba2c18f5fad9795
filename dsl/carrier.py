"""Carriers: the algebra of a reduction as data.

A carrier is (state tuple, identity, lift, combine, finalize, traits). Sum, max, argmax, Welford moments and logsumexp differ
only in these, and every level - serial loop, vector lanes, threads, split-k - calls the same combine. The formulas are
written once over any value with Python operators and the functions of an :class:`Algebra`, so expressions, tile programs
and numpy all evaluate the same text.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from dsl.dtype import Dtype, bool_, f32, i8, i16, i32, i64


class Algebra(Protocol):
    """What a carrier's formulas may use: any operation of the opset by name, constants and selection."""

    def op(self, name: str, *args: Any) -> Any:
        """A pointwise operation on values of one dtype."""

    def const(self, value: float, dtype: Dtype) -> Any:
        """A literal."""

    def where(self, cond: Any, a: Any, b: Any) -> Any:
        """Selection."""

    def cast(self, x: Any, dtype: Dtype) -> Any:
        """Conversion."""

    def dtype(self, x: Any) -> Dtype:
        """The dtype of a value."""


Values = tuple[Any, ...]
Dtypes = tuple[Dtype, ...]


@dataclass(frozen=True, eq=False)
class Carrier:
    """One reduction.

    Attributes:
        name: how it prints; carriers are compared by it.
        arity: number of inputs per element.
        state: dtypes of the state tuple, from the inputs' dtypes.
        identity: ``identity(algebra, state dtypes)``; combining with it changes nothing.
        lift: ``lift(algebra, inputs, state dtypes)``: the state of one element.
        combine: ``combine(algebra, a, b)``: associative; ``a`` comes first in the order of the axis.
        finalize: ``finalize(algebra, state)``: the results.
        result: dtypes of the results, from the inputs' dtypes.
        exact: reordering changes no bit (max, min, any, integer sums are decided by dtype in ``reorders_exactly``).
        commutative: the order of the operands of combine does not matter.
    """

    name: str
    arity: int
    state: Callable[[Dtypes], Dtypes]
    identity: Callable[[Algebra, Dtypes], Values]
    lift: Callable[[Algebra, Values, Dtypes], Values]
    combine: Callable[[Algebra, Values, Values], Values]
    finalize: Callable[[Algebra, Values], Values]
    result: Callable[[Dtypes], Dtypes]
    exact: bool = False
    commutative: bool = True

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Carrier) and self.name == other.name

    def __hash__(self) -> int:
        return hash(self.name)

    def __repr__(self) -> str:
        return self.name

    def reorders_exactly(self, inputs: Dtypes) -> bool:
        """Whether any order of combination gives the same bits for these input dtypes."""
        return self.exact or not any(d.is_float for d in self.state(inputs))


def _cast_lift(a: Algebra, x: Values, s: Dtypes) -> Values:
    return tuple(a.cast(v, d) for v, d in zip(x, s))


def _simple(name: str, combine: str, identity: Callable[[Dtype], float], state: Callable[[Dtype], Dtype], result: Callable[[Dtype], Dtype],
            exact: bool = False) -> Carrier:
    return Carrier(
        name, 1, lambda d: (state(d[0]),), lambda a, s: (a.const(identity(s[0]), s[0]),), _cast_lift,
        lambda a, x, y: (a.op(combine, x[0], y[0]),), lambda a, s: s, lambda d: (result(d[0]),), exact)


def lowest(d: Dtype) -> float:
    """The least value of a dtype: minus infinity for floats."""
    return -math.inf if d.is_float else 0 if d is bool_ or not d.signed else -(1 << (d.bits - 1))


def highest(d: Dtype) -> float:
    """The greatest value of a dtype: infinity for floats."""
    return math.inf if d.is_float else 1 if d is bool_ else (1 << (d.bits - d.signed)) - 1


def _sum_result(d: Dtype) -> Dtype:
    return d if d.is_float else i64


SUM = _simple("sum", "add", lambda d: 0, lambda d: d.accumulator, _sum_result)
PROD = _simple("prod", "mul", lambda d: 1, lambda d: d.accumulator, _sum_result)
MAX = _simple("max", "max", lowest, lambda d: d.held, lambda d: d, exact=True)
MIN = _simple("min", "min", highest, lambda d: d.held, lambda d: d, exact=True)
MAX_FIRST = _simple("max.first", "max", lowest, lambda d: d.held, lambda d: d, exact=True)  # as MAX; the first of equals has the derivative
ANY = _simple("any", "or", lambda d: 0, lambda d: bool_, lambda d: bool_, exact=True)
ALL = _simple("all", "and", lambda d: 1, lambda d: bool_, lambda d: bool_, exact=True)


def _arg_combine(better: str) -> Callable[[Algebra, Values, Values], Values]:
    """Keep the better value; on ties the lower position; NaN beats everything, as in torch."""
    def combine(a: Algebra, x: Values, y: Values) -> Values:
        tie = a.op("eq", x[0], y[0])
        y_first = a.op("lt", y[1], x[1])
        y_wins = a.op("or", a.op(better, y[0], x[0]), a.op("and", tie, y_first))
        y_nan, x_nan = a.op("ne", y[0], y[0]), a.op("ne", x[0], x[0])
        nan_wins = a.op("and", y_nan, a.op("or", a.op("not", x_nan), y_first))
        take = a.op("or", nan_wins, y_wins)  # nothing compares with a NaN
        return a.where(take, y[0], x[0]), a.where(take, y[1], x[1])
    return combine


def _place(d: Dtype) -> Dtype:
    """Positions are as wide as indices, unless they are given in fewer bits."""
    return d if d in (i8, i16, i32) else i64


def _counted(d: Dtype) -> Dtype:
    """What positions are compared in: no narrower than the lanes of the values beside them."""
    return i64 if _place(d) is i64 else i32


def _arg(name: str, better: str, worst: Callable[[Dtype], float]) -> Carrier:
    return Carrier(
        name, 2, lambda d: (d[0].held, _counted(d[1])), lambda a, s: (a.const(worst(s[0]), s[0]), a.const(highest(s[1]), s[1])), _cast_lift,
        _arg_combine(better), lambda a, s: s, lambda d: (d[0], _place(d[1])), exact=True)


ARGMAX = _arg("argmax", "gt", lowest)
ARGMIN = _arg("argmin", "lt", highest)


def _real(d: Dtype) -> Dtype:
    """The dtype a logarithm is taken in."""
    return d if d.is_float else f32


def shifted_exp(a: Algebra, old: Any, new: Any) -> Any:
    """``exp(old - new)``, and 1 where they are equal so that ``-inf - -inf`` is not NaN."""
    return a.where(a.op("eq", old, new), a.const(1.0, a.dtype(old)), a.op("exp", a.op("sub", old, new)))


def _lse_lift(a: Algebra, x: Values, s: Dtypes) -> Values:
    v = a.cast(x[0], s[0])
    empty = a.op("eq", v, a.const(-math.inf, s[0]))
    return v, a.where(empty, a.const(0.0, s[1]), a.const(1.0, s[1]))


def _lse_combine(a: Algebra, x: Values, y: Values) -> Values:
    """The sum of the greater maximum stays as it is: one exponential, of the difference."""
    m, less = a.op("max", x[0], y[0]), a.op("lt", x[0], y[0])
    share = shifted_exp(a, a.op("min", x[0], y[0]), m)
    return m, a.op("add", a.where(less, a.op("mul", x[1], share), x[1]), a.where(less, y[1], a.op("mul", y[1], share)))


LOGSUMEXP = Carrier(
    "logsumexp", 1, lambda d: (_real(d[0]).held,) * 2, lambda a, s: (a.const(-math.inf, s[0]), a.const(0.0, s[1])), _lse_lift, _lse_combine,
    lambda a, s: (a.op("add", s[0], a.op("log", s[1])),), lambda d: (_real(d[0]),))


def _moments_combine(a: Algebra, x: Values, y: Values) -> Values:
    """Chan, Golub and LeVeque's merge of (count, mean, sum of squared deviations)."""
    n = a.op("add", x[0], y[0])
    share = a.op("div", y[0], a.op("max", n, a.const(1.0, a.dtype(n))))
    delta = a.op("sub", y[1], x[1])
    mean = a.op("add", x[1], a.op("mul", delta, share))
    between = a.op("mul", a.op("mul", delta, delta), a.op("mul", x[0], share))
    return n, mean, a.op("add", a.op("add", x[2], y[2]), between)


MOMENTS = Carrier(
    "moments", 1, lambda d: (_real(d[0]).held,) * 3, lambda a, s: tuple(a.const(0.0, t) for t in s),
    lambda a, x, s: (a.const(1.0, s[0]), a.cast(x[0], s[1]), a.const(0.0, s[2])), _moments_combine,
    lambda a, s: (s[1], a.op("div", s[2], s[0])), lambda d: (_real(d[0]),) * 2)


def _comoments_combine(a: Algebra, x: Values, y: Values) -> Values:
    """The same merge for (count, mean of one, mean of the other, sum of products of their deviations)."""
    n = a.op("add", x[0], y[0])
    share = a.op("div", y[0], a.op("max", n, a.const(1.0, a.dtype(n))))
    deltas = [a.op("sub", y[k], x[k]) for k in (1, 2)]
    means = tuple(a.op("add", x[k], a.op("mul", d, share)) for k, d in zip((1, 2), deltas))
    between = a.op("mul", a.op("mul", *deltas), a.op("mul", x[0], share))
    return n, *means, a.op("add", a.op("add", x[3], y[3]), between)


COMOMENTS = Carrier(
    "comoments", 2, lambda d: (_real(d[0]).held,) * 4, lambda a, s: tuple(a.const(0.0, t) for t in s),
    lambda a, x, s: (a.const(1.0, s[0]), a.cast(x[0], s[1]), a.cast(x[1], s[2]), a.const(0.0, s[3])), _comoments_combine,
    lambda a, s: (s[1], s[2], a.op("div", s[3], s[0])), lambda d: (_real(d[0]),) * 3)

# ``y[t] = a[t] * y[t-1] + b[t]`` from ``y[-1] = 0``, as composition of affine maps: the first operand is applied first.
RECURRENCE = Carrier(
    "recurrence", 2, lambda d: (d[0].held, d[1].held), lambda a, s: (a.const(1.0, s[0]), a.const(0.0, s[1])), _cast_lift,
    lambda a, x, y: (a.op("mul", x[0], y[0]), a.op("add", a.op("mul", y[0], x[1]), y[1])),
    lambda a, s: (s[1],), lambda d: (d[1],), commutative=False)

CARRIERS: dict[str, Carrier] = {
    c.name: c for c in (SUM, PROD, MAX, MIN, MAX_FIRST, ANY, ALL, ARGMAX, ARGMIN, LOGSUMEXP, MOMENTS, COMOMENTS, RECURRENCE)}

WITHIN: dict[str, tuple[Carrier, ...]] = {MAX_FIRST.name: (ARGMAX,)}
"""By the name of a carrier, those whose first result, from the same first operand, is its own."""


def partial(c: Carrier) -> Carrier:
    """The carrier that stops before finalize: its results are the state."""
    return Carrier(f"{c.name}.partial", c.arity, c.state, c.identity, c.lift, c.combine, lambda a, s: s, c.state, c.exact, c.commutative)


def within(c: Carrier, dtype: Dtype) -> Carrier:
    """The carrier whose state, and result, is of one dtype that holds everything it combines."""
    return Carrier(f"{c.name}.{dtype}", c.arity, lambda d: (dtype,), c.identity, c.lift, c.combine, lambda a, s: s, lambda d: (dtype,),
                   c.exact, c.commutative)


def merging(c: Carrier) -> Carrier:
    """The carrier that combines states left by :func:`partial`: its inputs are states."""
    return Carrier(f"{c.name}.merge", 0, lambda d: d, c.identity, _cast_lift, c.combine, c.finalize, lambda d: c.result(d[:c.arity]),
                   c.exact, c.commutative)


def merges(c: Carrier) -> bool:
    """Whether a carrier was made by :func:`merging`, or stops there before finalize."""
    return ".merge" in c.name


def resuming(c: Carrier, inputs: Dtypes) -> Carrier:
    """The carrier that goes on from a state: its inputs end with one, the same for every element, that is combined once with the rest.

    Its results are the state. Only a nest has such reductions; a level that runs them splits the inputs at ``c.arity``.

    Args:
        c: how elements are combined.
        inputs: dtypes of its inputs.
    """
    states = c.state(inputs)
    return Carrier(f"{c.name}.resume", c.arity + len(states), lambda d: c.state(d[:c.arity]), c.identity,
                   lambda a, x, s: c.lift(a, x[:c.arity], s), c.combine, lambda a, s: s, lambda d: c.state(d[:c.arity]), c.exact,
                   c.commutative)


def resumes(c: Carrier) -> bool:
    """Whether a carrier was made by :func:`resuming`."""
    return c.name.endswith(".resume")
