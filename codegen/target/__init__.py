"""Targets: hardware as data."""

from __future__ import annotations

import difflib

from codegen.target.model import Target, full_lanes
from codegen.target.tables import TARGETS
from dsl.errors import TargetError

__all__ = ["TARGETS", "Target", "by_name", "full_lanes"]


def by_name(name: str) -> Target:
    """The target called ``name``.

    Raises:
        TargetError: no such target; the message lists those known.
    """
    if name not in TARGETS:
        near = difflib.get_close_matches(name, TARGETS, 1)
        raise TargetError(f"unknown target {name!r}", f"did you mean {near[0]!r}?" if near else "", "one of cpu, " + ", ".join(TARGETS))
    return TARGETS[name]
