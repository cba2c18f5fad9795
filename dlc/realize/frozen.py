"""A plan with memory of its own for what passes between its launches: what a recorded function runs."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import torch

from dlc.realize.counters import counts
from dlc.realize.plan import Plan, Step, View
from dlc.runtime.arguments import torch_dtype
from dlc.runtime.fastcall import allocator, any_empty
from dlc.runtime.launch import Launcher
from dlc.runtime.recipe import contiguous

_LINE = 64
_LOOSE = 4  # a buffer is used for what is at most so many times smaller

Launching = tuple[Step, list[Any], list[torch.Tensor]]
"""A launch with what it reads and what it writes."""


@dataclass(frozen=True)
class _Result:
    """An output that lies in no buffer: allocated in every call, or written over an array given."""

    slot: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: torch.dtype
    make: Callable[[tuple[int, ...], tuple[int, ...], torch.dtype], torch.Tensor]


@dataclass(frozen=True)
class _Launch:
    """A launch, with the buffer of each output.

    ``over`` are (input, output) by their numbers: inputs that are arrays given which nothing needs after it, and results of their shape.
    """

    step: Step
    outputs: tuple[torch.Tensor | _Result, ...]
    over: tuple[tuple[int, int], ...]


class Frozen:
    """Launches whose intermediate arrays lie in buffers that are allocated once, and shared by arrays that do not live together.

    Only the results of a call are allocated anew, or written over arrays given that nobody needs any more. A frozen plan serves one call
    at a time.

    Args:
        plan: the launches.

    Attributes:
        bytes: of the buffers.
    """

    def __init__(self, plan: Plan) -> None:
        self.results = plan.results
        self._roots = _roots(plan)
        self._given = _given(plan)
        self._kept = {self._root(n) for n in plan.results}
        self._over: tuple[list[Launcher], frozenset[tuple[int, int]]] = ([], frozenset())
        self._memory: list[torch.Tensor | None] = [None] * plan.slots
        self._steps: list[_Launch | View] = []
        self.bytes = 0
        last = self._last_uses(plan)
        free: list[torch.Tensor] = []
        held: dict[int, torch.Tensor] = {}
        for n, step in enumerate(plan.steps):
            self._steps.append(self._view(step) if isinstance(step, View) else self._launch(step, free, held, last, n))
            free += [held.pop(root) for root in [r for r in held if last[r] == n]]

    def over(self) -> frozenset[tuple[int, int]]:
        """(array given, result) by their numbers, such that the result may be written over the array, as the kernels stand."""
        launches = [s for s in self._steps if isinstance(s, _Launch) and s.over]
        now = [s.step.launcher for s in launches]
        if now != self._over[0]:
            found = {(s.step.inputs[n], self.results.index(s.step.outputs[k])) for s in launches for n, k in s.over
                     if (n, k) in s.step.launcher.in_place}
            self._over = now, frozenset(found)
        return self._over[1]

    def run(self, given: Sequence[torch.Tensor], over: Mapping[int, torch.Tensor] = MappingProxyType({})) -> list[torch.Tensor]:
        """Launch everything on the arrays given; the memory of what was asked for.

        Args:
            given: the arrays.
            over: number of a result -> the array given that it is written over, see :meth:`over`.
        """
        memory = self._memory.copy()
        memory[:len(given)] = given
        for number, array in over.items():
            memory[self.results[number]] = array
        counts.realized += 1
        for step, inputs, outs in self._walk(memory):
            step.launcher(inputs, outs)
            counts.launches[step.phase] += 1
            counts.kernels[step.program.name] += 1
        return [memory[n] for n in self.results]

    def launches(self, given: Sequence[torch.Tensor]) -> Iterator[Launching]:
        """The launches on the arrays given, one by one; whoever asks runs each before the next."""
        memory = self._memory.copy()
        memory[:len(given)] = given
        return self._walk(memory)

    def _walk(self, memory: list[torch.Tensor | None]) -> Iterator[Launching]:
        for s in self._steps:
            if isinstance(s, View):
                if (source := memory[s.source]) is not None and memory[s.target] is None:
                    memory[s.target] = source.view(s.shape)
                continue
            outs = [o if type(o) is not _Result else o.make(o.shape, o.strides, o.dtype) if (m := memory[o.slot]) is None else m
                    for o in s.outputs]
            yield s.step, [memory[n] for n in s.step.inputs], outs
            for n, out in zip(s.step.outputs, outs):
                memory[n] = out

    def _root(self, slot: int) -> int:
        return self._roots.get(slot, slot)

    def _last_uses(self, plan: Plan) -> dict[int, int]:
        """For each array, under whatever shape, the last step that has to do with it."""
        last: dict[int, int] = {}
        for n, step in enumerate(plan.steps):
            for slot in (step.source,) if isinstance(step, View) else (*step.inputs, *step.outputs):
                last[self._root(slot)] = n
        return last

    def _launch(self, step: Step, free: list[torch.Tensor], held: dict[int, torch.Tensor], last: Mapping[int, int], at: int) -> _Launch:
        outputs: list[torch.Tensor | _Result] = []
        for slot, t in zip(step.outputs, step.program.outputs):
            shape, dtype = tuple(int(n) for n in t.shape), torch_dtype(t.dtype)
            size = math.prod(shape) * dtype.itemsize
            if slot in self._kept or size == 0:
                outputs.append(_Result(slot, shape, contiguous(shape), dtype, allocator(shape, dtype)))
                continue
            held[slot] = self._buffer(size, free)
            self._memory[slot] = made = held[slot][:size].view(dtype).view(shape)
            outputs.append(made)
        return _Launch(step, tuple(outputs), self._last_reads(step, last, at))

    def _last_reads(self, step: Step, last: Mapping[int, int], at: int) -> tuple[tuple[int, int], ...]:
        """(input, output) by their numbers: arrays given that this launch reads once and nothing has to do with later, and results."""
        roots = [self._root(slot) for slot in step.inputs]
        spent = [n for n, slot in enumerate(step.inputs)
                 if slot < self._given and last[slot] == at and slot not in self._kept and roots.count(slot) == 1]
        results = [k for k, slot in enumerate(step.outputs) if slot in self.results]
        return tuple((n, k) for n in spent for k in results if step.program.inputs[n].shape == step.program.outputs[k].shape)

    def _view(self, step: View) -> View:
        source = self._memory[step.source]
        if source is not None:
            self._memory[step.target] = source.view(step.shape)
        return step

    def _buffer(self, size: int, free: list[torch.Tensor]) -> torch.Tensor:
        """One that is free and fits, else a new one."""
        rounded = -(-size // _LINE) * _LINE
        fitting = [b for b in free if rounded <= b.numel() <= _LOOSE * rounded]
        if fitting:
            best = min(fitting, key=lambda b: b.numel())
            free[:] = [b for b in free if b is not best]
            return best
        self.bytes += rounded
        return any_empty((rounded,), (1,), torch.uint8)


def _given(plan: Plan) -> int:
    """How many arrays are given: the slots that no step makes come first."""
    made = [slot for s in plan.steps for slot in ((s.target,) if isinstance(s, View) else s.outputs)]
    return min(made, default=plan.slots)


def _roots(plan: Plan) -> dict[int, int]:
    """For each view, the slot whose memory it is."""
    roots: dict[int, int] = {}
    for step in plan.steps:
        if isinstance(step, View):
            roots[step.target] = roots.get(step.source, step.source)
    return roots
