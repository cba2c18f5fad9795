"""New tensors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from dlc.runtime.arguments import TORCH
from dlc.tensor.convert import wrap
from dlc.tensor.tensor import Tensor, of_memory, record
from dsl.dtype import Dtype, f32, of_python
from dsl.expr import cast, index, where
from dsl.ops.dispatch import build


def tensor(data: Any, dtype: Dtype | None = None, requires_grad: bool = False) -> Tensor:
    """A tensor of its own memory with the elements of an array, a number, or nested lists of numbers."""
    return Tensor(data, dtype, requires_grad)


def from_torch(t: torch.Tensor) -> Tensor:
    """A tensor over the memory of a torch tensor on the CPU; what is later written there is seen by everything not computed before."""
    return of_memory(wrap(t))


def from_numpy(a: np.ndarray) -> Tensor:
    """A tensor over the memory of a numpy array, where its layout allows (not with negative strides, nor read-only)."""
    return of_memory(wrap(a))


def from_dlpack(a: Any) -> Tensor:
    """A tensor over the memory of any array that speaks DLPack."""
    return of_memory(wrap(a))


def _sizes(shape: Sequence[Any]) -> tuple[int, ...]:
    given = shape[0] if len(shape) == 1 and isinstance(shape[0], (tuple, list)) else shape
    return tuple(int(n) for n in given)


def _constant(shape: tuple[int, ...], value: Any, dtype: Dtype) -> Any:
    return build("full", shape, lambda *at: cast(value, dtype))


def full(shape: Sequence[int] | int, value: bool | int | float, dtype: Dtype | None = None, requires_grad: bool = False) -> Tensor:
    """A tensor with one value everywhere; it takes no memory until it is looked at."""
    t: Tensor = record(_constant, (_sizes((shape,) if isinstance(shape, int) else shape), value, dtype or of_python(value)), {})
    return t.realize().requires_grad_() if requires_grad else t


def zeros(*shape: Any, dtype: Dtype = f32, requires_grad: bool = False) -> Tensor:
    """Zeros."""
    return full(_sizes(shape), 0, dtype, requires_grad)


def ones(*shape: Any, dtype: Dtype = f32, requires_grad: bool = False) -> Tensor:
    """Ones."""
    return full(_sizes(shape), 1, dtype, requires_grad)


def empty(*shape: Any, dtype: Dtype = f32) -> Tensor:
    """Memory with whatever was in it."""
    return of_memory(torch.empty(_sizes(shape), dtype=TORCH[dtype.name]))


def full_like(t: Tensor, value: bool | int | float, dtype: Dtype | None = None) -> Tensor:
    """One value everywhere, in the shape and dtype of another tensor."""
    return full(t.shape, value, dtype or t.dtype)


def zeros_like(t: Tensor, dtype: Dtype | None = None) -> Tensor:
    """Zeros in the shape and dtype of another tensor."""
    return full_like(t, 0, dtype)


def ones_like(t: Tensor, dtype: Dtype | None = None) -> Tensor:
    """Ones in the shape and dtype of another tensor."""
    return full_like(t, 1, dtype)


def _ramp(count: int, start: Any, step: Any, dtype: Dtype) -> Any:
    return build("arange", (count,), lambda i: cast(cast(i, dtype) * step + start, dtype))


def arange(start: int | float, stop: int | float | None = None, step: int | float = 1, dtype: Dtype | None = None) -> Tensor:
    """``start, start + step, ...`` up to but without ``stop``; from 0 with one argument."""
    first, last = (0, start) if stop is None else (start, stop)
    kind = dtype or of_python(first + last + step)
    count = max(0, -int(-(last - first) // step)) if isinstance(last - first, int) and isinstance(step, int) else max(0, int(np.ceil((last - first) / step)))
    return record(_ramp, (count, first, step, kind), {})  # type: ignore[no-any-return]


def _identity(n: int, m: int, dtype: Dtype) -> Any:
    return build("eye", (n, m), lambda i, j: where(index(i.term).__eq__(j), cast(1, dtype), cast(0, dtype)))


def eye(n: int, m: int | None = None, dtype: Dtype = f32) -> Tensor:
    """Ones on the diagonal, zeros elsewhere."""
    return record(_identity, (n, n if m is None else m, dtype), {})  # type: ignore[no-any-return]
