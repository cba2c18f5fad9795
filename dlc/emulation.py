"""``dlc.emulate``: run a GPU kernel with no GPU and hold it against its definition.

The PTX that Triton emits for sm_80 and sm_90 is executed on the CPU (``dlc/emulate``); what the emulator does not know, tensor memory of
sm_100 and AMD's machine code, runs as Triton source under a guarded interpreter instead, and the report says so. Both are for small
shapes: some millions of thread instructions a second.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch

from codegen.target import by_name
from dlc.emulate import PTX_TARGETS
from dlc.lazy import lazy
from dlc.runtime.arguments import as_tensor, give_back
from dsl.errors import ArgumentError, BoundsError, TargetError

if TYPE_CHECKING:
    from dlc import gpu_check
    from dlc.compiler import Plan
    from dlc.emulate import EmulationReport, emulator
    from dlc.runtime import triton_compile, triton_run
    from dlc.tune import accuracy
    from dlc.tune.accuracy import Error
    from dsl import interp
    from dsl.program import Program
else:
    gpu_check, emulator, interp = lazy("dlc.gpu_check"), lazy("dlc.emulate.emulator"), lazy("dsl.interp")
    accuracy = lazy("dlc.tune.accuracy")
    triton_compile, triton_run = lazy("dlc.runtime.triton_compile"), lazy("dlc.runtime.triton_run")


class Emulatable(Protocol):
    """What can be emulated: a kernel."""

    __name__: str

    @property
    def program(self) -> Program:
        """The definition."""

    def plan(self, *args: Any, target: Any = None) -> Plan:
        """The kernel on its way down."""


@dataclass(frozen=True)
class Emulation:
    """What was seen.

    Attributes:
        name: of the kernel.
        target: whose instructions were run.
        how: ``ptx``, the kernel as Triton lowered it; ``interpreter``, its Triton source.
        outputs: the results, in the order of the definition (of the arguments, for a kernel of the user's).
        findings: everything wrong in words: accesses out of bounds, races, missing waits, elements never written, failed checks.
        error: the largest error against the exact values; None where nothing was compared.
        allowed: the largest relative error that counts as rounding.
        least: bytes the definition must move, each input and output once; 0 where it is not known.
        traffic: what the emulator counted; None under the interpreter.
    """

    name: str
    target: str
    how: str
    outputs: tuple[Any, ...] = field(hash=False, repr=False)
    findings: tuple[str, ...]
    error: Error | None = None
    allowed: float = 0.0
    least: int = 0
    traffic: EmulationReport | None = None

    @property
    def accurate(self) -> bool:
        """Whether the results are the exact ones up to rounding (true where nothing was compared)."""
        return self.error is None or self.error.relative <= self.allowed

    @property
    def ok(self) -> bool:
        """Whether the results are right and nothing wrong was seen."""
        return self.accurate and not self.findings

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON; arrays are left out."""
        return {"name": self.name, "target": self.target, "how": self.how, "ok": self.ok, "findings": list(self.findings),
                "error": None if self.error is None else self.error.as_dict(), "allowed": self.allowed, "least_bytes": self.least,
                "traffic": None if self.traffic is None else self.traffic.as_dict()}

    def __str__(self) -> str:
        what = ("its PTX, instruction by instruction" if self.how == "ptx"
                else "its Triton source under the guarded interpreter (not the lowered kernel)")
        lines = [f"{self.name} for {self.target}: {what}"]
        if self.error is not None:
            verdict = "right" if self.accurate else "WRONG"
            lines.append(
                f"results {verdict}: largest error {self.error.relative:.1e} of the largest value, {self.allowed:.1e} counts as rounding")
        if self.traffic is not None:
            lines.append(str(self.traffic))
            if self.least:
                moved = self.traffic.bytes_read + self.traffic.bytes_written
                lines.append(f"        {moved / self.least:.2f} of the {self.least} bytes that inputs and outputs have")
        shown = self.traffic.findings if self.traffic is not None else ()
        lines += [f"FOUND   {f}" for f in self.findings if f not in set(map(str, shown))]
        return "\n".join(lines)


class Emulate:
    """``dlc.emulate(kernel, *args, target=...)``, and ``dlc.emulate.triton`` for kernels written in Triton by hand."""

    def __call__(self, kernel: Emulatable, *args: Any, target: str = "sm_90") -> Emulation:
        """Run a kernel of dlc as its GPU kernels and compare the results with its definition in float64.

        Args:
            kernel: made by ``@dlc.kernel``.
            args: as for a call, on the CPU; small ones.
            target: ``sm_80`` or ``sm_90`` run as PTX, ``sm_100`` and ``gfx942`` as Triton source.

        Raises:
            TargetError: not a GPU.
            UserError: the arguments do not fit the declaration.
        """
        if by_name(target).kind == "cpu":
            raise TargetError(f"{target} is a CPU", "kernels run there as they are", "name a GPU: sm_80, sm_90, sm_100, gfx942")
        plan = kernel.plan(*args, target=by_name(target))
        tensors = [as_tensor(a, t) for a, t in zip(args, kernel.program.inputs)]
        arrays = [triton_run.to_numpy(t) for t in tensors]
        run = gpu_check.run_plan(plan, tensors)
        try:
            exact = interp.evaluate(kernel.program, *arrays, float64=True)
        except BoundsError:  # index data outside their tensor: the definition has no value, the kernel's own check must have said so
            return Emulation(plan.program.name, target, run.how, run.outputs,
                             run.findings or ("an index is out of bounds, and no check found it",), traffic=run.report)
        found = accuracy.worst(accuracy.error(accuracy.as_values(got), e) for got, e in zip(run.outputs, exact))
        least = sum(a.nbytes for a in arrays) + sum(np.asarray(o).nbytes for o in run.outputs)
        allowed = accuracy.allowed_error(kernel.program, arrays, exact)
        return Emulation(plan.program.name, target, run.how, run.outputs, run.findings, found, allowed, least, run.report)

    def triton(self, fn: Any, grid: Sequence[int], *args: Any, target: str = "sm_90", num_warps: int = 4, num_stages: int = 3,
               expected: Mapping[str, Any] | Callable[..., Mapping[str, Any]] | None = None, allowed: float = 1e-5,
               **constants: Any) -> Emulation:
        """Run a kernel written in Triton by hand.

        Args:
            fn: decorated by ``@triton.jit``.
            grid: programs along one to three axes.
            args: tensors or arrays, and numbers, in the order of the parameters that are not compile-time constants. They are left as
                they are; the report holds what the kernel made of them.
            target: ``sm_80`` or ``sm_90``.
            num_warps: as for a launch.
            num_stages: as for a launch.
            expected: parameter -> exact values, or a function of ``args`` that gives them.
            allowed: the largest error that counts as rounding, as a share of the largest exact value.
            constants: values of the compile-time constants.

        Raises:
            TargetError: a target whose instructions the emulator does not know, or that the kernel does not fit.
            ArgumentError: arguments that are not the kernel's.
        """
        if target not in PTX_TARGETS:
            raise TargetError(f"kernels cannot be emulated for {target}", "the emulator runs PTX", f"one of {', '.join(PTX_TARGETS)}")
        arrays = [triton_run.to_numpy(a) if isinstance(a, (torch.Tensor, np.ndarray)) else a for a in args]
        code, names, kept = triton_compile.compile_function(fn, arrays, constants, target, num_warps=num_warps, num_stages=num_stages)
        report = emulator.emulate(code, grid, [arrays[n] for n in kept], names=[names[n] for n in kept])
        tensors = [names[n] for n in range(len(arrays)) if isinstance(arrays[n], np.ndarray)]
        results = dict(zip(tensors, report.arrays))
        wanted = expected(*args) if callable(expected) else expected
        found = None
        if wanted is not None:
            if strange := sorted(set(wanted) - set(results)):
                raise ArgumentError(f"{strange[0]} is not a tensor argument of {code.name}", f"it has {', '.join(results)}")
            found = accuracy.worst(accuracy.error(accuracy.as_values(results[n]), np.asarray(_exact(e))) for n, e in wanted.items())
        return Emulation(code.name, target, "ptx", report.arrays, tuple(map(str, report.findings)), found, allowed, 0, report)


def _exact(a: Any) -> Any:
    return give_back(a.detach().cpu().double() if a.is_floating_point() else a.detach().cpu(), True) if isinstance(a, torch.Tensor) else a


emulate = Emulate()
