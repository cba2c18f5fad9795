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
    "bool": torch.bool, "u8": torch.uint8, "u32": torch.uint32, "i8": torch.int8, "i16": torch.int16, "i32": torch.int32, "i64": torch.int64,
    "f8e4m3": torch.float8_e4m3fn, "f8e5m2": torch.float8_e5m2, "f16": torch.float16, "bf16": torch.bfloat16, "f32": torch.float32,
    "f64": torch.float64,
}
_NUMPY_ONLY = {np.dtype(ml_dtypes.bfloat16): (torch.bfloat16, np.int16), np.dtype(ml_dtypes.float8_e4m3fn): (torch.float8_e4m3fn, np.uint8),
               np.dtype(ml_dtypes.float8_e5m2): (torch.float8_e5m2, np.uint8)}


def torch_dtype(d: Dtype) -> torch.dtype:
    """The torch dtype of a dtype."""
    return TORCH[d.name]


def as_tensor(value: Any, declared: Input) -> torch.Tensor:
    """An argument as a torch tensor over the same memory where it has any.

    Raises:
        ArgumentError: not an array or number, or one that torch cannot hold.
        DtypeError: the elements are not of the declared dtype.
    """
    t = _tensor(value, declared)
    if t.dtype is not TORCH[declared.dtype.name]:
        raise DtypeError(f"`{declared.name}` is {_name(t.dtype)}, its declaration {declared.dtype}",
                         f"it is declared {declared}", f"convert it: {declared.name}.to({str(TORCH[declared.dtype.name]).replace('torch.', 'torch.')})",
                         declared.loc)
    if t.layout is not torch.strided:
        raise ArgumentError(f"`{declared.name}` is a {t.layout} tensor", remedy="make it dense: .to_dense()", loc=declared.loc)
    if t.is_conj() or t.is_neg():
        t = t.resolve_conj().resolve_neg()
    return t.clone() if t.device.type == "cpu" and t.data_ptr() % declared.dtype.itemsize else t


def _tensor(value: Any, declared: Input) -> torch.Tensor:
    if isinstance(value, torch.Tensor):
        return value
    if isinstance(value, (bool, int, float)) and declared.ndim == 0:
        return torch.tensor(value, dtype=TORCH[declared.dtype.name])
    if isinstance(value, (np.ndarray, np.generic)):
        return _from_numpy(np.asarray(value), declared)
    if hasattr(value, "__dlpack__"):
        return torch.from_dlpack(value)
    raise ArgumentError(f"`{declared.name}` is a {type(value).__name__}", f"it is declared {declared}",
                        "pass a torch tensor, a numpy array or a DLPack object" + ("" if declared.ndim else ", or a number"), declared.loc)


def _from_numpy(a: np.ndarray, declared: Input) -> torch.Tensor:
    if a.dtype in _NUMPY_ONLY:
        kind, raw = _NUMPY_ONLY[a.dtype]
        return torch.from_numpy(a.view(raw)).view(kind)
    if any(s < 0 for s in a.strides) or not a.flags.aligned or not a.flags.writeable or not a.dtype.isnative:
        a = np.array(a, dtype=a.dtype.newbyteorder("="), order="C")
    try:
        return torch.from_numpy(a)
    except TypeError as e:
        raise ArgumentError(f"`{declared.name}` is a numpy array of {a.dtype}", "it has no numeric elements that torch knows",
                            "convert it to a numeric dtype", declared.loc) from e


def _name(d: torch.dtype) -> str:
    return next((n for n, t in TORCH.items() if t is d), str(d))


def as_numpy(value: Any) -> np.ndarray:
    """An argument as a numpy array, over the same memory where it has any."""
    if isinstance(value, torch.Tensor):
        return give_back(value.detach(), True)  # type: ignore[no-any-return]
    return np.asarray(torch.from_dlpack(value)) if hasattr(value, "__dlpack__") and not isinstance(value, np.ndarray) else np.asarray(value)


def give_back(t: torch.Tensor, numpy: bool) -> Any:
    """A result in the kind of the inputs."""
    if not numpy:
        return t
    for np_dtype, (kind, raw) in _NUMPY_ONLY.items():
        if t.dtype is kind:
            return t.view(torch.int16 if raw is np.int16 else torch.uint8).numpy().view(np_dtype)
    return t.numpy()
