"""A good schedule without search, for every program on every target: fuse, then choose tiles from exact footprints."""

from __future__ import annotations

from codegen.analysis.access import Strides
from codegen.heuristics.cascade import choose_form, pick_again
from codegen.heuristics.cpu import schedule_cpu
from codegen.heuristics.decisions import Choice, Decisions, Setting
from codegen.heuristics.gpu import schedule_gpu
from codegen.heuristics.rolling import going_along
from codegen.target.model import Target
from dsl.cascade import Derivation
from dsl.nest import Nest

__all__ = ["Choice", "Decisions", "choices", "default_schedule", "pick_again"]


def choices(nest: Nest, found: Derivation, target: Target, strides: Strides, decisions: Decisions) -> dict[int, str]:
    """What the schedule makes of every cascade of an unscheduled nest, by its number, and why."""
    setting = Setting(target, strides, Decisions(decisions.preset))
    out: dict[int, str] = {}
    for n, c in enumerate(found.cascades):
        pair = going_along(nest, c, found.cascades, setting)
        out[n] = pair.why if pair is not None and pair.together else choose_form(nest, c, setting).why
    return out


def default_schedule(nest: Nest, target: Target, strides: Strides, decisions: Decisions | None = None) -> Nest:
    """The schedule of a nest on a target that the heuristics give for some decisions; without any, the default one."""
    setting = Setting(target, strides, decisions if decisions is not None else Decisions())
    return _BY_KIND[target.kind](nest, setting)


_BY_KIND = {"cpu": schedule_cpu, "cuda": schedule_gpu, "hip": schedule_gpu}
