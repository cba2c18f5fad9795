"""Calls of a compiled kernel with tensors, in machine code from Python's tuple of arguments to Python's results.

What ``dlc/runtime/written.py`` does in Python for any arguments is done here for the commonest: tensors, of the very sizes that the kernel
was compiled for. One function serves all kernels. What it compares the words of a tensor with, allocates and calls stands in an array,
the facts of the kernel. It gives ``MISS`` where the arguments are others, and leaves to the function written in Python what is not plain:
memory that must be mapped, tensors of a kind of its own, calls in a forked child.

There is none where torch lays its tensors out in a way that :mod:`dlc.runtime.tensor_layout` does not find.
"""

from __future__ import annotations

import ctypes
import os
import re
from array import array
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import torch
from torch.autograd import forward_ad

from dlc import hand, memory
from dlc.config import settings
from dlc.native import FASTCALL, ONE, address, builtin, compiled
from dlc.runtime.arguments import TORCH
from dlc.runtime.direct_calls import CALLS
from dlc.runtime.direct_tensors import FACTS, INPUT, OUTPUT, TENSORS
from dlc.runtime.recipe import Formulas, Recipe, Shape, contiguous, known
from dlc.runtime.tensor_layout import Layout, layout
from dsl.dtype import by_name

_MOST_THREADS = 64  # threads up to which the size of private memory is looked up

Slow = Callable[[tuple[Any, ...]], Any]


class Direct:
    """The calls of one kernel, in machine code.

    Args:
        recipe: how the kernel is called; :func:`can_call` says whether it can be called so.
        entry: the address of its code.
        failed: makes the error for the code of a failed check and the arguments of the call.
        slow: the call written in Python.
        tracked: the call that autograd follows; without it such calls are missed.
        miss: what is given for arguments that the kernel was not compiled for.

    Attributes:
        call: from a tuple of arguments to the results, or MISS.
        into: from a tuple of tensors, and a tuple of tensors for the results or None, to a tuple of results, or MISS; it does not mind
            whether autograd should be told, and trusts that the tensors for the results fit.
    """

    def __init__(self, recipe: Recipe, entry: int, failed: Callable[[int, tuple[Any, ...]], Exception], slow: Slow, tracked: Slow | None,
                 miss: object) -> None:
        def fail(code: int, args: tuple[Any, ...]) -> None:
            raise failed(code, args)

        found = layout()
        assert found is not None
        facts = _Facts(recipe, found)
        facts.set(ENTRY=entry, TRACKED=tracked, SLOW=slow, RAISE=fail)
        facts.refer(MISS=miss, NONE=None, TRUE=True, TENSOR=torch.Tensor, PARAMETER=torch.nn.Parameter, REQUIRES_GRAD="requires_grad",
                    FORWARD=vars(forward_ad), LEVEL="_current_level", OUTSIDE=-1)
        owner = (facts.words.tobytes(), facts.held)
        call, into = _code()
        self.call: Slow = builtin(call, "call", ONE, f"Run {recipe.name}.", owner)
        self.into: Callable[[tuple[Any, ...], tuple[torch.Tensor, ...] | None], Any] = builtin(
            into, "into", FASTCALL, f"Run {recipe.name}.", owner)


def _numbers(formulas: Formulas) -> Shape:
    """Formulas that are all numbers, as :func:`can_call` has seen."""
    return tuple(int(n) for n in formulas)


def can_call(recipe: Recipe) -> bool:
    """Whether calls with tensors can be made in machine code: of sizes known, none of them zero, by a torch whose layout is found."""
    found = layout()
    if found is None or recipe.sizes or settings().poison or not _torch():
        return False
    shapes = [known(shape) for _, _, shape, _ in recipe.inputs] + [known(shape) for _, shape in recipe.outputs]
    if any(shape is None or 0 in shape or len(shape) > found.most for shape in shapes):
        return False
    return all(known(strides) is not None for *_, strides in recipe.inputs) and all(hand.exported(TORCH[d]) for d, _ in recipe.outputs)


