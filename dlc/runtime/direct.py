"""Calls of a compiled kernel in machine code, from Python's tuple of arguments to Python's results.

What ``dlc/runtime/written.py`` does in Python for any arguments is done here for the commonest: tensors, of the sizes that the kernel was
compiled for or of many, and numbers; results that are made, or given by the caller. One function serves all kernels. What it compares the
words of a tensor with, computes, allocates and calls stands in an array, the facts of the kernel. It gives ``MISS`` where the arguments are
others, and leaves to the functions written in Python what is not plain: memory that must be mapped, tensors of a kind of its own, results
that lie over something else, calls in a forked child.

There is none where torch lays its tensors out in a way that :mod:`dlc.runtime.tensor_layout` does not find.
"""

from __future__ import annotations

import ctypes
import os
import re
from array import array
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch.autograd import forward_ad

from dlc import hand, memory
from dlc.config import settings
from dlc.native import FASTCALL, ONE, address, builtin, compiled
from dlc.runtime.arguments import TORCH
from dlc.runtime.direct_calls import CALLS, WAYS
from dlc.runtime.direct_launch import LAUNCH
from dlc.runtime.direct_numbers import KINDS_OF_STEP, STEPS, Numbers
from dlc.runtime.direct_results import RESULTS
from dlc.runtime.direct_tensors import FACTS, INPUT, KINDS, OUTPUT, TENSORS
from dlc.runtime.recipe import Formulas, Recipe, contiguous, known
from dlc.runtime.tensor_layout import Layout, layout
from dsl.dtype import by_name

_KINDS = {"f32": "AN_F32", "f64": "AN_F64", "bool": "A_BOOL"}  # of other dtypes numbers are integers
_MOST_OVER = 63  # arguments up to which a result may be written over one

Slow = Callable[[tuple[Any, ...]], Any]
Fill = Callable[[tuple[Any, ...], Any], Any]


@dataclass(frozen=True)
class Beside:
    """Where a call goes that is not made here.

    Attributes:
        call: written in Python.
        into: the same with tensors for the results, or None.
        fill: the same with what the user gives for the results.
        failed: makes the error for the code of a failed check and the arguments of the call.
        tracked: the call that autograd follows; without it such calls are missed.
        own: what kernels compiled for just some sizes have to call, or None, by the sizes; ``call`` finds what is missing.
        miss: what is given for arguments that the kernel was not compiled for.
    """

    call: Slow
    into: Fill
    fill: Fill
    failed: Callable[[int, tuple[Any, ...]], Exception]
    tracked: Slow | None
    own: Mapping[tuple[int, ...], Any] | None
    miss: object


class Direct:
    """The calls of one kernel, in machine code.

    Args:
        facts: what :func:`facts` made of its recipe.
        entry: the address of its code.
        beside: where other calls go.

    Attributes:
        call: from a tuple of arguments to the results, or MISS.
        into: from a tuple of tensors, and a tuple of tensors for the results or None, to a tuple of results, or MISS; it does not mind
            whether autograd should be told, and trusts that the tensors for the results fit.
        fill: from a tuple of arguments and what the user gives for the results to just that, or MISS.
    """

    def __init__(self, facts: Facts, entry: int, beside: Beside) -> None:
        def fail(code: int, args: tuple[Any, ...]) -> None:
            raise beside.failed(code, args)

        facts.set(ENTRY=entry)
        facts.refer(TRACKED=beside.tracked, SLOW=beside.call, SLOW_INTO=beside.into, SLOW_FILL=beside.fill, RAISE=fail, OWN=beside.own)
        facts.refer(MISS=beside.miss, TRUE=True, TENSOR=torch.Tensor, PARAMETER=torch.nn.Parameter, TUPLE=tuple, LIST=list,
                    FLOAT_TYPE=float, INT_TYPE=int, BOOL_TYPE=bool, REQUIRES_GRAD="requires_grad", FORWARD=vars(forward_ad),
                    LEVEL="_current_level", OUTSIDE=-1, CHANGED=torch.autograd.graph.increment_version, OWN_CALL="call",
                    OWN_FILL="fill_tensors")
        facts.set(NONE=facts.hold(None))
        owner = (facts.words.tobytes(), facts.held)
        call, into, fill = _code()
        about = f"Run {facts.name}."
        self.call: Slow = builtin(call, "call", ONE, about, owner)
        self.into: Fill = builtin(into, "into", FASTCALL, about, owner)
        self.fill: Fill = builtin(fill, "fill", FASTCALL, about, owner)


