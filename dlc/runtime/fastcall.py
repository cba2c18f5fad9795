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
        if grad_enabled() and (x0.requires_grad or x1.requires_grad):
            return MISS
        y0 = empty((4, 5), (5, 1), E0)
        code = native(ENTRY, 0, threads(), p0, p1, y0.data_ptr())
        if code:
            raise failed(code, args)
        return y0

A kernel for many sizes binds those it takes from the shapes (``n0 = x0.shape[0]``), compares the rest, and hands them on after the
addresses. ``MISS`` says that the kernel was not run, because the arguments are not exactly those it was compiled for. Nothing is
shared between calls, so any number of threads may be in the function.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import torch

from codegen.artifact import evaluate
from dlc import memory
from dlc.config import settings
from dlc.runtime.arguments import TORCH
from dlc.runtime.recipe import Formulas, Recipe, Shape
from dlc.runtime.threads import threads
from dlc.runtime.trampoline import native_call
from dsl.dtype import by_name
from dsl.errors import InternalError, LaunchError

#: What a specialised function returns for arguments that it was not made for.
MISS: Any = type("Miss", (), {"__repr__": lambda self: "MISS", "__bool__": lambda self: False})()

_KINDS = frozenset({torch.Tensor, torch.nn.Parameter})
_CODES = {"f32": ("f", "float, int, bool"), "f64": ("d", "float, int, bool"), "i64": ("q", "int, bool"), "i32": ("i", "int, bool"),
          "i16": ("h", "int, bool"), "i8": ("b", "int, bool"), "u8": ("B", "int, bool"), "u32": ("I", "int, bool"), "bool": ("B", "bool")}
_POISON = 0xA5


class Functions:
    """The functions written for one kernel; each is compiled when it is first asked for.

    Args:
        recipe: how the kernel is called.
        entry: the address of its code.
        failed: makes the error for the code of a failed check and the arguments of the call.
        numbers: positions of scalar parameters that are given as Python numbers.
    """

    def __init__(self, recipe: Recipe, entry: int, failed: Callable[[int, tuple[Any, ...]], Exception],
                 numbers: frozenset[int] = frozenset()) -> None:
        self._recipe, self._numbers, self._scope = recipe, numbers, _scope(recipe, entry, failed)

    @cached_property
    def call(self) -> Callable[[tuple[Any, ...]], Any]:
        """From a tuple of arguments to the results, or MISS."""
        return self._written("call", _call(self._recipe, self._numbers))

    @cached_property
    def into(self) -> Callable[[tuple[Any, ...], Sequence[torch.Tensor] | None], Any]:
        """From a tuple of tensors, and tensors for the results or None, to a tuple of results, or MISS.

        It does not mind whether autograd should be told, and trusts that the tensors for the results fit.
        """
        return self._written("into", _into(self._recipe))

    @cached_property
    def serves(self) -> Callable[[tuple[Any, ...]], Any]:
        """From a tuple of tensors to True, or MISS, which is false."""
        return self._written("serves", _serves(self._recipe))

    def _written(self, name: str, lines: Sequence[str]) -> Any:
        code = compile("\n".join(lines) + "\n", f"<{name} of {self._recipe.name}>", "exec")
        exec(code, self._scope)  # the text is written below, of numbers and names made here
        return self._scope[name]


def takes_number(value: Any, dtype: str) -> bool:
    """Whether a Python number can go to a kernel as it is, for a scalar parameter of this dtype."""
    return dtype in _CODES and type(value).__name__ in _CODES[dtype][1].split(", ")


def contiguous(shape: Sequence[int]) -> Shape:
    """The strides of a tensor without gaps."""
    strides, step = [], 1
    for n in reversed(shape):
        strides.append(step)
        step *= max(n, 1)
    return tuple(reversed(strides))


