"""Numbers beside a tensor that keep changing: a rate or a step becomes an argument of the kernel instead of a constant in it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from dlc.runtime.arguments import TORCH
from dsl.dtype import promote_scalar
from dsl.ops.pointwise import add, div, maximum, minimum, mul, sub, true_divide

ARITHMETIC = frozenset((add, sub, mul, div, true_divide, maximum, minimum))
_CONSTANTS = 5
_met: dict[Any, set[bool | int | float]] = {}


def varying(function: Callable[..., Any], args: Sequence[Any]) -> tuple[int, torch.Tensor] | None:
    """The position of a number of which :data:`_CONSTANTS` values were met beside such a tensor, with memory that holds it."""
    for n, a in enumerate(args):
        if type(a) is float or type(a) is int:
            spec = getattr(getattr(args[1 - n], "_value", None), "spec", None)
            if spec is None:
                return None
            seen = _met.setdefault((function, spec, n, type(a)), set())
            if a in seen:
                return None
            if len(seen) < _CONSTANTS:
                seen.add(a)
                return None
            return n, torch.tensor(a, dtype=TORCH[promote_scalar(spec.dtype, a).name])
    return None
