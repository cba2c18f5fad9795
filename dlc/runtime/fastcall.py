"""The Python function that calls one compiled kernel, written for it: checks, allocation and the call, with nothing left to look up.

For ``add(x: f32[M, N], y: f32[M, N])`` at 4 x 5 it reads::

    def call(args):
        try:
            x0, x1 = args
        except ValueError:
            return MISS
        if type(x0) not in KINDS or type(x1) not in KINDS:
            return MISS
        try:
            if x0.dtype is not D0 or x0.shape != (4, 5) or not x0.is_contiguous() or not x0.is_cpu or x0.is_neg():
                return MISS
            p0 = x0.data_ptr()
            ...
        except RuntimeError:
            return MISS
        if (p0 | p1) & 3:
            return MISS
        if forward._current_level >= 0:
            return MISS
        if grad_enabled() and (x0.requires_grad or x1.requires_grad):
            return tracked(args)
        y0 = empty((4, 5), (5, 1), E0)
        q0 = y0.data_ptr()
        code = native(ENTRY, 0, threads(), p0, p1, q0)
        if code:
            raise failed(code, args)
        return y0

A kernel for many sizes binds those it takes from the shapes (``n0 = x0.shape[0]``), compares the rest, and hands them on after the
addresses. Arguments may also be numbers and numpy arrays, and results may be written to memory that the caller gives, which must then
lie apart from everything else. ``MISS`` says that the kernel was not run, because the arguments are not exactly those it was compiled
for. Nothing is shared between calls, so any number of threads may be in the function.

Where all arguments are tensors and numbers, machine code does the same without Python (``dlc/runtime/direct.py``), and comes here only for
what is not plain.

The lines themselves are made in ``dlc/runtime/written.py``.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch.autograd import forward_ad

from dlc import memory
from dlc.config import settings
from dlc.runtime import written
from dlc.runtime.arguments import NUMPY, TORCH, give_back
from dlc.runtime.direct import Beside, Direct, facts
from dlc.runtime.recipe import Formulas, Recipe, Shape, known
from dlc.runtime.threads import threads
from dlc.runtime.trampoline import array_address, native_call
from dlc.runtime.written import Given
from dsl.errors import LaunchError

#: What a specialised function returns for arguments that it was not made for.
MISS: Any = type("Miss", (), {"__repr__": lambda self: "MISS", "__bool__": lambda self: False})()

_KINDS = frozenset({torch.Tensor, torch.nn.Parameter})
_POISON = 0xFF
Call = Callable[[tuple[Any, ...]], Any]
Fill = Callable[[tuple[Any, ...], Any], Any]
Into = Callable[[tuple[torch.Tensor, ...], tuple[torch.Tensor, ...] | None], Any]


@dataclass(frozen=True)
class Hooks:
    """Where a call of the user's may go besides the kernel.

    Attributes:
        tracked: the call of these arguments when autograd must follow it; without it such calls are missed.
        find: for a kernel of many sizes, from the sizes and the arguments to the functions of a kernel compiled for just these, or None.
        own: what ``find`` found before.
    """

    tracked: Call | None = None
    own: Mapping[tuple[int, ...], Functions | None] = field(default_factory=dict)
    find: Callable[[tuple[int, ...], tuple[Any, ...]], Functions | None] | None = None


class Functions:
    """The functions written for one kernel; each is compiled when it is first asked for.

    Args:
        recipe: how the kernel is called.
        entry: the address of its code.
        failed: makes the error for the code of a failed check and the arguments of the call.
        given: which arguments are no tensors.
        hooks: where calls may go besides the kernel.
    """

    def __init__(self, recipe: Recipe, entry: int, failed: Callable[[int, tuple[Any, ...]], Exception], given: Given | None = None,
                 hooks: Hooks | None = None) -> None:
        self._recipe, self._given, self._hooks = recipe, given or Given(), hooks or Hooks()
        self._entry, self._failed = entry, failed
        self._scope = _scope(recipe, entry, failed) | _hooked(self._hooks)

    @cached_property
    def call(self) -> Call:
        """From a tuple of arguments to the results, or MISS."""
        return self._direct.call if self._direct else self._call

    @cached_property
    def _direct(self) -> Direct | None:
        """The calls in machine code, where there are such."""
        found = None if self._given.arrays else facts(self._recipe, self._given.numbers)
        if found is None:
            return None
        return Direct(found, self._entry, Beside(
            lambda args: self._call(args), lambda args, outs: self._into(args, outs), lambda args, out: self._fill(args, out), self._failed,
            self._hooks.tracked, self._hooks.own if self._hooks.find is not None else None, MISS))

    @cached_property
    def _call(self) -> Call:
        return self._written("call", written.call(self._recipe, self._given, self._hooks.tracked is not None, self._hooks.find is not None))

    @cached_property
    def fill_tensors(self) -> Fill:
        """From a tuple of arguments and tensors that are to be filled with the results to just these, or MISS."""
        return self._direct.fill if self._direct else self._fill

    @cached_property
    def _fill(self) -> Fill:
        return self._written("fill", written.fill(self._recipe, self._given, False, self._hooks.find is not None))

    @cached_property
    def fill_arrays(self) -> Fill:
        """The same for numpy arrays."""
        return self._written("fill", written.fill(self._recipe, self._given, True, self._hooks.find is not None))

    @cached_property
    def into(self) -> Into:
        """From a tuple of tensors, and a tuple of tensors for the results or None, to a tuple of results, or MISS.

        It does not mind whether autograd should be told, and trusts that the tensors for the results fit.
        """
        return self._direct.into if self._direct else self._into

    @cached_property
    def _into(self) -> Into:
        return self._written("into", written.into(self._recipe))

    @cached_property
    def serves(self) -> Callable[[tuple[Any, ...]], Any]:
        """From a tuple of tensors to True, or MISS, which is false."""
        return self._written("serves", written.serves(self._recipe))

    def _written(self, name: str, lines: Sequence[str]) -> Any:
        code = compile("\n".join(lines) + "\n", f"<{name} of {self._recipe.name}>", "exec")
        exec(code, self._scope)  # the text is made of numbers and names of our own
        return self._scope[name]


def takes_number(value: Any, dtype: str) -> bool:
    """Whether a Python number can go to a kernel as it is, for a scalar parameter of this dtype."""
    return dtype in written.CODES and type(value).__name__ in written.CODES[dtype][1].split(", ")


# -- allocation ----------------------------------------------------------------------------------------------------
def _plain_empty(shape: Shape, strides: Shape, dtype: torch.dtype) -> torch.Tensor:
    return torch.empty_strided(shape, strides, dtype=dtype, device="cpu")


#: Memory from torch's own allocator whatever default device or mode is set; the direct way in where torch has it.
small_empty: Callable[[Shape, Shape, torch.dtype], torch.Tensor] = getattr(torch._C._dynamo.guards, "_empty_strided_cpu", _plain_empty)


def large_empty(shape: Shape, strides: Shape, dtype: torch.dtype) -> torch.Tensor:
    """Memory from the pool of huge pages."""
    try:
        return memory.pool.tensor(shape, dtype, memory.bytes_of(shape, dtype))
    except MemoryError as e:
        raise LaunchError(f"no memory for a result of shape {shape}", str(e), "free something, or make the result smaller") from e


def any_empty(shape: Shape, strides: Shape, dtype: torch.dtype) -> torch.Tensor:
    """Memory from whichever of the two its size asks for."""
    return allocator(shape, dtype)(shape, strides, dtype)


def allocator(shape: Shape, dtype: torch.dtype) -> Callable[[Shape, Shape, torch.dtype], torch.Tensor]:
    """The one of the two for a size."""
    return large_empty if _is_large(shape, dtype) else small_empty


def _poisoned(shape: Shape, strides: Shape, dtype: torch.dtype) -> torch.Tensor:
    t = any_empty(shape, strides, dtype)
    t.view(-1).view(torch.uint8).fill_(_POISON)
    return t


def _is_large(shape: Shape, dtype: torch.dtype) -> bool:
    return memory.bytes_of(shape, dtype) >= memory.THRESHOLD


def _allocator(dtype: str, shape: Formulas) -> Callable[[Shape, Shape, torch.dtype], torch.Tensor]:
    if settings().poison:
        return _poisoned
    numbers = known(shape)
    if numbers is None:
        return any_empty
    return large_empty if _is_large(numbers, TORCH[dtype]) else small_empty


def _array_allocator(dtype: str, shape: Formulas) -> Callable[[Shape, Shape, torch.dtype], np.ndarray]:
    """Results as arrays: small ones in numpy's own memory."""
    empty, kind = _allocator(dtype, shape), NUMPY[dtype]
    if empty is small_empty:
        return lambda shape, strides, dtype: np.empty(shape, kind)
    return lambda shape, strides, dtype: give_back(empty(shape, strides, dtype), True)


