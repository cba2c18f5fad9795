"""The driver: a program, the shapes it is called with and a target, to a schedule, a tile program, text and machine code.

The pure levels below know nothing of the world; this module asks them in order and adds the disk cache. What may differ between two
compilations of the same program at the same shapes is said by a :class:`Request`: the target, and the schedule or the decisions of
the heuristics.
"""

from __future__ import annotations

import gc
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from time import perf_counter
from typing import TYPE_CHECKING, Any

import llvmlite
import torch

from codegen.target import TARGETS, Target
from dlc import cache, records
from dlc.config import settings
from dlc.host import fingerprint
from dlc.lazy import lazy
from dlc.runtime.arguments import as_numpy
from dlc.runtime.cpu import assembly, compile_object
from dlc.runtime.launch import Launcher, make_launcher
from dlc.runtime.recipe import Recipe, place_of, recipe
from dsl.bind import bind_sizes
from dsl.canonical import digest
from dsl.check import prove_bounds
from dsl.dim import Term, Var, as_term
from dsl.errors import BoundsError, DlcError, ShapeError, TargetError, UserError
from dsl.expr import Tensor
from dsl.program import Program

if TYPE_CHECKING:
    from codegen import heuristics, pipelines
    from codegen.emit import llvm
    from codegen.emit.llvm import CpuModule
    from codegen.heuristics import Decisions
    from codegen.micro import instructions
    from codegen.pipelines import Made
    from codegen.tile import in_place, layout
    from codegen.tile.ir import TileProgram
    from dsl import order, stages, strays
    from dsl.nest import Nest
else:
    heuristics, pipelines, llvm = lazy("codegen.heuristics"), lazy("codegen.pipelines"), lazy("codegen.emit.llvm")
    instructions, layout, in_place = lazy("codegen.micro.instructions"), lazy("codegen.tile.layout"), lazy("codegen.tile.in_place")
    order, stages, strays = lazy("dsl.order"), lazy("dsl.stages"), lazy("dsl.strays")

_FORMAT = "4"
NOMINAL_THREADS = 8  # for which reproducible kernels are scheduled on every machine

Scheduler = Callable[["Nest"], "Nest"]


@dataclass(frozen=True)
class Request:
    """What to compile.

    Attributes:
        program: the traced definition, sizes still symbolic.
        shapes, strides: of each input; strides in elements.
        target: the machine.
        decisions: preset choices of the heuristics; None for those a tuning record gives, else the heuristics' own.
        scheduler: makes the schedule from the unscheduled nest instead of the heuristics.
        like: the program at the sizes that the scheduler's schedule was made for.
        reproducible: schedule for a nominal machine, see :func:`nominal`, and take a record only if it keeps the order of every sum: the
            same bits on any number of threads, tuned or not.
        dynamic: names of sizes left symbolic: one kernel for all their values of at least ``least``, scheduled for those of ``shapes``.
    """

    program: Program
    shapes: tuple[tuple[int, ...], ...]
    strides: tuple[tuple[int, ...], ...]
    target: Target
    decisions: Mapping[str, object] | None = None
    scheduler: Scheduler | None = None
    reproducible: bool = False
    dynamic: frozenset[str] = frozenset()
    least: int = 1
    like: Program | None = None

    def by(self, scheduler: Scheduler, like: Program | None = None) -> Request:
        """The same request, scheduled by hand."""
        return replace(self, scheduler=scheduler, decisions=None, like=like)

    def on(self, target: Target) -> Request:
        """The same request for another target."""
        return replace(self, target=target)


