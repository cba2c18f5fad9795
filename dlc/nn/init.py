"""Initialisers: torch's own, filling the memory of our tensors; so a seed gives the same weights in both.

They use torch's generator on the host (``torch.manual_seed``), once, when a model is made; nothing of training runs there.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch.nn import init as theirs

from dlc.runtime.arguments import TORCH
from dlc.tensor import Tensor, from_torch


def _filled(fill: Callable[..., Any], doc: str) -> Callable[..., Tensor]:
    def initialise(t: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        memory = torch.empty(t.shape, dtype=TORCH[t.dtype.name])
        with torch.no_grad():
            fill(memory, *args, **kwargs)
        t.replace(from_torch(memory))
        return t

    initialise.__name__ = initialise.__qualname__ = fill.__name__
    initialise.__doc__ = doc + " Fills the tensor and returns it."
    return initialise


uniform_ = _filled(theirs.uniform_, "Numbers from ``a`` to ``b``, all equally likely.")
normal_ = _filled(theirs.normal_, "The normal distribution around ``mean`` with deviation ``std``.")
trunc_normal_ = _filled(theirs.trunc_normal_, "The normal distribution cut off at ``a`` and ``b``.")
constant_ = _filled(theirs.constant_, "One value.")
zeros_ = _filled(theirs.zeros_, "Zeros.")
ones_ = _filled(theirs.ones_, "Ones.")
kaiming_uniform_ = _filled(theirs.kaiming_uniform_, "He initialisation, uniform: keeps the variance through layers of ``nonlinearity``.")
kaiming_normal_ = _filled(theirs.kaiming_normal_, "He initialisation, normal.")
xavier_uniform_ = _filled(theirs.xavier_uniform_, "Glorot initialisation, uniform: keeps the variance both ways.")
xavier_normal_ = _filled(theirs.xavier_normal_, "Glorot initialisation, normal.")
orthogonal_ = _filled(theirs.orthogonal_, "A (semi-)orthogonal matrix.")


def weight_and_bias(weight: Tensor, bias: Tensor | None) -> None:
    """What torch's linear and convolution layers begin with: uniform within ``1 / sqrt(inputs of an output)``."""
    kaiming_uniform_(weight, a=math.sqrt(5))
    if bias is not None:
        inputs = math.prod(weight.shape[1:])
        bound = 1 / math.sqrt(inputs) if inputs else 0.0
        uniform_(bias, -bound, bound)
