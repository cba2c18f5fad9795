"""Losses, with the names, arguments and reductions of ``torch.nn.functional``."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from dsl.carrier import SUM
from dsl.dim import Term, product
from dsl.errors import DtypeError, ShapeError
from dsl.expr import Expr, Tensor, cast, const, index, op, where
from dsl.ops import reduction as r
from dsl.ops.activation import softplus_element
from dsl.ops.dispatch import broadcast_shapes, build, element_at, lift, operation, require, show_shape, tensor
from dsl.ops.norm import log_softmax
from dsl.program import reduce_axis, reduce_over

_REDUCTIONS = ("mean", "sum", "none")


def _reduced(losses: Tensor, reduction: str, what: str, count: Term | None = None) -> Any:
    """The mean, the sum, or all of the losses."""
    require(reduction in _REDUCTIONS, f"{what}: reduction is {reduction!r}", remedy="'mean', 'sum' or 'none'")
    if reduction == "none":
        return losses
    total = r.sum(losses)
    if reduction == "sum":
        return total
    n = product(losses.shape) if count is None else count
    return lift(lambda t: op("div", t, cast(index(n), t.dtype)), what, (total,))


def _pairs(name: str, x: Any, y: Any, fn: Callable[[Expr, Expr], Expr], reduction: str, more: Sequence[Tensor] = ()) -> Any:
    """The losses of elements and their targets, whose shapes are equal."""
    a, b = tensor(x, name), tensor(y, name)
    if a.shape != b.shape:
        raise ShapeError(f"{name}: `{a.name}` {show_shape(a.shape)} and the target `{b.name}` {show_shape(b.shape)} differ",
                         "each element has a target of its own", "broadcast one: dlc.broadcast_to")
    return _reduced(lift(fn, name, (a, b, *more)), reduction, name)


# -- distances -----------------------------------------------------------------------------------------------------
@operation
def mse_loss(x: Tensor, target: Tensor, reduction: str = "mean") -> Any:
    """The squared difference."""
    return _pairs("mse_loss", x, target, lambda a, b: op("mul", op("sub", a, b), op("sub", a, b)), reduction)


@operation
def l1_loss(x: Tensor, target: Tensor, reduction: str = "mean") -> Any:
    """The absolute difference."""
    return _pairs("l1_loss", x, target, lambda a, b: op("abs", op("sub", a, b)), reduction)


@operation
def smooth_l1_loss(x: Tensor, target: Tensor, reduction: str = "mean", beta: float = 1.0) -> Any:
    """``d**2 / (2 beta)`` for differences below ``beta``, ``|d| - beta / 2`` above."""
    require(beta >= 0, f"smooth_l1_loss: beta is {beta}", remedy="0 or more")
    if beta == 0:
        return l1_loss(x, target, reduction)

    def loss(a: Expr, b: Expr) -> Expr:
        d = op("abs", op("sub", a, b))
        return where(op("lt", d, beta), d * d * (0.5 / beta), d - 0.5 * beta)

    return _pairs("smooth_l1_loss", x, target, loss, reduction)


@operation
def huber_loss(x: Tensor, target: Tensor, reduction: str = "mean", delta: float = 1.0) -> Any:
    """``d**2 / 2`` for differences up to ``delta``, ``delta * (|d| - delta / 2)`` beyond."""
    require(delta > 0, f"huber_loss: delta is {delta}", remedy="a positive number")

    def loss(a: Expr, b: Expr) -> Expr:
        d = op("abs", op("sub", a, b))
        return where(op("le", d, delta), d * d * 0.5, (d - 0.5 * delta) * delta)

    return _pairs("huber_loss", x, target, loss, reduction)


# -- probabilities -------------------------------------------------------------------------------------------------
@operation
def binary_cross_entropy(x: Tensor, target: Tensor, weight: Tensor | None = None, reduction: str = "mean") -> Any:
    """``-(t log x + (1 - t) log(1 - x))``, the logarithms not below -100, as in torch."""
    def loss(a: Expr, t: Expr, *w: Expr) -> Expr:
        yes, no = op("max", op("log", a), -100.0), op("max", op("log1p", -a), -100.0)
        value = (t - 1.0) * no - t * yes
        return value * w[0] if w else value

    return _pairs("binary_cross_entropy", x, target, loss, reduction, () if weight is None else (tensor(weight),))


@operation
def binary_cross_entropy_with_logits(x: Tensor, target: Tensor, weight: Tensor | None = None, pos_weight: Tensor | None = None,
                                     reduction: str = "mean") -> Any:
    """The binary cross-entropy of ``sigmoid(x)``, without overflow; ``pos_weight`` multiplies the losses of positives."""
    given = [tensor(w) for w in (weight, pos_weight) if w is not None]

    def loss(a: Expr, t: Expr, *ws: Expr) -> Expr:
        rest = list(ws)
        scale = rest.pop(0) if weight is not None else None
        positive = softplus_element(-a, threshold=math.inf)  # -log(sigmoid(x))
        if pos_weight is None:
            value = (1.0 - t) * a + positive
        else:
            value = (1.0 - t) * a + ((rest[0] - 1.0) * t + 1.0) * positive
        return value if scale is None else value * scale

    return _pairs("binary_cross_entropy_with_logits", x, target, loss, reduction, given)


@operation
def kl_div(x: Tensor, target: Tensor, reduction: str = "mean", log_target: bool = False) -> Any:
    """``t * (log t - x)`` for log-probabilities ``x``; ``reduction="batchmean"`` is the sum divided by the first size."""
    def loss(a: Expr, t: Expr) -> Expr:
        if log_target:
            return op("exp", t) * (t - a)
        return where(op("gt", t, 0), t * op("log", t), where(op("eq", t, 0), const(0, t.dtype), t * op("log", t))) - t * a

    if reduction != "batchmean":
        return _pairs("kl_div", x, target, loss, reduction)
    t = tensor(x, "kl_div")
    total = _pairs("kl_div", t, target, loss, "sum")
    return lift(lambda v: v / cast(index(t.shape[0]), v.dtype), "kl_div", (total,))


@operation
def soft_margin_loss(x: Tensor, target: Tensor, reduction: str = "mean") -> Any:
    """``log(1 + exp(-t * x))`` for targets of 1 and -1."""
    return _pairs("soft_margin_loss", x, target, lambda a, t: softplus_element(-(t * a), threshold=math.inf), reduction)


@operation
def hinge_embedding_loss(x: Tensor, target: Tensor, margin: float = 1.0, reduction: str = "mean") -> Any:
    """``x`` where the target is 1, ``max(0, margin - x)`` where it is -1."""
    def loss(a: Expr, t: Expr) -> Expr:
        zero = const(0, a.dtype)
        return where(op("ne", t, 1), op("max", margin - a, 0), zero) + where(op("ne", t, -1), a, zero)

    return _pairs("hinge_embedding_loss", x, target, loss, reduction)


@operation
def poisson_nll_loss(x: Tensor, target: Tensor, log_input: bool = True, eps: float = 1e-8, reduction: str = "mean") -> Any:
    """``exp(x) - t * x``, or ``x - t * log(x + eps)`` when ``x`` is no logarithm."""
    def loss(a: Expr, t: Expr) -> Expr:
        return op("exp", a) - t * a if log_input else a - t * op("log", a + eps)

    return _pairs("poisson_nll_loss", x, target, loss, reduction)


# -- classes -------------------------------------------------------------------------------------------------------
def _classes(what: str, x: Tensor, target: Tensor, weight: Tensor | None) -> int:
    """The dimension that has the classes, shapes checked."""
    if not x.ndim:
        raise ShapeError(f"{what} of {x}", "there is no dimension of classes", "x is [batch, classes, ...]")
    d = 0 if x.ndim == 1 else 1
    expected = [s for n, s in enumerate(x.shape) if n != d]
    if list(target.shape) != expected:
        raise ShapeError(f"{what}: the target `{target.name}` {show_shape(target.shape)} does not fit `{x.name}` {show_shape(x.shape)}",
                         f"dimension {d} of `{x.name}` has the classes; one target is needed for each of {show_shape(expected)}",
                         "class numbers have the shape of x without its classes")
    if not target.dtype.is_int:
        raise DtypeError(f"{what}: the target `{target.name}` is {target.dtype}", "class numbers are integers",
                         "cast it: dlc.cast(target, dlc.i64)")
    if weight is not None and list(weight.shape) != [x.shape[d]]:
        raise ShapeError(
            f"{what}: the weights `{weight.name}` {show_shape(weight.shape)} do not fit the classes of `{x.name}` {show_shape(x.shape)}",
            f"there are {x.shape[d]} classes", "a weight for each class")
    return d


def _by_class(what: str, target: Tensor, weight: Tensor | None, ignore_index: int, reduction: str,
              fn: Callable[[tuple[Any, ...], Expr], Expr]) -> Any:
    """Losses ``fn(place, class)`` by target, 0 where it is ignored; their mean is weighted by class."""
    def each(value: Callable[[Expr, tuple[Any, ...]], Expr]) -> Callable[..., Expr]:
        def body(*at: Any) -> Expr:
            c = target.read(*at)
            kept = value(c, at)
            return where(op("ne", c, ignore_index), kept, const(0, kept.dtype))
        return body

    def weighted(c: Expr, at: tuple[Any, ...]) -> Expr:
        return fn(at, c)

    losses = build(what, target.shape, each(weighted))
    if reduction != "mean":
        return _reduced(losses, reduction, what)
    counts = build("weights", target.shape, each(lambda c, at: const(1, losses.dtype) if weight is None else weight.read(c)))
    return lift(lambda a, b: op("div", a, b), what, (r.sum(losses), r.sum(counts)))


@operation
def nll_loss(x: Tensor, target: Tensor, weight: Tensor | None = None, ignore_index: int = -100, reduction: str = "mean") -> Any:
    """``-weight[t] * x[t]`` for log-probabilities ``x`` of shape (N, C, ...) and class numbers ``t`` of shape (N, ...).

    Args:
        x: log-probabilities; dimension 1 has the classes (dimension 0 of a vector).
        target: class numbers; when the kernel runs, one outside is an error.
        weight: one number for each class.
        ignore_index: targets of this number count nothing.
        reduction: ``mean`` (weighted by class), ``sum`` or ``none``.
    """
    a, t = tensor(x, "nll_loss"), tensor(target, "nll_loss")
    d = _classes("nll_loss", a, t, weight)

    def loss(at: tuple[Any, ...], c: Expr) -> Expr:
        value = -a.read(*at[:d], c, *at[d:])
        return value if weight is None else value * weight.read(c)

    return _by_class("nll_loss", t, weight, ignore_index, reduction, loss)


@operation
def cross_entropy(x: Tensor, target: Tensor, weight: Tensor | None = None, ignore_index: int = -100, reduction: str = "mean",
                  label_smoothing: float = 0.0) -> Any:
    """The cross-entropy of logits ``x`` of shape (N, C, ...) with class numbers (N, ...) or probabilities of the shape of ``x``.

    Args:
        x: logits; dimension 1 has the classes (dimension 0 of a vector).
        target: integers are class numbers, floats probabilities.
        weight: one number for each class.
        ignore_index: class numbers that count nothing.
        reduction: ``mean`` (of class numbers: weighted by class), ``sum`` or ``none``.
        label_smoothing: the share of the target spread over all classes.
    """
    a, t = tensor(x, "cross_entropy"), tensor(target, "cross_entropy")
    require(0 <= label_smoothing <= 1, f"cross_entropy: label_smoothing is {label_smoothing}", remedy="from 0 to 1")
    if t.dtype.is_float and a.shape == t.shape:
        return _of_probabilities(a, t, weight, reduction, label_smoothing)
    d = _classes("cross_entropy", a, t, weight)
    lse: Tensor = r.logsumexp(a, axis=d)
    spread = _spread(a, lse, weight, d) if label_smoothing else None

    def loss(at: tuple[Any, ...], c: Expr) -> Expr:
        value = lse.read(*at) - a.read(*at[:d], c, *at[d:])
        value = value if weight is None else value * weight.read(c)
        if spread is None:
            return value
        return value * (1.0 - label_smoothing) + spread.read(*at) * label_smoothing

    return _by_class("cross_entropy", t, weight, ignore_index, reduction, loss)


def _spread(a: Tensor, lse: Tensor, weight: Tensor | None, d: int) -> Tensor:
    """The mean over the classes of the weighted negative log-probabilities."""
    def body(*at: Any) -> Expr:
        k = reduce_axis(a.shape[d], name="c")
        value = lse.read(*at) - a.read(*at[:d], k, *at[d:])
        value = value if weight is None else value * weight.read(k)
        return reduce_over(SUM, (value,), (k,)) / cast(index(a.shape[d]), a.dtype)

    return build("spread", lse.shape, body)


def _of_probabilities(a: Tensor, t: Tensor, weight: Tensor | None, reduction: str, smoothing: float) -> Any:
    d = 0 if a.ndim == 1 else 1
    logp = log_softmax(a, d)
    rest = tuple(s for n, s in enumerate(a.shape) if n != d)

    def body(*at: Any) -> Expr:
        k = reduce_axis(a.shape[d], name="c")
        p = t.read(*at[:d], k, *at[d:])
        if smoothing:
            p = p * (1.0 - smoothing) + smoothing / cast(index(a.shape[d]), p.dtype)
        value = logp.read(*at[:d], k, *at[d:]) * p
        return -reduce_over(SUM, (value if weight is None else value * weight.read(k),), (k,))

    losses = build("cross_entropy", rest, body)
    return _reduced(losses, reduction, "cross_entropy", product(rest))


# -- similarities --------------------------------------------------------------------------------------------------
@operation
def cosine_similarity(a: Tensor, b: Tensor, axis: int = 1, eps: float = 1e-8) -> Any:
    """The cosine of the angle between vectors along an axis, each norm taken as at least ``eps``."""
    x, y = tensor(a, "cosine_similarity"), tensor(b, "cosine_similarity")
    shape = broadcast_shapes([(x.name, x.shape), (y.name, y.shape)])
    products = build("products", shape, lambda *at: element_at(x, at) * element_at(y, at))
    d = axis if axis < 0 else axis - len(shape)
    norms = [lift(lambda n: op("max", n, eps), "norm", (r.norm(t, 2.0, axis=d),)) for t in (x, y)]
    return lift(lambda p, m, n: p / (m * n), "cosine_similarity", (r.sum(products, axis=d), *norms))


@operation
def pairwise_distance(a: Tensor, b: Tensor, p: float = 2.0, eps: float = 1e-6, keepdims: bool = False) -> Any:
    """The norm of ``a - b + eps`` along the last axis."""
    apart = lift(lambda x, y: op("add", op("sub", x, y), eps), "difference", (tensor(a), tensor(b)))
    return r.norm(apart, p, axis=-1, keepdims=keepdims)
