"""The form that one pass gives a reduction: independent, deferred, rolling or moments."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from dsl.algebra import EXPRS
from dsl.carrier import COMOMENTS, LOGSUMEXP, MAX, MIN, MOMENTS, SUM, Carrier
from dsl.cascade.believe import believe_product, believe_sum, evaluate
from dsl.cascade.factored import Mixed, Product, Sides, addends, gathered, leaves, negated, product, products, total
from dsl.cascade.model import Accumulator, Cascade, Component, Weight, ids
from dsl.cascade.positive import positive
from dsl.dim import Var
from dsl.dtype import Dtype
from dsl.expr import Compute, Expr, Op, Read, Reduce, Tensor, cast, const, op, where

_ADDITIVE = {"max": 0, "min": 0, "argmax": 0, "argmin": 0, "logsumexp": 0}  # carrier -> the input to which a constant may be added


class Builder:
    """Adds one stage's reductions to a cascade."""

    def __init__(self, c: Cascade, sides: Sides, extra: tuple[Var, ...], body: Reduce, first: Compute) -> None:
        self.cascade, self.sides, self.extra, self.body, self.first = c, sides, extra, body, first

    def add(self, tensor: Compute, stage: str, place: tuple[Var, ...], element: tuple[Expr, ...], earlier: tuple[Read, ...]) -> None:
        """One finalised component of the stage's carrier.

        Raises:
            Mixed: the element has no form that one pass can compute.
        """
        form, value, used = self._form(tensor, element, earlier)
        c = Component(tensor, stage, place, element, value, form, used, earlier)
        self.cascade = replace(self.cascade, components=(*self.cascade.components, c))

    def _form(self, tensor: Compute, element: tuple[Expr, ...], earlier: tuple[Read, ...]) -> tuple[str, Expr, tuple[str, ...]]:
        if not any(self.sides.earlier(a) for a in element):
            if self.body.carrier is LOGSUMEXP:
                return self._logarithm(tensor, element[0])
            value, name = self._plain_value(element, tensor)
            return "independent", value, (name,)
        name = self.body.carrier.name
        if name in _ADDITIVE:
            return self._shifted(tensor, element)
        if name != "sum":
            raise Mixed(f"nothing is known that distributes over `{name}`, and its elements depend on earlier results")
        arg = element[0]
        parts = tuple(gathered(p) for p in products(arg, self.sides))
        believe_product(arg, parts)
        moments = self._moments(parts, tensor, arg.dtype)
        if moments is not None:
            return moments
        terms = [self._term(p, arg) for p in parts]
        value = cast(total([t[0] for t in terms], terms[0][0].dtype), tensor.body.dtype)
        return ("rolling" if any(t[2] for t in terms) else "deferred"), value, tuple(dict.fromkeys(n for t in terms for n in t[1]))

    def _plain_value(self, element: tuple[Expr, ...], tensor: Compute) -> tuple[Expr, str]:
        """The carrier's own states and finalize."""
        a = self._accumulator(self.body.carrier, element, tensor)
        states = tuple(a.read(self.cascade.rows, n) for n in range(len(a.state)))
        return cast(self.body.carrier.finalize(EXPRS, states)[tensor.body.data[2]], tensor.body.dtype), a.name

    def _shifted(self, tensor: Compute, element: tuple[Expr, ...]) -> tuple[str, Expr, tuple[str, ...]]:
        """``max(x + d) = max(x) + d``, and so for every carrier that a constant passes through."""
        at = _ADDITIVE[self.body.carrier.name]
        if any(self.sides.earlier(a) for n, a in enumerate(element) if n != at):
            raise Mixed(f"the position that goes along with `{self.body.carrier}` depends on earlier results")
        if self.body.carrier in (MAX, MIN):  # a position is that of the first of equals, and of all in a row that is no number
            monotone = self._monotone(tensor, element)
            if monotone is not None:
                return monotone
        parts = addends(element[at], self.sides)
        data = total([t for t in parts if not self.sides.earlier(t)], element[at].dtype)
        shift = total([t for t in parts if self.sides.earlier(t)], element[at].dtype)
        believe_sum(element[at], parts)
        if self.body.carrier is LOGSUMEXP:
            _, value, names = self._logarithm(tensor, data)
            return "rolling", op("add", value, cast(shift, value.dtype)), names
        value, name = self._plain_value((*element[:at], data, *element[at + 1:]), tensor)
        return "deferred", value if tensor.body.data[2] != at else op("add", value, cast(shift, value.dtype)), (name,)

    def _monotone(self, tensor: Compute, element: tuple[Expr, ...]) -> tuple[str, Expr, tuple[str, ...]] | None:
        """``max(s * x) = s * max(x)`` for a positive ``s``, and ``max(s * exp(x + d)) = s * exp(max(x) + d)``."""
        try:
            p, *more = (gathered(p) for p in products(element[0], self.sides))
        except Mixed:
            return None
        data = tuple(f for f in p.data if self.sides.data(f))
        scale = product((*p.scale, *(f for f in p.data if not self.sides.data(f))))
        if more or p.sums or p.guards or p.rounding or bool(p.power) == bool(data):
            return None
        if scale is not None and not positive(scale, self.cascade.components):
            return None
        believe_product(element[0], (p,))
        weight = self._weight(p)
        inner = weight.data if weight is not None else product(data)
        assert inner is not None
        value, name = self._plain_value((inner,), tensor)
        value = op(weight.base, op("add", value, cast(weight.earlier, value.dtype))) if weight is not None else value
        return "deferred", value if scale is None else op("mul", value, cast(scale, value.dtype)), (name,)

    def _accumulator(self, carrier: Carrier, inputs: tuple[Expr, ...], tensor: Compute, **more: object) -> Accumulator:
        """The accumulator of these elements: one that is there already, else a new one."""
        rows = self.cascade.rows
        weights = [w for w in (more.get("weight"), more.get("centred")) if isinstance(w, Weight)]
        parts = [*inputs, *more.get("guards", ()), *(w.data for w in weights),  # type: ignore[misc]
                 *(x for x in (more.get("inside"),) if x is not None)]
        extra = tuple(v for v in self.extra if any(v in e.free for e in parts))
        dtypes = carrier.state(tuple(a.dtype for a in inputs))
        shape = tuple(v.extent for v in (*rows, *extra) if v.extent is not None)
        taken = {a.name for a in self.cascade.accumulators}
        name, n = tensor.name, 1
        while name in taken:
            name, n = f"{tensor.name}_{n}", n + 1
        label = [name] if len(dtypes) == 1 else [f"{name}{k}" for k in range(len(dtypes))]
        states = tuple(Tensor(x, shape, d, tensor.loc) for x, d in zip(label, dtypes))
        a = Accumulator(name, carrier, inputs, extra, states, loc=tensor.loc, **more)  # type: ignore[arg-type]
        same = next((x for x in self.cascade.accumulators if x.key() == a.key()), None)
        if same is not None:
            return same
        self.cascade = replace(self.cascade, accumulators=(*self.cascade.accumulators, a))
        return a

    def _term(self, p: Product, arg: Expr) -> tuple[Expr, tuple[str, ...], bool]:
        """(value, accumulators, whether it is rolling) of one product of a sum."""
        weight = self._weight(p)
        if len(p.sums) > 1:
            raise Mixed(f"`{arg}` has degree {len(p.sums)} in a difference of data and earlier results: expanding it would cancel, "
                        "and only products of two deviations, each from the mean of the same values, have a carrier")
        scale = product(p.scale)
        if not p.sums:
            a = self._sum_of(p, arg, weight)
            return _scaled(a.read(self.cascade.rows), scale, weight), (a.name,), weight is not None
        return self._sum_term(p, arg, weight, scale)

    def _sum_term(self, p: Product, arg: Expr, weight: Weight | None, scale: Expr | None) -> tuple[Expr, tuple[str, ...], bool]:
        """``w (x + d) = w x + w d``; an ``x + d`` that is the exponent of a weight stays together, since ``x`` alone may be large."""
        if weight is None:
            return self._translated(p, arg, scale)
        rows, parts = self.cascade.rows, list(p.sums[0])
        found: list[Expr] = []
        names: list[str] = []
        known = [weight, *(a.weight for a in self.cascade.accumulators if a.weight is not None)]
        for centre in dict.fromkeys(known):
            for sign, change in ((1, lambda t: t), (-1, negated)):
                gone = {change(t) for t in (*centre.data_parts, *centre.earlier_parts)}
                if not gone <= set(parts):
                    continue
                parts = [t for t in parts if t not in gone]
                self._sum_of(p, arg, weight)
                a = self._sum_of(p, arg, weight, None, centre)
                done = _scaled(a.read(rows), scale, weight)
                found.append(done if sign == 1 else op("neg", done))
                names.append(a.name)
        data, earlier = [t for t in parts if not self.sides.earlier(t)], [t for t in parts if self.sides.earlier(t)]
        for factor, outside in ((total(data, arg.dtype) if data else None, None), (None, total(earlier, arg.dtype) if earlier else None)):
            if factor is not None or outside is not None:
                a = self._sum_of(p, arg, weight, factor)
                out = product([x for x in (scale, outside) if x is not None])
                found.append(_scaled(a.read(rows), out, weight))
                names.append(a.name)
        return total(found, arg.dtype), tuple(names), True

    def _translated(self, p: Product, arg: Expr, scale: Expr | None) -> tuple[Expr, tuple[str, ...], bool]:
        """``g (x + d)`` stays together: sums at two ``d`` differ by ``(d' - d) sum g``. Apart, ``g x`` and ``g d`` could cancel.

        A mean is taken as the one of the values so far, from the carrier of moments, and not as a part of the final one.
        """
        known = self._deviation(p.sums[0], arg.dtype)
        if known is not None and known[1].form == "independent":
            self._mean_from(known[1], self._accumulator(MOMENTS, (known[0],), known[1].tensor), 1, arg.dtype)
        base = self._sum_of(p, arg, None)
        centre = Weight("", tuple(t for t in p.sums[0] if not self.sides.earlier(t)), tuple(t for t in p.sums[0] if self.sides.earlier(t)))
        a = self._sum_of(p, arg, None, None, centre)
        return _scaled(a.read(self.cascade.rows), scale, None), (base.name, a.name), True

    def _sum_of(self, p: Product, arg: Expr, weight: Weight | None, factor: Expr | None = None,
                centred: Weight | None = None) -> Accumulator:
        made = product([x for x in (*p.data, factor) if x is not None])
        element = made if made is not None else const(1.0, arg.dtype)
        guards, inside, rounding = p.guards, product(p.inside), p.rounding
        if weight is None:
            if rounding is not None and inside is not None:
                element = op("mul", cast(cast(inside, rounding), arg.dtype), element)
            for g in guards:
                element = where(g, element, const(0.0, element.dtype))
            guards, inside, rounding = (), None, None
        return self._accumulator(SUM, (element,), self.first, weight=weight, inside=inside, rounding=rounding, guards=guards,
                                 centred=centred, permit=p.permit if self.extra and (weight or centred) is not None else "")

    def _weight(self, p: Product) -> Weight | None:
        if not p.power:
            return None
        return Weight(p.base, tuple(t for t in p.power if not self.sides.earlier(t)), tuple(t for t in p.power if self.sides.earlier(t)))

    def _logarithm(self, tensor: Compute, element: Expr) -> tuple[str, Expr, tuple[str, ...]]:
        """``log(sum(exp(x)))`` by the maximum and the sum of ``exp(x - maximum)``."""
        x = element if element.dtype.is_float else cast(element, tensor.body.dtype)
        m = self._accumulator(MAX, (x,), tensor)
        top = m.read(self.cascade.rows)
        s = self._accumulator(SUM, (const(1.0, x.dtype),), tensor, weight=Weight("exp", (x,), (op("neg", top),), strict=False))
        return "rolling", cast(op("add", top, op("log", s.read(self.cascade.rows))), tensor.body.dtype), (m.name, s.name)

    def _moments(self, parts: tuple[Product, ...], tensor: Compute, dtype: Dtype) -> tuple[str, Expr, tuple[str, ...]] | None:
        """``sum((x - mean x) (y - mean y))``, each mean of the same values: the carrier of moments, which also gives the sums.

        Equal factors are squared deviations.
        """
        p = parts[0]
        if len(parts) != 1 or len(p.sums) != 2 or p.power or p.guards or p.data or p.scale or p.rounding:
            return None
        sides = [self._deviation(terms, dtype) for terms in p.sums]
        if None in sides:
            return None
        (x, mean_x, sign_x), (y, mean_y, sign_y) = sides  # type: ignore[misc]
        carrier, inputs, means = (MOMENTS, (x,), (mean_x,)) if x is y else (COMOMENTS, (x, y), (mean_x, mean_y))
        a = self._accumulator(carrier, inputs, tensor)
        for k, mean in enumerate(means):
            if mean.form == "independent":
                self._mean_from(mean, a, k + 1, dtype)
        value = a.read(self.cascade.rows, len(a.state) - 1)
        return "moments", value if sign_x == sign_y else op("neg", value), (a.name,)

    def _deviation(self, terms: tuple[Expr, ...], dtype: Dtype) -> tuple[Expr, Component, int] | None:
        """``(x, the component that is its sum, sign)`` of terms that add up to ``sign * (x - sum(x) / n)``."""
        x = total([t for t in terms if not self.sides.earlier(t)], dtype)
        earlier = total([t for t in terms if self.sides.earlier(t)], dtype)
        mean = next((c for c in self.cascade.components if _is_mean(earlier, x, c, self.cascade)), None)
        return None if mean is None else (_positive(x), mean, 1 if x is _positive(x) else -1)

    def _mean_from(self, mean: Component, a: Accumulator, component: int, dtype: Dtype) -> None:
        """Take the sum of values from the state that has their mean; a sum that nobody else needs goes."""
        n = const(float(_count(self.cascade)), dtype)
        old = next(x for x in self.cascade.accumulators if x.name == mean.used[0])
        sum_ = cast(op("mul", a.read(self.cascade.rows, component), n), mean.tensor.body.dtype)
        users = [c for c in self.cascade.components if old.name in c.used and c is not mean]
        kept = tuple(x for x in self.cascade.accumulators if x is not old or users)
        components = tuple(replace(c, value=sum_, form="moments", used=(a.name,)) if c is mean else c for c in self.cascade.components)
        self.cascade = replace(self.cascade, components=components, accumulators=kept)


