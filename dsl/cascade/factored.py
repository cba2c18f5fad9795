"""The element of a reduction as a sum of products, with what carries data apart from what carries earlier results.

For a reduction ``d = sum[k] F(x[k]; D)`` every factor of ``F`` either runs along ``k`` (*data*), or mentions earlier results ``D``
(*earlier*), or neither (it counts as data). Exponentials are kept by the addends of their exponents, so that ``exp(x - m)`` is data
``x`` and earlier ``-m`` though neither is a factor. Nothing here asks which operator it looks at.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from dsl.algebra import walk
from dsl.dim import Var
from dsl.dtype import Dtype
from dsl.expr import Cast, Const, Expr, Op, Read, Where, const, op, where
from dsl.opset import PRECISIONS
from dsl.widen import contains


class Mixed(Exception):  # noqa: N818  (a verdict, not an error)
    """A part of an element mixes data and earlier results in a way that has no normal form; ``str`` says which part and why."""


@dataclass(frozen=True)
class Product:
    """``scale * where(guards, data * base(power) * sums, 0)``, each a product (the power a sum) of its parts.

    Attributes:
        scale: factors of earlier results alone.
        data: factors free of earlier results.
        power: addends of the exponent, data and earlier; none when there is no exponential of both.
        base: ``"exp"`` or ``"exp2"``.
        sums: factors that are sums of data and earlier results, by their addends.
        guards: conditions on data outside of which the element is zero.
        rounding: the low dtype that the power times ``inside`` is rounded to; None where it is not.
        inside: factors of data under the rounding.
        permit: how the power, or a sum with its data, may be multiplied: an operation of :data:`dsl.opset.PRECISIONS`; empty for exactly.
    """

    scale: tuple[Expr, ...] = ()
    data: tuple[Expr, ...] = ()
    power: tuple[Expr, ...] = ()
    base: str = "exp"
    sums: tuple[tuple[Expr, ...], ...] = ()
    guards: tuple[Expr, ...] = ()
    rounding: Dtype | None = None
    inside: tuple[Expr, ...] = ()
    permit: str = ""


class Sides:
    """Says of an expression whether it carries data, earlier results, both or neither.

    Args:
        axes: the axes that data runs along.
        earlier: the reads that are earlier results.
        approximate: whether a rounding inside an element may be moved.
    """

    def __init__(self, axes: Iterable[Var], earlier: Iterable[Expr], approximate: bool = False) -> None:
        self.axes, self.reads, self.approximate = frozenset(axes), frozenset(earlier), approximate
        self._memo: dict[Expr, bool] = {}

    def data(self, e: Expr) -> bool:
        """Whether the value changes along the reduced axes."""
        return bool(e.free & self.axes)

    def earlier(self, e: Expr) -> bool:
        """Whether an earlier result is read."""
        if e not in self._memo:
            for n in walk(e):
                if n not in self._memo:
                    self._memo[n] = n in self.reads or any(self._memo[a] for a in n.args)
        return self._memo[e]

    def mixed(self, e: Expr) -> bool:
        """Both."""
        return self.data(e) and self.earlier(e)


# -- products ------------------------------------------------------------------------------------------------------
def products(e: Expr, sides: Sides) -> tuple[Product, ...]:
    """An element as a sum of products.

    Raises:
        Mixed: some part has no normal form.
    """
    if not sides.mixed(e):
        return (Product(scale=(e,)) if sides.earlier(e) else Product(data=(e,)),)
    if isinstance(e, Cast):
        return _converted(e, sides)
    if isinstance(e, Op) and e.name in PRECISIONS:
        return tuple(_permitted(p, e.name) for p in products(e.args[0], sides))
    if isinstance(e, Where):
        return _guarded(e, sides)
    if isinstance(e, Op) and e.name in _PRODUCT_RULES:
        return _PRODUCT_RULES[e.name](e, sides)
    raise Mixed(f"`{_name(e)}` of a mixture of data and earlier results, `{e}`, is not a product of a part free of the "
                "data and a part free of them")


def _name(e: Expr) -> str:
    return e.name if isinstance(e, Op) else type(e).__name__.lower()


def _permitted(p: Product, name: str) -> Product:
    """How a product may be multiplied holds for its data, sum or power; weighted data are multiplied exactly, as is always allowed."""
    data = product(p.data)
    if p.power and (p.sums or data is not None):
        return p
    return replace(p, permit=name) if p.power or p.sums else p if data is None else replace(p, data=(op(name, data),))


def _converted(e: Cast, sides: Sides) -> tuple[Product, ...]:
    """An exact conversion is dropped: the element is only computed more precisely. A rounding does not commute with a rescaling."""
    inner = e.args[0]
    if contains(e.dtype, inner.dtype):
        return products(inner, sides)
    if not sides.approximate or not e.dtype.is_float:
        raise Mixed(f"the conversion to {e.dtype} in `{e}` rounds, and rounding does not commute with a rescaling")
    return tuple(replace(p, rounding=e.dtype, data=(), inside=p.data) for p in products(inner, sides))


def _guarded(e: Where, sides: Sides) -> tuple[Product, ...]:
    """``where(c, f, 0)`` with a condition on data."""
    cond, then, other = e.args
    if sides.earlier(cond):
        raise Mixed(f"the condition `{cond}` depends on earlier results")
    if _is(other, 0):
        return tuple(replace(p, guards=(*p.guards, cond)) for p in products(then, sides))
    if _is(then, 0):
        return tuple(replace(p, guards=(*p.guards, op("not", cond))) for p in products(other, sides))
    raise Mixed(f"the selection `{e}` takes neither side as zero")


def _is(e: Expr, value: float) -> bool:
    return isinstance(e, Const) and e.value == value


def _times(a: Product, b: Product) -> Product:
    if a.power and b.power and a.base != b.base:
        raise Mixed(f"powers of different bases, {a.base} and {b.base}, are multiplied")
    if any(x.rounding and (y.rounding or y.power or y.sums) for x, y in ((a, b), (b, a))):
        raise Mixed("a rounded mixture of data and earlier results is multiplied by another mixture")
    return Product(a.scale + b.scale, a.data + b.data, a.power + b.power, a.base if a.power else b.base, a.sums + b.sums,
                   a.guards + b.guards, a.rounding or b.rounding, a.inside + b.inside, a.permit or b.permit)


def _mul(e: Op, sides: Sides) -> tuple[Product, ...]:
    """``(a1 + a2) * (b1 + b2)``: every pair."""
    left, right = (products(a, sides) for a in e.args)
    return tuple(_times(a, b) for a in left for b in right)


def _div(e: Op, sides: Sides) -> tuple[Product, ...]:
    """``a / b`` where ``b`` is one product: the exponent changes its sign, every factor is inverted."""
    below = products(e.args[1], sides)
    if len(below) != 1 or below[0].sums or below[0].guards or below[0].rounding:
        raise Mixed(f"the divisor `{e.args[1]}` is a sum of data and earlier results")
    b = below[0]
    inverse = Product(tuple(_reciprocal(x) for x in b.scale), tuple(_reciprocal(x) for x in b.data),
                      tuple(negated(x) for x in b.power), b.base)
    return tuple(_times(a, inverse) for a in products(e.args[0], sides))


def _reciprocal(e: Expr) -> Expr:
    return op("div", const(1.0, e.dtype if e.dtype.is_float else None), e)


def negated(e: Expr) -> Expr:
    """``-e``, without a double minus."""
    return e.args[0] if isinstance(e, Op) and e.name == "neg" else op("neg", e)


def _neg(e: Op, sides: Sides) -> tuple[Product, ...]:
    """``-a = -1 * a``."""
    return tuple(replace(p, data=(*p.data, const(-1.0, e.dtype))) for p in products(e.args[0], sides))


def _exp(e: Op, sides: Sides) -> tuple[Product, ...]:
    """``exp(a + b) = exp(a) exp(b)``, kept as one exponent."""
    return (Product(power=addends(e.args[0], sides), base=e.name),)


def _pow(e: Op, sides: Sides) -> tuple[Product, ...]:
    """``a ** n`` for a small whole ``n``: a repeated product."""
    n = e.args[1]
    if not (isinstance(n, Const) and float(n.value).is_integer() and 1 <= n.value <= 4):
        raise Mixed(f"the exponent of `{e}` is not a small whole number")
    return _repeated(e.args[0], int(n.value), sides)


def _repeated(base: Expr, n: int, sides: Sides) -> tuple[Product, ...]:
    one = products(base, sides)
    out = one
    for _ in range(n - 1):
        out = tuple(_times(a, b) for a in out for b in one)
    return out


def _sum(e: Op, sides: Sides) -> tuple[Product, ...]:
    """A sum of pure addends stays together, since its parts may cancel; one with a product of both in it is distributed."""
    parts = signed_addends(e)
    if any(sides.mixed(t) for t in parts):
        return tuple(p for t in parts for p in products(t, sides))
    return (Product(sums=(parts,)),)


def _log(e: Op, sides: Sides) -> tuple[Product, ...]:
    """``log(s * exp(x + d))`` is a sum of both; a change of base is a factor."""
    factor, parts = _logarithm(e, sides)
    return (Product(data=() if factor == 1 else (const(factor, e.dtype),), sums=(parts,)),)


_PRODUCT_RULES: dict[str, Callable[[Op, Sides], tuple[Product, ...]]] = {
    "mul": _mul, "div": _div, "neg": _neg, "exp": _exp, "exp2": _exp, "pow": _pow, "add": _sum, "sub": _sum,
    "log": _log, "log2": _log, "log10": _log,
}


def gathered(p: Product) -> Product:
    """``exp(x) * exp(d)`` as one power: ``exp(x)`` alone could overflow where the product does not."""
    for base in ("exp", "exp2"):
        data, scale = ([f for f in side if isinstance(f, Op) and f.name == base] for side in (p.data, p.scale))
        if data and scale and not p.power:
            rest = [tuple(f for f in side if not (isinstance(f, Op) and f.name == base)) for side in (p.data, p.scale)]
            return replace(p, data=rest[0], scale=rest[1], power=tuple(f.args[0] for f in (*data, *scale)), base=base)
    return p


# -- sums ----------------------------------------------------------------------------------------------------------
def signed_addends(e: Expr) -> tuple[Expr, ...]:
    """The terms of a sum or difference, with their signs."""
    if isinstance(e, Op) and e.name == "add":
        return signed_addends(e.args[0]) + signed_addends(e.args[1])
    if isinstance(e, Op) and e.name == "sub":
        return signed_addends(e.args[0]) + tuple(negated(t) for t in signed_addends(e.args[1]))
    if isinstance(e, Op) and e.name == "neg":
        return tuple(negated(t) for t in signed_addends(e.args[0]))
    return (e,)


def addends(e: Expr, sides: Sides) -> tuple[Expr, ...]:
    """Terms whose sum is ``e``, each of data or of earlier results alone.

    Raises:
        Mixed: a term is neither.
    """
    if not sides.mixed(e):
        return (e,)
    if isinstance(e, Cast) and contains(e.dtype, e.args[0].dtype):
        return addends(e.args[0], sides)
    if isinstance(e, Where):
        return _masked_addends(e, sides)
    if isinstance(e, Op) and e.name in _SUM_RULES:
        return _SUM_RULES[e.name](e, sides)
    raise Mixed(f"`{e}` is not a sum of a part free of the data and a part free of earlier results")


def _masked_addends(e: Where, sides: Sides) -> tuple[Expr, ...]:
    """``where(c, x + d, -inf) = where(c, x, -inf) + d``."""
    cond, then, other = e.args
    if sides.earlier(cond) or not (isinstance(other, Const) and other.value == float("-inf")):
        raise Mixed(f"the selection `{e}` mixes data and earlier results")
    parts = addends(then, sides)
    data = [t for t in parts if not sides.earlier(t)]
    return (where(cond, total(data, e.dtype), other), *(t for t in parts if sides.earlier(t)))


def _sum_addends(e: Op, sides: Sides) -> tuple[Expr, ...]:
    return tuple(x for t in signed_addends(e) for x in addends(t, sides))


def _scaled_addends(e: Op, sides: Sides) -> tuple[Expr, ...]:
    """``(x + d) * c = x * c + d * c`` for ``c`` free of both."""
    a, b = e.args
    if e.name == "mul" and sides.mixed(b):
        a, b = b, a
    if sides.data(b) or sides.earlier(b):
        raise Mixed(f"`{e}` multiplies data by earlier results inside a sum or an exponent")
    return tuple(op(e.name, t, b) for t in addends(a, sides))


def _negated_addends(e: Op, sides: Sides) -> tuple[Expr, ...]:
    return tuple(negated(t) for t in addends(e.args[0], sides))


def _log_addends(e: Op, sides: Sides) -> tuple[Expr, ...]:
    factor, parts = _logarithm(e, sides)
    return parts if factor == 1 else tuple(op("mul", t, const(factor, e.dtype)) for t in parts)


def _logarithm(e: Op, sides: Sides) -> tuple[float, tuple[Expr, ...]]:
    """``log(s * exp(x + d)) = x + d + log(s)`` as (a factor, what it multiplies): the factor changes the base of powers of two."""
    parts = products(e.args[0], sides)
    if len(parts) != 1 or parts[0].sums or parts[0].guards or parts[0].rounding:
        raise Mixed(f"`{e}` is the logarithm of a sum")
    p = parts[0]
    inverse = _INVERSE[p.base] if p.power else e.name
    return _LOGARITHMS[inverse] / _LOGARITHMS[e.name], (*p.power, *(op(inverse, x) for x in (*p.scale, *p.data)))


_INVERSE = {"exp": "log", "exp2": "log2"}
_LOGARITHMS = {"log": 1.0, "log2": math.log(2.0), "log10": math.log(10.0)}  # natural logarithms of the bases


_SUM_RULES: dict[str, Callable[[Op, Sides], tuple[Expr, ...]]] = {
    "add": _sum_addends, "sub": _sum_addends, "neg": _negated_addends, "mul": _scaled_addends, "div": _scaled_addends, "log": _log_addends,
    "log2": _log_addends, "log10": _log_addends,
}


def total(parts: Iterable[Expr], dtype: Dtype) -> Expr:
    """The sum of some terms; zero of none. A negated term is subtracted."""
    out: Expr | None = None
    for t in parts:
        minus = out is not None and isinstance(t, Op) and t.name == "neg"
        out = t if out is None else op("sub", out, t.args[0]) if minus else op("add", out, t)
    return const(0.0, dtype) if out is None else out


def product(parts: Iterable[Expr]) -> Expr | None:
    """The product of some factors; None of none. ``x * (1 / y)`` becomes ``x / y``."""
    out: Expr | None = None
    for f in parts:
        inverse = out is not None and isinstance(f, Op) and f.name == "div" and _is(f.args[0], 1)
        out = f if out is None else op("div", out, f.args[1]) if inverse else op("mul", out, f)
    return out


def leaves(e: Expr) -> list[Expr]:
    """The reads an expression is made of, those inside indices left out."""
    out: dict[Expr, None] = {}
    stack, seen = [e], set()
    while stack:
        n = stack.pop()
        if n in seen:
            continue
        seen.add(n)
        if isinstance(n, Read):
            out.setdefault(n)
        else:
            stack.extend(reversed(n.args))
    return list(out)


__all__ = ["Mixed", "Product", "Sides", "addends", "gathered", "leaves", "negated", "product", "products", "signed_addends", "total"]
