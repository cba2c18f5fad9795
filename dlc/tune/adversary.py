"""Ordinary and adversarial data, made from a user's own arguments.

Shapes, strides, integers and scalars stay what they are; the floating-point values of arrays are changed, within what their dtype holds.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from dlc.tune.accuracy import as_values
from dsl.errors import ArgumentError
from dsl.loc import UNKNOWN

Change = Callable[[torch.Tensor, torch.Generator, torch.finfo], torch.Tensor]
ORDINARY, ALL = "ordinary", "all"
_DECADES = 8.0


def kinds(data: str | Sequence[str] | None) -> tuple[str, ...]:
    """The kinds of data that are asked for, each once, in the order given.

    Args:
        data: names out of :data:`KINDS`, in one text with commas between them or one by one; ``all``, or None, for all of them.

    Raises:
        ArgumentError: no such kind.
    """
    words = list(KINDS) if data is None else [w.strip() for w in data.split(",")] if isinstance(data, str) else list(data)
    names = [name for word in words for name in (KINDS if word == ALL else (word,))]
    if unknown := [name for name in names if name not in KINDS]:
        raise ArgumentError(f"there is no data of the kind {unknown[0]!r}", f"there are {', '.join(KINDS)}", f"{ALL} means all of them",
                            UNKNOWN)
    if not names:
        raise ArgumentError("no kind of data is named", f"there are {', '.join(KINDS)}", f"{ALL} means all of them", UNKNOWN)
    return tuple(dict.fromkeys(names))


def changed(args: Sequence[Any], kind: str) -> tuple[Any, ...]:
    """Arguments of a kind of data: the same for the same arguments, in whatever kind of array they come."""
    return tuple(a if kind == ORDINARY else _changed(a, KINDS[kind], n) for n, a in enumerate(args))


def _changed(value: Any, change: Change, position: int) -> Any:
    """An argument with its floating-point values changed; a tensor or a numpy array, in its strides."""
    if not isinstance(value, (torch.Tensor, np.ndarray)):
        if not hasattr(value, "__dlpack__"):
            return value
        value = torch.from_dlpack(value)
    old = as_values(value).detach()
    if not old.is_floating_point() or not old.numel() or not old.ndim:
        return value
    new = change(old.double(), torch.Generator().manual_seed(position), torch.finfo(old.dtype)).to(old.dtype)
    if isinstance(value, torch.Tensor):
        return torch.empty_like(value, requires_grad=False).copy_(new)
    out = np.empty_like(value)
    out[...] = new.double().numpy().astype(value.dtype)
    return out


def _scale(x: torch.Tensor) -> float:
    finite = x[torch.isfinite(x)]
    return float(finite.abs().max()) if finite.numel() and float(finite.abs().max()) > 0 else 1.0


def _offset(x: torch.Tensor, _: torch.Generator, of: torch.finfo) -> torch.Tensor:
    """The data on top of a number a thousand times as large: what is subtracted later has lost its last ten bits."""
    return x + min(1000 * _scale(x), of.max / 4)


def _cancel(x: torch.Tensor, g: torch.Generator, _: torch.finfo) -> torch.Tensor:
    """Along the last dimension every other element nearly takes back its neighbour: sums are small beside their terms."""
    if x.shape[-1] < 2:
        return x
    out, half = x.clone(), x.shape[-1] // 2
    noise = torch.randn(out[..., 1:2 * half:2].shape, generator=g, dtype=torch.float64) * 1e-4 * _scale(x)
    out[..., 1:2 * half:2] = -out[..., 0:2 * half:2] + noise
    return out


def _denormal(x: torch.Tensor, _: torch.Generator, of: torch.finfo) -> torch.Tensor:
    """Values at the edge of what the dtype can hold at all: a sixteenth of its smallest normal number, or what is left below it."""
    return x / _scale(x) * of.smallest_normal * max(2.0**-4, 2 * of.eps)


def _extreme(x: torch.Tensor, g: torch.Generator, of: torch.finfo) -> torch.Tensor:
    """Magnitudes spread evenly over sixteen decades, or over what the dtype holds of them."""
    half = min(_DECADES, math.floor(math.log10(of.max)))
    return torch.sign(x) * 10.0 ** (torch.rand(x.shape, generator=g, dtype=torch.float64) * 2 * half - half)


KINDS: Mapping[str, Change] = {
    ORDINARY: lambda x, *_: x, "offset": _offset, "cancel": _cancel, "denormal": _denormal, "extreme": _extreme,
}
