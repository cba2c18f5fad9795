"""Sums that share what they add up: factors that do not vary move out of them, deviations from a mean leave them, equal ones are made once.

The backward of a normalisation, as the chain rule writes it, adds the same gradients up again and again, each time scaled by something
else, and adds deviations from a mean, which are nothing in all::

    d_scale[c] = sum[n](d[n, c] * (centred[n, c] * r[c]))      ->  r[c] * sum[n](d[n, c] * centred[n, c])
    d_r[c] = sum[n](d[n, c] * w[c] * centred[n, c])            ->  w[c] * the same sum
    d_mean[c] = sum[n](d[n, c] * w[c] * r[c] + k[c] * centred[n, c])  ->  w[c] * r[c] * sum[n](d[n, c])

Over several axes, sums share what they add up along some of them: of groups of channels, with a weight for each channel::

    d_mean[n, g] = sum[c, x](d[n, g, c, x] * w[g, c])  ->  sum[c](w[g, c] * s[n, g, c]),  s[n, g, c] = sum[x](d[n, g, c, x])
    d_bias[g, c] = sum[n, x](d[n, g, c, x])            ->  sum[n](s[n, g, c])

Factors are looked for in the pointwise definitions that a sum reads, as long as these are plain arithmetic on what lies in memory. Products
whose operands are reused, such as those of matrices, stay as they are: they are computed from factors that others have prepared.
"""

from __future__ import annotations

import collections
import functools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from dsl.algebra import inputs_and_computes, reads, substitute, substitute_values, transform, walk
from dsl.carrier import SUM
from dsl.derivative.simplify import add, fold, is_op, is_value, quotient, simplify, zero
from dsl.derivative.split import is_pointwise
from dsl.dim import Term, Var, as_term, product
from dsl.expr import Cast, Compute, Const, Expr, Index, Op, Read, Reduce, Tensor, Where, const, index, op

_PLAIN = ("add", "sub", "mul", "div", "neg")


def share_sums(outputs: Sequence[Tensor], kept: Iterable[Tensor], fixed: Iterable[Tensor]) -> list[Tensor]:
    """The outputs with the sums that they depend on factored, and equal ones made once.

    Args:
        outputs: what is wanted.
        kept: definitions that stay what they are, and whose sums are left alone.
        fixed: tensors that will lie in memory whatever happens, so that nothing is gained by what they are made of.
    """
    mine = set(kept)
    work = _Factoring(set(fixed))
    new: dict[Tensor, Tensor] = {}
    nothing: set[Tensor] = set()
    for c in inputs_and_computes(tuple(outputs))[1]:
        if c not in mine:
            body = work.factored(substitute(c.body, {}, new))
            gone: dict[Expr, Expr] = {r: zero(r.dtype) for r in reads(body) if r.tensor in nothing}
            body = simplify(substitute_values(body, gone)) if gone else body
            if body is not c.body:
                new[c] = Compute(c.name, c.axes, body, c.loc, c.dtype)
            if is_value(body, 0):
                nothing.add(new.get(c, c))
    return _once(_in_parts([new.get(t, t) for t in outputs], mine, work), mine)