def unserved() -> str:
    """Why no call is made in machine code here; nothing where they are."""
    if layout() is None:
        return f"where torch {torch.__version__} keeps shape, strides and dtype of a tensor is not found beyond doubt"
    return "" if _torch() else f"torch {torch.__version__} lacks a function of its C interface"


def facts(recipe: Recipe, numbers: frozenset[int] = frozenset()) -> Facts | None:
    """What calls with tensors can be made by in machine code; None where they cannot.

    They can by a torch whose layout is found, for sizes that are not zero, and where the formulas of sizes can be taken in steps.

    Args:
        recipe: how the kernel is called.
        numbers: positions of scalar parameters that are given as Python numbers.
    """
    found = layout()
    if found is None or settings().poison or unserved() or not all(hand.exported(TORCH[d]) for d, _ in recipe.outputs):
        return None
    shapes = [*(shape for _, _, shape, _ in recipe.inputs), *(shape for _, shape in recipe.outputs)]
    if any(0 in shape or len(shape) > min(found.most, hand.MOST_DIMS) for shape in shapes):
        return None
    try:
        return Facts(recipe, found, numbers)
    except ValueError:
        return None


class Facts:
    """The array of words that the machine code reads, and the objects that some of them point to.

    Args:
        recipe: how the kernel is called.
        found: the layout of tensors.
        numbers: positions of parameters that are given as Python numbers.

    Raises:
        ValueError: a formula that no steps compute.
    """

    def __init__(self, recipe: Recipe, found: Layout, numbers: frozenset[int]) -> None:
        self.name = recipe.name
        self.words, self.held, self._layout = array("q", bytes(8 * len(FACTS))), list[Any](), found
        self._numbers = Numbers(recipe, found.sizes, found.strides)
        inputs, outputs = len(recipe.inputs), len(recipe.outputs)
        self.set(STATE=memory.pool.hand.state, GATE=ctypes.addressof(_GATE), INPUTS=inputs, OUTPUTS=outputs, SINGLE=int(recipe.single))
        made = [self._output(n, recipe) for n in range(outputs)]
        self._private(recipe)
        self.set(SIZES=len(recipe.sizes), FIRST_SIZE=self._add([self._numbers.place(name) for name in recipe.sizes]),
                 COUNT=inputs + outputs + len(recipe.workspaces) + len(recipe.sizes), STEPS=len(self._numbers.steps) // 4)
        given = [self._input(n, recipe, n in numbers) for n in range(inputs)]
        self.set(FIRST_INPUT=self._add([word for row in given for word in row]))
        self.set(FIRST_OUTPUT=self._add([word for row in made for word in row]))
        self.set(NUMBERS=len(self._numbers.row), FIRST_NUMBER=self._add(self._numbers.row),
                 FIRST_STEP=self._add(self._numbers.steps), MORE_STEPS=len(self._numbers.steps) // 4)

    def set(self, **values: int) -> None:
        """Set some of :data:`FACTS` to numbers."""
        for name, value in values.items():
            self.words[FACTS.index(name)] = value

    def refer(self, **objects: object) -> None:
        """Set some of :data:`FACTS` to objects, which are held; None is none."""
        self.set(**{name: self.hold(thing) for name, thing in objects.items() if thing is not None})

    def hold(self, thing: object) -> int:
        """The address of an object that is held."""
        self.held.append(thing)
        return id(thing)

    def _add(self, words: Sequence[int]) -> int:
        """Add words; returns where they begin."""
        at = len(self.words)
        self.words.extend(words)
        return at

    def _input(self, n: int, recipe: Recipe, number: bool) -> tuple[int, ...]:
        _, dtype, shape, strides = recipe.inputs[n]
        if number:
            bounds = torch.iinfo(TORCH[dtype]) if by_name(dtype).is_int else None
            low, high = (bounds.min, bounds.max) if bounds else (0, 1)
            return 0, 0, 0, 0, KINDS.index(_KINDS.get(dtype, "AN_INTEGER")), low, high, self._numbers.place(0)
        unit = TORCH[dtype].itemsize
        return (*self._pattern(dtype, shape, strides), unit - 1, int(by_name(dtype).is_float), 0, 0, 0,
                self._numbers.span(shape, strides, unit))

    def _pattern(self, dtype: str, shape: Formulas, strides: Formulas | None) -> tuple[int, int]:
        """Add what the words of a tensor must be, as (place, mask, value); returns where that begins and how many there are.

        Sizes and strides are among them where all are known.
        """
        here, all_bits = self._layout, -1
        wanted = [(here.dims, all_bits, len(shape))]
        sizes, steps = known(shape), None if strides is None else known(strides)
        if sizes is not None and steps is not None:
            wanted += [(here.sizes + d, all_bits, n) for d, n in enumerate(sizes)]
            wanted += [(here.strides + d, all_bits, step) for d, (n, step) in enumerate(zip(sizes, steps)) if n > 1]
        wanted += [(here.dtype, _signed(here.mask), _signed(here.codes[dtype]))]
        return self._add([word for entry in wanted for word in entry]), len(wanted)

    def _output(self, n: int, recipe: Recipe) -> tuple[int, ...]:
        name, shape = recipe.outputs[n]
        dtype, sizes, numbers = TORCH[name], known(shape), self._numbers
        export, code = hand.exported(dtype) or (0, 0)
        places = [numbers.place(size) for size in shape]
        total = numbers.total([*places, numbers.place(dtype.itemsize)])
        again = 0 if sizes is None else self.hold((sizes, contiguous(sizes), dtype))
        over = sum(1 << i for i, k in recipe.in_place if k == n and i < _MOST_OVER)
        walked = self._add([*places, *numbers.dense(shape)])
        return (self.hold(_empty()), again, self.hold(dtype), code << 32 | len(shape), len(shape), walked, total, export,
                *self._pattern(name, shape, None), dtype.itemsize - 1, over)

    def _private(self, recipe: Recipe) -> None:
        """Where private memory lies in a block."""
        if not recipe.workspaces and not recipe.scratch:
            return
        places, end = list[int](), "0"
        for size in recipe.workspaces:
            places.append(self._numbers.place(end))
            end = f"{end} + ({size}) // 64 * 64 + 128"
        self.set(PRIVATE=1, SPACES=len(places), FIRST_SPACE=self._add(places), PER=self._numbers.place(recipe.scratch),
                 END=self._numbers.place(end))


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
def _code() -> tuple[int, int, int]:
    """The addresses of the three functions, compiled once."""
    found = layout()
    assert found is not None
    values = {
        **{n: k for names in (FACTS, INPUT, OUTPUT, KINDS, WAYS, KINDS_OF_STEP) for k, n in enumerate(names)},
        "INPUT_WORDS": len(INPUT), "OUTPUT_WORDS": len(OUTPUT), "DATA": hand.DATA, "RECORD_DIMS": hand.DIMS,
        "PAGE": memory.PAGE, "HUGE": memory.HUGE, "THRESHOLD": memory.THRESHOLD,
        "POINTER": found.pointer, "KEYS": found.keys, "PLAIN": found.plain[0], "INFERENCE": found.plain[1], "AUTOGRAD": found.autograd,
        "SIZE_PLACE": found.sizes, "STRIDE_PLACE": found.strides,
    }
    text = re.sub(r"\$(\w+)", lambda m: str(values[m[1]]), TENSORS + STEPS + RESULTS + LAUNCH + CALLS)
    places = compiled(text, {**_torch(), **hand.native().places})
    return places("direct_call"), places("direct_into"), places("direct_fill")


def _in_child() -> None:
    _GATE[0] = 1


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)
