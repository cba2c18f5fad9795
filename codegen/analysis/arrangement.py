"""The axes of a reduction whose terms data sends to one element each, by what the data has to do with them."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from codegen.analysis.access import size
from dsl.dim import Var
from dsl.equation import equations
from dsl.nest import Stage


@dataclass(frozen=True)
class Arrangement:
    """The spatial axes of a reduction, by what data has to do with them.

    Attributes:
        outer: those stored before any that is sought.
        followed: the others on which the data depends.
        sought: those which data is compared with.
        columns: the others, along which a visit runs.
    """

    outer: tuple[Var, ...]
    followed: tuple[Var, ...]
    sought: tuple[Var, ...]
    columns: tuple[Var, ...]


def arrange(s: Stage) -> Arrangement | None:
    """The axes of a reduction in which data names an element; None where it does not."""
    sought: dict[Var, None] = {}
    used: set[Var] = set()
    for e in equations(s.body) if s.kind == "reduce" and s.attach is None and not s.relations else ():
        needed = {v for x in (e.data, *e.guards) for v in x.free}
        axis = next((v for v in s.axes if e.term.coef(v) in (1, -1) and v not in needed and size(v.extent) > 1), None)
        if axis is None or axis in used or (needed | set(e.term.vars)) & set(sought):
            continue
        sought[axis] = None
        used |= needed | (set(e.term.vars) - {axis})
    if not sought:
        return None
    first = min(s.axes.index(v) for v in sought)
    rest = [v for v in s.axes[first:] if v not in sought]
    return Arrangement(s.axes[:first], tuple(v for v in rest if v in used), tuple(sought), tuple(v for v in rest if v not in used))


def visits(s: Stage) -> int:
    """Points at which a stage evaluates its terms: for each that data sends to one element, once."""
    found = arrange(s)
    skipped = set(found.sought) if found is not None else set()
    return points((v for v in (*s.axes, *s.bound) if v not in skipped), 1 << 12)


def points(axes: Iterable[Var], unknown: int = 1 << 20) -> int:
    """How many points a box of axes has."""
    return math.prod(size(v.extent, unknown) for v in axes)
