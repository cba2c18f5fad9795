"""Running a plan's Triton kernels with no GPU: the emitted PTX on the CPU where the target has it, else the guarded interpreter."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from codegen.artifact import TritonArtifact
from dlc.compiler import Plan
from dlc.emulate import PTX_TARGETS, EmulationReport, emulate_artifact
from dlc.gpu import parameter_names, triton_artifact
from dlc.runtime.arguments import torch_dtype
from dlc.runtime.triton_compile import compile_triton
from dlc.runtime.triton_run import interpret, to_numpy


@dataclass(frozen=True)
class GpuRun:
    """What a run with no GPU left.

    Attributes:
        outputs: the results, in order, as numpy arrays.
        findings: everything wrong on the way, in words; the code of a failed run-time check among them.
        how: ``ptx`` (the lowered kernel) or ``interpreter`` (the Triton source).
        report: what the emulator counted; None where the source was interpreted.
    """

    outputs: tuple[Any, ...] = field(hash=False)
    findings: tuple[str, ...]
    how: str
    report: EmulationReport | None = None


def run_plan(plan: Plan, tensors: Sequence[torch.Tensor], how: str = "", limit: int = 2_000_000) -> GpuRun:
    """Run the kernels of a plan for a GPU on tensors in CPU memory.

    Args:
        plan: for a GPU target.
        tensors: its inputs, in order.
        how: ``ptx`` or ``interpreter``; the first where the emulator knows the target's instructions, when empty.
        limit: instructions after which a block counts as hanging.
    """
    artifact = triton_artifact(plan)
    how = how or ("ptx" if plan.request.target.name in PTX_TARGETS else "interpreter")
    arguments = bind(plan, artifact, tensors)
    names = parameter_names(plan)[1]
    if how == "interpreter":
        seen = interpret(artifact, arguments)
        findings = seen.findings + _failed(plan, seen.outputs, artifact, tensors)
        return GpuRun(tuple(_result(seen.outputs, arguments, n) for n in names), findings, how)
    codes = [compile_triton(k, plan.request.target.name) for k in artifact.kernels]
    report = emulate_artifact(artifact, codes, arguments, limit=limit)
    findings = tuple(map(str, report.findings)) + _failed(plan, report.outputs, artifact, tensors)
    return GpuRun(tuple(_result(report.outputs, arguments, n) for n in names), findings, how, report)


def bind(plan: Plan, artifact: TritonArtifact, tensors: Sequence[torch.Tensor]) -> dict[str, Any]:
    """Every tensor the kernels take, by its name there: the inputs, empty outputs, the place for the code of a failed check."""
    inputs, outputs = parameter_names(plan)
    found: dict[str, Any] = {n: to_numpy(t) for n, t in zip(inputs, tensors)}
    for name, t in zip(outputs, plan.program.outputs):
        found[name] = to_numpy(torch.empty([int(n) for n in t.shape], dtype=torch_dtype(t.dtype)))
    if artifact.error:
        found[artifact.error] = np.zeros(1, np.int32)
    used = artifact.pointers()
    return {n: a for n, a in found.items() if n in used or n in outputs}


def _result(outputs: dict[str, Any], arguments: dict[str, Any], name: str) -> Any:
    """A result; one without elements is written by no kernel."""
    return outputs.get(name, arguments[name])


def _failed(plan: Plan, outputs: dict[str, Any], artifact: TritonArtifact, tensors: Sequence[torch.Tensor]) -> tuple[str, ...]:
    """The check that failed in words: which index, its value and its position."""
    code = int(outputs[artifact.error][0]) if artifact.error in outputs else 0
    return (f"a run-time check failed: {plan.stray(code, tensors).reason}",) if code else ()


__all__ = ["PTX_TARGETS", "GpuRun", "bind", "run_plan"]
