"""Cross-compilation: a plan for a GPU as Triton source, and as machine code with the facts that decide how it runs. No GPU is needed."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from codegen.artifact import TritonArtifact, TritonKernel
from codegen.emit.triton import TritonOptions, buffer_names, emit_triton
from dlc.compiled import Compiled, plain
from dlc.compiler import Plan
from dlc.gpu_model import estimate
from dlc.runtime.gpu_report import ResourceReport, report
from dlc.runtime.triton_compile import GpuBinary, compile_triton
from dsl.bind import bind_sizes
from dsl.errors import TargetError
from dsl.text import show_compute

_WIDEST = 16  # what a run-time size is taken to be a multiple of, if the one at hand is: a launch takes back promises that are not kept


def triton_artifact(plan: Plan) -> TritonArtifact:
    """The Triton kernels of a plan, in the order they are launched.

    Raises:
        TargetError: the plan is for a CPU.
    """
    target = plan.request.target
    if target.kind == "cpu":
        raise TargetError(f"{target.name} is a CPU", "Triton compiles for GPUs", "name one: sm_80, sm_90, sm_100, gfx942")
    mathematics = "\n".join(show_compute(c) for c in plan.request.program.computes)
    multiples = {v: _WIDEST for v in plan.tile.sizes if v.likely is not None and v.likely % _WIDEST == 0}
    return emit_triton(plan.tile, TritonOptions(mathematics=mathematics, multiples=multiples))


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


class GpuCompilation(Compiled):
    """A kernel compiled for a GPU, as Triton source and machine code with the facts that decide how it runs.

    Args:
        plan: for a GPU target.

    Attributes:
        kernels: one per launch, in order.
        estimates: the least time of each by the model of :mod:`dlc.gpu_model`, and what binds it.
    """

    def __init__(self, plan: Plan) -> None:
        self.target = plan.request.target
        self.name = plan.program.name
        self.artifact = triton_artifact(plan)
        made = [(k, compile_triton(k, self.target.name)) for k in self.artifact.kernels]
        self.kernels = tuple(CompiledKernel(k, b, report(b)) for k, b in made)
        sizes = {v: n for v, n in bind_sizes(plan.request.program, plan.request.shapes).items()}
        named = {v: next(n for d, n in sizes.items() if d.name == v.name) for v in plan.tile.sizes if any(d.name == v.name for d in sizes)}
        self.estimates = (tuple(estimate(plan.tile, [k.resources for k in self.kernels], self.target, named))
                          if len(named) == len(plan.tile.sizes) else ())
        self._parameters = parameter_names(plan)
        self._shapes = ([tuple(s) for s in plan.request.shapes], [tuple(int(n.eval(named)) for n in t.shape) for t in plan.program.outputs])

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

    @property
    def bound(self) -> float:
        """Seconds that all kernels take at least, by machine code and published figures; not a prediction of times."""
        return sum(e.seconds for e in self.estimates)

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {"name": self.name, "target": self.target.name, "spills": self.spills, "launchable": self.launchable,
                "bound_seconds": self.bound, "kernels": [k.resources.as_dict() for k in self.kernels],
                "estimates": [e.as_dict() for e in self.estimates]}

    def launch_facts(self) -> dict[str, Any]:
        """Everything needed to launch the binaries without dlc: per kernel its file, grid, threads, shared memory and parameters, in order.

        A parameter is a tensor of the definition by name, ``workspace`` with its bytes, a size, or the check's error word. Triton adds two
        pointers to scratch memory after a kernel's own parameters on NVIDIA; they may be null unless ``scratch_bytes`` is not zero.
        """
        inputs, outputs = self._parameters
        spaces = {w.name: w for w in self.artifact.workspaces}
        return {
            "name": self.name, "target": self.target.name,
            "inputs": [{"name": n, "shape": s} for n, s in zip(inputs, self._shapes[0])],
            "outputs": [{"name": n, "shape": s} for n, s in zip(outputs, self._shapes[1])],
            "workspaces": [{"name": w.name, "dtype": w.dtype.name, "shape": list(w.shape), "zero": w.zero} for w in spaces.values()],
            "error": self.artifact.error,
            "kernels": [{"entry": k.binary.name, "file": self._file(k), "grid": list(k.kernel.grid), "threads": k.binary.threads,
                         "shared_bytes": k.binary.shared, "scratch_bytes": k.binary.scratch_bytes,
                         "parameters": [{"name": a.name, "kind": a.kind, "dtype": a.dtype.name, "access": a.access, "multiple": a.multiple}
                                        for a in k.kernel.args]} for k in self.kernels]}

    def _file(self, k: CompiledKernel) -> str:
        return f"{k.kernel.name}.{'hsaco' if self.target.kind == 'hip' else 'cubin'}"

    def files(self) -> dict[str, str | bytes]:
        """Every form of the kernel by file name: Triton source, PTX, assembly, machine code, figures, launch facts."""
        n = self.name
        found: dict[str, str | bytes] = {f"{n}.py": self.source, f"{n}.asm": self.assembly, f"{n}.json": self.to_json(),
                                         f"{n}.launch.json": json.dumps(self.launch_facts(), indent=1, default=plain),
                                         f"{n}.txt": f"{self}\n"}
        return found | ({f"{n}.ptx": self.ptx} if self.ptx else {}) | {self._file(k): k.binary.code for k in self.kernels}

    def __str__(self) -> str:
        head = (f"{'kernel':30} {'grid':>9} {'warps':>5} {'registers':>9} {'spilled':>8} {'shared':>8} {'occupancy':>9} "
                f"{'matrix':>6} {'wide':>5} {'bound':>11}  binds")
        lines = [f"{self.name} for {self.target.name}", head]
        for n, k in enumerate(self.kernels):
            r, e = k.resources, self.estimates[n] if self.estimates else None
            bound = f"{e.seconds * 1e6:8.1f} us  {e.binds}" if e is not None else ""
            grid = " x ".join(map(str, k.kernel.grid))
            lines.append(f"{k.kernel.name[:30]:30} {grid[:9]:>9} {r.threads // k.binary.warp_size:5} {r.registers:9} "
                         f"{r.spill_stores + r.spill_loads:7}B {r.static_shared + r.dynamic_shared:7}B {r.occupancy:9.0%} "
                         f"{r.matrix_instructions:6} {r.wide_loads:5} {bound}")
            lines += [f"  would not launch: {r.refusal}"] if r.refusal else []
            lines += [f"  {a}" for a in r.advice if "C75" in a]
        if self.estimates:
            lines.append(f"matrix: matrix-unit instructions; wide: loads of 16 bytes; bound: {self.bound * 1e6:.1f} us at least in "
                         "all, from machine code and published figures; no GPU was asked")
        return "\n".join(lines)


def parameter_names(plan: Plan) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The names that a plan's Triton kernels give the inputs and the outputs, in order."""
    names = buffer_names(plan.tile)
    inputs, outputs = (tuple(names[b] for b in plan.tile.buffers if b.scope == scope) for scope in ("input", "output"))
    return inputs, outputs

