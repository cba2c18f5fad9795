"""Schedules by hand between the language and the compiler: where they begin, what they show, and how a kernel uses them."""

from __future__ import annotations

from codegen.heuristics.registers import fit_registers
from codegen.target import TARGETS, Target
from codegen.tile.text import show as show_tile
from dlc.compiler import Plan, Scheduler
from dlc.gpu import triton_artifact, triton_source
from dsl.errors import ScheduleError, TargetError
from dsl.machine import Machine
from dsl.nest import Nest
from dsl.program import Program
from dsl.replay import replay
from dsl.schedule import Schedule

_WIDEST = {"cpu": 1 << 13, "cuda": 1 << 18, "hip": 1 << 18}  # elements of a tile: what a kernel can spell out, or a program can hold


def machine_of(target: Target) -> Machine:
    """What a schedule for a target must fit."""
    return Machine("cpu" if target.kind == "cpu" else target.name, target.kind != "cpu", _WIDEST[target.kind])


def begin(plan: Plan, default: bool) -> Schedule:
    """A schedule that begins with a plan's nest, or with the plain one."""
    def shown(level: str, nest: Nest) -> str:
        return _text(plan, nest, level)

    return Schedule(plan.nest if default else plan.unscheduled, machine_of(plan.request.target), shown, plan.request.like or plan.program)


def replayer(s: Schedule, target: Target) -> Scheduler:
    """A scheduler that replays the steps of a schedule as it is now; on a CPU its tiles are cut to the registers."""
    steps, machine = s.steps, s.machine
    return lambda nest: fitted(replay(nest, steps, machine), target)


def fitted(nest: Nest, target: Target) -> Nest:
    """A nest made by hand as it is compiled."""
    return fit_registers(nest, target) if target.kind == "cpu" else nest


def kind_of(s: Schedule, program: Program) -> str:
    """The kind of target that a schedule of a program is for.

    Raises:
        ScheduleError: it is no schedule, or that of another program.
    """
    if not isinstance(s, Schedule):
        raise ScheduleError(f"a {type(s).__name__} for a schedule of {program.name}", remedy=f"what {program.name}.schedule(...) gives")
    if s.nest.program.name != program.name:
        raise ScheduleError(f"a schedule of {s.nest.program.name} for {program.name}", "its steps name the stages of another kernel",
                            f"make one with {program.name}.schedule(...)")
    return "cpu" if s.machine.name == "cpu" else TARGETS[s.machine.name].kind


def _text(plan: Plan, nest: Nest, level: str) -> str:
    target = plan.request.target
    levels = ("tile", "llvm", "asm") if target.kind == "cpu" else ("tile", "triton")
    if level not in levels:
        raise TargetError(f"a schedule for {target.name} has no level {level!r}", remedy="one of " + ", ".join(levels))
    made = Plan(plan.request.by(lambda _: fitted(nest, target), plan.request.like))
    if level == "triton":
        return triton_source(triton_artifact(made))
    if level == "tile":
        return show_tile(made.tile)
    return made.listing() if level == "llvm" else made.assembly()
