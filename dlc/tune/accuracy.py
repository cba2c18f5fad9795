"""How far results are from the exact ones, and how far a candidate's may be."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from dlc.runtime.arguments import torch_dtype
from dsl.algebra import walk
from dsl.errors import ArgumentError
from dsl.expr import Op
from dsl.interp import evaluate
from dsl.opset import PRECISIONS
from dsl.program import Program

_SLACK, _FLOOR = 4.0, 8.0
_PERMITTED = {"tf32": 2.0**-10, "bf16x3": 2.0**-15, "as_bf16": 2.0**-7, "as_f16": 2.0**-10}  # roundings that a definition may permit


@dataclass(frozen=True)
class Error:
    """Distance from the values in float64.

    Attributes:
        relative: the largest distance, as a share of the largest exact value.
        ulp: 99 % of the elements are within so many units in the last place of the result's dtype at their own exact value (the rest may
            have cancelled to nearly nothing, where no sum is accurate); integers: the largest difference.
    """

    relative: float = 0.0
    ulp: float = 0.0

    def as_dict(self) -> dict[str, float]:
        """Plain data."""
        return asdict(self)


def worst(errors: Iterable[Error]) -> Error:
    """The larger of each figure; NaN counts as the largest."""
    found = list(errors)
    return Error(*(float(np.max([getattr(e, what) for e in found], initial=0.0)) for what in ("relative", "ulp")))


def error(got: Any, exact: np.ndarray, name: str = "the result") -> Error:
    """The error of an array against the exact values in float64 (or exact integers).

    Raises:
        ArgumentError: the shapes differ.
    """
    tensor = as_values(got).detach().cpu()
    if tuple(tensor.shape) != exact.shape:
        raise ArgumentError(f"{name} has shape {tuple(tensor.shape)}, the definition gives {exact.shape}",
                            remedy="compare functions with the same result")
    if not exact.size:
        return Error()
    values = (tensor.double() if tensor.is_floating_point() else tensor).numpy()
    if not tensor.is_floating_point():
        apart = float(np.max(np.abs(values.astype(object) - exact.astype(object)))) if np.any(values != exact) else 0.0
        return Error(apart / (float(np.max(np.abs(exact.astype(np.float64)))) or 1.0), apart)
    info = torch.finfo(tensor.dtype)
    with np.errstate(all="ignore"):
        off = np.abs(values - exact)
        step = np.maximum(2.0 ** np.floor(np.log2(np.abs(exact))), info.smallest_normal) * info.eps
        overflow = np.isinf(values) & (np.abs(exact) > info.max) & (np.sign(values) == np.sign(exact))
        off = np.where((values == exact) | (np.isnan(values) & np.isnan(exact)) | overflow, 0.0, off)
        scale = float(np.max(np.abs(exact), where=np.isfinite(exact), initial=0.0)) or 1.0
        units = np.where(off == 0, 0.0, off / step)
        return Error(float(np.max(off)) / scale, float(np.quantile(units, 0.99, method="higher")))


def tolerance(default: Error, dtypes: Iterable[torch.dtype]) -> float:
    """The largest relative error a candidate may have.

    Four times that of the default schedule, and at least 8 units of the widest rounding.
    """
    eps = max((torch.finfo(d).eps for d in dtypes if d.is_floating_point), default=0.0)
    return max(_SLACK * default.relative, _FLOOR * eps)


def allowed_error(program: Program, arrays: Sequence[Any], exact: Sequence[np.ndarray]) -> float:
    """The largest relative error that counts as rounding: see :func:`tolerance`, for the definition evaluated in its own dtypes.

    Args:
        program: the definition.
        arrays: its arguments.
        exact: its results in float64.
    """
    dtypes = [torch_dtype(t.dtype) for t in (*program.inputs, *program.outputs)]
    if not any(d.is_floating_point for d in dtypes):
        return 0.0
    own = worst(error(got, e) for got, e in zip(evaluate(program, *arrays), exact))
    permitted = [_PERMITTED[e.name] for c in program.computes for e in walk(c.body) if isinstance(e, Op) and e.name in PRECISIONS]
    return max(tolerance(own, [*dtypes, torch.float32] if permitted else dtypes), _FLOOR * max(permitted, default=0.0))


def as_values(a: Any) -> torch.Tensor:
    """An array, whatever its dtype, as a tensor."""
    if isinstance(a, torch.Tensor):
        return a
    a = np.asarray(a, order="C")
    for name, raw in (("bfloat16", np.int16), ("float8_e4m3fn", np.uint8), ("float8_e5m2", np.uint8)):
        if a.dtype.name == name:
            return torch.from_numpy(a.view(raw)).view(getattr(torch, name))
    return torch.as_tensor(a)