class _Facts:
    """The array of words that the machine code reads, and the objects that some of them point to."""

    def __init__(self, recipe: Recipe, found: Layout) -> None:
        self.words, self.held, self._layout = array("q", bytes(8 * len(FACTS))), list[Any](), found
        inputs, outputs = len(recipe.inputs), len(recipe.outputs)
        self.set(STATE=memory.pool.hand.state, GATE=ctypes.addressof(_GATE), INPUTS=inputs, OUTPUTS=outputs, SINGLE=int(recipe.single))
        patterns = [self._pattern(dtype, _numbers(shape), _numbers(strides)) for _, dtype, shape, strides in recipe.inputs]
        shapes = [self._add(_numbers(shape)) for _, shape in recipe.outputs]
        self.set(FIRST_INPUT=len(self.words))
        for (_, dtype, _, _), (at, count) in zip(recipe.inputs, patterns):
            self._add((at, count, TORCH[dtype].itemsize - 1, int(by_name(dtype).is_float)))
        self.set(FIRST_OUTPUT=len(self.words))
        for (dtype, shape), at in zip(recipe.outputs, shapes):
            self._output(TORCH[dtype], _numbers(shape), at)
        self._private(recipe)
        self.set(COUNT=inputs + outputs + len(recipe.workspaces))

    def set(self, **values: Any) -> None:
        """Set some of :data:`FACTS`: numbers, or functions, which are held; None for zero."""
        for name, value in values.items():
            self.words[FACTS.index(name)] = value if isinstance(value, int) else 0 if value is None else self._hold(value)

    def refer(self, **objects: object) -> None:
        """Set some of :data:`FACTS` to objects, which are held."""
        for name, thing in objects.items():
            self.words[FACTS.index(name)] = self._hold(thing)

    def _hold(self, thing: Any) -> int:
        self.held.append(thing)
        return id(thing)

    def _add(self, words: Sequence[int]) -> int:
        """Add words; returns where they begin."""
        at = len(self.words)
        self.words.extend(words)
        return at

    def _pattern(self, dtype: str, shape: Shape, strides: Shape) -> tuple[int, int]:
        """Add what the words of a tensor must be, as (place, mask, value); returns where that begins and how many there are."""
        here, all_bits = self._layout, -1
        wanted = [(here.dims, all_bits, len(shape)), *((here.sizes + d, all_bits, n) for d, n in enumerate(shape))]
        wanted += [(here.strides + d, all_bits, step) for d, (n, step) in enumerate(zip(shape, strides)) if n > 1]
        wanted += [(here.dtype, _signed(here.mask), _signed(here.codes[dtype]))]
        return self._add([word for entry in wanted for word in entry]), len(wanted)

    def _output(self, dtype: torch.dtype, shape: Shape, at: int) -> None:
        size = memory.bytes_of(shape, dtype)
        kind = memory.class_of(memory.round_up(size)) if size >= memory.THRESHOLD else 0
        export, code = hand.exported(dtype) or (0, 0)
        empty = self._hold(_empty()), self._hold((shape, contiguous(shape), dtype))
        self._add((kind, *empty, code << 32 | len(shape), at, export))

    def _private(self, recipe: Recipe) -> None:
        """Where private memory lies in a block, and the class of that block for each number of threads."""
        if not recipe.workspaces and not recipe.scratch:
            return
        places, end, scratch = list[int](), 0, int(recipe.scratch)
        for size in recipe.workspaces:
            places.append(end)
            end += int(size) // 64 * 64 + 128
        self.set(SPACES=len(places), FIRST_SPACE=self._add(places), PER=scratch, SCRATCH=end)
        sizes = [memory.round_up(end + scratch * many + 64) for many in range(1, _MOST_THREADS + 1)]
        self.set(FIRST_CLASS=self._add([memory.class_of(size) for size in sizes]) - 1)


def _signed(word: int) -> int:
    return word - (1 << 64) if word >> 63 else word


def _empty() -> Callable[..., torch.Tensor]:
    """Memory from torch's own allocator whatever default device or mode is set."""
    made: Callable[..., torch.Tensor] = torch._C._dynamo.guards._empty_strided_cpu
    return made


@cache
def _torch() -> dict[str, int]:
    """The addresses of the functions of torch's C interface that are called; empty where one is not there."""
    names = ("aoti_torch_get_data_ptr", "aoti_torch_grad_mode_is_enabled", "torch_get_num_threads")
    try:
        library = ctypes.CDLL(os.path.join(os.path.dirname(torch.__file__), "lib", "libtorch_cpu.so"))
        _empty()
        return {name: address(getattr(library, name)) for name in names}
    except (OSError, AttributeError):
        return {}


_GATE = (ctypes.c_int64 * 1)()


@cache
def _code() -> tuple[int, int]:
    """The addresses of the two functions, compiled once."""
    found = layout()
    assert found is not None
    values = {
        **{n: k for k, n in enumerate(FACTS)}, **{n: k for k, n in enumerate(INPUT)}, **{n: k for k, n in enumerate(OUTPUT)},
        "INPUT_WORDS": len(INPUT), "OUTPUT_WORDS": len(OUTPUT), "MOST_THREADS": _MOST_THREADS, "DATA": hand.DATA,
        "POINTER": found.pointer, "KEYS": found.keys, "PLAIN": found.plain[0], "INFERENCE": found.plain[1], "AUTOGRAD": found.autograd,
    }
    text = re.sub(r"\$(\w+)", lambda m: str(values[m[1]]), TENSORS + CALLS)
    places = compiled(text, {**_torch(), **hand.native().places})
    return places("direct_call"), places("direct_into")


def _in_child() -> None:
    _GATE[0] = 1


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)