class Plan:
    """A request on its way down the levels; each level is made when it is first asked for.

    Args:
        request: what to compile.
    """

    def __init__(self, request: Request) -> None:
        self.request = replace(request, target=nominal(request.target)) if request.reproducible else request
        self.record = recorded(request)
        self.preset: Mapping[str, object] = (request.decisions if self.record is None else self.record.decisions) or {}

    @cached_property
    def decisions(self) -> Decisions:
        """The choices of the heuristics, those that are preset among them."""
        return heuristics.Decisions(self.preset)

    @cached_property
    def program(self) -> Program:
        """The definition with the sizes of the request, every access proved in bounds."""
        return specialize(self.request.program, self.request.shapes, self.request.dynamic, self.request.least)

    @cached_property
    def unscheduled(self) -> Nest:
        """The plain loop nest."""
        target = self.request.target
        return stages.build_nest(self.program, target.kind != "cpu" or instructions.multiplies_low(target.dot_sets), self.request.like)

    @cached_property
    def strides(self) -> dict[Tensor, tuple[Term, ...]]:
        """Strides of the nest's inputs; run-time sizes among them where a shape is symbolic and the tensor is no row-major one."""
        return {t: layout.stride_terms(t.name, t.shape, n, s)
                for t, n, s in zip(self.unscheduled.program.inputs, self.request.shapes, self.request.strides)}

    def sizes_for(self, shapes: Sequence[Sequence[int]], strides: Sequence[Sequence[int]]) -> tuple[int, ...] | None:
        """The integers that the code takes after its pointers, in the order of ``tile.sizes``, for arguments of these shapes and strides.

        None when the code does not serve them: a size that is not symbolic differs, a symbolic one is zero, or a tensor lies otherwise.
        """
        try:
            values = bind_sizes(self.program, shapes)
        except ShapeError:
            return None
        if 0 in values.values():
            return None
        known = zip(self.strides.values(), strides, shapes)
        terms = [(t, int(s)) for own, given, sizes in known for t, s, n in zip(own, given, sizes) if n != 1]
        return layout.size_values(self.tile.sizes, values, terms)

    @cached_property
    def nest(self) -> Nest:
        """The scheduled loop nest."""
        if self.request.scheduler is not None:
            return self.request.scheduler(self.unscheduled)
        made = heuristics.default_schedule(self.unscheduled, self.request.target, self.strides, self.decisions)
        if self.record is not None and not self.request.dynamic and (lost := self.decisions.passed_over):
            warnings.warn(f"dlc: the tuning record of {self.request.program.name} has choices that are none any more ({', '.join(lost)}); "
                          "the heuristics' own are used for them. Tune it again, or remove the record", stacklevel=2)
        return made

    @cached_property
    def order(self) -> str:
        """The order of every reduction whose order shows in the bits, a line each; equal texts mean equal bits on one target."""
        return order.order_class(self.nest)

    @cached_property
    def made(self) -> Made:
        """The tile program, verified, with the time of each step.

        Raises:
            UserError: the definition is nested too deeply, an access can leave its buffer, or parallel points may meet.
        """
        try:
            made = pipelines.make_tile(self.nest, self.strides, _symbol(self.program.name), self.request.target,
                                       every=settings().verify_all, clock=perf_counter)
        except RecursionError as e:
            raise UserError(f"an expression of {self.program.name} is nested too deeply to compile", "the compiler walks it recursively",
                            "name its parts: give them definitions of their own with dlc.compute", self.program.loc) from e
        for note in made.notes:
            warnings.warn(f"dlc: {note}", stacklevel=2)
        return made

    @property
    def tile(self) -> TileProgram:
        """The tile program."""
        return self.made.program

    @cached_property
    def module(self) -> CpuModule:
        """The LLVM module.

        Raises:
            TargetError: the target is not a CPU.
        """
        target = self.request.target
        if target.kind != "cpu":
            raise TargetError(f"{target.name} is not a CPU", "LLVM modules are made for CPUs")
        return llvm.emit_llvm(self.tile, target.triple, target.vector_bits, target.features, modelled=target.modelled)

    @cached_property
    def object_code(self) -> bytes:
        """Machine code, from the disk cache when it is there."""
        target = self.request.target
        name = cache.key(_FORMAT, llvmlite.__version__, repr(target), self.module.text)
        code = cache.get(name)
        if code is None:
            code = compile_object(self.module.text, target)
            cache.put(name, code)
        return code

    @cached_property
    def recipe(self) -> Recipe:
        """How the machine code is called."""
        return recipe(self.program, list(self.strides.values()), self.tile, self.module, in_place.find_in_place(self.tile))

    def listing(self) -> str:
        """The LLVM module for reading, with the user's lines as comments."""
        target = self.request.target
        return llvm.emit_llvm(self.tile, target.triple, target.vector_bits, target.features, True, target.modelled).text

    def assembly(self) -> str:
        """The machine code as assembly text."""
        return assembly(self.module.text, self.request.target)

    def stray(self, code: int, args: Sequence[Any]) -> BoundsError:
        """The error for a run-time check that failed: which index left its range, where and how far."""
        program = self.request.program
        found = strays.find_stray(program, [as_numpy(a.cpu()) if isinstance(a, torch.Tensor) else a for a in args])
        return found or BoundsError(f"a data-dependent index of {program.name} is out of range", self.tile.checks[code - 1],
                                    "check the index data, or clamp it in the definition", program.loc)

    def launcher(self) -> Launcher:
        """The kernel, loaded into this process; by the heuristics' own schedule where a recorded one no longer compiles."""
        bind_sizes(self.request.program, self.request.shapes)
        found = self._kept()
        if found is not None:
            return make_launcher(*found, self.request.target, self.stray)
        try:
            with collector_paused():
                launcher = make_launcher(self.recipe, self.object_code, self.request.target, self.stray)
        except DlcError as e:
            if self.record is None:
                raise
            warnings.warn(
                f"dlc: the tuned schedule of {self.request.program.name} does not compile any more ({e.title}); the default one is used",
                stacklevel=2)
            return Plan(replace(self.request, decisions={})).launcher()
        if self._name:
            head = self.recipe.to_json().encode()
            cache.put(self._name, len(head).to_bytes(8, "little") + head + self.object_code)
        return launcher

    @cached_property
    def _name(self) -> str:
        """What the launcher is called on disk, known before anything is compiled; empty where a schedule is made by hand."""
        r = self.request
        if r.scheduler is not None or r.target.kind != "cpu" or settings().verify_all:
            return ""
        return cache.key(_FORMAT, "launcher", cache.version(), llvmlite.__version__, repr(r.target), digest(r.program), repr(r.shapes),
                         repr(r.strides), repr(sorted(r.dynamic)), repr(r.least), repr(r.reproducible), repr(sorted(self.preset.items())))

    def _kept(self) -> tuple[Recipe, bytes] | None:
        """The recipe and the machine code from the disk cache; names and places are those of the definition at hand."""
        data = cache.get(self._name) if self._name else None
        if data is None:
            return None
        length = int.from_bytes(data[:8], "little")
        found = Recipe.from_json(data[8:8 + length].decode())
        program = self.request.program
        inputs = tuple((t.name, dtype, shape, strides) for t, (_, dtype, shape, strides) in zip(program.inputs, found.inputs))
        return replace(found, name=program.name, inputs=inputs, place=place_of(program)), data[8 + length:]


