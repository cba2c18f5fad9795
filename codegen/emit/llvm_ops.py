"""Pointwise operations on LLVM values, scalars or vectors alike; dispatched by the names of ``dsl/opset.py``."""

from __future__ import annotations

from collections.abc import Callable

from llvmlite import ir

from codegen.emit import llvm_math
from codegen.emit.llvm_builder import Builder
from codegen.emit.llvm_regs import Coord, Shape, Tile
from codegen.emit.llvm_transpose import concatenate, lanes_between
from codegen.emit.llvm_types import constant, convert, int_const, intrinsic, lanes_of, mangle, vector
from codegen.tile.ir import Map
from dsl.dtype import Dtype, bool_, u32
from dsl.errors import InternalError

Emit = Callable[[Builder, list[ir.Value], Dtype], ir.Value]


def emit_op(b: Builder, name: str, args: list[ir.Value], d: Dtype) -> ir.Value:
    """Emit operation ``name`` on operands of dtype ``d`` (all equal; the selected dtype for ``where``)."""
    if name == "where":
        return b.select(*args)
    emit = (_FLOAT if d.is_float else _INT).get(name)
    if emit is not None:
        return emit(b, args, d)
    if d.is_float:
        return llvm_math.emit(b, name, args)
    raise InternalError(f"no CPU code for `{name}` on {d}")


def emit_map(b: Builder, op: Map, args: list[Tile], shape: Shape) -> Tile:
    """A pointwise operation, register by register; functions of many dependent steps two registers at a time.

    Step by step the instructions of two alternate, so that one goes on while the other waits; one after the other, the second would lie
    beyond what a processor looks ahead.
    """
    dtype, src = op.results[0].dtype, args[-1].dtype
    coords = list(shape.coords())
    long = src.is_float and op.name not in ("cast", "where") and op.name not in _FLOAT
    paired = len(coords) // 2 * 2 if long and shape.width else 0
    regs: dict[Coord, ir.Value] = {}
    for pair in zip(coords[:paired:2], coords[1:paired:2]):
        both = emit_op(b, op.name, [concatenate(b, [a.at(b, shape, c) for c in pair]) for a in args], src)
        regs.update((c, lanes_between(b, both, n * shape.width, shape.width)) for n, c in enumerate(pair))
    for c in coords[paired:]:
        values = [a.at(b, shape, c) for a in args]
        regs[c] = convert(b, values[0], src, dtype) if op.name == "cast" else emit_op(b, op.name, values, src)
    return Tile(shape, dtype, regs)


def _fcmp(op: str, ordered: bool = True) -> Emit:
    return lambda b, a, d: b.fcmp_ordered(op, *a) if ordered else b.fcmp_unordered(op, *a)


def _icmp(op: str) -> Emit:
    return lambda b, a, d: b.icmp_signed(op, *a) if d.signed else b.icmp_unsigned(op, *a)


def _call(stem: str) -> Emit:
    return lambda b, a, d: intrinsic(b, f"llvm.{stem}.{mangle(a[0].type)}", a[0].type, a)


def _fminmax(op: str) -> Emit:
    """The lesser or greater; NaN when either is NaN, as in numpy and torch."""
    def emit(b: Builder, a: list[ir.Value], d: Dtype) -> ir.Value:
        x, y = a
        picked = b.select(b.fcmp_ordered(op, x, y), x, y)  # one min/max instruction, which returns y when either is NaN
        return b.select(b.fcmp_unordered("uno", x, x), x, picked)
    return emit


def _ffloordiv(b: Builder, a: list[ir.Value], d: Dtype) -> ir.Value:
    """Python's: the quotient of ``a - a % b``, which ``a / b`` may round past; ``a / 0`` is that of division."""
    x, y = a
    rest, quotient, zero = b.frem(x, y), b.fdiv(x, y), constant(0.0, d, lanes_of(x))
    towards_zero = _call("rint")(b, [b.fdiv(b.fsub(x, rest), y)], d)
    whole = b.select(_wrong_sign(b, rest, y), b.fsub(towards_zero, constant(1.0, d, lanes_of(x))), towards_zero)
    whole = b.select(b.fcmp_ordered("==", whole, zero), b.fmul(quotient, zero), whole)  # keeps the sign of a zero
    return b.select(b.fcmp_ordered("==", y, zero), quotient, whole)


def _fmod(b: Builder, a: list[ir.Value], d: Dtype) -> ir.Value:
    """Remainder with the divisor's sign: ``frem`` corrected."""
    r = b.frem(*a)
    return b.select(_wrong_sign(b, r, a[1]), b.fadd(r, a[1]), r)


def _wrong_sign(b: Builder, rest: ir.Value, divisor: ir.Value) -> ir.Value:
    """Whether a remainder is neither zero nor of its divisor's sign."""
    zero = ir.Constant(rest.type, None)
    differ = b.xor(b.fcmp_ordered("<", rest, zero), b.fcmp_ordered("<", divisor, zero))
    return b.and_(differ, b.fcmp_ordered("!=", rest, zero))


