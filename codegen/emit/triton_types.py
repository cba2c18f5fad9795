"""Dtypes and literals as Triton writes them."""

from __future__ import annotations

import math
import struct

from dsl.dtype import Dtype, bool_, f32, f64, i32, i64

TL = {
    "bool": "int1", "u8": "uint8", "u32": "uint32", "i8": "int8", "i16": "int16", "i32": "int32", "i64": "int64", "f8e4m3": "float8e4nv",
    "f8e5m2": "float8e5", "f16": "float16", "bf16": "bfloat16", "f32": "float32", "f64": "float64",
}


def tl(dtype: Dtype) -> str:
    """``tl.float32`` and its like."""
    return f"tl.{TL[dtype.name]}"


def literal(value: bool | int | float, dtype: Dtype) -> str:
    """A Python literal with exactly this value; of no dtype yet."""
    if dtype is bool_:
        return repr(bool(value))
    if not dtype.is_float:
        return repr(int(value))
    number = float(value)
    if math.isnan(number) or math.isinf(number):
        return f'float("{number}")'
    return repr(_shortest(number) if dtype == f32 else number)


def _shortest(number: float) -> float:
    """The shortest decimal that reads back as the same f32: 0.1 rather than 0.10000000149011612."""
    bits = struct.pack("f", number)
    for digits in range(1, 10):
        short = float(f"{number:.{digits}g}")
        if math.isfinite(short) and abs(short) <= 3.4028234663852886e38 and struct.pack("f", short) == bits:
            return short
    return number


def typed(value: bool | int | float, dtype: Dtype) -> str:
    """A scalar of exactly this dtype and value, wherever it stands."""
    return f"tl.full([], {literal(value, dtype)}, {tl(dtype)})"


def bare_is_safe(value: bool | int | float, dtype: Dtype) -> bool:
    """Whether a bare literal as an argument of a Triton function comes to have this dtype, beside a tensor of it."""
    if dtype in (f32, i64, i32):
        return True
    return dtype == f64 and (math.isnan(value) or math.isinf(value) or (value == float(int(value)) and abs(value) < 1 << 24))
