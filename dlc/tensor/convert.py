"""Arrays of other libraries, lists and numbers as memory of ours, and back."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from dlc.runtime.arguments import TORCH, as_tensor, give_back
from dsl.dim import as_term
from dsl.dtype import ALL, Dtype, f32, of_python
from dsl.errors import ArgumentError, DtypeError, TargetError
from dsl.expr import Input
from dsl.loc import here

_NUMPY = {"bool": "bool", "uint8": "u8", "uint32": "u32", "int8": "i8", "int16": "i16", "int32": "i32", "int64": "i64", "float16": "f16",
          "float32": "f32", "float64": "f64", "bfloat16": "bf16", "float8_e4m3fn": "f8e4m3", "float8_e5m2": "f8e5m2"}
_DLC = {t: ALL[name] for name, t in TORCH.items()}


def dtype_of(t: torch.dtype) -> Dtype:
    """Our dtype of a torch dtype.

    Raises:
        DtypeError: there is none.
    """
    if t not in _DLC:
        raise DtypeError(f"there is no dlc dtype for {t}", remedy=f"one of {', '.join(map(str, _DLC))}")
    return _DLC[t]


def wrap(value: Any) -> torch.Tensor:
    """Memory of an array of any library, shared wherever it can be.

    Raises:
        ArgumentError: no array. DtypeError: elements that we do not have. TargetError: memory that is not this CPU's.
    """
    if isinstance(value, torch.Tensor):
        t = value.detach()
    elif isinstance(value, (np.ndarray, np.generic)):
        t = as_tensor(np.asarray(value), _declared(np.asarray(value)))
    elif hasattr(value, "__dlpack__"):
        t = torch.from_dlpack(value)
    else:
        raise ArgumentError(f"a {type(value).__name__} is not an array",
                            remedy="a torch tensor, a numpy array, a DLPack object, numbers or lists of numbers")
    if t.device.type != "cpu":
        raise TargetError(f"a tensor on {t.device}", "dlc.Tensor computes on the CPU so far", "move it: .cpu()")
    kind = dtype_of(t.dtype)
    if t.layout is not torch.strided:
        raise ArgumentError(f"a {t.layout} tensor", remedy="make it dense: .to_dense()")
    t = t.resolve_conj().resolve_neg()
    return t.clone() if t.data_ptr() % kind.itemsize else t


def copied(value: Any, dtype: Dtype | None) -> torch.Tensor:
    """New memory with the elements of an array, a number, or nested lists of numbers.

    It is f32, i64 or bool by the numbers where no dtype is given.

    Raises:
        ArgumentError: none of these.
    """
    if isinstance(value, (bool, int, float)):
        return torch.tensor(value, dtype=TORCH[(dtype or of_python(value)).name])
    if isinstance(value, (list, tuple)):
        return _of_list(value, dtype)
    t = wrap(value)
    return t.clone() if dtype is None or t.dtype is TORCH[dtype.name] else t.to(TORCH[dtype.name])


def _of_list(value: Any, dtype: Dtype | None) -> torch.Tensor:
    try:
        t = torch.tensor(value)
    except (TypeError, ValueError) as e:
        raise ArgumentError("a list that is no array", str(e), "nested lists of numbers, of equal lengths") from e
    if dtype is None:
        return t.to(TORCH[f32.name]) if t.dtype.is_floating_point else t
    return t.to(TORCH[dtype.name])


def numpy_of(t: torch.Tensor) -> np.ndarray:
    """The memory as a numpy array, shared; bf16 and fp8 with the dtypes of ml_dtypes."""
    return give_back(t, True)


def _declared(a: np.ndarray) -> Input:
    """What ``as_tensor`` must find: an array of the dtype it has."""
    if a.dtype.name not in _NUMPY:
        raise DtypeError(f"a numpy array of {a.dtype}", "its elements are not numbers that kernels compute with",
                         "convert it: a.astype(numpy.float32)")
    return Input("array", tuple(as_term(n) for n in a.shape), ALL[_NUMPY[a.dtype.name]], here())