def _positive(x: Expr) -> Expr:
    """``x`` of ``-x``: squared deviations do not see the sign, the mean has the sign of the values."""
    return x.args[0] if isinstance(x, Op) and x.name == "neg" else x


def _scaled(state: Expr, scale: Expr | None, weight: Weight | None) -> Expr:
    """A state times what was put off; where every weight vanished the result is zero, whatever it is divided by."""
    if scale is None:
        return state
    done = product((state, *_factors(scale)))
    assert done is not None
    return where(op("eq", state, const(0.0, state.dtype)), const(0.0, done.dtype), done) if weight is not None else done


def _factors(e: Expr) -> tuple[Expr, ...]:
    return (*_factors(e.args[0]), *_factors(e.args[1])) if isinstance(e, Op) and e.name == "mul" else (e,)


def _count(c: Cascade) -> int:
    n = 1
    for v in c.axes:
        if v.extent is None or not v.extent.is_const:
            raise Mixed("the number of values is not known")
        n *= v.extent.const
    return n


def _is_mean(earlier: Expr, x: Expr, c: Component, cascade: Cascade) -> bool:
    """Whether ``x + earlier`` is ``+-(x - sum(x) / n)`` with the sum a component."""
    if c.form not in ("independent", "moments") or c.tensor.body.data[0] is not SUM or c.element[0] is not _positive(x):
        return False
    if ids(leaves(earlier)) != ids((c.read(),)):
        return False
    sign = 1.0 if x is _positive(x) else -1.0
    points, n = np.array([-3.5, 0.7, 2.0]), _count(cascade)
    return n > 0 and bool(np.allclose(evaluate(earlier, {c.read(): points}) * n, -sign * points, rtol=1e-6))
