"""The pointwise operations: name, arity, dtype rule, numpy meaning and text form, in one table.

Every level uses these names: expressions, tile programs and both emitters. An operation that can be written with others
(gelu, silu, softplus) is not here; it lives in ``dsl/ops``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from dsl.dtype import Dtype, bf16, bool_, f16, f32, promote


@dataclass(frozen=True)
class OpInfo:
    """Facts about one operation.

    ``rule`` decides the result dtype from the operands': ``same`` (promoted), ``float`` (promoted, ints become f32),
    ``bool`` (comparisons and logic), ``int`` (integers and bools only), ``num`` (same, but bool is refused).
    ``infix`` is the operator symbol for printing, ``flops`` the cost counted in rooflines.
    """

    name: str
    arity: int
    rule: str
    numpy: Callable[..., Any]
    infix: str = ""
    flops: int = 1


def _erf(x: Any) -> Any:
    return np.vectorize(math.erf, otypes=[np.float64])(x)


def _erfc(x: Any) -> Any:
    return np.vectorize(math.erfc, otypes=[np.float64])(x)


def _lgamma(x: float) -> float:
    return math.inf if math.isinf(x) or (x <= 0 and x == int(x)) else math.lgamma(x)


def _floordiv(a: Any, b: Any) -> Any:
    if np.issubdtype(np.result_type(a, b), np.integer):
        safe = np.where(b == 0, 1, b)
        return np.where(b == 0, np.asarray(-1).astype(np.result_type(a)), np.floor_divide(a, safe))
    return np.floor_divide(a, b)


def _mod(a: Any, b: Any) -> Any:
    if np.issubdtype(np.result_type(a, b), np.integer):
        return np.where(b == 0, a, np.remainder(a, np.where(b == 0, 1, b)))
    return np.remainder(a, b)


def _sign(x: Any) -> Any:
    """1, 0 or -1; NaN gives 0, as in torch."""
    return (x > 0).astype(x.dtype) - (x < 0).astype(x.dtype)


_UNARY_FLOAT: dict[str, tuple[Callable[..., Any], int]] = {
    "exp": (np.exp, 10), "exp2": (np.exp2, 10), "expm1": (np.expm1, 12),
    "log": (np.log, 12), "log2": (np.log2, 12), "log10": (np.log10, 12), "log1p": (np.log1p, 14),
    "sin": (np.sin, 14), "cos": (np.cos, 14), "tan": (np.tan, 20),
    "asin": (np.arcsin, 16), "acos": (np.arccos, 16), "atan": (np.arctan, 16),
    "sinh": (np.sinh, 16), "cosh": (np.cosh, 16), "tanh": (np.tanh, 14),
    "asinh": (np.arcsinh, 20), "acosh": (np.arccosh, 20), "atanh": (np.arctanh, 20),
    "erf": (_erf, 16), "erfc": (_erfc, 24), "lgamma": (np.vectorize(_lgamma, otypes=[np.float64]), 40),
    "sigmoid": (lambda x: np.where(x >= 0, 1 / (1 + np.exp(-np.abs(x))), np.exp(-np.abs(x)) / (1 + np.exp(-np.abs(x)))), 12),
    "sqrt": (np.sqrt, 1), "rsqrt": (lambda x: 1 / np.sqrt(x), 2),
}

_OTHERS = [
    OpInfo("add", 2, "same", np.add, "+"), OpInfo("sub", 2, "num", np.subtract, "-"), OpInfo("mul", 2, "same", np.multiply, "*"),
    OpInfo("div", 2, "float", np.divide, "/", 4), OpInfo("floordiv", 2, "num", _floordiv, "//", 5), OpInfo("mod", 2, "num", _mod, "%", 5),
    OpInfo("pow", 2, "num", np.power, "**", 30), OpInfo("atan2", 2, "float", np.arctan2, "", 20),
    OpInfo("min", 2, "same", np.minimum), OpInfo("max", 2, "same", np.maximum), OpInfo("fma", 3, "same", lambda a, b, c: a * b + c, "", 2),
    OpInfo("neg", 1, "num", np.negative, "-"), OpInfo("abs", 1, "num", np.abs), OpInfo("sign", 1, "num", _sign),
    OpInfo("floor", 1, "num", np.floor), OpInfo("ceil", 1, "num", np.ceil),
    OpInfo("round", 1, "num", np.rint), OpInfo("trunc", 1, "num", np.trunc),
    OpInfo("eq", 2, "bool", np.equal, "=="), OpInfo("ne", 2, "bool", np.not_equal, "!="), OpInfo("lt", 2, "bool", np.less, "<"),
    OpInfo("le", 2, "bool", np.less_equal, "<="), OpInfo("gt", 2, "bool", np.greater, ">"), OpInfo("ge", 2, "bool", np.greater_equal, ">="),
    OpInfo("and", 2, "int", np.bitwise_and, "&"), OpInfo("or", 2, "int", np.bitwise_or, "|"), OpInfo("xor", 2, "int", np.bitwise_xor, "^"),
    OpInfo("not", 1, "int", np.invert, "~"), OpInfo("shl", 2, "int", np.left_shift, "<<"), OpInfo("shr", 2, "int", np.right_shift, ">>"),
    OpInfo("mulhi", 2, "int", lambda a, b: ((a.astype(np.uint64) * b.astype(np.uint64)) >> np.uint64(32)).astype(np.uint32), "", 2),
    OpInfo("detach", 1, "same", lambda a: a, "", 0),
    OpInfo("unrounded", 1, "same", lambda a: a, "", 0),  # of a conversion to a low dtype: the value before it, typed as the value after it
    OpInfo("isnan", 1, "bool", np.isnan), OpInfo("isinf", 1, "bool", np.isinf), OpInfo("isfinite", 1, "bool", np.isfinite),
]

# Permissions to multiply a factor of a sum of products less exactly than its dtype says. The value is the dtype it may be rounded to on the
# way into a matrix unit; None where the unit itself takes f32 apart. They mean nothing anywhere else, and nothing on a CPU.
PRECISIONS: dict[str, Dtype | None] = {"tf32": None, "bf16x3": None, "as_bf16": bf16, "as_f16": f16}
_OTHERS += [OpInfo(n, 1, "num", lambda x: x, "", 0) for n in PRECISIONS]
MARKS = frozenset({*PRECISIONS, "unrounded"})  # what says how something may be computed; lowering and widening take them away

OPS: dict[str, OpInfo] = {o.name: o for o in _OTHERS} | {n: OpInfo(n, 1, "float", f, "", c) for n, (f, c) in _UNARY_FLOAT.items()}

COMMUTATIVE = frozenset({"add", "mul", "min", "max", "eq", "ne", "and", "or", "xor", "mulhi"})


def result_dtype(name: str, dtypes: list[Dtype]) -> tuple[Dtype, Dtype] | str:
    """(operand dtype, result dtype) of an operation, or a sentence that says why it is not defined."""
    common = dtypes[0]
    for d in dtypes[1:]:
        common = promote(common, d)
    rule = OPS[name].rule
    if rule == "float" and not common.is_float:
        common = f32
    if rule == "num" and common is bool_:
        return f"`{name}` is not defined for bool; cast to an integer first"
    if rule == "int" and common.is_float:
        return f"`{name}` needs integers or bools, not {common}"
    return common, bool_ if rule == "bool" else common
