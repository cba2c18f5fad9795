"""A good schedule without search, for every program on every target: fuse, then choose tiles from exact footprints."""

from __future__ import annotations

from codegen.analysis.access import Strides
from codegen.heuristics.cpu import schedule_cpu
from codegen.target.model import Target
from dsl.errors import TargetError
from dsl.nest import Nest

__all__ = ["default_schedule", "schedule_cpu"]


def default_schedule(nest: Nest, target: Target, strides: Strides) -> Nest:
    """The default schedule of a nest on a target."""
    if target.kind == "cpu":
        return schedule_cpu(nest, target, strides)
    raise TargetError(f"no schedules for {target.name}")