def nominal(target: Target) -> Target:
    """The machine that reproducible kernels are scheduled for: a target with the cores and caches of every machine of its kind.

    How a sum is parted, and whether a row is read in one pass, follow from them.
    """
    return replace(target, threads=NOMINAL_THREADS, caches=TARGETS.get(target.name, target).caches)


@contextmanager
def collector_paused() -> Iterator[None]:
    """Without the cyclic garbage collector: beside torch's million objects, one full collection takes longer than compiling a kernel."""
    running = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if running:
            gc.enable()


def record_key(request: Request) -> records.Key:
    """Under what the record of a request is kept: measured figures belong to this machine and number of threads."""
    measured = request.target.kind == "cpu"
    return records.Key(digest(request.program), request.shapes, request.strides, request.target.name,
                       fingerprint() if measured else "", torch.get_num_threads() if measured else 0)


def recorded(request: Request) -> records.Record | None:
    """The record that applies to a request: none where its schedule is given, records are switched off, or nobody has tuned it."""
    if request.decisions is not None or request.scheduler is not None or not settings().records:
        return None
    found = records.find(record_key(request))
    keeps = found is None or not request.reproducible or found.order == Plan(replace(request, decisions={})).order
    return found if keeps else None


def specialize(program: Program, shapes: Sequence[Sequence[int]], dynamic: Collection[str] = (), least: int = 1) -> Program:
    """A program with the sizes of some arguments, every access proved in bounds.

    Sizes named in ``dynamic`` stay symbolic; ``least`` is what they are at least: of what is more, an unknown of at least 1 remains.

    Raises:
        UserError: the shapes do not fit the declaration, or an access is out of bounds (with a witness).
    """
    sizes = bind_sizes(program, shapes)
    # A size that varies is not taken for 1, whatever it is now: heuristics leave loops of one round as they are.
    more = least - 1
    varying = {v: as_term(Var(v.name, kind="dim", likely=max(n - more, 2))) + more for v, n in sizes.items() if v.name in dynamic}
    special = program.specialize({**sizes, **varying})
    prove_bounds(special)
    return special


def _symbol(name: str) -> str:
    return "".join(c if c.isalnum() or c == "_" else "_" for c in name) or "kernel"
