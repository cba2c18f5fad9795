"""The table of primitives by name, and the record that each leaves: what makes a schedule a trace that can be replayed."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar, cast

from dsl.nest import Nest, Step

F = TypeVar("F", bound=Callable[..., Any])
PRIMITIVES: dict[str, Callable[..., Any]] = {}


def primitive(fn: F) -> F:
    """A function from a nest to a nest (or to a nest and the name of a stage it made) whose arguments are plain data.

    The nest it returns carries the trace of the one it was given and one step more, however many primitives it is made of. Under its
    name in :data:`PRIMITIVES` the step can be applied again, to the nest of another shape.
    """
    name, names = fn.__name__, tuple(inspect.signature(fn).parameters)[1:]

    @functools.wraps(fn)
    def recorded(nest: Nest, *args: Any, **options: Any) -> Any:
        made = fn(nest, *args, **options)
        step = Step(name, dict(zip(names, args)) | options)
        if isinstance(made, Nest):
            return replace(made, trace=(*nest.trace, step))
        return replace(made[0], trace=(*nest.trace, step)), made[1]

    PRIMITIVES[name] = recorded
    return cast(F, recorded)


def apply(nest: Nest, step: Step) -> Nest:
    """The nest after a step of a trace.

    Raises:
        ScheduleError: the step is illegal on this nest.
        KeyError: no primitive has the step's name.
    """
    made = PRIMITIVES[step.name](nest, **step.args)
    out: Nest = made if isinstance(made, Nest) else made[0]
    return replace(out, trace=(*nest.trace, step))
