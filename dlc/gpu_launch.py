"""Calling a kernel on a GPU: outputs from torch's allocator, launched on the current stream of the tensors' device, without waiting.

Only a kernel with data-dependent indices waits for its end, to report an index out of range: with its value and its position, which are
found by evaluating the index on the CPU.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from codegen.target import TARGETS, Target
from dlc.compiler import Plan
from dlc.gpu import parameter_names, triton_artifact
from dlc.runtime.arguments import torch_dtype
from dlc.runtime.triton_run import device_target, launch
from dsl.errors import TargetError


class GpuLauncher:
    """A kernel for one set of shapes, strides and dtypes on one kind of GPU.

    Args:
        plan: for a GPU target.
    """

    def __init__(self, plan: Plan) -> None:
        self.artifact = triton_artifact(plan)
        self.inputs, self.outputs = parameter_names(plan)
        self.used = frozenset(self.artifact.pointers())
        self.results = tuple((tuple(int(s) for s in t.shape), torch_dtype(t.dtype)) for t in plan.program.outputs)
        self.stray = plan.stray

    def __call__(self, tensors: Sequence[torch.Tensor], outs: Sequence[torch.Tensor] | None = None) -> list[torch.Tensor]:
        """Run on tensors of exactly the shapes, strides and dtypes compiled for; returns the results.

        Raises:
            BoundsError: a data-dependent index is out of range.
            LaunchError: the device refuses the kernel.
        """
        device = tensors[0].device
        results = [torch.empty(shape, dtype=dtype, device=device) for shape, dtype in self.results] if outs is None else list(outs)
        named = dict(zip((*self.inputs, *self.outputs), (*tensors, *results)))
        if self.artifact.error:
            named[self.artifact.error] = torch.zeros(1, dtype=torch.int32, device=device)
        if self.artifact.kernels:  # none where no result has an element
            launch(self.artifact, {n: t for n, t in named.items() if n in self.used})
        code = int(named[self.artifact.error].item()) if self.artifact.error else 0
        if code:
            raise self.stray(code, tensors)
        return results

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
