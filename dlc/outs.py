"""Memory that the caller gives for the results of a kernel."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import torch

from dlc.operator import is_foreign
from dlc.runtime.arguments import as_tensor
from dsl.bind import bind_sizes
from dsl.errors import ArgumentError, DtypeError
from dsl.expr import Input
from dsl.program import Program


def checked_outs(program: Program, out: Any, tensors: Sequence[torch.Tensor],
                 in_place: Collection[tuple[int, int]] = ()) -> list[torch.Tensor]:
    """The tensors to write to, checked: right shape and dtype, contiguous, apart from the inputs and from each other.

    Args:
        program: the kernel's.
        out: what the caller gave.
        tensors: the inputs.
        in_place: (input, output) by their numbers, such that the output may be just the input.

    Raises:
        ArgumentError: they are not.
    """
    given = list(out) if isinstance(out, (tuple, list)) else [out]
    name, outputs = program.name, program.outputs
    if len(given) != len(outputs):
        raise ArgumentError(f"{name} has {len(outputs)} outputs, out= has {len(given)}")
    checked: list[torch.Tensor] = []
    sizes = bind_sizes(program, [t.shape for t in tensors])
    for n, (o, declared) in enumerate(zip(given, outputs)):
        shape = tuple(int(s.eval(sizes)) for s in declared.shape)
        what = f"out {n} of {name}" if len(given) > 1 else f"out of {name}"
        like = Input(declared.name, declared.shape, declared.dtype, program.loc)
        checked.append(_writable(o, like, shape, tensors[0].device if tensors else torch.device("cpu"), what))
        apart = [t for k, t in enumerate(tensors) if (k, n) not in in_place or t.data_ptr() != checked[-1].data_ptr()]
        if any(_overlap(checked[-1], t) for t in (*apart, *checked[:-1])):
            raise ArgumentError(f"{what} overlaps another argument", "the kernel may read an element after writing it",
                                "give it memory of its own")
    return checked


def _writable(out: Any, declared: Input, shape: Sequence[int], where: torch.device, what: str) -> torch.Tensor:
    """One tensor to write to, as a tensor."""
    if isinstance(out, np.ndarray) and not out.flags.writeable:
        raise ArgumentError(f"{what} is a read-only array", remedy="pass an array that can be written")
    if not isinstance(out, (torch.Tensor, np.ndarray)):
        raise ArgumentError(f"{what} is a {type(out).__name__}", remedy="pass a torch tensor or a numpy array")
    if is_foreign(out) or isinstance(out, torch.Tensor) and out.is_nested:
        raise ArgumentError(f"{what} is a {type(out).__name__}", "it has no memory to write to", "pass a plain torch tensor")
    if tuple(out.shape) != tuple(shape):
        raise ArgumentError(f"{what} has shape {tuple(out.shape)}, the result {tuple(shape)}", remedy=f"torch.empty({tuple(shape)})")
    contiguous_ = out.flags.c_contiguous if isinstance(out, np.ndarray) else out.layout is torch.strided and out.is_contiguous()
    if not contiguous_:
        strides = out.strides if isinstance(out, np.ndarray) else out.stride() if out.layout is torch.strided else out.layout
        raise ArgumentError(f"{what} is not contiguous", f"its strides are {strides}", "pass contiguous memory and copy it back")
    try:
        t = as_tensor(out, declared)
    except DtypeError as e:
        raise ArgumentError(f"{what} has another dtype than the result", e.title, f"pass one of {declared.dtype}") from e
    if t.data_ptr() != _address(out):
        raise ArgumentError(f"{what} begins at an odd address", f"its elements are {declared.dtype.itemsize} bytes each",
                            "pass aligned memory")
    if t.device != where:
        raise ArgumentError(f"{what} is on {t.device}, the inputs on {where}", remedy=f"torch.empty({tuple(shape)}, device={str(where)!r})")
    if t.requires_grad and torch.is_grad_enabled():
        raise ArgumentError(f"{what} requires grad", "autograd cannot follow writes to it", "pass .detach(), or call under torch.no_grad()")
    return t


def _address(out: torch.Tensor | np.ndarray) -> int:
    return int(out.ctypes.data) if isinstance(out, np.ndarray) and out.size else out.data_ptr() if isinstance(out, torch.Tensor) else 0


def _overlap(a: torch.Tensor, b: torch.Tensor) -> bool:
    if a.numel() == 0 or b.numel() == 0:
        return False
    first = [(t.data_ptr(), t.data_ptr() + (sum((n - 1) * s for n, s in zip(t.shape, t.stride())) + 1) * t.element_size()) for t in (a, b)]
    return first[0][0] < first[1][1] and first[1][0] < first[0][1]
