"""Activation functions. Formulas are arranged so that no branch overflows: a derivative of the branch not taken stays finite."""

from __future__ import annotations

import math
from typing import Any

from dsl.dtype import f32
from dsl.expr import Expr, Tensor, as_expr, cast, op, where
from dsl.ops.dispatch import axis_number, build, lift, names_of, operation, pointwise, require, same_size, static, tensor
from dsl.ops.slicing import part


def _float(x: Any) -> Expr:
    e = as_expr(x)
    return e if e.dtype.is_float else cast(e, f32)


def _number(e: Expr, value: float) -> float:
    """A setting in the kind of what it is compared with: that of integers is a whole number, so that they stay integers."""
    return value if e.dtype.is_float else int(value)


@pointwise
def relu(x: Any) -> Any:
    """``max(x, 0)``."""
    return op("max", x, 0)


@pointwise
def relu6(x: Any) -> Any:
    """``min(max(x, 0), 6)``."""
    return op("min", op("max", x, 0), 6)


@pointwise
def hardtanh(x: Any, min_val: float = -1.0, max_val: float = 1.0) -> Any:
    """``x`` limited to ``[min_val, max_val]``, which are truncated for integers."""
    e = as_expr(x)
    low, high = _number(e, min_val), _number(e, max_val)
    require(e.dtype.is_float or e.dtype.signed or min(low, high) >= 0, f"hardtanh: {e.dtype} has no numbers as low as {min(low, high)}")
    return op("min", op("max", e, low), high)


@pointwise
def leaky_relu(x: Any, negative_slope: float = 0.01) -> Any:
    """``x`` where positive, else ``negative_slope * x``."""
    return where(op("gt", x, 0), x, op("mul", x, negative_slope))


@pointwise
def elu(x: Any, alpha: float = 1.0) -> Any:
    """``x`` where positive, else ``alpha * (exp(x) - 1)``."""
    return where(op("gt", x, 0), x, op("mul", op("expm1", op("min", x, 0)), alpha))


@pointwise
def celu(x: Any, alpha: float = 1.0) -> Any:
    """``x`` where positive, else ``alpha * (exp(x / alpha) - 1)``."""
    return where(op("gt", x, 0), x, op("mul", op("expm1", op("div", op("min", x, 0), alpha)), alpha))


_SELU_ALPHA, _SELU_SCALE = 1.6732632423543772848170429916717, 1.0507009873554804934193349852946


@pointwise
def selu(x: Any) -> Any:
    """Scaled elu with the constants of Klambauer et al., Self-Normalizing Neural Networks."""
    return op("mul", elu(_float(x), _SELU_ALPHA), _SELU_SCALE)


@pointwise
def gelu(x: Any, approximate: str = "none") -> Any:
    """``x`` times the normal distribution function of ``x``; ``approximate="tanh"`` takes the tanh formula of Hendrycks and Gimpel."""
    e = _float(x)
    require(approximate in ("none", "tanh"), f"gelu: approximate must be 'none' or 'tanh', not {approximate!r}")
    if approximate == "none":
        return e * 0.5 * (op("erf", e * math.sqrt(0.5)) + 1.0)
    return e * 0.5 * (op("tanh", (e + e * e * e * 0.044715) * math.sqrt(2 / math.pi)) + 1.0)


@pointwise
def silu(x: Any) -> Any:
    """``x * sigmoid(x)``, also called swish."""
    e = _float(x)
    return e * op("sigmoid", e)


def softplus_element(x: Any, beta: float = 1.0, threshold: float = 20.0) -> Expr:
    """``log(1 + exp(beta * x)) / beta`` on an expression, and ``x`` itself where ``beta * x > threshold``."""
    e = _float(x)
    scaled = e if beta == 1 else e * beta
    soft = op("log1p", op("exp", op("min", scaled, threshold)))
    return where(scaled > threshold, e, soft if beta == 1 else soft / beta)


@pointwise
def softplus(x: Any, beta: float = 1.0, threshold: float = 20.0) -> Any:
    """``log(1 + exp(beta * x)) / beta``, and ``x`` itself where ``beta * x > threshold``."""
    return softplus_element(x, beta, threshold)


@pointwise
def logsigmoid(x: Any) -> Any:
    """``log(sigmoid(x))``."""
    return -softplus_element(-_float(x), threshold=40.0)


