"""How far results are from the exact ones, and how far a candidate's may be."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from dsl.errors import ArgumentError

_SLACK, _FLOOR = 4.0, 8.0


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
    tensor = got.detach().cpu() if isinstance(got, torch.Tensor) else torch.as_tensor(np.asarray(got))
    if tuple(tensor.shape) != exact.shape:
        raise ArgumentError(f"{name} has shape {tuple(tensor.shape)}, the definition gives {exact.shape}", remedy="compare functions with the same result")
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
    """The largest relative error a candidate may have: four times that of the default schedule, and at least 8 units of the widest rounding."""
    eps = max((torch.finfo(d).eps for d in dtypes if d.is_floating_point), default=0.0)
    return max(_SLACK * default.relative, _FLOOR * eps)
