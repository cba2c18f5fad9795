"""LLVM types of our dtypes, constants, and the conversions between dtypes.

Low-precision floats travel as integers of their width: nothing is computed in them, they are only loaded, converted and stored.
A conversion uses the machine's instruction where the builder's instruction sets have one, and integer arithmetic otherwise, so that
no target calls a library for it.
"""

from __future__ import annotations

import functools
import math
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from llvmlite import ir

from codegen.emit.llvm_builder import Builder, vector
from dsl.dtype import Dtype, bf16, bool_, f8e4m3, f8e5m2, f16, f32, f64, i32, u32
from dsl.errors import InternalError


class _Integer(ir.IntType):
    """An integer type; a literal of it is the same object each time, so that it is spelled once."""

    _instance_cache: dict[int, _Integer] = {}

    def __call__(self, value: Any) -> ir.Constant:
        return _integer(self.width, value) if type(value) is int else super().__call__(value)


@functools.lru_cache(4096)
def _integer(bits: int, value: int) -> ir.Constant:
    return ir.Constant(_Integer(bits), value)


I1, I8, I16, I32, I64 = (_Integer(n) for n in (1, 8, 16, 32, 64))
PTR = ir.PointerType()
_FLOATS = {"f32": ir.FloatType(), "f64": ir.DoubleType()}
_HALF = ir.HalfType()
_CONVERTS_HALF = "f16c", "neon"  # instruction sets that convert between f16 and f32


def _has(b: Builder, *some: str) -> bool:
    return not getattr(b, "features", frozenset()).isdisjoint(some)


class _Named(ir.Type):
    """A type that LLVM has and llvmlite does not spell."""

    def __init__(self, name: str) -> None:
        self.name = name

    def _to_string(self) -> str:
        return self.name

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Named) and other.name == self.name

    def __hash__(self) -> int:
        return hash(self.name)


def named_type(name: str) -> ir.Type:
    """The LLVM type with this name: ``bfloat``, ``float``, ``i16``."""
    return ir.IntType(int(name[1:])) if name[1:].isdigit() else _Named(name)


def scalar_type(d: Dtype) -> ir.Type:
    """The LLVM type of one value in registers."""
    if d is bool_ or d == bool_:
        return I1
    return _FLOATS.get(d.name) or ir.IntType(d.bits)


def memory_type(d: Dtype) -> ir.Type:
    """The LLVM type of one element in memory: a bool is a byte."""
    return I8 if d == bool_ else scalar_type(d)


def word(name: str) -> str:
    """A register name that needs no quotes."""
    return "".join(c if c.isalnum() or c == "_" else "_" for c in name)


def lanes_of(v: ir.Value) -> int:
    """Lane count of a vector value, zero for a scalar."""
    return v.type.count if isinstance(v.type, ir.VectorType) else 0


class Repeated(ir.Constant):
    """One constant in every lane of a vector, written ``splat (float 1.0)``.

    A module is mostly these, and writing each lane takes longest.
    """

    def __init__(self, one: ir.Constant, lanes: int) -> None:
        self.type, self.constant, self.one = vector(one.type, lanes), [one] * lanes, one

    def _get_reference(self) -> str:
        return f"splat ({self.one})" if self.one.constant is not ir.Undefined else "undef"


def constant(value: Any, d: Dtype, lanes: int = 0) -> ir.Constant:
    """A literal of ``d``, splatted over ``lanes``."""
    t = scalar_type(d)
    if d == f16:
        c = ir.Constant(t, _f16_bits(float(value)))
    elif d == bf16:
        c = ir.Constant(t, _bf16_bits(float(value)))
    elif d.is_float and not d.is_low:
        c = ir.Constant(t, float(value))
    elif d.is_float:
        raise InternalError(f"no literal of dtype {d}")
    else:
        c = ir.Constant(t, int(value))
    return Repeated(c, lanes) if lanes else c


def literal(t: ir.Type, value: float, lanes: int = 0) -> ir.Constant:
    """A literal of an LLVM type in every lane, or alone; the same object each time."""
    return _literal(t, value, lanes, math.copysign(1.0, value))


@functools.lru_cache(4096, typed=True)
def _literal(t: ir.Type, value: float, lanes: int, sign: float) -> ir.Constant:
    one = ir.Constant(t, value)
    return Repeated(one, lanes) if lanes else one


def _bf16_bits(x: float) -> int:
    bits: int = struct.unpack("<I", struct.pack("<f", x))[0]
    return 0x7FC0 if x != x else (bits + 0x7FFF + (bits >> 16 & 1)) >> 16


