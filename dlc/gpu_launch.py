"""Calling a kernel on a GPU: outputs from torch's allocator, launched on the current stream of the tensors' device, without waiting.

Only a kernel with data-dependent indices waits for its end, to report an index out of range.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from codegen.target import TARGETS, Target
from dlc.compiler import Plan
from dlc.gpu import parameter_names, triton_artifact
from dlc.runtime.arguments import torch_dtype
from dlc.runtime.triton_run import device_target, launch
from dsl.errors import BoundsError, TargetError


class GpuLauncher:
    """A kernel for one set of shapes, strides and dtypes on one kind of GPU.

    Args:
        plan: for a GPU target.
    """

    def __init__(self, plan: Plan) -> None:
        self.name, self.loc = plan.program.name, plan.program.loc
        self.artifact = triton_artifact(plan)
        self.inputs, self.outputs = parameter_names(plan)
        self.results = tuple((tuple(int(s) for s in t.shape), torch_dtype(t.dtype)) for t in plan.program.outputs)
        self.checks = tuple(str(c) for c in plan.tile.checks)

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
        launch(self.artifact, named)
        code = int(named[self.artifact.error].item()) if self.artifact.error else 0
        if code:
            raise BoundsError(f"a data-dependent index of {self.name} is out of range", self.checks[code - 1],
                              "check the index data, or clamp it in the definition", self.loc)
        return results


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