@pointwise
def mish(x: Any) -> Any:
    """``x * tanh(softplus(x))``."""
    e = _float(x)
    return e * op("tanh", softplus_element(e))


@pointwise
def softsign(x: Any) -> Any:
    """``x / (1 + |x|)``."""
    e = _float(x)
    return e / (op("abs", e) + 1)


@pointwise
def hardsigmoid(x: Any) -> Any:
    """``clip(x + 3, 0, 6) / 6``."""
    return relu6(_float(x) + 3) / 6


@pointwise
def hardswish(x: Any) -> Any:
    """``x * clip(x + 3, 0, 6) / 6``."""
    e = _float(x)
    return e * relu6(e + 3) / 6


@pointwise
def threshold(x: Any, threshold: float, value: float) -> Any:
    """``x`` where it is above the threshold, else ``value``; both are truncated for integers."""
    e = as_expr(x)
    return where(op("le", e, _number(e, threshold)), _number(e, value), e)


@pointwise
def hardshrink(x: Any, lambd: float = 0.5) -> Any:
    """``x`` where ``|x| > lambd``, else 0."""
    e = as_expr(x)
    return where(op("and", op("ge", e, -lambd), op("le", e, lambd)), 0.0, e)


@pointwise
def softshrink(x: Any, lambd: float = 0.5) -> Any:
    """``x`` moved towards 0 by ``lambd``, to 0 at most."""
    e = as_expr(x)
    return where(op("gt", e, lambd), op("sub", e, lambd), where(op("lt", e, -lambd), op("add", e, lambd), op("mul", e, 0.0)))


@pointwise
def tanhshrink(x: Any) -> Any:
    """``x - tanh(x)``."""
    e = _float(x)
    return e - op("tanh", e)


@operation
def prelu(x: Any, weight: Any) -> Any:
    """``x`` where positive, else ``weight * x``: one weight, or one for each channel (dimension 1)."""
    def element(e: Expr, w: Expr) -> Expr:
        return where(op("gt", e, 0), e, op("mul", w, e))

    if not isinstance(x, Tensor) or not isinstance(weight, Tensor):
        return lift(element, "prelu", (x, weight))
    single = weight.ndim == 0 or weight.shape[0] == 1
    require(weight.ndim < 2 and (single or x.ndim > 1), f"prelu of {x} with weights {weight}", remedy="one weight, or one for each channel")
    if not single:
        same_size(weight.shape[0], x.shape[1], f"the weights {weight}", f"the channels of {x}", "prelu")
    place = (lambda at: []) if not weight.ndim else (lambda at: [0]) if single else (lambda at: [at[1]])
    return build("prelu", x.shape, lambda *at: element(x.read(*at), weight.read(*place(at))), names_of(x))


# -- gates ---------------------------------------------------------------------------------------------------------
def _halves(x: Any, up: Any, axis: int, name: str) -> tuple[Any, Any]:
    """The two operands of a gate: given, or the halves of ``x`` along ``axis``."""
    if up is not None:
        return x, up
    t = tensor(x, name)
    d = axis_number(axis, t.ndim, name)
    size = t.shape[d]
    half = size // 2
    if size.is_const:
        require(static(size, name) % 2 == 0, f"{name}: the axis has odd size {size}", remedy="its two halves are gated with each other")
    return part(t, d, 0, half), part(t, d, half, half)


@operation
def glu(x: Any, gate: Any = None, axis: int = -1) -> Any:
    """``a * sigmoid(b)`` for the halves ``a, b`` of ``x`` along ``axis``, or for ``a = x``, ``b = gate``."""
    return lift(lambda a, b: a * op("sigmoid", b), "glu", _halves(x, gate, axis, "glu"))


@operation
def swiglu(gate: Any, up: Any = None, axis: int = -1) -> Any:
    """``silu(gate) * up``; with one argument its halves along ``axis`` are gate and up."""
    return lift(lambda a, b: silu(a) * b, "swiglu", _halves(gate, up, axis, "swiglu"))


@operation
def geglu(gate: Any, up: Any = None, axis: int = -1, approximate: str = "none") -> Any:
    """``gelu(gate) * up``; with one argument its halves along ``axis`` are gate and up."""
    return lift(lambda a, b: gelu(a, approximate) * b, "geglu", _halves(gate, up, axis, "geglu"))
