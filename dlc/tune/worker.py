"""What a helper process of the tuner does: plan candidates, build them, run them and tell their errors, time them.

It may crash or hang: everything that matters is in the parent (``dlc/tune/session.py``), which starts another one.
"""

from __future__ import annotations

import functools
import gc
import hashlib
import pickle
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from codegen.analysis.tile_cycles import program_cycles
from codegen.heuristics import Choice
from codegen.target import Target
from codegen.tile.text import show
from dlc.compiler import Plan, Request
from dlc.gpu import triton_artifact
from dlc.gpu_check import run_plan
from dlc.gpu_model import estimate, refusal
from dlc.runtime.gpu_report import report
from dlc.runtime.launch import Launcher
from dlc.runtime.triton_compile import compile_triton
from dlc.runtime.triton_run import to_numpy
from dlc.tune.accuracy import Error, allowed_error, error, worst
from dlc.tune.adversary import ORDINARY, changed
from dlc.tune.measure import one_sample
from dsl.errors import InternalError
from dsl.interp import evaluate
from dsl.portable import loads
from dsl.program import Program

_GARBAGE = 0xA5
_PLANS = 64  # kept between planning a candidate and building it


@dataclass(frozen=True)
class Work:
    """The kernel to tune, in a form that travels: see :func:`dsl.portable.dumps`."""

    program: bytes
    shapes: tuple[tuple[int, ...], ...]
    strides: tuple[tuple[int, ...], ...]
    target: Target
    reproducible: bool = False

    def plan(self, decisions: Mapping[str, Any]) -> Plan:
        """The kernel on its way down, with some choices preset."""
        return Plan(Request(_program(self.program), self.shapes, self.strides, self.target, dict(decisions),
                            reproducible=self.reproducible))


@functools.lru_cache(maxsize=8)
def _program(data: bytes) -> Program:
    return loads(data)


@functools.lru_cache(maxsize=_PLANS)
def _plan(work: Work, decisions: tuple[tuple[str, Any], ...]) -> Plan:
    return work.plan(dict(decisions))


@dataclass(frozen=True)
class Planned:
    """What is known of a candidate before it is compiled.

    Attributes:
        tile: digest of its tile program: candidates with the same are the same.
        choices, order: as in :class:`Built`.
        cycles: by :mod:`codegen.analysis.tile_cycles`.
    """

    tile: str
    choices: tuple[Choice, ...]
    order: str
    cycles: float


@dataclass(frozen=True)
class Built:
    """What is known of a candidate once it is compiled.

    Attributes:
        code: digest of the generated code: candidates with the same are the same.
        choices: every choice the heuristics met.
        order: the order of every reduction whose order shows in the bits.
        schedule: the trace of the schedule.
        seconds: what compiling took.
    """

    code: str
    choices: tuple[Choice, ...]
    order: str
    schedule: Any
    seconds: float
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass
class _Session:
    """The arguments and the candidates that are loaded; the kind of data that the last one ran on, which it was, and its results."""

    work: Work
    arguments: Sequence[torch.Tensor]
    loaded: dict[int, Launcher] = field(default_factory=dict)
    kind: str = ORDINARY
    data: Sequence[torch.Tensor] = ()
    last: tuple[int, str] = (-1, "")
    results: Sequence[torch.Tensor] = ()
    exact: Sequence[np.ndarray] = ()


_session: _Session | None = None


def handle(request: tuple[Any, ...]) -> Any:
    """Answer one request: the name of an action and its arguments."""
    action, *arguments = request
    return ACTIONS[action](*arguments)


def plan(work: Work, decisions: Mapping[str, Any]) -> Planned:
    """Schedule and lower a candidate for a CPU, without compiling it."""
    made = _plan(work, tuple(sorted(decisions.items())))
    tile = hashlib.sha256(show(made.tile, places=False).encode()).hexdigest()
    return Planned(tile, tuple(made.decisions.made.values()), made.order, program_cycles(made.tile, made.request.target))


def build(work: Work, decisions: Mapping[str, Any]) -> Built:
    """Schedule, lower and compile a candidate; the machine code stays in the cache directory that all helpers of a search share."""
    started = time.perf_counter()
    plan = _plan(work, tuple(sorted(decisions.items())))
    if plan.request.target.kind != "cpu":
        return _built_for_gpu(plan, started)
    code = hashlib.sha256(plan.module.text.encode()).hexdigest()
    plan.launcher()  # and with that on disk, where the process that runs candidates finds it
    return Built(code, tuple(plan.decisions.made.values()), plan.order, [s.as_data() for s in plan.nest.trace],
                 time.perf_counter() - started)


