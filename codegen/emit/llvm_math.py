"""`LlvmMath`: the mathematical expansions as LLVM IR over scalars or vectors, and `emit`, which calls one by name.

Everything becomes vector instructions; no call to a mathematical library is left for LLVM to make, provided that
the target has fused multiply-add and vector rounding (AVX2 with FMA, AVX-512, NEON).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir

from codegen.emit.llvm_builder import Builder
from codegen.emit.llvm_types import intrinsic, literal, vector
from codegen.micro.maths import FUNCTIONS

_INTEGER_OF = {"float": ir.IntType(32), "double": ir.IntType(64), "i32": ir.IntType(32), "i64": ir.IntType(64)}
_FLOAT_OF = {"i32": ir.FloatType(), "i64": ir.DoubleType()}
_NAMES = {"float": "f32", "double": "f64", "i32": "i32", "i64": "i64", "i1": "bool"}
_SYMBOL = {"lt": "<", "le": "<=", "gt": ">", "ge": ">=", "eq": "==", "ne": "!="}


def emit(builder: Builder, name: str, args: list[ir.Value]) -> ir.Value:
    """The named function of `codegen.micro.maths`, of floats, doubles or vectors of them, at the builder's position."""
    return FUNCTIONS[name](LlvmMath(builder), *args)


