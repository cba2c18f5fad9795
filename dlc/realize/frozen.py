"""A plan with memory of its own for what passes between its launches: what a recorded function runs."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from dlc.realize.counters import counts
from dlc.realize.plan import Plan, Step, View
from dlc.runtime.arguments import torch_dtype
from dlc.runtime.fastcall import any_empty
from dlc.runtime.recipe import contiguous

_LINE = 64
_LOOSE = 4  # a buffer is used for what is at most so many times smaller

Array = tuple[tuple[int, ...], torch.dtype]
Launching = tuple[Step, list[Any], list[torch.Tensor]]
"""A launch with what it reads and what it writes."""


@dataclass(frozen=True)
class _Launch:
    """A launch: its outputs lie in buffers, or where they are None in memory allocated for the call."""

    step: Step
    outputs: tuple[Array, ...]
    buffers: tuple[torch.Tensor | None, ...]


class Frozen:
    """Launches whose intermediate arrays lie in buffers that are allocated once, and shared by arrays that do not live together.

    Only the results of a call are allocated anew. A frozen plan serves one call at a time.

    Args:
        plan: the launches.

    Attributes:
        bytes: of the buffers.
    """

    def __init__(self, plan: Plan) -> None:
        self.results = plan.results
        self._roots = _roots(plan)
        self._kept = {self._root(n) for n in plan.results}
        self._memory: list[torch.Tensor | None] = [None] * plan.slots
        self._steps: list[_Launch | View] = []
        self.bytes = 0
        last = self._last_uses(plan)
        free: list[torch.Tensor] = []
        held: dict[int, torch.Tensor] = {}
        for n, step in enumerate(plan.steps):
            self._steps.append(self._view(step) if isinstance(step, View) else self._launch(step, free, held))
            free += [held.pop(root) for root in [r for r in held if last[r] == n]]

    def run(self, given: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Launch everything on the arrays given; the memory of what was asked for."""
        memory = self._memory.copy()
        memory[:len(given)] = given
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
            outs = [any_empty(shape, contiguous(shape), dtype) if b is None else b for (shape, dtype), b in zip(s.outputs, s.buffers)]
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

    def _launch(self, step: Step, free: list[torch.Tensor], held: dict[int, torch.Tensor]) -> _Launch:
        arrays = tuple((tuple(int(n) for n in t.shape), torch_dtype(t.dtype)) for t in step.program.outputs)
        buffers: list[torch.Tensor | None] = []
        for slot, (shape, dtype) in zip(step.outputs, arrays):
            size = math.prod(shape) * dtype.itemsize
            if slot in self._kept or size == 0:
                buffers.append(None)
                continue
            held[slot] = self._buffer(size, free)
            self._memory[slot] = held[slot][:size].view(dtype).view(shape)
            buffers.append(self._memory[slot])
        return _Launch(step, arrays, tuple(buffers))

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


def _roots(plan: Plan) -> dict[int, int]:
    """For each view, the slot whose memory it is."""
    roots: dict[int, int] = {}
    for step in plan.steps:
        if isinstance(step, View):
            roots[step.target] = roots.get(step.source, step.source)
    return roots
