"""Traces: a schedule as a list of steps, read from data and applied to another nest."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from dsl.errors import ScheduleError
from dsl.machine import Machine
from dsl.nest import Nest, Step
from dsl.primitives import beside, epilogue, loops, mapping, placement, recompute, reduction, roll, storage, terms  # noqa: F401  (found by name)
from dsl.primitives.record import PRIMITIVES, apply

FORMAT = 1


def read_trace(trace: str | Mapping[str, Any] | Sequence[Any]) -> tuple[Step, ...]:
    """The steps of a trace as data, or as the text of :meth:`Schedule.to_json`.

    Raises:
        ScheduleError: it is no trace, or of another version.
    """
    try:
        data: Any = json.loads(trace) if isinstance(trace, str) else trace
        if isinstance(data, Mapping):
            if data.get("dlc schedule") != FORMAT:
                raise ScheduleError(f"a schedule of version {data.get('dlc schedule')!r}", f"this version of dlc reads version {FORMAT}",
                                    "make it again")
            data = data["steps"]
        return tuple(s if isinstance(s, Step) else Step.of_data(s) for s in data)
    except (AttributeError, KeyError, TypeError, ValueError) as e:
        raise ScheduleError("this is not the trace of a schedule", f"{type(e).__name__}: {e}", "what s.to_json() gives") from None


def replay(nest: Nest, steps: Iterable[Step], machine: Machine | None = None) -> Nest:
    """The nest that the steps of a trace make of another nest: that of the same program, at other sizes say.

    Raises:
        ScheduleError: a step is illegal there; the message cites the line that asked for it.
    """
    for n, step in enumerate(steps):
        if step.name not in PRIMITIVES:
            raise ScheduleError(f"step {n} of a schedule is `{step.name}`, which no primitive is called",
                                remedy="one of " + ", ".join(sorted(PRIMITIVES)))
        try:
            nest = apply(nest, step)
        except ScheduleError as e:
            raise ScheduleError(e.title, e.reason, e.remedy, step.loc or e.loc) from None
        except (KeyError, TypeError) as e:
            raise ScheduleError(f"step {n} of a schedule, {step.name}, does not fit {nest.program.name} at these sizes",
                                f"{type(e).__name__}: {e}", "make a schedule for these sizes", step.loc) from None
    if machine is not None:
        machine.check(nest)
    return nest