class LlvmMath:
    """A MathBuilder that appends instructions, without fast-math flags; the position may end in another block."""

    def __init__(self, builder: Builder) -> None:
        self.builder = builder

    def dtype(self, x: ir.Value) -> str:
        """The name of the element's dtype."""
        return _NAMES[str(_element(x.type))]

    def const(self, value: float, like: ir.Value) -> ir.Value:
        """A splat."""
        return _splat(like.type, _element(like.type), value)

    def iconst(self, value: int, like: ir.Value) -> ir.Value:
        """A splat of the integer as wide as like."""
        return _splat(like.type, _INTEGER_OF[str(_element(like.type))], value)

    def add(self, a: ir.Value, c: ir.Value) -> ir.Value:
        """a + c."""
        return self.builder.fadd(a, c)

    def sub(self, a: ir.Value, c: ir.Value) -> ir.Value:
        """a - c."""
        return self.builder.fsub(a, c)

    def mul(self, a: ir.Value, c: ir.Value) -> ir.Value:
        """a * c."""
        return self.builder.fmul(a, c)

    def div(self, a: ir.Value, c: ir.Value) -> ir.Value:
        """a / c."""
        return self.builder.fdiv(a, c)

    def fma(self, a: ir.Value, c: ir.Value, d: ir.Value) -> ir.Value:
        """a * c + d with one rounding."""
        return self._intrinsic("fma", a, c, d)

    def neg(self, a: ir.Value) -> ir.Value:
        """-a."""
        return self.builder.fneg(a)

    def abs(self, a: ir.Value) -> ir.Value:
        """|a|."""
        return self._intrinsic("fabs", a)

    def sqrt(self, a: ir.Value) -> ir.Value:
        """The square root."""
        return self._intrinsic("sqrt", a)

    def rint(self, a: ir.Value) -> ir.Value:
        """Nearest integer, ties to even."""
        return self._intrinsic("rint", a)

    def floor(self, a: ir.Value) -> ir.Value:
        """Largest integer not above."""
        return self._intrinsic("floor", a)

    def min(self, a: ir.Value, c: ir.Value) -> ir.Value:
        """a < c ? a : c, which is one instruction on x86."""
        return self.builder.select(self.builder.fcmp_ordered("<", a, c), a, c)

    def max(self, a: ir.Value, c: ir.Value) -> ir.Value:
        """a > c ? a : c, which is one instruction on x86."""
        return self.builder.select(self.builder.fcmp_ordered(">", a, c), a, c)

    def cmp(self, op: str, a: ir.Value, c: ir.Value) -> ir.Value:
        """An i1 per lane."""
        if isinstance(_element(a.type), ir.IntType):
            return self.builder.icmp_signed(_SYMBOL[op], a, c)
        if op == "ne":
            return self.builder.fcmp_unordered("!=", a, c)
        return self.builder.fcmp_ordered(_SYMBOL[op], a, c)

    def select(self, cond: ir.Value, a: ir.Value, c: ir.Value) -> ir.Value:
        """cond ? a : c."""
        return self.builder.select(cond, a, c)

    def rarely(self, cond: ir.Value, values: Callable[[], tuple[ir.Value, ...]], otherwise: tuple[ir.Value, ...]) -> tuple[ir.Value, ...]:
        """A branch around `values` when no lane wants it."""
        b = self.builder
        wanted = intrinsic(b, f"llvm.vector.reduce.or.v{cond.type.count}i1", ir.IntType(1), [cond]) if _is_vector(cond) else cond
        before = b.block
        with b.if_then(wanted, likely=False):
            chosen = [b.select(cond, a, c) for a, c in zip(values(), otherwise)]
            inside = b.block
        results = []
        for a, c in zip(chosen, otherwise):
            phi = b.phi(c.type)
            phi.add_incoming(a, inside)
            phi.add_incoming(c, before)
            results.append(phi)
        return tuple(results)

    def logic_and(self, a: ir.Value, c: ir.Value) -> ir.Value:
        """Both."""
        return self.builder.and_(a, c)

    def logic_or(self, a: ir.Value, c: ir.Value) -> ir.Value:
        """Either."""
        return self.builder.or_(a, c)

    def logic_not(self, a: ir.Value) -> ir.Value:
        """The opposite."""
        return self.builder.xor(a, _splat(a.type, ir.IntType(1), 1))

    def bitcast_int(self, x: ir.Value) -> ir.Value:
        """The bits."""
        return self.builder.bitcast(x, _like(x.type, _INTEGER_OF[str(_element(x.type))]))

    def bitcast_float(self, i: ir.Value) -> ir.Value:
        """The float with these bits."""
        return self.builder.bitcast(i, _like(i.type, _FLOAT_OF[str(_element(i.type))]))

    def to_float(self, i: ir.Value) -> ir.Value:
        """The nearest float of the same width."""
        return self.builder.sitofp(i, _like(i.type, _FLOAT_OF[str(_element(i.type))]))

    def iadd(self, a: ir.Value, c: ir.Value) -> ir.Value:
        """Wrapping a + c."""
        return self.builder.add(a, c)

    def isub(self, a: ir.Value, c: ir.Value) -> ir.Value:
        """Wrapping a - c."""
        return self.builder.sub(a, c)

    def iand(self, a: ir.Value, c: ir.Value) -> ir.Value:
        """Bitwise and."""
        return self.builder.and_(a, c)

    def ior(self, a: ir.Value, c: ir.Value) -> ir.Value:
        """Bitwise or."""
        return self.builder.or_(a, c)

    def ixor(self, a: ir.Value, c: ir.Value) -> ir.Value:
        """Bitwise exclusive or."""
        return self.builder.xor(a, c)

    def shl(self, a: ir.Value, count: int) -> ir.Value:
        """Shift left."""
        return self.builder.shl(a, self.iconst(count, a))

    def lshr(self, a: ir.Value, count: int) -> ir.Value:
        """Shift right, filling with zeros."""
        return self.builder.lshr(a, self.iconst(count, a))

    def ashr(self, a: ir.Value, count: int) -> ir.Value:
        """Shift right, filling with the sign."""
        return self.builder.ashr(a, self.iconst(count, a))

    def widen(self, x: ir.Value) -> ir.Value:
        """float to double."""
        return self.builder.fpext(x, _like(x.type, ir.DoubleType()))

    def narrow(self, x: ir.Value) -> ir.Value:
        """double to float."""
        return self.builder.fptrunc(x, _like(x.type, ir.FloatType()))

    def _intrinsic(self, name: str, *args: ir.Value) -> ir.Value:
        kind = args[0].type
        lanes = f"v{kind.count}" if isinstance(kind, ir.VectorType) else ""
        mangled = f"llvm.{name}.{lanes}{self.dtype(args[0])}"
        module = self.builder.module
        function = module.globals.get(mangled)
        if function is None:
            function = ir.Function(module, ir.FunctionType(kind, [kind] * len(args)), mangled)
        return self.builder.call(function, args)


def _is_vector(v: ir.Value) -> bool:
    return isinstance(v.type, ir.VectorType)


def _element(kind: ir.Type) -> ir.Type:
    return kind.element if isinstance(kind, ir.VectorType) else kind


def _like(shape: ir.Type, element: ir.Type) -> ir.Type:
    return vector(element, shape.count) if isinstance(shape, ir.VectorType) else element


def _splat(shape: ir.Type, element: ir.Type, value: Any) -> ir.Value:
    return literal(element, value, shape.count if isinstance(shape, ir.VectorType) else 0)