# -- factors -------------------------------------------------------------------------------------------------------
@dataclass
class _Factoring:
    """Rewrites sums; remembers which definitions are plain arithmetic."""

    fixed: set[Tensor]
    light: dict[Tensor, bool] = field(default_factory=dict)

    def factored(self, body: Expr) -> Expr:
        """A body with its sums factored."""
        found = transform(body, lambda e: self._sum(e) if isinstance(e, Reduce) and e.carrier == SUM else None)
        return body if found is body else simplify(found)

    def _sum(self, e: Reduce) -> Expr | None:
        loops, value = frozenset(e.axes), e.args[0]
        whole = frozenset(v for v in value.free if v.kind == "axis") | loops
        if not any(whole <= r.free for r in reads(value)):
            return None
        terms = self._terms(value, loops)
        left = [t for t in terms if not self._is_deviation(t, e.axes)]
        if not left:
            return zero(e.dtype)
        if len(left) > 1:
            if len(left) == len(terms):
                return None
            return Reduce((functools.reduce(add, left),), e.data, e.dtype, e.loc)
        (over, under), inside = self._factors(left[0], loops)
        if not (over or under) or not inside[0]:
            return None if len(left) == len(terms) else Reduce((left[0],), e.data, e.dtype, e.loc)
        return quotient([*over, Reduce((quotient(*inside, e.dtype),), e.data, e.dtype, e.loc)], under, e.dtype)

    def parted(self, e: Reduce, count: int) -> tuple[Reduce, Reduce] | None:
        """A sum over its first axes of sums over the others, and the latter; None where those are of factors that would be reused."""
        loops = e.axes[count:]
        (over, under), inside = self._factors(e.args[0], frozenset(loops))
        value = quotient(*inside, e.dtype)
        whole = frozenset(v for v in value.free if v.kind == "axis") | {*loops}
        if not any(whole <= r.free for r in reads(value)):
            return None
        inner = Reduce((value,), (SUM, loops, 0), e.dtype, e.loc)
        return Reduce((quotient([*over, inner], under, e.dtype),), (SUM, e.axes[:count], 0), e.dtype, e.loc), inner

    def _terms(self, e: Expr, loops: frozenset[Var]) -> list[Expr]:
        """What is added up, through definitions that add up terms of their own."""
        for x in (e, self._inside(e)):
            if x is not None and (is_op(x, "add") or (is_op(x, "sub") and x.args[1].free & loops)):
                first, second = (self._terms(a, loops) for a in x.args)
                return [*first, *(second if is_op(x, "add") else [fold(op("neg", t)) for t in second])]
        return [e]

    def _factors(self, e: Expr, loops: frozenset[Var]) -> tuple[tuple[list[Expr], list[Expr]], tuple[list[Expr], list[Expr]]]:
        """Numerator and denominator of what does not vary along the loops, and of what does."""
        if not e.free & loops:
            return ([e], []), ([], [])
        if is_op(e, "mul") or is_op(e, "div"):
            (a, b), (x, y) = self._factors(e.args[0], loops)
            (c, d), (z, w) = self._factors(e.args[1], loops)
            return ((a + c, b + d), (x + z, y + w)) if is_op(e, "mul") else ((a + d, b + c), (x + w, y + z))
        if is_op(e, "neg"):
            (a, b), inside = self._factors(e.args[0], loops)
            return ([const(-1, e.dtype), *a], b), inside
        inner = self._inside(e)
        if inner is not None:
            outside, inside = self._factors(inner, loops)
            if any(outside):
                return outside, inside
        return ([], []), ([e], [])

    def _inside(self, e: Expr) -> Expr | None:
        """The body of the definition that an expression reads, where that is plain arithmetic and need not lie in memory."""
        if not isinstance(e, Read) or e.args or not isinstance(e.tensor, Compute) or e.tensor in self.fixed or not self._is_light(e.tensor):
            return None
        return _at(e)

    def _is_light(self, t: Tensor) -> bool:
        """Whether an element is as cheap to make again as to read: arithmetic on inputs and on what other definitions must keep."""
        if t in self.light:
            return self.light[t]
        self.light[t] = True
        if isinstance(t, Compute) and t not in self.fixed and is_pointwise(t.body):
            here = frozenset(t.axes)
            self.light[t] = all(_is_plain(e) or not here <= e.free for e in walk(t.body)) and all(
                self._is_light(r.tensor) for r in reads(t.body) if here <= r.free)
        return self.light[t]

    # -- deviations from a mean ------------------------------------------------------------------------------------
    def _is_deviation(self, term: Expr, axes: tuple[Var, ...]) -> bool:
        """Whether a term is a difference from the mean along the axes, times what does not vary: such terms add up to nothing."""
        inside = self._factors(term, frozenset(axes))[1]
        if inside[1] or len(inside[0]) != 1:
            return False
        inner = self._inside(inside[0][0])
        e = inside[0][0] if inner is None else inner
        return is_op(e, "sub") and self._is_mean(e.args[1], e.args[0], axes)

    def _is_mean(self, e: Expr, of: Expr, axes: tuple[Var, ...]) -> bool:
        """Whether ``e`` is the sum of ``of`` along the axes, divided by their extent."""
        e = _seen_through(e)
        if not is_op(e, "div"):
            return False
        total, count = _seen_through(e.args[0]), e.args[1]
        if isinstance(total, Read) and isinstance(total.tensor, Compute) and not total.args:
            total = _at(total)
        if not isinstance(total, Reduce) or total.carrier != SUM or len(total.axes) != len(axes):
            return False
        if any(a.extent != b.extent for a, b in zip(total.axes, axes)) or not _counts(count, axes):
            return False
        return substitute(total.args[0], {a: as_term(b) for a, b in zip(total.axes, axes)}) is of


def _is_plain(e: Expr) -> bool:
    return isinstance(e, (Read, Const, Cast, Index)) or (isinstance(e, Op) and e.name in _PLAIN)


def _at(r: Read) -> Expr:
    """The body of a definition at the place that is read."""
    c = r.tensor
    assert isinstance(c, Compute)
    return substitute(c.body, dict(zip(c.axes, r.data[1])))


def _seen_through(e: Expr) -> Expr:
    """What a chain of definitions that only read or divide is made of."""
    while isinstance(e, Read) and isinstance(e.tensor, Compute) and not e.args and (
            isinstance(e.tensor.body, Read) or is_op(e.tensor.body, "div")):
        e = _at(e)
    return e


def _counts(e: Expr, axes: Sequence[Var]) -> bool:
    n = product(v.extent for v in axes if v.extent is not None)
    return (isinstance(e, Cast) and isinstance(e.args[0], Index) and e.args[0].term == n) or (
        isinstance(e, Const) and n.is_const and e.value == n.const)


