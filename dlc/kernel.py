"""``@dlc.kernel``: a definition, compiled for the arguments it is called with."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from codegen.heuristics import choices
from codegen.target import TARGETS, Target, by_name
from codegen.tile.text import show as show_tile
from dlc.autograd import Derived
from dlc.bench import BenchReport, bench
from dlc.compiler import Plan, Request, Scheduler
from dlc.gpu import Compilation, triton_artifact, triton_source
from dlc.numerics import NumericsReport, study
from dlc.runtime.arguments import as_numpy, as_tensor, give_back
from dlc.runtime.device import host_target
from dlc.runtime.launch import Launcher
from dlc.scheduling import begin, kind_of, replayer
from dlc.tune.outcome import TuneReport
from dlc.tune.progress import Progress
from dlc.tune.tuner import Task, tune
from dsl.bind import bind_sizes
from dsl.cascade import derive, explain
from dsl.check import verify
from dsl.derivative import vjp
from dsl.errors import ArgumentError, ScheduleError, TargetError, UserError
from dsl.interp import evaluate
from dsl.nest_text import show_nest
from dsl.program import Program, trace
from dsl.schedule import Schedule
from dsl.text import show_compute


class Kernel:
    """A kernel: call it with arrays; ask it for its source, its schedule, its machine code.

    Args:
        fn: the definition: parameters annotated with dtypes and symbolic shapes.
        statics: values of its keyword-only parameters.

    Attributes:
        decisions: preset choices of the scheduling heuristics; None for their own.
        scheduler: makes the schedule instead of the heuristics; None for them.
        schedules: those given by hand, by kind of target; see :meth:`with_schedule`.
        reproducible: the same bits on any number of threads, tuned or not: see :func:`kernel`.
    """

    decisions: Mapping[str, Any] | None = None
    scheduler: Scheduler | None = None
    schedules: Mapping[str, Schedule] = {}
    reproducible: bool = False

    def __init__(self, fn: Callable[..., Any], statics: Mapping[str, Any] | None = None) -> None:
        self.fn, self.statics = fn, dict(statics or {})
        self.__name__, self.__doc__ = fn.__name__, fn.__doc__
        self._program: Program | None = None
        self._launchers: dict[Any, Launcher] = {}
        self._backwards: dict[tuple[str, ...], Kernel] = {}

    @property
    def program(self) -> Program:
        """The traced definition, checked: types, and every access proved in bounds for all sizes."""
        if self._program is None:
            program = trace(self.fn, self.statics)
            verify(program)
            self._program = program
        return self._program

    def __repr__(self) -> str:
        return "\n".join(show_compute(c) for c in self.program.computes)

    # -- calling -----------------------------------------------------------------------------------------------
    def __call__(self, *args: Any, out: Any = None) -> Any:
        """Run the kernel.

        Args:
            args: one per parameter: torch tensors, numpy arrays, DLPack objects, numbers for scalars.
            out: a contiguous tensor, or a tuple of them, to write the results to.

        Returns:
            The results in the kind of the inputs: numpy arrays when every array given is one, else torch tensors.

        Raises:
            UserError: the arguments do not fit the declaration; the message names parameter and symbol.
        """
        key = tuple([(a.shape, a.stride(), a.dtype) if type(a) is torch.Tensor else type(a) for a in args])
        launcher = self._launchers.get(key)
        if launcher is not None and out is None and not (torch.is_grad_enabled() and any(a.requires_grad for a in args if type(a) is torch.Tensor)):
            if all([a.is_cpu and not a.data_ptr() % 8 for a in args if type(a) is torch.Tensor]) and all([type(a) is torch.Tensor for a in args]):
                results = launcher(args)
                return results[0] if launcher.program.single else tuple(results)
        return self._call_slowly(key, args, out)

    def _call_slowly(self, key: Any, args: Sequence[Any], out: Any) -> Any:
        program = self.program
        if len(args) != len(program.inputs):
            bind_sizes(program, [getattr(a, "shape", ()) for a in args])
        lazy = next((a for a in args if hasattr(type(a), "__dlc_kernel__")), None)
        if lazy is not None and out is None:
            return lazy.__dlc_kernel__(self, program, args)
        tensors = [as_tensor(a, t) for a, t in zip(args, program.inputs)]
        if any(t.device.type != "cpu" for t in tensors):
            raise TargetError(f"{program.name} was called with a tensor on {next(t.device for t in tensors if t.device.type != 'cpu')}",
                              "kernels run on the CPU so far; GPU code can be compiled with kernel.compile", "move the tensors: .cpu()")
        if torch.is_grad_enabled() and any(t.requires_grad for t in tensors):
            if out is not None:
                raise ArgumentError(f"out= of {program.name} with an argument that requires grad", "autograd cannot follow writes to it",
                                    "leave out= away, or call under torch.no_grad()")
            results = Derived.apply(self._run, self._run_backward, *tensors)
            return results[0] if program.single else results
        full = tuple((t.shape, t.stride(), t.dtype) for t in tensors)
        launcher = self._launchers.get(full)
        if launcher is None:
            launcher = self._launchers[full] = Plan(self.request([t.shape for t in tensors], [t.stride() for t in tensors])).launcher()
        if key == full:
            self._launchers[key] = launcher
        outs = self._outs(launcher, out, tensors) if out is not None else None
        results = launcher(tensors, outs)
        numpy = any(isinstance(a, np.ndarray) for a in args) and not any(isinstance(a, torch.Tensor) for a in args)
        given = out if isinstance(out, (tuple, list)) else (out,) if out is not None else [give_back(r, numpy) for r in results]
        return given[0] if program.single else tuple(given)

    def _run(self, tensors: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        results = self(*tensors)
        return [results] if self.program.single else list(results)

    def _run_backward(self, wanted: tuple[int, ...], tensors: Sequence[torch.Tensor], cotangents: Sequence[torch.Tensor]) -> Sequence[torch.Tensor]:
        """Gradients of the inputs at the positions wanted."""
        back = self._backward(tuple(self.program.inputs[n].name for n in wanted))
        values = {t.name: v for t, v in zip(self.program.inputs, tensors)}
        seeds = [v for t, v in zip(self.program.outputs, cotangents) if t.dtype.is_float]
        own = back.program.inputs[:len(back.program.inputs) - len(seeds)]
        grads = back(*(values[t.name] for t in own), *seeds)
        return [grads] if back.program.single else grads

    def _backward(self, wrt: tuple[str, ...]) -> Kernel:
        if wrt not in self._backwards:
            self._backwards[wrt] = Kernel.of(vjp(self.program, wrt))
            self._backwards[wrt].reproducible = self.reproducible
        return self._backwards[wrt]

    @property
    def vjp(self) -> Kernel:
        """The derived backward, itself a kernel: from the inputs it needs and ``d_<output>`` to ``d_<input>`` of every float input.

        Raises:
            DerivativeError: the definition has no derivative.
        """
        return self._backward(tuple(t.name for t in self.program.inputs if t.dtype.is_float))

    @staticmethod
    def of(program: Program) -> Kernel:
        """A kernel of a program that exists already (a derivative, say)."""
        def fn() -> None:
            """Stands for the definition."""

        fn.__name__ = program.name
        k = Kernel(fn)
        verify(program)
        k._program = program
        return k

    def _outs(self, launcher: Launcher, out: Any, tensors: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Check the tensors to write to: right shape and dtype, contiguous, apart from the inputs and from each other."""
        given = [torch.from_numpy(o) if isinstance(o, np.ndarray) else o for o in (out if isinstance(out, (tuple, list)) else (out,))]
        name = self.program.name
        if len(given) != len(launcher.outputs):
            raise ArgumentError(f"{name} has {len(launcher.outputs)} outputs, out= has {len(given)}")
        for n, (o, (shape, dtype)) in enumerate(zip(given, launcher.outputs)):
            if tuple(o.shape) != shape or o.dtype is not dtype:
                raise ArgumentError(f"out {n} of {name} is {o.dtype} {tuple(o.shape)}, not {dtype} {shape}")
            if not o.is_contiguous():
                raise ArgumentError(f"out {n} of {name} is not contiguous", f"its strides are {o.stride()}", "pass .contiguous() memory and copy it back")
            if any(_overlap(o, t) for t in (*tensors, *given[:n])):
                raise ArgumentError(f"out {n} of {name} overlaps another argument", "the kernel may read an element after writing it",
                                    "give it memory of its own")
        return given

    # -- compiling ---------------------------------------------------------------------------------------------
    def request(self, shapes: Sequence[Sequence[int]], strides: Sequence[Sequence[int]], target: Target | None = None) -> Request:
        """What the compiler is asked for arguments of these shapes and strides (in elements); for this CPU unless a target is given."""
        target = target or host_target()
        request = Request(self.program, tuple(tuple(s) for s in shapes), tuple(tuple(s) for s in strides), target,
                          self.decisions, self.scheduler, self.reproducible)
        given = self.schedules.get(target.kind)
        return request if given is None else request.by(replayer(given, target), given.origin)

    def plan(self, *args: Any, target: Target | None = None) -> Plan:
        """The kernel for these arguments at every level: ``.program``, ``.nest``, ``.tile``, ``.module``.

        Raises:
            UserError: the arguments do not fit the declaration.
        """
        bind_sizes(self.program, [getattr(a, "shape", ()) for a in args])
        tensors = [as_tensor(a, t) for a, t in zip(args, self.program.inputs)]
        return Plan(self.request([t.shape for t in tensors], [t.stride() for t in tensors], target))

    def source(self, kind: str, *args: Any) -> str:
        """Readable text of one level for these arguments.

        Args:
            kind: ``expr``; ``schedule``, ``tile``, ``llvm`` (or ``cpu``), ``asm`` on this CPU; the name of a GPU target for Triton source.
            args: as in a call; torch tensors on the ``meta`` device are enough.

        Raises:
            TargetError: no such level or target.
        """
        if kind == "expr":
            return repr(self)
        if kind in _LEVELS:
            return _LEVELS[kind](self.plan(*args))
        if kind not in TARGETS:
            raise TargetError(f"no source of kind {kind!r}", remedy=f"one of expr, {', '.join((*_LEVELS, *TARGETS))}")
        plan = self.plan(*args, target=TARGETS[kind])
        return plan.module.text if plan.request.target.kind == "cpu" else triton_source(triton_artifact(plan))

    def compile(self, target: str, *args: Any) -> Compilation:
        """Compile for a GPU that need not be here: machine code, PTX, and what they show.

        Args:
            target: ``sm_80``, ``sm_90``, ``sm_100`` or ``gfx942``.
            args: as in a call; torch tensors on the ``meta`` device are enough.

        Raises:
            TargetError: an unknown target, a CPU, or one that the kernel does not fit.
        """
        return Compilation(self.plan(*args, target=by_name(target)))

    # -- schedules ---------------------------------------------------------------------------------------------
    def schedule(self, target: str, *args: Any, default: bool = True) -> Schedule:
        """A schedule to read, change and pass to :meth:`with_schedule`.

        Args:
            target: ``cpu``, or the name of a target such as ``sm_90``.
            args: as in a call; torch tensors on the ``meta`` device are enough.
            default: begin with the schedule that runs now (tuned, by hand, or the heuristics'); False for the plain loop nest.

        Raises:
            UserError: an unknown target, or arguments that do not fit the declaration.
        """
        plan = self.plan(*args, target=host_target() if target == "cpu" else by_name(target))
        return begin(plan, default)

    def with_schedule(self, *schedules: Schedule) -> Kernel:
        """This kernel with schedules given by hand: each is used on targets of its kind, and replayed for arguments of other shapes.

        On targets of other kinds the default schedule is used, as before.

        Raises:
            ScheduleError: it is the schedule of another kernel.
        """
        out = Kernel(self.fn, self.statics)
        out._program, out.decisions, out.scheduler, out.reproducible = self._program, self.decisions, self.scheduler, self.reproducible
        out.schedules = {**self.schedules, **{kind_of(s, self.program): s.copy() for s in schedules}}
        return out

    # -- tuning ------------------------------------------------------------------------------------------------
    def tune(self, *args: Any, budget: float = 30.0, against: Callable[..., Any] | None = None, reproducible: bool = True,
             tolerance: float | None = None, candidates: int | None = None, progress: bool | None = None, seed: int = 0) -> TuneReport:
        """Search for a faster schedule for arguments of these shapes, and use what is found from now on, in later processes too.

        Args:
            args: as for a call; tensors on the CPU.
            budget: seconds for everything.
            against: the peer, called with the same arguments and timed in the same interleaved run.
            reproducible: admit only schedules that keep the default's order of every sum, and the bits of its results; False also admits
                other orders of summation, within four times the default's error against float64.
            tolerance: the largest error, relative to the largest result, that a schedule's orders of summation may allow by their
                a-priori bound; schedules that allow more, or whose bound is not known, are refused. None for any.
            candidates: try no more than so many; None for as many as the budget allows.
            progress: whether to show a progress bar; None where standard error is a terminal.
            seed: of the search.

        Raises:
            UserError: the arguments do not fit, or the kernel has a schedule given by hand.
        """
        if self.scheduler is not None or "cpu" in self.schedules:
            raise ScheduleError(f"{self.__name__} has a schedule given by hand", "there is nothing left to choose",
                                "tune the kernel it was made from; with_schedule leaves that one as it is")
        if self.reproducible and not reproducible:
            raise ScheduleError(f"{self.__name__} is reproducible", "a search that admits other orders of summation would change its bits",
                                "tune with reproducible=True, or define the kernel without it")
        if not budget > 0:
            raise ArgumentError(f"the budget of a search is {budget!r} seconds", remedy="a positive number")
        bind_sizes(self.program, [getattr(a, "shape", ()) for a in args])
        tensors = [as_tensor(a, t) for a, t in zip(args, self.program.inputs)]
        request = replace(self.request([t.shape for t in tensors], [t.stride() for t in tensors]), decisions=None)
        arrays = [as_numpy(t) for t in tensors]
        peer = None if against is None else lambda: against(*args)
        task = Task(request, tensors, lambda: evaluate(self.program, *arrays, float64=True), peer, budget, reproducible, seed, tolerance=tolerance,
                    candidates=candidates)
        report = tune(task, Progress(self.__name__, budget, progress))
        self._launchers.clear()
        return report

    def bench(self, *args: Any, against: Callable[..., Any] | None = None, cold: bool | None = None, budget: float = 1.0, threads: int | None = None,
              limits: bool = True) -> BenchReport:
        """Measure the kernel, and a peer beside it: see :func:`dlc.bench.bench`."""
        return bench(self, *args, against=against, cold=cold, budget=budget, threads=threads, limits=limits)

    def numerics(self, *args: Any, against: Callable[..., Any] | None = None, kinds: Sequence[str] | None = None) -> NumericsReport:
        """Errors on ordinary and adversarial data, beside a peer's and the bound: see :func:`dlc.numerics.study`."""
        return study(self, *args, against=against, kinds=kinds)

    def order(self, *args: Any) -> str:
        """The order in which every reduction adds up for these arguments, a line each: see :mod:`dsl.order`."""
        return self.plan(*args).order

    def explain(self, *args: Any, target: Target | None = None) -> str:
        """How its reductions are computed: which share one pass, by which algebra, what the schedule made of them, or why not.

        Args:
            args: as in a call; torch tensors on the ``meta`` device are enough.
            target: this CPU unless given.
        """
        plan = self.plan(*args, target=target)
        found = derive(plan.unscheduled)
        return explain(found, choices(plan.unscheduled, found, plan.request.target, plan.strides, plan.decisions))

    def specialized(self, *args: Any) -> Program:
        """The definition with its sizes replaced by those of the arguments, every access proved in bounds."""
        return self.plan(*args).program

    def reference(self, *args: Any, float64: bool = True) -> Any:
        """The numpy meaning of the definition: in float64, or in the dtypes declared."""
        arrays = [as_numpy(as_tensor(a, t)) for a, t in zip(args, self.program.inputs)]
        results = evaluate(self.program, *arrays, float64=float64)
        return results[0] if self.program.single else results