# -- allocation ----------------------------------------------------------------------------------------------------
def _plain_empty(shape: Shape, strides: Shape, dtype: torch.dtype) -> torch.Tensor:
    return torch.empty_strided(shape, strides, dtype=dtype, device="cpu")


#: Memory from torch's own allocator whatever default device or mode is set; the direct way in where torch has it.
small_empty: Callable[[Shape, Shape, torch.dtype], torch.Tensor] = getattr(torch._C._dynamo.guards, "_empty_strided_cpu", _plain_empty)


def large_empty(shape: Shape, strides: Shape, dtype: torch.dtype) -> torch.Tensor:
    """Memory from the pool of huge pages."""
    try:
        return memory.pool.tensor(shape, dtype, math.prod(shape) * dtype.itemsize)
    except MemoryError as e:
        raise LaunchError(f"no memory for a result of shape {shape}", str(e), "free something, or make the result smaller") from e


def any_empty(shape: Shape, strides: Shape, dtype: torch.dtype) -> torch.Tensor:
    """Memory from whichever of the two its size asks for."""
    return (large_empty if _is_large(shape, dtype) else small_empty)(shape, strides, dtype)


def _poisoned(shape: Shape, strides: Shape, dtype: torch.dtype) -> torch.Tensor:
    t = any_empty(shape, strides, dtype)
    t.view(-1).view(torch.uint8).fill_(_POISON)
    return t


def _is_large(shape: Shape, dtype: torch.dtype) -> bool:
    return math.prod(shape) * dtype.itemsize >= memory.THRESHOLD


def _allocator(dtype: str, shape: Formulas) -> Callable[[Shape, Shape, torch.dtype], torch.Tensor]:
    if settings().poison:
        return _poisoned
    known = _numbers(shape)
    if known is None:
        return any_empty
    return large_empty if _is_large(known, TORCH[dtype]) else small_empty


def _take(size: int) -> memory.Block:
    try:
        return memory.pool.take(size)
    except MemoryError as e:
        raise LaunchError(f"no memory for {size} bytes of scratch", str(e), "free something") from e


def _take_poisoned(size: int) -> memory.Block:
    block = _take(size)
    block.fill(_POISON)
    return block


# -- text ----------------------------------------------------------------------------------------------------------
def _scope(recipe: Recipe, entry: int, failed: Callable[[int, tuple[Any, ...]], Exception]) -> dict[str, Any]:
    scope: dict[str, Any] = {
        "MISS": MISS, "KINDS": _KINDS, "ENTRY": entry, "native": native_call(), "threads": threads, "failed": failed, "array": array,
        "grad_enabled": torch.is_grad_enabled, "take": _take_poisoned if settings().poison else _take, "give": memory.pool.give,
    }
    scope |= {f"D{n}": TORCH[dtype] for n, (_, dtype, _, _) in enumerate(recipe.inputs)}
    scope |= {f"E{n}": TORCH[dtype] for n, (dtype, _) in enumerate(recipe.outputs)}
    scope |= {f"empty{n}": _allocator(dtype, shape) for n, (dtype, shape) in enumerate(recipe.outputs)}
    return scope


def _call(recipe: Recipe, numbers: frozenset[int]) -> list[str]:
    tensors = [n for n in range(len(recipe.inputs)) if n not in numbers]
    needing = [f"x{n}.requires_grad" for n in tensors if by_name(recipe.inputs[n][1]).is_float]
    lines = ["def call(args):", *_guards(recipe, numbers)]
    lines += _unless(f"grad_enabled() and ({' or '.join(needing)})") if needing else []
    lines += [f"    y{n} = {_empty(n, shape)}" for n, (_, shape) in enumerate(recipe.outputs)]
    results = ", ".join(f"y{n}" for n in range(len(recipe.outputs)))
    return [*lines, *_launch(recipe), f"    return {results}" if recipe.single else f"    return ({results},)"]