def _f16_bits(x: float) -> int:
    try:
        bits: int = struct.unpack("<H", struct.pack("<e", x))[0]
    except OverflowError:
        return 0xFC00 if x < 0 else 0x7C00
    return bits


def alloca(b: Builder, t: ir.Type, align: int = 8, name: str = "") -> ir.Value:
    """Room on the stack, as an untyped pointer."""
    room = b.alloca(t, name=name)
    room.align = align
    room.type = PTR
    return room


def int_const(like: ir.Type, value: int) -> ir.Constant:
    """An integer literal of a scalar or vector integer type."""
    if isinstance(like, ir.VectorType):
        return literal(like.element, value, like.count)
    return literal(like, value)


@functools.lru_cache(4096)
def lane_numbers(*numbers: int) -> ir.Constant:
    """A vector of 32-bit numbers: the order of a shuffle, say; the same object each time."""
    return ir.Constant(vector(I32, len(numbers)), [I32(n) for n in numbers])


def undefined(t: ir.Type) -> ir.Constant:
    """A vector of which every lane is still to be given; the same object each time."""
    made = t.__dict__.get("_undefined")
    if made is None:
        made = t._undefined = Repeated(ir.Constant(t.element, ir.Undefined), t.count)
    return made


def splat(b: Builder, v: ir.Value, lanes: int) -> ir.Value:
    """A scalar in every lane."""
    if not lanes or isinstance(v.type, ir.VectorType):
        return v
    if isinstance(v, ir.Constant):
        return Repeated(v, lanes)
    t = vector(v.type, lanes)
    one = b.insert_element(undefined(t), v, I32(0))
    return b.shuffle_vector(one, undefined(t), int_const(vector(I32, lanes), 0))


def intrinsic(b: Builder, name: str, result: ir.Type, args: list[ir.Value], aligned: Mapping[int, int] | None = None) -> ir.Value:
    """Call an LLVM intrinsic by its full name, declaring it once; ``aligned``: as in :meth:`Builder.call`."""
    module = b.module
    fn = module.globals.get(name)
    if fn is None:
        fn = ir.Function(module, ir.FunctionType(result, [a.type for a in args]), name)
    return b.call(fn, args, aligned=aligned)


def counted(b: Builder, count: ir.Value, body: Callable[[ir.Value], None]) -> None:
    """``for n in range(count)``, at least once, around what ``body`` emits for ``n``."""
    before, inside, after = b.block, b.function.append_basic_block("each"), b.function.append_basic_block("each.end")
    b.branch(inside)
    b.position_at_end(inside)
    n = b.phi(I64)
    n.add_incoming(I64(0), before)
    body(n)
    more = b.add(n, I64(1))
    n.add_incoming(more, b.block)
    b.cbranch(b.icmp_unsigned("<", more, count), inside, after)
    b.position_at_end(after)


def mangle(t: ir.Type) -> str:
    """The suffix of an overloaded intrinsic: ``v16f32``, ``i64``."""
    if isinstance(t, ir.VectorType):
        return f"v{t.count}{mangle(t.element)}"
    if isinstance(t, ir.IntType):
        return f"i{t.width}"
    return {"float": "f32", "double": "f64", "ptr": "p0"}[str(t)]


def convert(b: Builder, v: ir.Value, src: Dtype, dst: Dtype) -> ir.Value:
    """``v`` of ``src`` as ``dst``: to nearest even between floats, truncating and saturating to integers, ``!= 0`` to bool."""
    if src == dst:
        return v
    n = lanes_of(v)
    if src.is_low:
        return convert(b, _raise(b, v, src, n), f32, dst)
    if dst.is_low:
        return _lower(b, convert(b, v, src, f32), dst, n)
    t = vector(scalar_type(dst), n)
    if dst == bool_:
        zero = constant(0, src, n)
        return b.fcmp_unordered("!=", v, zero) if src.is_float else b.icmp_unsigned("!=", v, zero)
    if src.is_float and dst.is_float:
        return b.fpext(v, t) if dst.bits > src.bits else b.fptrunc(v, t)
    if src.is_float:
        return _saturate(b, v, src, dst)
    if dst.is_float:
        return b.sitofp(v, t) if src.signed and src != bool_ else b.uitofp(v, t)
    if dst.bits < src.bits and src != bool_:
        return b.trunc(v, t)
    if src == bool_:
        return b.zext(v, t)
    return v if dst.bits == src.bits else b.sext(v, t) if src.signed else b.zext(v, t)


