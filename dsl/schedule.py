"""Schedules: the trace of primitives that makes a nest out of the unscheduled one."""

from __future__ import annotations

from collections.abc import Iterable

from dsl.errors import ScheduleError
from dsl.nest import Nest, Step
from dsl.primitives import placement, reduction, storage  # noqa: F401  (their primitives are found by name)
from dsl.primitives.record import PRIMITIVES, apply


def replay(nest: Nest, steps: Iterable[Step]) -> Nest:
    """The nest that the steps of a trace make of another nest: that of the same program, at other sizes say.

    Raises:
        ScheduleError: a step is illegal there; the message cites the line that asked for it.
    """
    for n, step in enumerate(steps):
        if step.name not in PRIMITIVES:
            raise ScheduleError(f"step {n} of a schedule is `{step.name}`, which no primitive is called", remedy="one of " + ", ".join(sorted(PRIMITIVES)))
        try:
            nest = apply(nest, step)
        except ScheduleError as e:
            raise ScheduleError(e.title, e.reason, e.remedy, step.loc or e.loc) from None
    return nest
