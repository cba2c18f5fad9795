"""What compiling a kernel takes, step by step: from the definition to machine code in this process, with no cache in the way."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from time import perf_counter
from typing import Any

from dlc.compiler import Plan, collector_paused
from dlc.gpu import triton_artifact
from dlc.lazy import load
from dlc.runtime.cpu import compile_object, initialize, load_object
from dlc.runtime.device import host_features
from dlc.runtime.triton_compile import compile_triton

#: What is done in each step, by the beginning of its name.
STEPS = {
    "import": "the compiler itself, once in a process",
    "bind": "sizes are put in, every access is proved in bounds",
    "stage": "every reduction gets a loop nest of its own",
    "schedule": "shared passes are derived, loops split, placed and given to lanes and threads",
    "lower": "the nest becomes a tile program",
    "hoist": "what does not change in a loop moves out of it",
    "simplify": "equal values become one, identities go",
    "verify": "the tile program is proved in bounds and free of races",
    "emit": "the tile program is spelled out",
    "llvm parse": "LLVM reads the text",
    "llvm": "a pass of LLVM",
    "machine code": "LLVM chooses instructions and registers",
    "load": "the code is linked into this process, if this CPU can run it",
    "triton": "Triton makes machine code",
}


@dataclass(frozen=True)
class Timings:
    """Seconds of each step of one compilation.

    Attributes:
        name: the kernel's.
        target: what it was compiled for.
        steps: name of each step, in order, to its seconds.
        sizes: characters of the ``text`` emitted and bytes of the ``code``.
    """

    name: str
    target: str
    steps: Mapping[str, float]
    sizes: Mapping[str, int]

    @property
    def seconds(self) -> float:
        """Of all steps but the import, which a process pays once."""
        return sum(s for name, s in self.steps.items() if name != "import")

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {"name": self.name, "target": self.target, "seconds": self.seconds, "steps": dict(self.steps), "sizes": dict(self.sizes)}

    def __str__(self) -> str:
        sizes = ", ".join(f"{n} bytes of {what}" for what, n in self.sizes.items())
        lines = [f"{self.name} for {self.target}: compiled in {self.seconds * 1e3:.1f} ms ({sizes})"]
        width = max(map(len, self.steps))
        for name, s in self.steps.items():
            share = f"{s / self.seconds:4.0%}" if name != "import" and self.seconds else "    "
            lines.append(f"  {name:<{width}} {s * 1e3:8.2f} ms {share}  {_meaning(name)}".rstrip())
        return "\n".join(lines)


class _Clock:
    """Seconds between one call and the next, by name."""

    def __init__(self) -> None:
        self.steps: dict[str, float] = {}
        self._last = perf_counter()

    def done(self, step: str) -> None:
        now = perf_counter()
        self.steps[step] = self.steps.get(step, 0.0) + now - self._last
        self._last = now

    def took(self, steps: Mapping[str, float]) -> None:
        """Steps that were measured on their own."""
        self.steps |= steps
        self._last = perf_counter()


def compile_timed(plan: Plan) -> Timings:
    """Compile a plan that nothing was asked of yet, without looking for it on disk, for this CPU as far as a function to call.

    Raises:
        UserError: the kernel does not compile.
    """
    clock, kind = _Clock(), plan.request.target.kind
    load("dsl", "codegen")
    if kind == "cpu":
        initialize()
    clock.done("import")
    with collector_paused():
        for step, level in _LEVELS.items():
            level(plan)
            clock.done(step)
        clock.took(plan.made.seconds)
        sizes = _to_machine_code(plan, clock) if kind == "cpu" else _to_gpu_code(plan, clock)
    return Timings(plan.program.name, plan.request.target.name, clock.steps, sizes)


_LEVELS: dict[str, Callable[[Plan], Any]] = {"bind": lambda p: p.program, "stage": lambda p: p.unscheduled, "schedule": lambda p: p.nest}


def _to_machine_code(plan: Plan, clock: _Clock) -> dict[str, int]:
    module, target = plan.module, plan.request.target
    clock.done("emit")
    code = compile_object(module.text, target, clock.done)
    if set(target.features) <= host_features():
        load_object(code, target, module.entry)
        clock.done("load")
    return {"text": len(module.text), "code": len(code)}


def _to_gpu_code(plan: Plan, clock: _Clock) -> dict[str, int]:
    artifact = triton_artifact(plan)
    clock.done("emit")
    code = 0
    for k in artifact.kernels:
        code += len(compile_triton(k, plan.request.target.name).code)
        clock.done(f"triton {k.name}")
    return {"text": sum(len(k.source) for k in artifact.kernels), "code": code}


def _meaning(step: str) -> str:
    return STEPS.get(step) or next((what for name, what in STEPS.items() if step.startswith(name)), "")