# -- equal sums ----------------------------------------------------------------------------------------------------
def _in_parts(outputs: Sequence[Tensor], kept: set[Tensor], work: _Factoring) -> list[Tensor]:
    """The outputs with sums over several axes as sums of sums over the last of them, where others need those too."""
    computes = [c for c in inputs_and_computes(tuple(outputs))[1] if c not in kept]
    forms = _Forms()
    wholes = {e: forms.of(e)[0] for c in computes for e in _sums(c.body)}
    found = {e: [way for n in range(1, len(e.axes)) if (way := work.parted(e, n)) is not None] for e in wholes}
    ways = {e: {forms.of(inner)[0]: whole for whole, inner in some} for e, some in found.items()}
    users: dict[Expr, set[Expr]] = {form: {form} for form in wholes.values()}
    for e, mine in ways.items():
        for form in mine:
            users.setdefault(form, set()).add(wholes[e])
    chosen = {e: shared[0] for e, mine in ways.items() if (shared := [f for f in mine if len(users[f]) > 1])}
    asked = collections.Counter({form: 1 for form in wholes.values()})
    asked.update(form for form, _ in {(form, wholes[e]) for e, form in chosen.items()})
    parted: dict[Expr, Expr] = {e: ways[e][form] for e, form in chosen.items() if asked[form] > 1}
    new: dict[Tensor, Tensor] = {}
    for c in computes:
        body = substitute(substitute_values(c.body, parted), {}, new)
        if body is not c.body:
            new[c] = Compute(c.name, c.axes, body, c.loc, c.dtype)
    return [new.get(t, t) for t in outputs]


def _once(outputs: Sequence[Tensor], kept: set[Tensor]) -> list[Tensor]:
    """The outputs with every sum that is asked for several times in a definition of its own."""
    computes = [c for c in inputs_and_computes(tuple(outputs))[1] if c not in kept]
    forms = _Forms()
    asked = collections.Counter(forms.of(e)[0] for c in computes for e in _sums(c.body))
    made: dict[Expr, Compute] = {}
    new: dict[Tensor, Tensor] = {}
    for c in computes:
        values: dict[Expr, Expr] = {}
        for e in _sums(c.body):
            form, at = forms.of(e)
            if asked[form] > 1 and not (e is c.body and at == c.axes and form not in made):
                shared = made.setdefault(form, _defined(form, forms, f"{c.name}_sum", new))
                values[e] = shared.read(*map(index, at))
        body = substitute(substitute_values(c.body, values), {}, new)
        if body is not c.body:
            new[c] = Compute(c.name, c.axes, body, c.loc, c.dtype)
        for e in _sums(c.body):
            if e is c.body:
                made.setdefault(forms.of(e)[0], new.get(c, c))  # type: ignore[arg-type]
    return [new.get(t, t) for t in outputs]


def _sums(body: Expr) -> list[Reduce]:
    """The sums in a body that mean the same anywhere: not those in a selection that gather, whose indices hold only where it takes them."""
    found = [e for e in walk(body) if isinstance(e, Reduce) and e.carrier == SUM and is_pointwise(e.args[0])]
    gathering = {e for e in found if any(r.args for r in reads(e))}
    chosen = {e for w in walk(body) if isinstance(w, Where) for a in w.args[1:] for e in walk(a)} if gathering else set()
    return [e for e in found if e not in gathering & chosen]


def _defined(form: Expr, forms: _Forms, name: str, new: Mapping[Tensor, Tensor]) -> Compute:
    """A definition of a sum over the places where it is wanted."""
    assert isinstance(form, Reduce)
    axes, bound = (tuple(Var(v.name, v.extent) for v in vs) for vs in (forms.free[form], form.axes))
    env = {a: as_term(b) for a, b in zip((*forms.free[form], *form.axes), (*axes, *bound))}
    return Compute(name, axes, Reduce((substitute(form.args[0], env, new),), (SUM, bound, 0), form.dtype, form.loc), form.loc)


class _Forms:
    """Sums with their axes numbered, so that equal ones are the same expression."""

    def __init__(self) -> None:
        self.axes: dict[tuple[str, int, Term | None], Var] = {}
        self.free: dict[Expr, tuple[Var, ...]] = {}

    def of(self, e: Reduce) -> tuple[Expr, tuple[Var, ...]]:
        """The numbered form of a sum, and its own free axes in their order there."""
        places = (v for r in reads(e) for i in r.data[1] if i is not None for v in sorted(i.vars, key=lambda v: v.uid))
        own = tuple(dict.fromkeys(v for v in (*places, *sorted(e.free, key=lambda v: v.uid)) if v in e.free and v.kind == "axis"))
        free, bound = (tuple(self.axes.setdefault((kind, n, v.extent), Var(v.name, v.extent)) for n, v in enumerate(vs))
                       for kind, vs in (("free", own), ("bound", e.axes)))
        env = {a: as_term(b) for a, b in zip((*own, *e.axes), (*free, *bound))}
        form = Reduce((substitute(e.args[0], env),), (SUM, bound, 0), e.dtype, e.loc)
        self.free[form] = free
        return form, own
