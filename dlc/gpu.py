"""Cross-compilation: a plan for a GPU as Triton source, and as machine code with the facts that decide how it runs. No GPU is needed."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from codegen.artifact import TritonArtifact, TritonKernel
from codegen.emit.triton import TritonOptions, buffer_names, emit_triton
from dlc.compiler import Plan
from dlc.runtime.gpu_report import ResourceReport, report
from dlc.runtime.triton_compile import GpuBinary, compile_triton
from dsl.errors import TargetError
from dsl.text import show_compute


def triton_artifact(plan: Plan) -> TritonArtifact:
    """The Triton kernels of a plan, in the order they are launched.

    Raises:
        TargetError: the plan is for a CPU.
    """
    target = plan.request.target
    if target.kind == "cpu":
        raise TargetError(f"{target.name} is a CPU", "Triton compiles for GPUs", "name one: sm_80, sm_90, sm_100, gfx942")
    mathematics = "\n".join(show_compute(c) for c in plan.request.program.computes)
    return emit_triton(plan.tile, TritonOptions(mathematics=mathematics))


def triton_source(artifact: TritonArtifact) -> str:
    """The text of every kernel, with its grid and launch facts as a comment before it."""
    parts = []
    for k in artifact.kernels:
        grid = ", ".join(map(str, k.grid))
        parts.append(f"# {k.name}: grid ({grid},), num_warps={k.num_warps}, num_stages={k.num_stages}\n{k.source}")
    return "\n\n".join(parts)


@dataclass(frozen=True)
class CompiledKernel:
    """One launch: its Triton kernel, its machine code, what the code shows."""

    kernel: TritonKernel
    binary: GpuBinary
    resources: ResourceReport


class Compilation:
    """A kernel compiled for a GPU that need not be here.

    Args:
        plan: for a GPU target.

    Attributes:
        kernels: one per launch, in order.
    """

    def __init__(self, plan: Plan) -> None:
        self.target = plan.request.target
        self.name = plan.program.name
        self.artifact = triton_artifact(plan)
        made = [(k, compile_triton(k, self.target.name)) for k in self.artifact.kernels]
        self.kernels = tuple(CompiledKernel(k, b, report(b)) for k, b in made)

    @property
    def source(self) -> str:
        """The Triton source."""
        return triton_source(self.artifact)

    @cached_property
    def ptx(self) -> str:
        """PTX of every kernel; empty for AMD."""
        return "\n".join(k.binary.ptx for k in self.kernels if k.binary.ptx)

    @cached_property
    def assembly(self) -> str:
        """SASS on NVIDIA, GCN assembly on AMD."""
        return "\n".join(k.binary.sass or k.binary.amdgcn for k in self.kernels)

    @property
    def code(self) -> tuple[bytes, ...]:
        """The cubin (hsaco) of every kernel."""
        return tuple(k.binary.code for k in self.kernels)

    @property
    def spills(self) -> bool:
        """Whether any kernel keeps registers in memory."""
        return any(k.resources.spills for k in self.kernels)

    @property
    def launchable(self) -> bool:
        """Whether the device would accept every kernel."""
        return all(k.resources.launchable for k in self.kernels)

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {"name": self.name, "target": self.target.name, "spills": self.spills, "launchable": self.launchable,
                "kernels": [k.resources.as_dict() for k in self.kernels]}

    def to_json(self) -> str:
        """:meth:`as_dict` as text."""
        return json.dumps(self.as_dict(), default=_plain)

    def __str__(self) -> str:
        head = f"{'kernel':30} {'registers':>9} {'spilled':>8} {'shared':>8} {'occupancy':>9} {'limited by':>12} {'matrix':>7} {'wide loads':>10}"
        lines = [f"{self.name} for {self.target.name}", head]
        for k in self.kernels:
            r = k.resources
            lines.append(f"{k.kernel.name[:30]:30} {r.registers:9} {r.spill_stores + r.spill_loads:7}B {r.static_shared + r.dynamic_shared:7}B"
                         f" {r.occupancy:9.0%} {r.limited_by:>12} {r.matrix_instructions:7} {r.wide_loads:10}")
            lines += [f"  would not launch: {r.refusal}"] if r.refusal else []
        return "\n".join(lines)


def parameter_names(plan: Plan) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The names that a plan's Triton kernels give the inputs and the outputs, in order."""
    names = buffer_names(plan.tile)
    inputs, outputs = (tuple(names[b] for b in plan.tile.buffers if b.scope == scope) for scope in ("input", "output"))
    return inputs, outputs


def _plain(x: Any) -> Any:
    return x.item() if isinstance(x, np.generic) else str(x)
