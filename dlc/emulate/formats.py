"""Number formats of PTX on numpy arrays: views of register bits, narrow floats, flushing, fused multiply-add."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from codegen.micro.maths_numpy import NumpyMath

Array = NDArray[Any]
UNSIGNED: dict[int, np.dtype[Any]] = {1: np.dtype("u1"), 2: np.dtype("u2"), 4: np.dtype("u4"), 8: np.dtype("u8")}
SIGNED: dict[int, np.dtype[Any]] = {1: np.dtype("i1"), 2: np.dtype("i2"), 4: np.dtype("i4"), 8: np.dtype("i8")}
FLOATS: dict[int, np.dtype[Any]] = {2: np.dtype("f2"), 4: np.dtype("f4"), 8: np.dtype("f8")}
NARROW: dict[str, np.dtype[Any]] = {
    "bf16": np.dtype(ml_dtypes.bfloat16),
    "e4m3": np.dtype(ml_dtypes.float8_e4m3fn),
    "e5m2": np.dtype(ml_dtypes.float8_e5m2),
}
LARGEST = {"e4m3": 448.0, "e5m2": 57344.0, "f16": 65504.0, "bf16": 3.3895313892515355e38}
PACKED = {"f16x2": "f16", "bf16x2": "bf16", "e4m3x2": "e4m3", "e5m2x2": "e5m2", "s16x2": "s16", "u16x2": "u16"}


@functools.cache
def width(kind: str) -> int:
    """Bytes of a PTX type; 0 for a predicate."""
    if kind == "pred":
        return 0
    if kind in PACKED:
        return 2 * width(PACKED[kind])
    if kind == "tf32":
        return 4
    return 1 if kind in ("e4m3", "e5m2") else int(re.sub(r"\D", "", kind)) // 8


@functools.cache
def dtype_of(kind: str) -> np.dtype[Any]:
    """The numpy dtype values of a PTX type are computed in; bf16 and fp8 have ml_dtypes' own."""
    if kind == "pred":
        return np.dtype(bool)
    if kind in NARROW:
        return NARROW[kind]
    table = {"f": FLOATS, "s": SIGNED}.get(kind[0], UNSIGNED)
    return np.dtype("f4") if kind == "tf32" else table[width(kind)]


def bits_of(values: Array) -> Array:
    """The register bits of computed values."""
    return values if values.dtype == bool else values.view(UNSIGNED[values.dtype.itemsize])


def halves(bits: Array, kind: str) -> tuple[Array, Array]:
    """The low and the high value of packed registers, as float32 (or integers)."""
    size = width(kind)
    shift = bits.dtype.type(8 * size)
    low = bits.astype(UNSIGNED[size])
    high = (bits >> shift).astype(UNSIGNED[size])
    first, second = low.view(dtype_of(kind)), high.view(dtype_of(kind))
    return (first, second) if kind[0] in "su" else (first.astype(np.float32), second.astype(np.float32))


def join(low: Array, high: Array) -> Array:
    """Two values of one width as the bits of one register of twice the width."""
    size = low.dtype.itemsize
    wide = UNSIGNED[2 * size]
    return bits_of(low).astype(wide) | bits_of(high).astype(wide) << wide.type(8 * size)


def round_to(values: Array, kind: str, mode: str = "rn", saturate: bool = False) -> Array:
    """Floats rounded to a PTX float type: ``rn`` to nearest even, ``rz`` towards zero, ``rna`` (tf32) ties away."""
    if saturate:
        values = np.clip(values, -LARGEST[kind], LARGEST[kind])
    if kind == "tf32":
        return _tf32(values.astype(np.float32), mode)
    rounded = values.astype(dtype_of(kind))
    if mode == "rz":
        over = np.abs(rounded.astype(np.float64)) > np.abs(values.astype(np.float64))
        less = bits_of(rounded) - np.ones(1, bits_of(rounded).dtype)  # the next float towards zero has the next smaller bits
        rounded = np.where(over, less, bits_of(rounded)).view(rounded.dtype)
    return rounded


def _tf32(values: Array, mode: str) -> Array:
    bits = np.ascontiguousarray(values).view(np.uint32)
    half = np.uint32(0x1000 if mode == "rna" else 0xFFF)
    even = (bits >> np.uint32(13)) & np.uint32(0 if mode == "rna" else 1)
    carried = bits + half + even
    return np.where(np.isfinite(values), carried & np.uint32(0xFFFFE000), bits).astype(np.uint32).view(np.float32)


def tensor_tf32(values: Array) -> Array:
    """What the tensor core reads of a float32 operand: the upper 19 bits."""
    return (np.ascontiguousarray(values).view(np.uint32) & np.uint32(0xFFFFE000)).view(np.float32)


_TINY = np.finfo(np.float32).tiny


def flush(values: Array) -> Array:
    """Subnormal float32 values become zero of the same sign (``.ftz``)."""
    return np.where(np.abs(values) < _TINY, np.copysign(np.float32(0), values), values)


def fma(x: Array, y: Array, z: Array) -> Array:
    """The value of x * y + z with one rounding, for float32 and float64."""
    return np.atleast_1d(NumpyMath().fma(x, y, z))


ROUNDINGS: dict[str, Callable[[Array], Array]] = {"rzi": np.trunc, "rni": np.rint, "rmi": np.floor, "rpi": np.ceil}
