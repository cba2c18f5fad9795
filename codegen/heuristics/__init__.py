"""A good schedule without search, for every program on every target: fuse, then choose tiles from exact footprints."""

from __future__ import annotations

from codegen.analysis.access import Strides
from codegen.heuristics.cpu import schedule_cpu
from codegen.heuristics.decisions import Choice, Decisions, Setting
from codegen.target.model import Target
from dsl.errors import TargetError
from dsl.nest import Nest

__all__ = ["Choice", "Decisions", "default_schedule"]


def default_schedule(nest: Nest, target: Target, strides: Strides, decisions: Decisions | None = None) -> Nest:
    """The schedule of a nest on a target that the heuristics give for some decisions; without any, the default one.

    Raises:
        TargetError: there are no heuristics for this kind of target.
    """
    setting = Setting(target, strides, decisions if decisions is not None else Decisions())
    if target.kind == "cpu":
        return schedule_cpu(nest, setting)
    raise TargetError(f"no schedules for {target.name}")