def _safe_divisor(b: Builder, a: list[ir.Value], d: Dtype) -> tuple[ir.Value, ir.Value, ir.Value]:
    """(is zero, divisor that traps on nothing, overflow flag): zero and ``MIN / -1`` are replaced by one."""
    t = a[1].type
    zero = b.icmp_unsigned("==", a[1], int_const(t, 0))
    over = zero
    if d.signed:
        lowest = b.icmp_unsigned("==", a[0], int_const(t, -(1 << (d.bits - 1))))
        over = b.and_(lowest, b.icmp_unsigned("==", a[1], int_const(t, -1)))
    bad = b.or_(zero, over)
    return zero, b.select(bad, int_const(t, 1), a[1]), over


def _ifloordiv(b: Builder, a: list[ir.Value], d: Dtype) -> ir.Value:
    """Towards minus infinity; -1 (all ones) for a zero divisor, where torch raises."""
    zero, safe, _ = _safe_divisor(b, a, d)
    if not d.signed:
        return b.select(zero, int_const(a[0].type, -1), b.udiv(a[0], safe))
    q = b.sdiv(a[0], safe)
    r = b.srem(a[0], safe)
    none = int_const(a[0].type, 0)
    down = b.and_(b.icmp_signed("!=", r, none), b.icmp_signed("<", b.xor(r, safe), none))
    return b.select(zero, int_const(a[0].type, -1), b.sub(q, b.zext(down, q.type)))


def _imod(b: Builder, a: list[ir.Value], d: Dtype) -> ir.Value:
    """Remainder with the divisor's sign; the dividend for a zero divisor."""
    zero, safe, _ = _safe_divisor(b, a, d)
    if not d.signed:
        return b.select(zero, a[0], b.urem(a[0], safe))
    r = b.srem(a[0], safe)
    none = int_const(a[0].type, 0)
    up = b.and_(b.icmp_signed("!=", r, none), b.icmp_signed("<", b.xor(r, safe), none))
    return b.select(zero, a[0], b.select(up, b.add(r, safe), r))


def _iminmax(op: str) -> Emit:
    return lambda b, a, d: b.select(b.icmp_signed(op, *a) if d.signed else b.icmp_unsigned(op, *a), *a)


def _iabs(b: Builder, a: list[ir.Value], d: Dtype) -> ir.Value:
    zero = int_const(a[0].type, 0)
    return b.select(b.icmp_signed("<", a[0], zero), b.sub(zero, a[0]), a[0]) if d.signed else a[0]


def _isign(b: Builder, a: list[ir.Value], d: Dtype) -> ir.Value:
    zero, one = int_const(a[0].type, 0), int_const(a[0].type, 1)
    positive = b.select(b.icmp_signed(">", a[0], zero) if d.signed else b.icmp_unsigned(">", a[0], zero), one, zero)
    return b.select(b.icmp_signed("<", a[0], zero), int_const(a[0].type, -1), positive) if d.signed else positive


def _fsign(b: Builder, a: list[ir.Value], d: Dtype) -> ir.Value:
    n = lanes_of(a[0])
    zero = constant(0.0, d, n)
    up = b.select(b.fcmp_ordered(">", a[0], zero), constant(1.0, d, n), zero)
    return b.select(b.fcmp_ordered("<", a[0], zero), constant(-1.0, d, n), up)


def _ipow(b: Builder, a: list[ir.Value], d: Dtype) -> ir.Value:
    """Square and multiply over every bit of the exponent; a negative exponent gives 0 (1 or -1 for bases of unit size)."""
    base, e = a
    t = base.type
    one, zero = int_const(t, 1), int_const(t, 0)
    out: ir.Value = one
    square = base
    for bit in range(d.bits - d.signed):
        set_ = b.icmp_unsigned("!=", b.and_(b.lshr(e, int_const(t, bit)), one), zero)
        out = b.select(set_, b.mul(out, square), out)
        square = b.mul(square, square)
    if not d.signed:
        return out
    odd = b.icmp_unsigned("!=", b.and_(e, one), zero)
    minus = int_const(t, -1)
    tiny = b.select(b.icmp_signed("==", base, one), one, b.select(b.icmp_signed("==", base, minus), b.select(odd, minus, one), zero))
    return b.select(b.icmp_signed("<", e, zero), tiny, out)


def _shift(kind: str) -> Emit:
    """Shifts by the width or more give what shifting bit by bit would."""
    def emit(b: Builder, a: list[ir.Value], d: Dtype) -> ir.Value:
        t = a[1].type
        far = b.icmp_unsigned(">=", a[1], int_const(t, d.bits))
        if kind == "shr" and d.signed:
            return b.ashr(a[0], b.select(far, int_const(t, d.bits - 1), a[1]))
        amount = b.select(far, int_const(t, 0), a[1])
        return b.select(far, int_const(t, 0), b.shl(a[0], amount) if kind == "shl" else b.lshr(a[0], amount))
    return emit