def _built_for_gpu(plan: Plan, started: float) -> Built:
    """Compile for a GPU that need not be here, and judge what the machine code shows."""
    target = plan.request.target
    kernels = triton_artifact(plan).kernels
    code = hashlib.sha256("".join(k.key for k in kernels).encode()).hexdigest()
    reports = [report(compile_triton(k, target.name)) for k in kernels]
    facts: dict[str, Any] = {"kernels": [{"name": r.name, "registers": r.registers, "shared": r.dynamic_shared + r.static_shared,
                                          "warps": r.threads // target.warp, "occupancy": r.occupancy, "matrix": r.matrix_instructions}
                                         for r in reports]}
    why = refusal(reports)
    if why is not None:
        facts["refused"] = why
    else:
        least = estimate(plan.tile, reports, target)
        facts |= {"seconds": sum(e.seconds for e in least), "estimates": [e.as_dict() for e in least]}
    return Built(code, tuple(plan.decisions.made.values()), plan.order, [s.as_data() for s in plan.nest.trace],
                 time.perf_counter() - started, facts)


def emulate(small: Work, decisions: Mapping[str, Any], arguments: bytes) -> str | None:
    """Run a candidate at small sizes with no GPU; why its results may not be used, None when they may."""
    tensors = pickle.loads(arguments)
    plan = small.plan(decisions)
    run = run_plan(plan, tensors)
    if run.findings:
        return run.findings[0]
    program = plan.request.program
    arrays = [to_numpy(t) for t in tensors]
    exact = evaluate(program, *arrays, float64=True)
    allowed = allowed_error(program, arrays, exact)
    found = worst(error(g, e) for g, e in zip(run.outputs, exact))
    return None if found.relative <= allowed else f"wrong results under emulation: error {found.relative:.1e}, {allowed:.1e} allowed"


def open_session(work: Work, arguments: bytes, threads: int) -> None:
    """Take over what every candidate is called with."""
    global _session
    torch.set_num_threads(threads)
    gc.disable()  # a collection in the middle of a sample would be charged to whoever happens to run
    _session = _Session(work, pickle.loads(arguments))


def expect(exact: Sequence[np.ndarray]) -> None:
    """Tell errors from now on against these results."""
    _opened().exact = exact


def load(number: int, decisions: Mapping[str, Any]) -> None:
    """Load a candidate under a number."""
    s = _opened()
    s.loaded[number] = s.work.plan(decisions).launcher()
    gc.collect()


def forget(numbers: Sequence[int]) -> None:
    """Drop candidates that will not be timed again."""
    for n in numbers:
        _opened().loaded.pop(n, None)


def check(number: int, kind: str) -> str:
    """Run a candidate once, on a kind of data and into memory full of garbage; a digest of the bits of its results."""
    s = _opened()
    if s.kind != kind or not s.data:
        s.kind, s.data = kind, changed(s.arguments, kind)
    launcher = s.loaded[number]
    outs = [torch.full((max(n := t.numel() * t.element_size(), 1),), _GARBAGE, dtype=torch.uint8)[:n].view(t.dtype).reshape(t.shape)
            for t in launcher(s.data)]
    s.last, s.results = (number, kind), launcher(s.data, outs)
    bits = hashlib.sha256()
    for r in s.results:
        bits.update(_bits(r))
    return bits.hexdigest()


def _bits(r: torch.Tensor) -> memoryview:
    """All bits of a result; of what is not a number, only that it is none."""
    raw = r.reshape(-1, 1).view(torch.uint8)
    if r.is_floating_point() and bool((strange := (r if r.element_size() > 1 else r.float()).isnan()).any()):
        raw = raw.masked_fill(strange.reshape(-1, 1), 0xFF)
    return memoryview(raw.numpy())


def inexact(number: int, kind: str) -> Error:
    """The error of a candidate on a kind of data, whose exact results were sent before."""
    s = _opened()
    if s.last != (number, kind):
        check(number, kind)
    if len(s.exact) != len(s.results):
        raise InternalError("a helper process of the tuner was asked for an error before the exact results")
    return worst(error(r, e) for r, e in zip(s.results, s.exact))


def sample(number: int, operands: str) -> float:
    """Seconds of a call: see :func:`dlc.tune.measure.one_sample`."""
    s = _opened()
    launcher = s.loaded[number]
    return one_sample(lambda: launcher(s.arguments), operands)


def _opened() -> _Session:
    if _session is None:
        raise InternalError("a helper process of the tuner was asked for a candidate before its arguments")
    return _session


ACTIONS: dict[str, Any] = {"plan": plan, "build": build, "open": open_session, "expect": expect, "load": load, "forget": forget,
                           "check": check, "error": inexact, "sample": sample, "emulate": emulate}
