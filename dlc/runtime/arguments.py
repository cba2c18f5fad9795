"""What a kernel may be called with, and what it gives back: torch tensors, numpy arrays, DLPack objects and numbers."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import torch

from dsl.dtype import Dtype
from dsl.errors import ArgumentError, DtypeError
from dsl.expr import Input

TORCH: dict[str, torch.dtype] = {
    "bool": torch.bool, "u8": torch.uint8, "u32": torch.uint32, "i8": torch.int8, "i16": torch.int16, "i32": torch.int32,
    "i64": torch.int64, "f8e4m3": torch.float8_e4m3fn, "f8e5m2": torch.float8_e5m2, "f16": torch.float16, "bf16": torch.bfloat16,
    "f32": torch.float32, "f64": torch.float64,
}
_DIRECT = {"f32": 3e38, "f64": 1e308}  # numbers below these go to a float dtype in one rounding, and overflow in none
NUMPY: dict[str, np.dtype] = {
    "bool": np.dtype(np.bool_), "u8": np.dtype(np.uint8), "u32": np.dtype(np.uint32), "i8": np.dtype(np.int8), "i16": np.dtype(np.int16),
    "i32": np.dtype(np.int32), "i64": np.dtype(np.int64), "f8e4m3": np.dtype(ml_dtypes.float8_e4m3fn),
    "f8e5m2": np.dtype(ml_dtypes.float8_e5m2), "f16": np.dtype(np.float16), "bf16": np.dtype(ml_dtypes.bfloat16),
    "f32": np.dtype(np.float32), "f64": np.dtype(np.float64),
}
_NUMPY_ONLY: dict[Any, tuple[torch.dtype, Any]] = {
    np.dtype(ml_dtypes.bfloat16): (torch.bfloat16, np.int16),
    np.dtype(ml_dtypes.float8_e4m3fn): (torch.float8_e4m3fn, np.uint8),
    np.dtype(ml_dtypes.float8_e5m2): (torch.float8_e5m2, np.uint8),
}


def torch_dtype(d: Dtype) -> torch.dtype:
    """The torch dtype of a dtype."""
    return TORCH[d.name]


def as_tensor(value: Any, declared: Input) -> torch.Tensor:
    """An argument as a dense torch tensor of the declared dtype, over the same memory where it has any that a kernel can read.

    Raises:
        ArgumentError: not an array or number, or one that a kernel cannot read: sparse, quantised, nested, masked.
        DtypeError: the elements are not of the declared dtype.
    """
    t = _tensor(value, declared)
    _check_layout(t, declared)
    wanted = TORCH[declared.dtype.name]
    if t.dtype is not wanted:
        raise DtypeError(f"`{declared.name}` is {_name(t.dtype)}, its declaration {declared.dtype}", f"it is declared {declared}",
                         f"convert it: {declared.name}.to({wanted})", declared.loc)
    if t.is_neg():
        t = t.resolve_neg()
    if type(t) is not torch.Tensor and not isinstance(t, torch.nn.Parameter):
        t = t.as_subclass(torch.Tensor)
    _check_storage(t, declared)
    return t.clone() if t.device.type == "cpu" and t.data_ptr() % declared.dtype.itemsize else t


def _check_layout(t: torch.Tensor, declared: Input) -> None:
    if t.is_nested:
        raise ArgumentError(f"`{declared.name}` is a nested tensor", "its rows have sizes of their own",
                            "pad it: torch.nested.to_padded_tensor", declared.loc)
    if t.layout is not torch.strided:
        raise ArgumentError(f"`{declared.name}` is a {t.layout} tensor", "kernels read dense tensors", "make it dense: .to_dense()",
                            declared.loc)
    if t.is_quantized:
        raise ArgumentError(f"`{declared.name}` is a quantised tensor", "kernels read plain numbers",
                            "pass .dequantize(), or .int_repr() and the scale", declared.loc)
    if t.is_complex():
        raise DtypeError(f"`{declared.name}` is {_name(t.dtype)}, its declaration {declared.dtype}", "kernels compute with real numbers",
                         f"pass its parts: {declared.name}.real, {declared.name}.imag, or torch.view_as_real({declared.name})",
                         declared.loc)


def _check_storage(t: torch.Tensor, declared: Input) -> None:
    if t.is_meta or t.numel() == 0:
        return
    end = t.storage_offset() + sum([(n - 1) * s for n, s in zip(t.shape, t.stride())]) + 1
    if t.untyped_storage().nbytes() < end * t.itemsize:
        raise ArgumentError(f"`{declared.name}` has no memory for its elements", "its storage was freed, or made smaller",
                            "pass a tensor whose storage is there", declared.loc)


def _tensor(value: Any, declared: Input) -> torch.Tensor:
    if isinstance(value, torch.Tensor):
        return value
    if isinstance(value, np.ma.MaskedArray):
        raise ArgumentError(f"`{declared.name}` is a masked numpy array", "a kernel would read what is masked", "fill it: .filled(0)",
                            declared.loc)
    if isinstance(value, (np.ndarray, np.generic)) and not (isinstance(value, float) and declared.dtype.name != "f64"):
        return _from_numpy(np.asarray(value), declared)
    if isinstance(value, (bool, int, float)) and declared.ndim == 0:
        return _number(value, declared)
    if hasattr(value, "__dlpack__"):
        return _from_dlpack(value, declared)
    raise ArgumentError(f"`{declared.name}` is a {type(value).__name__}", f"it is declared {declared}",
                        "pass a torch tensor, a numpy array or a DLPack object" + ("" if declared.ndim else ", or a number"), declared.loc)


def _number(value: bool | int | float, declared: Input) -> torch.Tensor:
    """A Python number as a tensor of no dimensions; never rounded to an integer, never wrapped around."""
    d = declared.dtype
    if d.is_float:
        try:
            if d.name in _DIRECT and -_DIRECT[d.name] < value < _DIRECT[d.name]:
                return torch.scalar_tensor(value, dtype=TORCH[d.name])
            return torch.tensor(float(value), dtype=torch.float64).to(TORCH[d.name])
        except OverflowError as e:
            raise ArgumentError(f"`{declared.name}` is too large for {d}", str(e), loc=declared.loc) from e
    if isinstance(value, float) or (d.name == "bool" and not isinstance(value, bool)):
        raise DtypeError(f"`{declared.name}` is the {type(value).__name__} {value!r}, its declaration {d}", f"it is declared {declared}",
                         f"pass {'a bool' if d.name == 'bool' else 'an int'}", declared.loc)
    if d.is_int:
        facts = torch.iinfo(TORCH[d.name])
        if not facts.min <= value <= facts.max:
            raise ArgumentError(f"`{declared.name}` is {value}, outside of {d}", f"{d} holds {facts.min} to {facts.max}", loc=declared.loc)
    return torch.tensor(value, dtype=TORCH[d.name])


def _from_dlpack(value: Any, declared: Input) -> torch.Tensor:
    try:
        return torch.from_dlpack(value)
    except (RuntimeError, TypeError, BufferError, ValueError, AttributeError) as e:
        raise ArgumentError(f"`{declared.name}` cannot be taken over through DLPack", f"{type(e).__name__}: {e}".splitlines()[0],
                            "pass a torch tensor or a numpy array", declared.loc) from e


def _from_numpy(a: np.ndarray, declared: Input) -> torch.Tensor:
    if a.dtype in _NUMPY_ONLY:
        kind, raw = _NUMPY_ONLY[a.dtype]
        return torch.from_numpy(_readable(a).view(raw)).view(kind)
    try:
        return torch.from_numpy(_readable(a))
    except TypeError as e:
        raise ArgumentError(f"`{declared.name}` is a numpy array of {a.dtype}", "it has no numeric elements that torch knows",
                            "convert it to a numeric dtype", declared.loc) from e


def _readable(a: np.ndarray) -> np.ndarray:
    """The array itself where torch can share its memory, else a copy: of negative strides, odd addresses, foreign byte order."""
    odd = any(s < 0 or s % a.itemsize for s in a.strides) if a.itemsize else False
    if odd or not a.flags.aligned or not a.flags.writeable or not a.dtype.isnative:
        return np.array(a, dtype=a.dtype.newbyteorder("="), order="C")
    return a


def _name(d: torch.dtype) -> str:
    return next((n for n, t in TORCH.items() if t is d), str(d))


def as_numpy(value: Any) -> np.ndarray:
    """An argument as a numpy array, over the same memory where it has any."""
    if isinstance(value, torch.Tensor):
        return give_back(value.detach(), True)
    return np.asarray(torch.from_dlpack(value)) if hasattr(value, "__dlpack__") and not isinstance(value, np.ndarray) else np.asarray(value)


def give_back(t: torch.Tensor, numpy: bool) -> Any:
    """A result in the kind of the inputs."""
    if not numpy:
        return t
    for np_dtype, (kind, raw) in _NUMPY_ONLY.items():
        if t.dtype is kind:
            return t.view(torch.int16 if raw is np.int16 else torch.uint8).numpy().view(np_dtype)
    return t.numpy()
