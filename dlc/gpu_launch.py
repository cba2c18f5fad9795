"""Calling a kernel on a GPU: outputs from torch's allocator, launched on the current stream of the tensors' device, without waiting.

Only a kernel with data-dependent indices waits for its end, to report an index out of range: with its value and its position, which are
found by evaluating the index on the CPU.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from codegen.emit.triton import needs_wide, size_names
from codegen.target import TARGETS, Target
from dlc.compiler import Plan
from dlc.gpu import parameter_names, triton_artifact
from dlc.runtime.arguments import torch_dtype
from dlc.runtime.triton_run import device_target, launch
from dsl.bind import bind_sizes
from dsl.errors import InternalError, TargetError


class GpuLauncher:
    """A kernel for one set of shapes, strides and dtypes, or for every value of some sizes, on one kind of GPU.

    Args:
        plan: for a GPU target.
    """

    in_place: tuple[tuple[int, int], ...] = ()  # threads of a program do not wait for each other's loads before they store

    def __init__(self, plan: Plan) -> None:
        self.plan, self.artifact = plan, triton_artifact(plan)
        self.inputs, self.outputs = parameter_names(plan)
        self.used = frozenset(self.artifact.pointers())
        self.names = size_names(plan.tile)

    def serves(self, tensors: Sequence[torch.Tensor]) -> bool:
        """Whether the kernel can be called with these tensors, where some of its sizes are run-time arguments.

        Not where an index would need more than 32 bits: such a kernel is compiled for its sizes.
        """
        values = self.plan.sizes_for([t.shape for t in tensors], [t.stride() for t in tensors])
        return values is not None and not needs_wide(self.plan.tile, dict(zip(self.plan.tile.sizes, values)))

    def __call__(self, tensors: Sequence[torch.Tensor], outs: Sequence[torch.Tensor] | None = None) -> list[torch.Tensor]:
        """Run on tensors of the shapes, strides and dtypes compiled for (see :meth:`serves`); returns the results.

        Raises:
            BoundsError: a data-dependent index is out of range.
            LaunchError: the device refuses the kernel.
        """
        device = tensors[0].device
        results = list(outs or [torch.empty(shape, dtype=dtype, device=device) for shape, dtype in self._results(tensors)])
        named = dict(zip((*self.inputs, *self.outputs), (*tensors, *results)))
        if self.artifact.error:
            named[self.artifact.error] = torch.zeros(1, dtype=torch.int32, device=device)
        if self.artifact.kernels:  # none where no result has an element
            launch(self.artifact, {n: t for n, t in named.items() if n in self.used}, self._sizes(tensors))
        code = int(named[self.artifact.error].item()) if self.artifact.error else 0
        if code:
            raise self.plan.stray(code, tensors)
        return results

    def _results(self, tensors: Sequence[torch.Tensor]) -> list[tuple[tuple[int, ...], torch.dtype]]:
        """Shape and dtype of every result."""
        dims = bind_sizes(self.plan.program, [t.shape for t in tensors]) if self.names else {}
        return [(tuple(int(s.eval(dims)) for s in t.shape), torch_dtype(t.dtype)) for t in self.plan.program.outputs]

    def _sizes(self, tensors: Sequence[torch.Tensor]) -> dict[str, int]:
        """The run-time sizes by name."""
        if not self.names:
            return {}
        values = self.plan.sizes_for([t.shape for t in tensors], [t.stride() for t in tensors])
        if values is None:
            raise InternalError(f"{self.plan.program.name} was compiled for other arguments",
                                f"{[(tuple(t.shape), t.stride()) for t in tensors]}")
        return {self.names[v]: n for v, n in zip(self.plan.tile.sizes, values)}

    def seconds(self, tensors: Sequence[torch.Tensor], rounds: int = 50) -> float:
        """The median time of a launch, by the device's own clock, caches flushed before each."""
        outs = self(tensors)
        flush = torch.empty(256 << 20, dtype=torch.uint8, device=tensors[0].device)
        taken = []
        for _ in range(rounds):
            flush.zero_()
            begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            begin.record()
            self(tensors, outs)
            end.record()
            end.synchronize()
            taken.append(begin.elapsed_time(end) * 1e-3)
        return float(np.median(taken))


def present(target: str) -> bool:
    """Whether the current GPU is of this target."""
    return torch.cuda.is_available() and device_target("cuda") == target


def target_of(device: torch.device) -> Target:
    """The known target whose schedules suit a GPU: its own, else the newest one that is older.

    Raises:
        TargetError: there is no GPU, or it is older than every known one.
    """
    return nearest(device_target(device))


def nearest(name: str) -> Target:
    """The target of this name, else the newest older one of the same maker.

    Raises:
        TargetError: there is none.
    """
    if name in TARGETS:
        return TARGETS[name]
    if name.startswith("gfx9"):
        return TARGETS["gfx942"]
    own = _capability(name)
    older = [t for t in TARGETS if t.startswith("sm_") and _capability(t) <= own]
    if not older:
        raise TargetError(f"kernels do not run on {name}", "schedules are known for sm_80 and later, and for gfx9",
                          "move the tensors: .cpu()")
    return TARGETS[max(older, key=_capability)]


def _capability(name: str) -> int:
    digits = name.removeprefix("sm_").rstrip("af")
    return int(digits) if digits.isdigit() else -1
