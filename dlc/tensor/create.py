"""New tensors."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import torch

from dlc.runtime.arguments import TORCH
from dlc.tape import each_call as run_each_call
from dlc.tape.mode import mode
from dlc.tensor.convert import wrap
from dlc.tensor.tensor import Tensor, of_memory, record
from dsl.dim import Term, Var
from dsl.dtype import Dtype, f32
from dsl.expr import Expr
from dsl.ops import creation, random
from dsl.program import is_defining


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


def empty(*shape: Any, dtype: Dtype = f32) -> Tensor:
    """Memory with whatever was in it."""
    sizes = shape[0] if len(shape) == 1 and isinstance(shape[0], (tuple, list)) else shape
    return of_memory(torch.empty(*sizes, dtype=TORCH[dtype.name]) if sizes else torch.empty((), dtype=TORCH[dtype.name]))


def _creator(fn: Callable[..., Any]) -> Callable[..., Any]:
    """A maker of the language: within a definition, or with symbolic sizes, part of it.

    It is a tensor otherwise, that takes no memory until it is looked at.
    """
    seeded = "seed" in inspect.signature(fn).parameters

    @functools.wraps(fn)
    def create(*args: Any, **kwargs: Any) -> Any:
        if is_defining() or any(isinstance(a, (Expr, Term, Var)) for a in _flat((*args, *kwargs.values()))):
            return fn(*args, **kwargs)
        if seeded:
            args, kwargs = _with_seed(args, kwargs)
        return record(fn, args, kwargs)

    return create


def _with_seed(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The seed as an argument of the kernel, so that another seed compiles nothing."""
    if "seed" in kwargs:
        return args, kwargs | {"seed": seed_of(kwargs["seed"])}
    return (seed_of(args[0]), *args[1:]) if args else args, kwargs


def each_call(fn: Callable[[], Any]) -> Any:
    """The number, or array, that ``fn`` returns, as a tensor.

    Where a function is recorded (:func:`dlc.jit`), ``fn`` is called again at every later call of it, in the order of recording and
    before anything is computed. What returns None runs for its effect: a counter that moves on.
    """
    value = run_each_call(fn)
    if value is None:
        return None
    t = of_memory(memory_of(value))
    if mode.recording is not None:
        mode.recording.live[t._value] = len(mode.recording.calls) - 1
    return t


def number(fn: Callable[[], float]) -> Tensor:
    """The f32 number that ``fn`` returns, as an argument of a kernel instead of a constant in it; see :func:`each_call`."""
    return each_call(lambda: torch.tensor(fn(), dtype=torch.float32))


def memory_of(value: Any) -> torch.Tensor:
    """A number as f32, i64 or bool without dimensions; an array as it is."""
    return torch.tensor(value) if isinstance(value, (int, float)) else wrap(value)


def seed_of(value: Any) -> Any:
    """A seed as a tensor without dimensions."""
    return of_memory(torch.tensor(value, dtype=torch.int64)) if isinstance(value, int) else value


def _flat(values: Iterable[Any]) -> Iterator[Any]:
    for v in values:
        if isinstance(v, (tuple, list)):
            yield from v
        else:
            yield v


#: Names of the language that make tensors out of numbers; ``dlc`` gives these instead of the language's own.
CREATORS: dict[str, Callable[..., Any]] = {
    fn.__name__: _creator(fn)
    for fn in (creation.arange, creation.eye, creation.full, creation.iota, creation.linspace, creation.ones, creation.tri,
               creation.zeros, random.bernoulli, random.rand, random.randint, random.randn)}
arange, eye, full, ones, zeros, rand, randn = (CREATORS[name] for name in ("arange", "eye", "full", "ones", "zeros", "rand", "randn"))
