"""A bound of the rounding error of a definition, itself a definition.

Running error analysis (Wilkinson; Higham, Accuracy and Stability of Numerical Algorithms, sections 2 to 4): beside every value
stands a bound of its distance from the exact value. An operation passes the bounds of its operands on, times its partial
derivatives, and adds its own rounding; a sum of ``n`` terms in an order in which every term goes through ``d`` additions adds at
most ``d u`` times the sum of the magnitudes. The bounds are expressions over the same tensors, so the numpy meaning evaluates them
in float64 like everything else.

The bound is of first order in the unit roundoff. It assumes that both sides take the same branches of a ``where``, and it knows
underflow only as the least denormal per rounding.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from dsl.algebra import walk
from dsl.carrier import MAX, SUM, Carrier
from dsl.derivative.rules import partials
from dsl.derivative.simplify import add, is_value, mul, select, zero
from dsl.dim import Term, product
from dsl.dtype import Dtype, f32
from dsl.errors import UserError
from dsl.expr import Cast, Compute, Const, Expr, Index, Op, Read, Reduce, Scan, Tensor, Where, const, op, reduce, scan
from dsl.nest import Nest
from dsl.program import Program

_BITS = {"f64": 53, "f32": 24, "f16": 11, "bf16": 8, "f8e4m3": 4, "f8e5m2": 3}
_LEAST = {"f64": 2.0**-1074, "f32": 2.0**-149, "f16": 2.0**-24, "bf16": 2.0**-133, "f8e4m3": 2.0**-9, "f8e5m2": 2.0**-16}
_EXACT = frozenset({"neg", "abs", "max", "min", "sign"})
_STEPS = frozenset({"floor", "ceil", "round", "trunc", "floordiv"})
_ROUNDED = frozenset({"add", "sub", "mul", "div", "sqrt", "fma"})
_ULP = 4.0  # of a function whose error nobody states


class Unbounded(UserError):
    """No bound is known for an operation of the definition."""

    kind = "no error bound"


@dataclass(frozen=True)
class Roundings:
    """What the bound has to know about the generated code.

    Attributes:
        depths: for each reducing stage, the most combinations an element goes through.
        ulps: largest error of a pointwise function in units of the last place.
    """

    depths: Mapping[str, int] = field(default_factory=dict)
    ulps: Mapping[str, float] = field(default_factory=dict)


def unit(dtype: Dtype) -> float:
    """The unit roundoff of a float dtype: the largest relative error of rounding to nearest."""
    return 2.0**-_BITS[dtype.name]


def error_bound(nest: Nest, roundings: Roundings) -> Program:
    """The program whose outputs bound the absolute error of the outputs of a nest's program.

    Args:
        nest: unscheduled, of a program whose sizes are known; every reduction is a stage of its own.
        roundings: of the generated code.

    Raises:
        Unbounded: an operation or reduction has no bound.
    """
    bounds: dict[Tensor, Compute] = {}
    for stage in nest.stages:
        for t in stage.tensors:
            if t.dtype.is_float:
                e = _Bounds(bounds, roundings, stage.name).of(t.body)
                if not is_value(e, 0.0):
                    bounds[t] = Compute(f"{t.name}_bound", t.axes, e, t.loc)
    p = nest.program
    outputs = tuple(bounds[t] if t in bounds else Compute(f"{t.name}_bound", t.axes, zero(f32), t.loc) for t in p.outputs)
    return Program(f"{p.name}_bound", p.inputs, outputs, p.single, p.loc)


class _Bounds:
    """Bounds of the nodes of one body."""

    def __init__(self, tensors: Mapping[Tensor, Compute], roundings: Roundings, stage: str) -> None:
        self.tensors, self.roundings, self.stage = tensors, roundings, stage
        self.memo: dict[Expr, Expr] = {}

    def of(self, root: Expr) -> Expr:
        """The bound of the error of ``root``."""
        memo = self.memo
        for node in walk(root):
            memo[node] = self._node(node, tuple(memo[a] for a in node.args)) if node.dtype.is_float else zero(f32)
        return memo[root]

    def _node(self, e: Expr, errors: tuple[Expr, ...]) -> Expr:
        if isinstance(e, (Const, Index)):
            return zero(e.dtype)
        if isinstance(e, Read):
            known = self.tensors.get(e.tensor)
            return zero(e.dtype) if known is None else Read(e.args, (known, e.data[1]), known.dtype, e.loc)
        if isinstance(e, Where):
            return select(e.args[0], errors[1], errors[2])
        if isinstance(e, Cast):
            return self._cast(e, errors[0])
        if isinstance(e, Op):
            return add(_passed_on(e, errors), self._own(e))
        if isinstance(e, Reduce):
            return self._reduce(e, errors)
        assert isinstance(e, Scan)
        return self._scan(e, errors)

    def _cast(self, e: Cast, error: Expr) -> Expr:
        """A conversion rounds where the float it goes to is the narrower one."""
        source = e.args[0].dtype
        if not source.is_float:
            return (_relative(e, unit(e.dtype)) if source.is_int and source.bits > _BITS[e.dtype.name] and not isinstance(e.args[0], Index)
                    else zero(e.dtype))
        return error if _BITS[source.name] <= _BITS[e.dtype.name] else add(error, _rounding(e))

    def _own(self, e: Op) -> Expr:
        """What the operation itself adds."""
        if e.name in _EXACT or e.name in _STEPS:
            return zero(e.dtype)
        if e.name in _ROUNDED:
            return _rounding(e)
        return _relative(e, 2.0 * self.roundings.ulps.get(e.name, _ULP) * unit(e.dtype))

    def _depth(self) -> int:
        return max(self.roundings.depths.get(self.stage, 1), 1)

    # -- reductions --------------------------------------------------------------------------------------------
    def _reduce(self, e: Reduce, errors: tuple[Expr, ...]) -> Expr:
        rule = _CARRIERS.get(e.carrier.name)
        if rule is None:
            raise Unbounded(f"the reduction `{e.carrier}` has no error bound",
                            "only sums, products, extrema, moments and logsumexp have one", loc=e.loc)
        return rule(_Reduction(e, errors, self.memo, self._depth(), unit(e.dtype)))

    def _scan(self, e: Scan, errors: tuple[Expr, ...]) -> Expr:
        if e.carrier.name not in ("sum", "max", "min", "cummax", "cummin"):
            raise Unbounded(f"the scan `{e.carrier}` has no error bound", "only prefix sums and extrema have one", loc=e.loc)
        if e.carrier.name != "sum":
            return scan(MAX, (errors[0],), e.axis, e.at, exclusive=e.exclusive, reverse=e.reverse)
        own = add(errors[0], mul(op("abs", e.args[0]), const(_gamma(self._depth(), unit(e.dtype)), e.dtype)))
        return scan(SUM, (own,), e.axis, e.at, exclusive=e.exclusive, reverse=e.reverse)


def _passed_on(e: Op, errors: tuple[Expr, ...]) -> Expr:
    """What becomes of the operands' errors."""
    moving = [n for n, x in enumerate(errors) if not is_value(x, 0.0)]
    if not moving:
        return zero(e.dtype)
    if e.name in ("max", "min"):
        return _larger(errors)
    if e.name in _STEPS:
        return add(_larger(tuple(errors[n] for n in moving)), const(1, e.dtype))
    out: Expr = zero(e.dtype)
    for n, p in enumerate(partials(e, e)):
        if n in moving and p is not None:
            out = add(out, _times(p, errors[n]))
    return out


