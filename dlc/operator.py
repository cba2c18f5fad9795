"""Kernels as one operator of torch, ``dlc::call``: how torch.compile, fake tensors and torch.func see them.

The operator takes the name of a kernel in this process and its tensors. What traces it learns the shapes of the results from the
definition, sizes symbolic or not; its derivative is the derived backward, called through the same operator, so it can be traced too.
"""

from __future__ import annotations

import functools
import itertools
import weakref
from collections.abc import Sequence
from typing import Any, Protocol

import torch

from dlc.runtime.arguments import TORCH
from dsl.bind import bind_sizes
from dsl.dim import as_term
from dsl.errors import ArgumentError
from dsl.program import Program


class Operand(Protocol):
    """A kernel, as the operator sees it."""

    @property
    def program(self) -> Program:
        """The definition."""

    def __call__(self, *args: Any) -> Any:
        """The results."""

    def gradient(self, wanted: tuple[int, ...]) -> tuple[Operand, tuple[int, ...]]:
        """The derived backward for some inputs, and the positions of the inputs that it reads before the gradients of the outputs."""


_kernels: weakref.WeakValueDictionary[str, Any] = weakref.WeakValueDictionary()
_numbers = itertools.count()


def register(kernel: Operand, name: str) -> str:
    """A name for a kernel in this process, under which the operator finds it while it lives."""
    _defined()
    key = f"{name}.{next(_numbers)}"
    _kernels[key] = kernel
    return key


def call(key: str, tensors: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """The results of the kernel of this name, through torch's dispatcher."""
    return torch.ops.dlc.call(key, list(tensors))


def put(results: Any, out: Any) -> Any:
    """The results of a call that torch dispatches, copied by torch into what the user gave for them, if anything."""
    if out is None:
        return results
    several = isinstance(results, tuple)
    given = tuple(out) if several else (out,)
    if len(given) != (len(results) if several else 1):
        raise ArgumentError(f"out= has {len(given)} tensors, the call {len(results)} results")
    for to, result in zip(given, results if several else (results,)):
        to.copy_(result)
    return out


def is_foreign(value: Any) -> bool:
    """Whether a tensor has no memory that a kernel could read, but a meaning that torch's dispatcher gives it."""
    if not isinstance(value, torch.Tensor) or value.is_nested:
        return False
    own = type(value).__torch_dispatch__ is not torch.Tensor.__torch_dispatch__
    return own or torch._C._functorch.is_functorch_wrapped_tensor(value)


def is_transformed(value: torch.Tensor) -> bool:
    """Whether a tensor belongs to a transform of torch.func."""
    return bool(torch._C._functorch.is_functorch_wrapped_tensor(value))


def _kernel(key: str) -> Any:
    found = _kernels.get(key)
    if found is None:
        raise ArgumentError(f"there is no kernel {key.rpartition('.')[0]} any more", "the traced program outlived it",
                            "keep the kernel alive")
    return found


def _run(key: str, tensors: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    kernel = _kernel(key)
    with torch.no_grad():
        results = kernel(*tensors)
    return [results] if kernel.program.single else list(results)


def _fake(key: str, tensors: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """Results without elements; sizes may be symbols of torch's."""
    program = _kernel(key).program
    sizes = _bound(program, tensors)
    device = tensors[0].device if tensors else torch.device("cpu")
    shapes = [[t.eval(sizes) if t.vars else int(t) for t in output.shape] for output in program.outputs]
    return [torch.empty(shape, dtype=TORCH[output.dtype.name], device=device) for shape, output in zip(shapes, program.outputs)]


def _bound(program: Program, tensors: Sequence[torch.Tensor]) -> dict[Any, Any]:
    if all(isinstance(n, int) for t in tensors for n in t.shape):
        return dict(bind_sizes(program, [t.shape for t in tensors]))
    sizes: dict[Any, Any] = {}
    for t, declared in zip(tensors, program.inputs):
        for n, size in zip(t.shape, declared.shape):
            (v,) = size.vars if len(size.vars) == 1 else (None,)
            if v is not None and size == as_term(v):
                sizes.setdefault(v, n)
    return sizes


def _save(ctx: Any, inputs: tuple[str, list[torch.Tensor]], output: list[torch.Tensor]) -> None:
    ctx.key, tensors = inputs
    ctx.save_for_backward(*tensors)
    ctx.needed = tuple(n for n, t in enumerate(tensors) if t.requires_grad)
    ctx.results = [(r.shape, r.dtype, r.device) for r in output]


def _backward(ctx: Any, cotangents: Sequence[torch.Tensor | None]) -> tuple[None, list[torch.Tensor | None]]:
    kernel, tensors = _kernel(ctx.key), ctx.saved_tensors
    given = [torch.zeros(shape, dtype=dtype, device=device) if g is None else g
             for g, (shape, dtype, device) in zip(cotangents, ctx.results)]
    back, read = kernel.gradient(ctx.needed)
    seeds = [g for g, t in zip(given, kernel.program.outputs) if t.dtype.is_float]
    grads = iter(call(back.key, [*(tensors[n] for n in read), *seeds]))
    return None, [next(grads) if n in ctx.needed else None for n in range(len(tensors))]


def _vmapped(info: Any, in_dims: Any, key: str, tensors: Sequence[torch.Tensor]) -> tuple[list[torch.Tensor], list[int]]:
    """One call for each element of the mapped dimension."""
    _, dims = in_dims
    rows = [call(key, [t if d is None else t.select(d, n) for t, d in zip(tensors, dims)]) for n in range(info.batch_size)]
    stacked = [torch.stack(parts) for parts in zip(*rows)]
    return stacked, [0] * len(stacked)


@functools.cache
def _defined() -> torch.library.Library:
    """The operator, defined when the first kernel is named: programs that call kernels directly never need it."""
    library = torch.library.Library("dlc", "FRAGMENT")
    library.define("call(str kernel, Tensor[] tensors) -> Tensor[]")
    library.impl("call", _run, "CompositeExplicitAutograd")
    torch.library.register_fake("dlc::call", _fake, lib=library)
    torch.library.register_autograd("dlc::call", _backward, setup_context=_save, lib=library)
    torch.library.register_vmap("dlc::call", _vmapped, lib=library)
    return library