def _saturate(b: Builder, v: ir.Value, src: Dtype, dst: Dtype) -> ir.Value:
    """A float as the nearest integer towards zero that there is; 0 for NaN."""
    n = lanes_of(v)
    t = vector(scalar_type(dst), n)
    if not n or _has(b, "neon"):
        return intrinsic(b, f"llvm.fpto{'s' if dst.signed else 'u'}i.sat.{mangle(t)}.{mangle(v.type)}", t, [v])
    if src == f32 and dst.bits + (not dst.signed) > 32:
        return _saturate(b, b.fpext(v, vector(_FLOATS["f64"], n)), f64, dst)
    low, high = (-(1 << (dst.bits - 1)), (1 << (dst.bits - 1)) - 1) if dst.signed else (0, (1 << dst.bits) - 1)
    known, least = b.fcmp_ordered("ord", v, v), constant(low, src, n)
    if dst.bits < src.mantissa:  # the float holds every value of the integer, and is brought among them
        v = b.select(known, v, constant(0.0, src, n))
        v = b.select(b.fcmp_ordered(">", v, least), v, least)
        v = b.select(b.fcmp_ordered("<", v, constant(high, src, n)), v, constant(high, src, n))
        return b.fptoui(v, t) if dst == u32 else _narrowed(b, b.fptosi(v, vector(I32, n)), low, high, t)
    v = b.select(b.fcmp_ordered(">", v, least), v, least)
    whole = b.fptosi(v, t) if dst.bits == 32 or _has(b, "avx512dq") else _to_i64(b, v, t)
    whole = b.select(b.fcmp_ordered("<", v, constant(high + 1, src, n)), whole, int_const(t, high))
    return b.select(known, whole, int_const(t, 0))


def _narrowed(b: Builder, v: ir.Value, low: int, high: int, t: ir.Type) -> ir.Value:
    """32-bit integers in the range of a type of at most as many; which is said again, so that instructions that saturate pack them."""
    if v.type == t:
        return v
    least, most = int_const(v.type, low), int_const(v.type, high)
    v = b.select(b.icmp_signed(">", v, least), v, least)
    return b.trunc(b.select(b.icmp_signed("<", v, most), v, most), t)


def _to_i64(b: Builder, v: ir.Value, t: ir.Type) -> ir.Value:
    """Doubles in the range of 64-bit integers, towards zero, for machines that convert such vectors only lane by lane.

    A double between 2**52 and 2**53 holds an integer in its low bits. So the whole number's multiples of 2**32 are read there, then what is
    left of it, which is of either sign; the pattern of the exponent that comes along with it is taken off the multiples beforehand.
    """
    c = partial(constant, d=f64, lanes=t.count)
    middle = 1.5 * 2.0 ** 52
    exponent = struct.unpack("<Q", struct.pack("<d", middle))[0] >> 32
    v = intrinsic(b, f"llvm.trunc.{mangle(v.type)}", v.type, [v])
    scaled = b.fmul(v, c(2.0 ** -32))
    above = b.fsub(b.fadd(scaled, c(middle)), c(middle))
    rest = b.fsub(v, b.fmul(above, c(2.0 ** 32)))
    high = b.shl(b.bitcast(b.fadd(above, c(middle - exponent)), t), int_const(t, 32))
    return b.add(high, b.bitcast(b.fadd(rest, c(middle)), t))


def _raise(b: Builder, v: ir.Value, src: Dtype, n: int) -> ir.Value:
    """A low-precision float as f32; exact."""
    f, wide = vector(_FLOATS["f32"], n), vector(I32, n)
    if src == f16:
        return b.fpext(b.bitcast(v, vector(_HALF, n)), f) if _has(b, *_CONVERTS_HALF) else _raise_half(b, b.zext(v, wide), wide, f)
    if src == bf16:
        return b.bitcast(b.shl(b.zext(v, wide), int_const(wide, 16)), f)
    if src == f8e5m2:
        half = vector(I16, n)
        return _raise(b, b.shl(b.zext(v, half), int_const(half, 8)), f16, n)
    return _raise_e4m3(b, b.zext(v, wide), wide, f)


