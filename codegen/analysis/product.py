"""Products of tiles: sums of products whose factors are reused along different axes, and the precision their factors need."""

from __future__ import annotations

from dataclasses import dataclass

from codegen.analysis.access import size
from dsl.dim import Var
from dsl.dtype import Dtype, bf16, f16, f32, i8
from dsl.expr import Cast, Const, Expr, Op, Reduce, Where, cast, const, where
from dsl.nest import Stage
from dsl.opset import PRECISIONS
from dsl.widen import contains


@dataclass(frozen=True)
class Product:
    """A contraction.

    Attributes:
        sides: the two factors, any expressions.
        rows, columns: spatial axes of the first factor alone, and of the second alone, that have some length.
        contracted: summed axes that both factors run along.
        dtype: what a matrix unit is given, see :func:`operand_dtype`.
        result: dtype of the product of two elements.
    """

    sides: tuple[Expr, Expr]
    rows: tuple[Var, ...]
    columns: tuple[Var, ...]
    contracted: tuple[Var, ...]
    dtype: Dtype
    result: Dtype

    @property
    def unit(self) -> bool:
        """Whether a matrix unit multiplies these operands.

        Integers other than signed bytes are multiplied one by one, as are wrapping bytes.
        """
        return self.dtype.is_float or (self.dtype == i8 and self.result.bits >= 32)

    @property
    def precision(self) -> str:
        """How f32 operands are multiplied."""
        return dot_precision(*self.sides)


def product_of(s: Stage) -> Product | None:
    """The product that a stage sums, when each factor lacks a spatial axis of some length: its operands are reused."""
    body = s.body
    if (s.kind != "reduce" or not isinstance(body, Reduce) or len(s.tensors) != 1
            or body.carrier.name not in ("sum", "sum.partial", "sum.resume")):
        return None
    e = body.args[0]
    while isinstance(e, Cast):
        e = e.args[0]
    if not (isinstance(e, Op) and e.name == "mul"):
        return None
    a, b = e.args
    rows, columns = (tuple(v for v in s.axes if size(v.extent) > 1 and v in x.free and v not in y.free) for x, y in ((a, b), (b, a)))
    contracted = tuple(v for v in s.bound if v in a.free and v in b.free)
    if not rows or not columns or not contracted or any(size(v.extent) == 0 for v in (*s.axes, *s.bound)):
        return None
    return Product((a, b), rows, columns, contracted, operand_dtype(a, b), e.dtype)


def operand_dtype(a: Expr, b: Expr) -> Dtype:
    """The narrowest dtype that holds the values of both factors, without a rounding that the definition does not permit."""
    x, y = held(a), held(b)
    if x == y:
        return x
    for byte, other in ((x, y), (y, x)):
        if byte == i8 and other in (f16, bf16):
            return other  # seven bits and a sign are exact in either
    if x.is_float and y.is_float:
        wide = max(x, y, key=lambda d: d.bits)
        return wide if x.bits != y.bits else f16 if x.bits == 8 else f32
    return a.dtype


def held(e: Expr) -> Dtype:
    """The narrowest dtype that a factor's values may be held in: that under exact conversions, or one the definition permits."""
    if isinstance(e, Op) and e.name in PRECISIONS:
        return PRECISIONS[e.name] or held(e.args[0])
    if isinstance(e, Cast) and contains(e.dtype, e.args[0].dtype):
        return held(e.args[0])
    if isinstance(e, Where) and isinstance(e.args[2], Const) and e.args[2].value == 0:
        return held(e.args[1])
    return e.dtype


def narrow(e: Expr, dtype: Dtype) -> Expr:
    """A factor as a value of ``dtype``, which its :func:`held` dtype or a wider one."""
    if isinstance(e, Op) and e.name in PRECISIONS:
        return narrow(e.args[0], dtype)
    if e.dtype == dtype:
        return e
    if isinstance(e, Cast) and contains(e.dtype, e.args[0].dtype):
        return narrow(e.args[0], dtype)
    if isinstance(e, Where) and isinstance(e.args[2], Const) and e.args[2].value == 0:
        return where(e.args[0], narrow(e.args[1], dtype), const(0, dtype))
    return cast(e, dtype)


def dot_precision(a: Expr, b: Expr) -> str:
    """How f32 operands are multiplied: as IEEE has it unless the definition permits less."""
    names = {name for e in (a, b) if (name := _permitted(e)) and PRECISIONS[name] is None}
    return "tf32" if "tf32" in names else min(names, default="ieee")


def _permitted(e: Expr) -> str:
    while isinstance(e, (Cast, Where)):
        e = e.args[1] if isinstance(e, Where) else e.args[0]
    return e.name if isinstance(e, Op) and e.name in PRECISIONS else ""