def _times(p: Expr, error: Expr) -> Expr:
    """``|p| error``, zero where there is no error however large ``p`` is."""
    if isinstance(p, Const):
        return mul(error, const(abs(p.value), error.dtype))
    return select(op("eq", error, 0), zero(error.dtype), mul(op("abs", p), error))


def _larger(errors: tuple[Expr, ...]) -> Expr:
    out = errors[0]
    for x in errors[1:]:
        out = x if is_value(out, 0.0) else out if is_value(x, 0.0) else op("max", out, x)
    return out


def _relative(e: Expr, share: float) -> Expr:
    return mul(op("abs", e), const(share, e.dtype))


def _rounding(e: Expr) -> Expr:
    return add(_relative(e, unit(e.dtype)), const(_LEAST[e.dtype.name], e.dtype))


def _gamma(n: float, u: float) -> float:
    """``n u / (1 - n u)``: the relative error of ``n`` roundings in a row."""
    return n * u / (1 - n * u) if n * u < 1 else math.inf


# -- carriers ------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class _Reduction:
    """A reduction with the bounds of its inputs and of all nodes below, the length of its chains of roundings and its unit roundoff."""

    e: Reduce
    errors: tuple[Expr, ...]
    bounds: Mapping[Expr, Expr]
    depth: int
    u: float

    @property
    def points(self) -> float:
        """The number of elements, as a float; infinite where it is not known."""
        n: Term = product(a.extent for a in self.e.axes if a.extent is not None)
        return float(n.const) if n.is_const else math.inf

    def over(self, value: Expr, which: Carrier = SUM) -> Expr:
        """``value`` summed (or otherwise reduced) over the same axes."""
        return value if is_value(value, 0.0) else reduce(which, (value,), self.e.axes)

    def scaled(self, value: Expr, factor: float) -> Expr:
        """``value`` times a number."""
        return mul(value, const(factor, value.dtype))


