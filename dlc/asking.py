"""What a kernel answers: its text at every level, code for machines that are not here, measurements, a search for something faster."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, overload

from codegen.target import TARGETS, Target, by_name
from dlc.bench import BenchReport, bench
from dlc.calling import Caller
from dlc.compiler import Plan, Request, Scheduler
from dlc.derivatives import Derivatives
from dlc.lazy import lazy
from dlc.runtime.arguments import as_numpy, as_tensor
from dlc.runtime.device import host_target
from dlc.runtime.fastcall import Call
from dsl.bind import bind_sizes
from dsl.errors import ArgumentError, ScheduleError, TargetError
from dsl.program import Program

if TYPE_CHECKING:
    from codegen import heuristics
    from codegen.tile import text as tile_text
    from dlc import compiled, gpu, numerics, scheduling
    from dlc import timings as timing
    from dlc.compiled import CpuCompilation
    from dlc.gpu import GpuCompilation
    from dlc.numerics import NumericsReport
    from dlc.timings import Timings
    from dlc.tune import measure, offline, peers, training, tuner
    from dlc.tune import progress as bars
    from dlc.tune.outcome import OfflineReport, TuneReport
    from dlc.tune.peers import Against
    from dsl import cascade, interp, nest_text, text
    from dsl.derivative import SavePlan
    from dsl.schedule import Schedule
else:
    heuristics, tile_text, gpu, numerics = lazy("codegen.heuristics"), lazy("codegen.tile.text"), lazy("dlc.gpu"), lazy("dlc.numerics")
    scheduling, offline, bars, tuner = map(lazy, ("dlc.scheduling", "dlc.tune.offline", "dlc.tune.progress", "dlc.tune.tuner"))
    measure, peers, training = map(lazy, ("dlc.tune.measure", "dlc.tune.peers", "dlc.tune.training"))
    compiled, timing = lazy("dlc.compiled"), lazy("dlc.timings")
    cascade, interp, nest_text, text = lazy("dsl.cascade"), lazy("dsl.interp"), lazy("dsl.nest_text"), lazy("dsl.text")


class Asked(ABC):
    """The questions that can be put to a kernel; the kernel itself says what it computes and how it is called.

    Attributes:
        decisions: preset choices of the scheduling heuristics; None for their own.
        scheduler: makes the schedule instead of the heuristics; None for them.
        schedules: those given by hand, by kind of target; see :meth:`dlc.kernel.Kernel.with_schedule`.
        reproducible: the same bits on any number of threads, tuned or not: see :func:`dlc.kernel.kernel`.
        save: what calls that autograd follows keep for the backward, see :func:`dlc.kernel.kernel`; None for what pays.
    """

    decisions: Mapping[str, Any] | None = None
    scheduler: Scheduler | None = None
    schedules: Mapping[str, Schedule] = {}
    reproducible: bool = False
    save: tuple[str, ...] | None = None
    derivatives: Derivatives
    __name__: str
    fast: Call
    _calls: Caller

    @property
    @abstractmethod
    def program(self) -> Program:
        """The traced definition."""

    @abstractmethod
    def __call__(self, *args: Any) -> Any:
        """The results."""

    # -- compiling ---------------------------------------------------------------------------------------------
    def request(self, shapes: Sequence[Sequence[int]], strides: Sequence[Sequence[int]], target: Target | None = None) -> Request:
        """What the compiler is asked for arguments of these shapes and strides (in elements); for this CPU unless a target is given."""
        target = target or host_target()
        request = Request(self.program, tuple(tuple(s) for s in shapes), tuple(tuple(s) for s in strides), target,
                          self.decisions, self.scheduler, self.reproducible)
        given = self.schedules.get(target.kind)
        return request if given is None else request.by(scheduling.replayer(given, target), given.origin)

    def plan(self, *args: Any, target: Target | None = None) -> Plan:
        """The kernel for these arguments at every level: ``.program``, ``.nest``, ``.tile``, ``.module``.

        Raises:
            UserError: the arguments do not fit the declaration.
        """
        tensors = self._tensors(args)
        return Plan(self.request([t.shape for t in tensors], [t.stride() for t in tensors], target))

    def _tensors(self, args: Sequence[Any]) -> list[Any]:
        """The arguments as tensors that fit the declaration."""
        if len(args) != len(self.program.inputs):
            bind_sizes(self.program, [() for _ in args])
        tensors = [as_tensor(a, t) for a, t in zip(args, self.program.inputs)]
        bind_sizes(self.program, [t.shape for t in tensors])
        return tensors

    def source(self, kind: str, *args: Any) -> str:
        """Readable text of one level for these arguments.

        Args:
            kind: ``expr``; ``schedule``, ``tile``, ``llvm`` (or ``cpu``), ``asm`` on this CPU; the name of a GPU target for Triton source.
            args: as in a call; torch tensors on the ``meta`` device are enough.

        Raises:
            TargetError: no such level or target.
        """
        if kind == "expr":
            return text.show(self.program)
        if kind in _LEVELS:
            return _LEVELS[kind](self.plan(*args))
        if kind not in TARGETS:
            raise TargetError(f"no source of kind {kind!r}", remedy=f"one of expr, {', '.join((*_LEVELS, *TARGETS))}")
        plan = self.plan(*args, target=TARGETS[kind])
        return plan.listing() if plan.request.target.kind == "cpu" else gpu.triton_source(gpu.triton_artifact(plan))

    @overload
    def compile(self, target: Literal["sm_80", "sm_90", "sm_100", "gfx942"], *args: Any) -> GpuCompilation: ...

    @overload
    def compile(self, target: str, *args: Any) -> Any: ...

    def compile(self, target: str, *args: Any) -> GpuCompilation | CpuCompilation:
        """Compile for a machine that need not be here: machine code, the texts on the way to it, and what they show.

        Args:
            target: a GPU (``sm_80``, ``sm_90``, ``sm_100``, ``gfx942``), a CPU by its instructions (``aarch64-neon``,
                ``x86-64-avx512``, ..), or ``cpu``, the one here.
            args: as in a call; torch tensors on the ``meta`` device are enough.

        Raises:
            TargetError: an unknown target, or one that the kernel does not fit.
        """
        plan = self.plan(*args, target=_named(target))
        return compiled.CpuCompilation(plan) if plan.request.target.kind == "cpu" else gpu.GpuCompilation(plan)

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
        plan = self.plan(*args, target=_named(target))
        return scheduling.begin(plan, default)

    # -- tuning ------------------------------------------------------------------------------------------------
    def tune(self, *args: Any, budget: float | None = 30.0, against: Against = None, reproducible: bool = True,
             tolerance: float | None = None, candidates: int | None = None, progress: bool | None = None, seed: int = 0,
             target: str | None = None, data: str | Sequence[str] | None = None, operands: str = "cold",
             backward: bool = False) -> TuneReport | OfflineReport:
        """Search for a faster schedule for arguments of these shapes, and use what is found from now on, in later processes too.

        Args:
            args: as for a call; tensors on the CPU.
            budget: seconds for everything; None to go on until some forty candidates in a row are no better.
            against: the peer, called with the same arguments and timed in the same interleaved run; several in a list, or by name.
            reproducible: admit only schedules that keep the default's order of every sum, and the bits of its results; False also admits
                other orders of summation, within four times the default's error against float64.
            tolerance: the largest error, relative to the largest result, that a schedule's orders of summation may allow by their
                a-priori bound; schedules that allow more, or whose bound is not known, are refused, the default too. None for any.
            candidates: compile no more than so many; None for as many as the budget allows.
            progress: whether to show a progress bar; None where standard error is a terminal.
            seed: of the search.
            target: ``cpu``, this one, unless given; for a GPU that need not be here, candidates are compiled, what spills or cannot be
                launched is refused, the rest ranked by a model and the best run under emulation: see :mod:`dlc.tune.offline`. Meta
                tensors are enough.
            data: kinds of data to tell errors on and to check the finalists with, as in :meth:`bench`.
            operands: where they are when a call is timed: ``cold``, out of the caches; ``warm``, in them as far as they fit; ``both``, by
                the geometric mean of the two.
            backward: also tune the backward, and the forward as autograd runs it, each for half of the budget: see
                :mod:`dlc.tune.training`. Its report is the ``backward`` of the one returned.

        Raises:
            UserError: the arguments do not fit, the target is another CPU, the kernel has a schedule given by hand, or no schedule keeps
                within the tolerance.
        """
        on = self._tunable(target, budget, reproducible, tolerance, candidates, operands)
        tensors = self._tensors(args)
        options = {"budget": budget, "reproducible": reproducible, "tolerance": tolerance, "candidates": candidates, "progress": progress,
                   "seed": seed, "data": data, "operands": operands}
        request = replace(self.request([t.shape for t in tensors], [t.stride() for t in tensors], on), decisions=None)
        seconds = math.inf if budget is None else float(budget)
        if on.kind != "cpu":
            if against is not None or tolerance is not None or data is not None or backward:
                raise ArgumentError("nothing runs on a GPU that is not here", "so there are no peers, errors or values for a backward",
                                    "leave against=, tolerance=, data= and backward= away, or target=")
            return offline.tune_offline(request, seconds, bars.Progress(self.__name__, seconds, progress), reproducible, seed, candidates)
        rivals = peers.named(against)
        if backward:
            return training.tune_training(self, tensors, rivals, options)

        def exact(given: Sequence[Any]) -> Any:
            return interp.evaluate(self.program, *map(as_numpy, given), float64=True)

        task = tuner.Task(request, tensors, exact, rivals, seconds, reproducible, seed, tolerance=tolerance, candidates=candidates,
                          given=args, data=data, operands=operands)
        report = tuner.tune(task, bars.Progress(self.__name__, seconds, progress))
        self._calls.forget()
        return report

    def _tunable(self, target: str | None, budget: float | None, reproducible: bool, tolerance: float | None, candidates: int | None,
                 operands: str) -> Target:
        """The target of a search, whose parameters make sense.

        Raises:
            UserError: they do not.
        """
        on = _named(target or "cpu")
        if self.scheduler is not None or on.kind in self.schedules:
            raise ScheduleError(f"{self.__name__} has a schedule given by hand", "there is nothing left to choose",
                                "tune the kernel it was made from; with_schedule leaves that one as it is")
        if self.reproducible and not reproducible:
            raise ScheduleError(f"{self.__name__} is reproducible", "a search that admits other orders of summation would change its bits",
                                "tune with reproducible=True, or define the kernel without it")
        if budget is not None and not (isinstance(budget, (int, float)) and budget > 0):
            raise ArgumentError(f"the budget of a search is {budget!r} seconds", remedy="a positive number, or None")
        if candidates is not None and not (isinstance(candidates, int) and candidates > 0):
            raise ArgumentError(f"a search of {candidates!r} candidates", remedy="a positive number, or None for what the budget allows")
        if operands not in measure.OPERANDS:
            raise ArgumentError(f"the operands of a search are {operands!r}", remedy=f"one of {', '.join(measure.OPERANDS)}")
        if on.kind == "cpu" and on.name != host_target().name:
            raise TargetError(f"{on.name} is not the CPU here, {host_target().name}", "CPUs are tuned by the time that their code takes",
                              "tune on that machine, and bring the record: dlc records export, import")
        if tolerance is not None and not (isinstance(tolerance, (int, float)) and tolerance >= 0):
            raise ArgumentError(f"the tolerance of a search is {tolerance!r}", remedy="a number, the error relative to the largest result")
        return on

    def bench(self, *args: Any, against: Callable[..., Any] | None = None, cold: bool | None = None, budget: float = 1.0,
              threads: int | None = None, limits: bool = True, data: str | Sequence[str] | None = None) -> BenchReport:
        """Measure the kernel, and a peer beside it: see :func:`dlc.bench.bench`."""
        return bench(self, *args, against=against, cold=cold, budget=budget, threads=threads, limits=limits, data=data)

    def numerics(self, *args: Any, against: Callable[..., Any] | None = None, data: str | Sequence[str] | None = None) -> NumericsReport:
        """Errors on ordinary and adversarial data, beside a peer's and the bound: see :func:`dlc.numerics.study`."""
        return numerics.study(self, *args, against=against, data=data)

    def order(self, *args: Any) -> str:
        """The order in which every reduction adds up for these arguments, a line each: see :mod:`dsl.order`."""
        return self.plan(*args).order

    def explain(self, *args: Any, target: Target | None = None, saving: bool = False) -> str:
        """How its reductions are computed: which share one pass, by which algebra, what the schedule made of them, or why not.

        Args:
            args: as in a call; torch tensors on the ``meta`` device are enough.
            target: this CPU unless given.
            saving: also what is kept for the backward: see :meth:`saving`.
        """
        plan = self.plan(*args, target=target)
        nest = heuristics.pick_again(plan.unscheduled)
        found = cascade.derive(nest)
        told = cascade.explain(found, heuristics.choices(nest, found, plan.request.target, plan.strides, plan.decisions))
        return f"{told}\n\nfor the backward:\n{self.saving(*args)}" if saving else told

    def saving(self, *args: Any, wrt: Sequence[str] | None = None) -> SavePlan:
        """What a call with these arguments that autograd follows keeps for its backward, and what that computes again, with the figures.

        Args:
            args: as in a call; torch tensors on the ``meta`` device are enough.
            wrt: the inputs whose gradients are wanted; all of floats when None.
        """
        program = self.program
        wanted = tuple(n for n, t in enumerate(program.inputs) if (t.dtype.is_float if wrt is None else t.name in wrt))
        return self.derivatives.plan(wanted, [tuple(getattr(a, "shape", ())) for a in args])

    def timings(self, *args: Any, target: Target | None = None) -> Timings:
        """What each step of compiling takes, from the sizes to machine code, measured now and without the disk cache.

        Args:
            args: as in a call; torch tensors on the ``meta`` device are enough.
            target: this CPU unless given; a GPU need not be here.

        Raises:
            UserError: the arguments do not fit, or the kernel does not compile for the target.
        """
        return timing.compile_timed(self.plan(*args, target=target))

    def specialized(self, *args: Any) -> Program:
        """The definition with its sizes replaced by those of the arguments, every access proved in bounds."""
        return self.plan(*args).program

    def reference(self, *args: Any, float64: bool = True) -> Any:
        """The numpy meaning of the definition: in float64, or in the dtypes declared."""
        arrays = [as_numpy(as_tensor(a, t)) for a, t in zip(args, self.program.inputs)]
        results = interp.evaluate(self.program, *arrays, float64=float64)
        return results[0] if self.program.single else results


_LEVELS: dict[str, Callable[[Plan], str]] = {
    "schedule": lambda p: nest_text.show_nest(p.nest), "tile": lambda p: tile_text.show(p.tile), "cpu": lambda p: p.listing(),
    "llvm": lambda p: p.listing(), "asm": lambda p: p.assembly(),
}


def _named(target: str) -> Target:
    """The target of a name; ``cpu`` is this one."""
    return host_target() if target == "cpu" else by_name(target)