def _take(size: int) -> memory.Block:
    try:
        return memory.pool.take(size)
    except MemoryError as e:
        raise LaunchError(f"no memory for {size} bytes of scratch", str(e), "free something") from e


def _take_poisoned(size: int) -> memory.Block:
    block = _take(size)
    block.fill(_POISON)
    return block


# -- what the functions refer to -------------------------------------------------------------------------------------
def _scope(recipe: Recipe, entry: int, failed: Callable[[int, tuple[Any, ...]], Exception]) -> dict[str, Any]:
    scope: dict[str, Any] = {
        "MISS": MISS, "KINDS": _KINDS, "ENTRY": entry, "native": native_call(), "threads": threads, "failed": failed, "array": array,
        "grad_enabled": torch.is_grad_enabled, "take": _take_poisoned if settings().poison else _take, "give": memory.pool.give,
        "forward": forward_ad, "ndarray": np.ndarray, "address": array_address(), "changed": torch.autograd.graph.increment_version,
    }
    scope |= {f"D{n}": TORCH[dtype] for n, (_, dtype, _, _) in enumerate(recipe.inputs)}
    scope |= {f"E{n}": TORCH[dtype] for n, (dtype, _) in enumerate(recipe.outputs)}
    scope |= {f"N{n}": NUMPY[dtype] for n, (_, dtype, _, _) in enumerate(recipe.inputs)}
    scope |= {f"O{n}": NUMPY[dtype] for n, (dtype, _) in enumerate(recipe.outputs)}
    scope |= {f"empty{n}": _allocator(dtype, shape) for n, (dtype, shape) in enumerate(recipe.outputs)}
    return scope | {f"array{n}": _array_allocator(dtype, shape) for n, (dtype, shape) in enumerate(recipe.outputs)}


def _hooked(hooks: Hooks) -> dict[str, Any]:
    return {"tracked": hooks.tracked, "find": hooks.find, "known": hooks.own.get}