def _sum_bound(r: _Reduction) -> Expr:
    """``gamma_d sum |x| + sum bound(x)``."""
    x = r.e.args[0]
    if isinstance(x, Op) and x.name == "mul":
        return _product_bound(r, *x.args)
    return add(r.scaled(r.over(op("abs", x)), _gamma(r.depth, r.u)), r.over(r.errors[0]))


def _product_bound(r: _Reduction, a: Expr, b: Expr) -> Expr:
    """A sum of products, one rounding each at most: three sums of products, which linear algebra evaluates."""
    least = _LEAST[r.e.dtype.name] * r.points
    out = add(r.scaled(r.over(op("mul", op("abs", a), op("abs", b))), _gamma(r.depth + 1, r.u)), const(least, r.e.dtype))
    for x, other in ((a, b), (b, a)):
        if not is_value(r.bounds[x], 0.0):
            out = add(out, r.over(op("mul", r.bounds[x], op("abs", other))))
    return out


def _prod_bound(r: _Reduction) -> Expr:
    """``|y| (sum bound(x) / |x| + gamma_d)``."""
    x, error = r.e.args[0], r.errors[0]
    shares = zero(x.dtype) if is_value(error, 0.0) else r.over(select(op("eq", error, 0), zero(x.dtype), op("div", error, op("abs", x))))
    return mul(op("abs", r.e), add(shares, const(_gamma(r.depth, r.u), x.dtype)))


def _extremum_bound(r: _Reduction) -> Expr:
    """The extremum moves no further than the element that moves the most."""
    return _largest(r)


def _largest(r: _Reduction) -> Expr:
    """The largest of the inputs' bounds; 0 over nothing."""
    error = r.errors[0]
    return error if is_value(error, 0.0) else op("max", r.over(error, MAX), const(0, error.dtype))


def _none(r: _Reduction) -> Expr:
    return zero(r.e.dtype)


def _logsumexp_bound(r: _Reduction) -> Expr:
    """``max bound(x)``, the sum's own ``gamma_2d``, the rounding of ``x - max`` and the result's.

    The rounding of ``x - max`` is averaged over the weights (at most ``1 + log n``).
    """
    n = r.points
    own = _gamma(2 * r.depth, r.u) + r.u * (1 + math.log(n) if 1 < n < math.inf else 1 if n <= 1 else 64) + 8 * r.u
    finite = select(op("isfinite", r.e), r.scaled(op("abs", r.e), 2 * r.u), zero(r.e.dtype))
    return add(add(_largest(r), const(own, r.e.dtype)), finite)


def _moments_bound(r: _Reduction) -> Expr:
    """Mean: as a sum. Variance: ``4 gamma_d sqrt(v (v + mean^2))``, and what the inputs' errors make of it.

    The variance's is after Chan, Golub and LeVeque.
    """
    x, error, n = r.e.args[0], r.errors[0], r.points
    size = r.scaled(r.over(op("abs", x)), 1.0 / n)
    mean = add(r.scaled(size, _gamma(3 * r.depth, r.u)), r.scaled(r.over(error), 1.0 / n))
    if r.e.out == 0:
        return mean
    average, variance = (Reduce(r.e.args, (r.e.carrier, r.e.axes, out), r.e.dtype, r.e.loc) for out in (0, 1))
    condition = op("sqrt", op("mul", variance, op("add", variance, op("mul", average, average))))
    own = add(r.scaled(condition, 4 * _gamma(r.depth, r.u)), op("mul", mean, mean))
    if is_value(error, 0.0):
        return own
    largest = _largest(r)
    return add(own, add(r.scaled(op("mul", op("sqrt", variance), largest), 2.0), op("mul", largest, largest)))


_CARRIERS: dict[str, Callable[[_Reduction], Expr]] = {
    "sum": _sum_bound, "prod": _prod_bound, "max": _extremum_bound, "min": _extremum_bound, "argmax": _extremum_bound,
    "argmin": _extremum_bound, "any": _none, "all": _none, "logsumexp": _logsumexp_bound, "moments": _moments_bound,
}