def _mulhi(b: Builder, a: list[ir.Value], d: Dtype) -> ir.Value:
    n = lanes_of(a[0])
    wide_type = vector(ir.IntType(64), n) if n else ir.IntType(64)
    wide = b.mul(b.zext(a[0], wide_type), b.zext(a[1], wide_type))
    return b.trunc(b.lshr(wide, int_const(wide_type, 32)), a[0].type)


def _is_inf(b: Builder, a: list[ir.Value], d: Dtype) -> ir.Value:
    return b.fcmp_ordered("==", _call("fabs")(b, a, d), constant(float("inf"), d, lanes_of(a[0])))


# fmuladd: one rounding where the machine has an instruction for it, two where one would take a library call.
_FLOAT: dict[str, Emit] = {
    "add": lambda b, a, d: b.fadd(*a), "sub": lambda b, a, d: b.fsub(*a), "mul": lambda b, a, d: b.fmul(*a),
    "div": lambda b, a, d: b.fdiv(*a), "fma": _call("fmuladd"), "neg": lambda b, a, d: b.fneg(a[0]), "abs": _call("fabs"),
    "sqrt": _call("sqrt"), "floor": _call("floor"), "ceil": _call("ceil"), "trunc": _call("trunc"), "round": _call("rint"),
    "floordiv": _ffloordiv, "mod": _fmod, "min": _fminmax("<"), "max": _fminmax(">"), "sign": _fsign,
    "eq": _fcmp("=="), "ne": _fcmp("!=", ordered=False), "lt": _fcmp("<"), "le": _fcmp("<="), "gt": _fcmp(">"), "ge": _fcmp(">="),
    "isnan": lambda b, a, d: b.fcmp_unordered("uno", a[0], a[0]), "isinf": _is_inf,
    "isfinite": lambda b, a, d: b.fcmp_ordered("<", _call("fabs")(b, a, d), constant(float("inf"), d, lanes_of(a[0]))),
    "rsqrt": lambda b, a, d: b.fdiv(constant(1.0, d, lanes_of(a[0])), _call("sqrt")(b, a, d)),
}

_INT: dict[str, Emit] = {
    "add": lambda b, a, d: b.or_(*a) if d == bool_ else b.add(*a), "sub": lambda b, a, d: b.sub(*a),
    "mul": lambda b, a, d: b.and_(*a) if d == bool_ else b.mul(*a),
    "neg": lambda b, a, d: b.neg(a[0]), "abs": _iabs, "sign": _isign, "floordiv": _ifloordiv, "mod": _imod, "pow": _ipow,
    "min": _iminmax("<"), "max": _iminmax(">"), "fma": lambda b, a, d: b.add(b.mul(a[0], a[1]), a[2]),
    "eq": _icmp("=="), "ne": _icmp("!="), "lt": _icmp("<"), "le": _icmp("<="), "gt": _icmp(">"), "ge": _icmp(">="),
    "and": lambda b, a, d: b.and_(*a), "or": lambda b, a, d: b.or_(*a), "xor": lambda b, a, d: b.xor(*a),
    "not": lambda b, a, d: b.not_(a[0]), "shl": _shift("shl"), "shr": _shift("shr"), "mulhi": _mulhi,
    "floor": lambda b, a, d: a[0], "ceil": lambda b, a, d: a[0], "round": lambda b, a, d: a[0], "trunc": lambda b, a, d: a[0],
    "isnan": lambda b, a, d: constant(False, bool_, lanes_of(a[0])), "isinf": lambda b, a, d: constant(False, bool_, lanes_of(a[0])),
    "isfinite": lambda b, a, d: constant(True, bool_, lanes_of(a[0])),
}


class RegisterAlgebra:
    """The :class:`dsl.carrier.Algebra` on (LLVM value, dtype) pairs: how carriers combine registers and lanes."""

    def __init__(self, b: Builder) -> None:
        self.b = b

    def op(self, name: str, *args: tuple[ir.Value, Dtype]) -> tuple[ir.Value, Dtype]:
        """A pointwise operation."""
        value = emit_op(self.b, name, [a[0] for a in args], args[0][1])
        return value, bool_ if name in _BOOLEAN else args[0][1]

    def const(self, value: float, dtype: Dtype) -> tuple[ir.Value, Dtype]:
        """A literal; operands of ``op`` are splatted as needed by :meth:`like`."""
        return constant(value, dtype, self.lanes), dtype

    lanes = 0

    def where(self, cond: tuple[ir.Value, Dtype], a: tuple[ir.Value, Dtype], b: tuple[ir.Value, Dtype]) -> tuple[ir.Value, Dtype]:
        """Selection."""
        return self.b.select(cond[0], a[0], b[0]), a[1]

    def cast(self, x: tuple[ir.Value, Dtype], dtype: Dtype) -> tuple[ir.Value, Dtype]:
        """Conversion."""
        return convert(self.b, x[0], x[1], dtype), dtype

    def dtype(self, x: tuple[ir.Value, Dtype]) -> Dtype:
        """The dtype of a pair."""
        return x[1]


_BOOLEAN = frozenset({"eq", "ne", "lt", "le", "gt", "ge", "isnan", "isinf", "isfinite"})
__all__ = ["RegisterAlgebra", "emit_map", "emit_op", "u32"]