def _raise_half(b: Builder, u: ir.Value, wide: ir.Type, f: ir.Type) -> ir.Value:
    """Five exponent bits (bias 15), ten mantissa bits: place the fields at f32's, rescale by 2**112, and restore infinities and NaN."""
    c = partial(int_const, wide)
    magnitude = b.and_(u, c(0x7FFF))
    scaled = b.bitcast(b.fmul(b.bitcast(b.shl(magnitude, c(13)), f), constant(2.0 ** 112, f32, lanes_of(u))), wide)
    special = b.icmp_unsigned(">=", magnitude, c(0x7C00))
    value = b.select(special, b.or_(scaled, c(0x7F800000)), scaled)
    return b.bitcast(b.or_(value, b.shl(b.and_(u, c(0x8000)), c(16))), f)


def _raise_e4m3(b: Builder, u: ir.Value, wide: ir.Type, f: ir.Type) -> ir.Value:
    """Four exponent bits (bias 7), three mantissa bits, no infinity: place the fields at f32's and rescale by 2**120."""
    c = partial(int_const, wide)
    magnitude = b.bitcast(b.shl(b.and_(u, c(0x7F)), c(20)), f)
    scale = constant(2.0 ** 120, f32, lanes_of(u))
    scaled = b.bitcast(b.fmul(magnitude, scale), wide)
    nan = b.icmp_unsigned("==", b.and_(u, c(0x7F)), c(0x7F))
    value = b.select(nan, c(0x7FC00000), scaled)
    return b.bitcast(b.or_(value, b.shl(b.and_(u, c(0x80)), c(24))), f)


def _lower(b: Builder, v: ir.Value, dst: Dtype, n: int) -> ir.Value:
    """An f32 rounded to nearest even to a low-precision float."""
    narrow = vector(ir.IntType(dst.bits), n)
    if dst == f16 and _has(b, *_CONVERTS_HALF):
        return b.bitcast(b.fptrunc(v, vector(_HALF, n)), narrow)
    wide = vector(I32, n)
    u = b.bitcast(v, wide)
    c = partial(int_const, wide)
    if dst != bf16:
        return b.trunc(_round(b, v, u, _FORMATS[dst]), narrow)
    odd = b.and_(b.lshr(u, c(16)), c(1))
    rounded = b.lshr(b.add(u, b.add(odd, c(0x7FFF))), c(16))
    quiet = b.select(b.fcmp_unordered("uno", v, v), c(0x7FC0), rounded)
    return b.trunc(quiet, narrow)


@dataclass(frozen=True)
class _Format:
    """A small float: width, bits of its mantissa, bias of its exponent, its largest finite pattern, what lies above that, and NaN."""

    width: int
    mantissa: int
    bias: int
    top: int
    over: int
    nan: int


_FORMATS = {f16: _Format(16, 10, 15, 0x7BFF, 0x7C00, 0x7E00), f8e4m3: _Format(8, 3, 7, 0x7E, 0x7F, 0x7F),
            f8e5m2: _Format(8, 2, 15, 0x7B, 0x7C, 0x7F)}


def _round(b: Builder, v: ir.Value, u: ir.Value, form: _Format) -> ir.Value:
    """Round the f32 ``v`` with bits ``u``; denormals by adding a power of two whose ulp is the format's least step."""
    n, wide = lanes_of(u), u.type
    c = partial(int_const, wide)
    mag = b.and_(u, c(0x7FFFFFFF))
    shift = 23 - form.mantissa
    odd = b.and_(b.lshr(mag, c(shift)), c(1))
    normal = b.sub(b.lshr(b.add(mag, b.add(odd, c((1 << (shift - 1)) - 1))), c(shift)), c((127 - form.bias) << form.mantissa))
    magic = 2.0 ** (1 - form.bias - form.mantissa + 23)
    small = b.fadd(b.bitcast(mag, vector(_FLOATS["f32"], n)), constant(magic, f32, n))
    denormal = b.sub(b.bitcast(small, wide), c(struct.unpack("<I", struct.pack("<f", magic))[0]))
    is_small = b.icmp_unsigned("<", mag, c((127 - form.bias + 1) << 23))
    value = b.select(is_small, denormal, normal)
    value = b.select(b.icmp_signed(">", value, c(form.top)), c(form.over), value)
    value = b.select(b.icmp_unsigned(">", mag, c(0x7F800000)), c(form.nan), value)
    return b.or_(value, b.lshr(b.and_(u, c(0x80000000)), c(32 - form.width)))


__all__ = ["I1", "I8", "I16", "I32", "I64", "PTR", "alloca", "constant", "convert", "counted", "f64", "i32", "int_const",
           "intrinsic", "lanes_of", "mangle", "memory_type", "named_type", "scalar_type", "splat", "vector"]