def _into(recipe: Recipe) -> list[str]:
    lines = ["def into(args, outs):", *_guards(recipe, frozenset())]
    lines += [f"    y{n} = outs[{n}] if outs is not None else {_empty(n, shape)}" for n, (_, shape) in enumerate(recipe.outputs)]
    return [*lines, *_launch(recipe), f"    return ({', '.join(f'y{n}' for n in range(len(recipe.outputs)))},)"]


def _serves(recipe: Recipe) -> list[str]:
    return ["def serves(args):", *_guards(recipe, frozenset()), "    return True"]


def _guards(recipe: Recipe, numbers: frozenset[int]) -> list[str]:
    """MISS unless the arguments are those the kernel was compiled for; their addresses and the sizes they bind."""
    names = [f"x{n}" for n in range(len(recipe.inputs))]
    tensors = [n for n in range(len(names)) if n not in numbers]
    left = f"{', '.join(names)}{',' if len(names) == 1 else ''}" if names else "()"
    lines = ["    try:", f"        {left} = args", "    except ValueError:", "        return MISS"]
    kinds = [f"type(x{n}) not in KINDS" for n in tensors]
    kinds += [f"type(x{n}) not in ({_CODES[recipe.inputs[n][1]][1]},)" for n in sorted(numbers)]
    lines += _unless(" or ".join(kinds))
    if names:
        lines += ["    try:"]
        bound: set[str] = set()
        for n in range(len(names)):
            lines += _number(recipe, n) if n in numbers else _tensor(recipe, n, bound)
        lines += ["    except (RuntimeError, OverflowError):", "        return MISS"]
    return lines + _unless(" or ".join([*_formula_guards(recipe), *_misaligned(recipe, tensors)]))


def _unless(condition: str) -> list[str]:
    return [f"    if {condition}:", "        return MISS"] if condition else []


def _tensor(recipe: Recipe, n: int, bound: set[str]) -> list[str]:
    _, _, shape, strides = recipe.inputs[n]
    known, steps = _numbers(shape), _numbers(strides)
    lines: list[str] = []
    wrong = [f"x{n}.dtype is not D{n}"]
    if known is not None and steps is not None:
        wrong += [f"x{n}.shape != {known}", *_wrong_strides(n, known, steps)]
    else:
        wrong += [f"x{n}.dim() != {len(shape)}"]
    lines += [f"        if {' or '.join([*wrong, f'not x{n}.is_cpu', f'x{n}.is_neg()'])}:", "            return MISS"]
    if known is None or steps is None:
        lines += _symbolic(n, shape, strides, bound)
    lines += [f"        p{n} = x{n}.data_ptr()"]
    return lines if 0 in shape else [*lines, f"        if not p{n}:", "            return MISS"]


def _symbolic(n: int, shape: Formulas, strides: Formulas, bound: set[str]) -> list[str]:
    """Bind the sizes met first here, refuse others than known; what is a formula is compared when all sizes are bound."""
    lines, wrong = [f"        s{n} = x{n}.shape"], []
    for d, size in enumerate(shape):
        if isinstance(size, int) or size in bound:
            wrong.append(f"s{n}[{d}] != {size}")
        elif size.isidentifier():
            lines.append(f"        {size} = s{n}[{d}]")
            bound.add(size)
            wrong.append(f"{size} < 1")
    if _row_major(shape, strides):
        wrong.append(f"not x{n}.is_contiguous()")
    else:
        lines.append(f"        t{n} = x{n}.stride()")
        for d, step in enumerate(strides):
            if isinstance(step, str) and step.isidentifier() and step not in bound:
                lines.append(f"        {step} = t{n}[{d}]")
                bound.add(step)
            else:
                wrong.append(f"(s{n}[{d}] != 1 and t{n}[{d}] != {step})")
    return [*lines, f"        if {' or '.join(wrong)}:", "            return MISS"] if wrong else lines