def kernel(fn: Callable[..., Any] | None = None, *, reproducible: bool = False, **statics: Any) -> Any:
    """Make a kernel of a definition.

    Args:
        fn: the definition.
        reproducible: keep one order of every sum: the results have the same bits on any number of threads and with any schedule that
            tuning may choose, on machines with the same vector instructions. :meth:`Kernel.order` names the order.
        statics: values of its keyword-only parameters.

    Raises:
        UserError: ``fn`` is not a function.
    """
    if fn is None:
        return lambda f: kernel(f, reproducible=reproducible, **statics)
    if not callable(fn):
        raise UserError("@dlc.kernel decorates a function")
    made = Kernel(fn, statics)
    made.reproducible = reproducible
    return made


def _overlap(a: torch.Tensor, b: torch.Tensor) -> bool:
    if a.numel() == 0 or b.numel() == 0:
        return False
    first = [(t.data_ptr(), t.data_ptr() + (sum((n - 1) * s for n, s in zip(t.shape, t.stride())) + 1) * t.element_size()) for t in (a, b)]
    return first[0][0] < first[1][1] and first[1][0] < first[0][1]


_LEVELS: dict[str, Callable[[Plan], str]] = {
    "schedule": lambda p: show_nest(p.nest), "tile": lambda p: show_tile(p.tile), "cpu": lambda p: p.module.text, "llvm": lambda p: p.module.text,
    "asm": lambda p: p.assembly(),
}
