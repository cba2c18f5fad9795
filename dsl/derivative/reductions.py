"""Derivatives of reductions and scans, by carrier.

A reduction ``y = (+)_k f_k`` has one partial ``dy/df_k`` per operand (:func:`reduction_partials`): 1 for a sum, the share of the
extremum for max and min (equal elements share equally, as ``torch.amax``), the softmax weight for logsumexp. A scan follows
``y_t = F(y_{t-1}, f_t)``; with ``A_t = dF/dy`` and ``B_t = dF/df`` (:func:`scan_partials`) its tangent is the linear recurrence
``r_t = A_t r_{t-1} + B_t df_t``, and its adjoint the same recurrence run backwards. That form has no division, so a zero among the
factors of a product is no special case, and it is closed: the derivative of a recurrence is a recurrence.

Carriers defined elsewhere are differentiated through their own formulas: a reduction from the states before and after each
element, a scan when its state is one number.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from dsl.algebra import EXPRS, params, substitute, substitute_values
from dsl.carrier import ARGMAX, ARGMIN, LOGSUMEXP, MAX, MAX_FIRST, MIN, MOMENTS, PROD, RECURRENCE, SUM, Algebra, Carrier, shifted_exp
from dsl.derivative.rules import tangent
from dsl.derivative.simplify import fold, guarded, select, zero
from dsl.dim import ONE, ZERO, Term, Var, as_term, product
from dsl.dtype import i8, i16, i32, i64
from dsl.errors import DerivativeError
from dsl.expr import Compute, Expr, Param, Reduce, Scan, cast, const, index, op, reduce, scan

Partials = list["Expr | None"]

@dataclass(frozen=True)
class Site:
    """Where a reduction stands: the definition ``y`` and the conditions around it."""

    y: Compute
    guards: tuple[Expr, ...]

    @property
    def value(self) -> Expr:
        """The element of ``y`` being defined."""
        return self.at({})

    def at(self, env: Mapping[Var, Term]) -> Expr:
        """An element of ``y``, with some axes replaced."""
        return self.y.read(*(index(env.get(a, as_term(a))) for a in self.y.axes))

    def helper(self, suffix: str, body: Expr, axes: Sequence[Var]) -> Expr:
        """A definition of ``body`` over ``axes``, read where it is wanted."""
        new = tuple(Var(a.name, a.extent) for a in axes)
        body = substitute(guarded(self.guards, body), {a: as_term(b) for a, b in zip(axes, new)})
        return Compute(f"{self.y.name}_{suffix}", new, body, self.y.loc, body.dtype).read(*(index(a) for a in axes))


def indicator(cond: Expr, like: Expr) -> Expr:
    """1 where ``cond`` holds, else 0, in the dtype of ``like``."""
    return select(cond, const(1, like.dtype), zero(like.dtype))


def inner(axis: Var) -> Var:
    """A variable over the range of ``axis``, to be bound where ``axis`` is in scope."""
    return Var(f"{axis.name}_", axis.extent)


def moved_axes(e: Expr, axes: Sequence[Var]) -> tuple[Expr, tuple[Var, ...]]:
    """``e`` with ``axes`` renamed to fresh variables."""
    new = tuple(inner(a) for a in axes)
    return substitute(e, {a: as_term(b) for a, b in zip(axes, new)}), new


# -- reductions ----------------------------------------------------------------------------------------------------
def reduction_partials(site: Site, e: Reduce) -> Partials:
    """``dy/df`` for each operand ``f`` of the reduction, over the axes of ``y`` and those reduced.

    Raises:
        DerivativeError: a carrier of this project's users whose formulas have no derivative.
    """
    rule = _REDUCTIONS.get(e.carrier.name, _custom_reduction)
    return rule(site, e)


def _sum(site: Site, e: Reduce) -> Partials:
    return [const(1, e.dtype)]


def _extremum(site: Site, e: Reduce) -> Partials:
    f = e.args[0]
    hit = indicator(op("eq", f, site.value), f)
    again, axes = moved_axes(hit, e.axes)
    count = site.helper("ties", reduce(SUM, (again,), axes), site.y.axes)
    return [fold(op("div", hit, count))]


def _first_extremum(site: Site, e: Reduce) -> Partials:
    """1 at the first of the greatest elements, in row-major order of the axes."""
    position = ZERO
    for a in e.axes:
        position = position * (a.extent if a.extent is not None else ONE) + as_term(a)
    place: Expr = index(position)
    count = product(a.extent for a in e.axes if a.extent is not None)
    if count.is_const:
        place = cast(place, next((d for d in (i8, i16, i32) if count.const <= 1 << (d.bits - 1)), i64))
    both = Reduce((e.args[0], place), (ARGMAX, e.axes, 0), e.dtype, e.loc)
    return _arg_extremum(site, both)[:1]


def _arg_extremum(site: Site, e: Reduce) -> Partials:
    (value, position), axes = e.args, e.axes
    again = tuple(inner(a) for a in axes)
    args = tuple(substitute(a, {v: as_term(w) for v, w in zip(axes, again)}) for a in (value, position))
    where_it_is = site.helper("position", reduce(e.carrier, args, again, out=1), site.y.axes)
    return [indicator(op("eq", cast(position, where_it_is.dtype), where_it_is), value), None]


def _product(site: Site, e: Reduce) -> Partials:
    """The product of the others, from both sides: right with any number of zeros, and differentiable again."""
    (f,), (k,) = e.args, e.axes
    around = []
    for reverse in (False, True):
        other, (axis,) = moved_axes(f, (k,))
        term = scan(PROD, (other,), axis, as_term(k), exclusive=True, reverse=reverse)
        around.append(site.helper("after" if reverse else "before", term, (*site.y.axes, k)))
    return [op("mul", *around)]


def _logsumexp(site: Site, e: Reduce) -> Partials:
    return [_weight(e.args[0], site.value)]


def _weight(f: Expr, y: Expr) -> Expr:
    """``exp(f - y)``, and 0 for an ``f`` of minus infinity, whatever ``y``."""
    return select(op("eq", f, const(-math.inf, f.dtype)), zero(f.dtype), op("exp", op("sub", f, y)))


def _moments(site: Site, e: Reduce) -> Partials:
    f = e.args[0]
    count = product(a.extent for a in e.axes if a.extent is not None)
    n = const(count.const, f.dtype) if count.is_const else cast(index(count), f.dtype)
    if e.out == 0:
        return [op("div", const(1, f.dtype), n)]
    other, axes = moved_axes(f, e.axes)
    mean = site.helper("mean", reduce(MOMENTS, (other,), axes), site.y.axes)
    return [op("mul", op("sub", f, mean), op("div", const(2, f.dtype), n))]


_REDUCTIONS: dict[str, Callable[[Site, Reduce], Partials]] = {
    SUM.name: _sum, MAX.name: _extremum, MIN.name: _extremum, MAX_FIRST.name: _first_extremum, ARGMAX.name: _arg_extremum,
    ARGMIN.name: _arg_extremum, PROD.name: _product, LOGSUMEXP.name: _logsumexp, MOMENTS.name: _moments,
}


def _states(carrier: Carrier, swapped: bool) -> Carrier:
    """The carrier that results in its whole state; ``swapped`` combines from the other end."""
    def combine(a: Algebra, x: tuple[Expr, ...], y: tuple[Expr, ...]) -> tuple[Expr, ...]:
        return carrier.combine(a, y, x)

    name = f"{carrier.name}_state" + ("_swapped" if swapped else "")
    return replace(carrier, name=name, finalize=lambda a, s: s, result=carrier.state, combine=combine if swapped else carrier.combine)


def _custom_reduction(site: Site, e: Reduce) -> Partials:
    """Through ``finalize(combine(combine(before, lift(f)), after))``, the states around each element taken by scans."""
    (k,) = e.axes
    n = k.extent
    assert n is not None
    state = e.carrier.state(tuple(a.dtype for a in e.args))
    around: list[tuple[Expr, ...]] = []
    for after in (False, True):
        t = inner(k)
        args = [substitute(a, {k: n - 1 - as_term(t) if after else as_term(t)}) for a in e.args]
        at = n - 1 - as_term(k) if after else as_term(k)
        prefixes = [scan(_states(e.carrier, after), tuple(args), t, at, out=m, exclusive=True) for m in range(len(state))]
        around.append(tuple(site.helper("after" if after else "before", p, (*site.y.axes, k)) for p in prefixes))
    holes = params(tuple(a.dtype for a in e.args))
    middle = e.carrier.combine(EXPRS, e.carrier.combine(EXPRS, around[0], e.carrier.lift(EXPRS, holes, state)), around[1])
    y = e.carrier.finalize(EXPRS, middle)[e.out]
    return _by_hole(y, holes, e.args)


def _by_hole(y: Expr, holes: Sequence[Param], values: Sequence[Expr]) -> Partials:
    """The partials of ``y`` with respect to placeholders, which then take their values."""
    filled: dict[Expr, Expr] = dict(zip(holes, values))
    out: Partials = []
    for h in holes:
        d = tangent(y, {h: const(1, h.dtype)}) if h.dtype.is_float else zero(y.dtype)
        out.append(substitute_values(d, filled))
    return out


# -- scans ---------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Step:
    """One step of a scan, over the axes of ``y`` with its position replaced by the scanned axis: ``A_t`` and each ``B_t``."""

    carry: Expr
    partials: Partials


def scan_partials(site: Site, e: Scan, position: Var) -> Step:
    """The step of the scan ``e`` of :func:`dsl.derivative.split.split` form, whose ``position`` axis runs over the results.

    Raises:
        DerivativeError: a carrier with a state of several numbers that has no rule here.
    """
    t: Var = e.axis
    now = site.at({position: as_term(t)})
    state = e.carrier.identity(EXPRS, e.carrier.state(tuple(a.dtype for a in e.args)))
    empty = cast(e.carrier.finalize(EXPRS, state)[e.out], e.dtype)
    before = select(op("ge", index(t), index(ONE)), site.at({position: as_term(t) - 1}), empty)
    name = e.carrier.name
    f = e.args[0]
    if name == PROD.name:
        return Step(f, [before])
    if name in (MAX.name, MIN.name):
        new = op("eq", f, now)
        return Step(indicator(op("not", new), f), [indicator(new, f)])
    if name in (ARGMAX.name, ARGMIN.name):
        return _arg_step(site, e, position)
    if name == LOGSUMEXP.name:
        return Step(shifted_exp(EXPRS, before, now), [_weight(f, now)])
    if name == RECURRENCE.name:
        return Step(cast(f, e.dtype), [before, const(1, e.dtype)])
    return _custom_step(e, before)


def _arg_step(site: Site, e: Scan, position: Var) -> Step:
    t: Var = e.axis
    s = inner(t)
    args = tuple(substitute(a, {t: as_term(s)}) for a in e.args)
    axes = tuple(t if a is position else a for a in site.y.axes)
    place = site.helper("position", scan(e.carrier, args, s, as_term(t), out=1), axes)
    new = op("eq", cast(e.args[1], place.dtype), place)
    return Step(indicator(op("not", new), e.args[0]), [indicator(new, e.args[0]), None])


def _custom_step(e: Scan, before: Expr) -> Step:
    carrier: Carrier = e.carrier
    dtypes = tuple(a.dtype for a in e.args)
    state = carrier.state(dtypes)
    hole = Param((), (len(dtypes),), state[0])
    if len(state) != 1 or carrier.finalize(EXPRS, (hole,))[0] is not hole:
        raise DerivativeError(f"a scan with carrier `{carrier}` has no derivative rule", f"its state is {len(state)} numbers, or finalised",
                              "it is known for the carriers of dlc and for any with one number of state")
    inputs = params(dtypes)
    step = cast(carrier.combine(EXPRS, (hole,), carrier.lift(EXPRS, inputs, state))[0], e.dtype)
    *parts, carry = _by_hole(step, (*inputs, hole), (*e.args, cast(before, state[0])))
    assert carry is not None
    return Step(carry, parts)


def backward_scan(site: Site, e: Scan, position: Var, step: Step, g: Expr) -> Expr:
    """``l_t = g_t + A_{t+1} l_{t+1}`` over the scanned axis, as a forward recurrence from the last position; read at ``t``."""
    t: Var = e.axis
    n = t.extent
    assert n is not None
    u = inner(t)
    given = substitute(g, {position: n - 1 - as_term(u)})
    first = op("ge", index(u), index(ONE))
    carry = select(first, substitute(step.carry, {t: n - as_term(u)}), zero(e.dtype))
    axes = tuple(t if a is position else a for a in site.y.axes)
    return site.helper("adjoint", scan(RECURRENCE, (carry, given), u, n - 1 - as_term(t)), axes)


def forward_scan(e: Scan, step: Step, change: Expr) -> Expr:
    """``r_t = A_t r_{t-1} + change_t`` up to the position of ``e``."""
    return scan(RECURRENCE, (step.carry, change), e.axis, e.at)


def position_of(e: Scan, axes: Sequence[Var]) -> Var:
    """The axis of the definition that runs over the results of a scan in split form."""
    return next(a for a in axes if as_term(a) == e.at)


