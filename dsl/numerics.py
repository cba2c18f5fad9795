"""The numpy meaning of dtypes, casts and pointwise operations: what the interpreter and constant folding share.

Rounding of casts, chosen to be what torch computes on x86 wherever torch defines it:

- to a float: nearest, ties to even; overflow gives infinity, except ``f8e4m3``, which has none and saturates at 448;
- float to integer: towards zero, saturating; NaN gives 0 (torch leaves all three cases open, LLVM's ``fptosi.sat`` and PTX agree);
- integer to integer: the low bits; anything to bool: ``!= 0``, so NaN is true.

``f32`` functions other than the IEEE operations are evaluated in float64 and rounded once, so that they are a reference.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np

from dsl import dtype as dt
from dsl.dtype import Dtype
from dsl.opset import OPS

Array = np.ndarray[Any, Any]

NUMPY: dict[Dtype, np.dtype[Any]] = {
    dt.bool_: np.dtype(np.bool_), dt.u8: np.dtype(np.uint8), dt.u32: np.dtype(np.uint32),
    dt.i8: np.dtype(np.int8), dt.i16: np.dtype(np.int16), dt.i32: np.dtype(np.int32), dt.i64: np.dtype(np.int64),
    dt.f8e4m3: np.dtype(ml_dtypes.float8_e4m3fn), dt.f8e5m2: np.dtype(ml_dtypes.float8_e5m2),
    dt.f16: np.dtype(np.float16), dt.bf16: np.dtype(ml_dtypes.bfloat16), dt.f32: np.dtype(np.float32), dt.f64: np.dtype(np.float64),
}
_DTYPES = {n: d for d, n in NUMPY.items()}
_EXACT_F32 = frozenset({"div", "sqrt"})
_IDENTITY_ON_INTS = frozenset({"floor", "ceil", "round", "trunc"})


def numpy_dtype(dtype: Dtype, float64: bool = False) -> np.dtype[Any]:
    """The numpy dtype that stores ``dtype``; float64 for every float when ``float64``."""
    return NUMPY[dt.f64] if float64 and dtype.is_float else NUMPY[dtype]


def dtype_of(array: Array) -> Dtype | None:
    """The dtype of a numpy array (ml_dtypes included), or None when dlc has no such dtype."""
    return _DTYPES.get(array.dtype)


def cast_array(x: Array, dtype: Dtype, float64: bool = False) -> Array:
    """``x`` converted to ``dtype`` by the rules of this module; float to float is exact when ``float64``."""
    target = numpy_dtype(dtype, float64)
    source = x.dtype
    if source == target:
        return x
    with np.errstate(all="ignore"):
        if dtype is dt.bool_:
            return np.not_equal(x.astype(np.float32) if _is_ml(source) else x, 0)
        if not dtype.is_float and (source.kind == "f" or _is_ml(source)):
            return _truncate(x.astype(np.float64), dtype)
        if target == NUMPY[dt.f8e4m3]:
            wide = x.astype(np.float32)
            return np.clip(wide, -448, 448).astype(target)
        return x.astype(target)


def _is_ml(d: np.dtype[Any]) -> bool:
    return d.kind == "V" or d in (NUMPY[dt.bf16], NUMPY[dt.f8e4m3], NUMPY[dt.f8e5m2])


def _truncate(x: Array, dtype: Dtype) -> Array:
    info = np.iinfo(NUMPY[dtype])
    whole = np.trunc(np.where(np.isnan(x), 0.0, x))
    inside = (whole >= float(info.min)) & (whole < float(info.max) + (0 if info.bits == 64 else 1))
    out = np.where(inside, whole, 0.0).astype(NUMPY[dtype])
    return np.where(inside, out, np.where(whole < 0, NUMPY[dtype].type(info.min), NUMPY[dtype].type(info.max)))


def apply_op(name: str, args: tuple[Array, ...]) -> Array:
    """Operation ``name`` on arrays of one dtype (f32, f64, integer or bool): the result in the dtype of the opset's rule."""
    rule, first = OPS[name].rule, args[0].dtype
    result = np.dtype(np.bool_) if rule == "bool" else first
    with np.errstate(all="ignore"):
        if first.kind != "f":
            out = _apply_int(name, args)
        elif first == np.float32 and name not in _EXACT_F32 and (rule == "float" or name in ("pow", "fma")):
            out = OPS[name].numpy(*(a.astype(np.float64) for a in args))
        else:
            out = OPS[name].numpy(*args)
        return np.asarray(out).astype(result, copy=False)


def _apply_int(name: str, args: tuple[Array, ...]) -> Array:
    if name in _IDENTITY_ON_INTS:
        return args[0]
    special = _INT_MEANING.get(name)
    return np.asarray((special or OPS[name].numpy)(*args))


def _int_pow(a: Array, b: Array) -> Array:
    """Wrapping power; a negative exponent gives 0 except for bases 1 and -1, as torch."""
    power = np.power(a, np.where(b < 0, 0, b).astype(a.dtype))
    odd = np.where(b % 2 == 0, 1, a)
    return np.where(b >= 0, power, np.where(np.abs(a) == 1, odd, 0)).astype(a.dtype)


def _shift(fn: Callable[..., Any], left: bool) -> Callable[..., Any]:
    """Shifts of the width or more give 0, or the sign; so do negative amounts."""
    def shift(a: Array, b: Array) -> Array:
        bits = a.dtype.itemsize * 8
        outside = (b < 0) | (b >= bits)
        fill = np.zeros_like(a) if left else np.where(a < 0, -1, 0).astype(a.dtype)
        return np.where(outside, fill, fn(a, np.where(outside, 0, b).astype(a.dtype)))
    return shift


_INT_MEANING: dict[str, Callable[..., Any]] = {
    "pow": _int_pow, "shl": _shift(np.left_shift, True), "shr": _shift(np.right_shift, False),
    "isnan": lambda a: np.zeros_like(a, np.bool_), "isinf": lambda a: np.zeros_like(a, np.bool_),
    "isfinite": lambda a: np.ones_like(a, np.bool_),
}


class NumpyAlgebra:
    """The :class:`dsl.carrier.Algebra` whose values are numpy arrays.

    Args:
        float64: evaluate every float in float64.
    """

    def __init__(self, float64: bool = False) -> None:
        self.float64 = float64

    def op(self, name: str, *args: Any) -> Array:
        """A pointwise operation."""
        return apply_op(name, args)

    def const(self, value: float, dtype: Dtype) -> Array:
        """A literal, as an array of rank 0."""
        if dtype.is_float:
            return cast_array(np.asarray(value, np.float64), dtype, self.float64)
        return np.asarray(value).astype(numpy_dtype(dtype))

    def where(self, cond: Any, a: Any, b: Any) -> Array:
        """Selection."""
        return np.asarray(np.where(cond, a, b))

    def cast(self, x: Any, dtype: Dtype) -> Array:
        """Conversion."""
        return cast_array(x, dtype, self.float64)

    def dtype(self, x: Any) -> Dtype:
        """The dtype of an array."""
        return _DTYPES[x.dtype]