def _formula_guards(recipe: Recipe) -> list[str]:
    """Sizes that are formulas of others: ``2*N``."""
    return [f"s{n}[{d}] != {size}" for n, (_, _, shape, _) in enumerate(recipe.inputs) for d, size in enumerate(shape)
            if isinstance(size, str) and not size.isidentifier()]


def _row_major(shape: Formulas, strides: Formulas) -> bool:
    """Whether strides are those of a tensor without gaps, by the shape of their formulas: each is the product of the sizes after it."""
    values = {name: 2 + 3 * k for k, name in enumerate(sorted({e for e in (*shape, *strides) if isinstance(e, str) and e.isidentifier()}))}
    try:
        numbers = [evaluate(e, values) for e in shape]
        return [evaluate(e, values) for e in strides] == list(contiguous(numbers))
    except InternalError:
        return False


def _wrong_strides(n: int, shape: Shape, strides: Shape) -> list[str]:
    """Where the strides differ from those compiled for; a dimension that is walked over once may have any."""
    if not shape:
        return []
    dense = contiguous(shape)
    if 0 in shape or all(s == d for size, s, d in zip(shape, strides, dense) if size > 1):
        return [f"not x{n}.is_contiguous()"]
    if all(s > 1 for s in shape):
        return [f"x{n}.stride() != {strides}"]
    return [f"x{n}.stride({d}) != {strides[d]}" for d in range(len(shape)) if shape[d] > 1]


def _number(recipe: Recipe, n: int) -> list[str]:
    """A Python number in memory of its own: ``a`` keeps it for the length of the call."""
    return [f"        a{n} = array('{_CODES[recipe.inputs[n][1]][0]}', (x{n},))", f"        p{n} = a{n}.buffer_info()[0]"]


def _misaligned(recipe: Recipe, tensors: Sequence[int]) -> list[str]:
    sizes: dict[int, list[str]] = {}
    for n in tensors:
        sizes.setdefault(TORCH[recipe.inputs[n][1]].itemsize, []).append(f"p{n}")
    return [f"({' | '.join(names)}) & {size - 1}" for size, names in sorted(sizes.items()) if size > 1]


def _empty(n: int, shape: Formulas) -> str:
    known = _numbers(shape)
    if known is not None:
        return f"empty{n}({known}, {contiguous(known)}, E{n})"
    steps = [" * ".join([f"({s})" for s in shape[d + 1:]]) or "1" for d in range(len(shape))]
    return f"empty{n}(({', '.join(map(str, shape))},), ({', '.join(steps)},), E{n})"


def _launch(recipe: Recipe) -> list[str]:
    """The call itself, with private memory from the pool around it."""
    if all(0 in shape for _, shape in recipe.outputs):
        return []
    words = [f"p{n}" for n in range(len(recipe.inputs))] + [f"y{n}.data_ptr()" for n in range(len(recipe.outputs))]
    if not recipe.workspaces and not recipe.scratch:
        return [f"    code = native(ENTRY, 0, threads(), {', '.join([*words, *recipe.sizes])})", *_check()]
    lines, spaces = ["    at0 = 0"], []
    for k, size in enumerate(recipe.workspaces):
        spaces.append(f"base + at{k}")
        lines.append(f"    at{k + 1} = at{k} + ({size}) // 64 * 64 + 128")
    end = f"at{len(spaces)}"
    scratch = f"base + {end}" if recipe.scratch else "0"
    return [*lines, "    many = threads()", f"    block = take({end} + ({recipe.scratch}) * many + 64)",
            "    base = block.address", "    try:",
            f"        code = native(ENTRY, {scratch}, many, {', '.join([*words, *spaces, *recipe.sizes])})", "    finally:",
            "        give(block)", *_check()]


def _check() -> list[str]:
    return ["    if code:", "        raise failed(code, args)"]


def _numbers(entries: Formulas) -> Shape | None:
    """Entries that are all known."""
    known = tuple(e for e in entries if isinstance(e, int))
    return known if len(known) == len(entries) else None
