"""Groups of stages: a root, and what is computed inside of its loops. What may join a group is each kind of target's own affair."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field

from codegen.analysis.access import size
from codegen.heuristics.fusion import identity_axes
from dsl.dim import Var
from dsl.nest import Nest, Stage


@dataclass
class Group:
    """A root stage with what is computed inside its loops.

    Attributes:
        anchor: the root's name.
        rows: the anchor's axes outside of which nothing is shared: everything attached is computed once per row.
        members: attached stage -> (its row axis -> the anchor's axis).
        kept: the members that others need too: they are stored whole, a row in each round.
    """

    anchor: str
    rows: tuple[Var, ...] = ()
    members: dict[str, dict[Var, Var]] = field(default_factory=dict)
    kept: set[str] = field(default_factory=set)


Joins = Callable[[Nest, Stage, dict[str, Group], dict[str, str]], str | None]


def group_stages(nest: Nest, joins: Joins, done: AbstractSet[str] = frozenset()) -> dict[str, Group]:
    """Roots and what is attached to each, consumers first; those that have their schedule are left out, and nothing joins them.

    Args:
        nest: the stages.
        joins: ``(nest, stage, groups, stage -> its anchor) -> anchor``: the root a stage can be computed inside of, recorded in its
            group; None when it must be a root.
        done: the stages that have their schedule.
    """
    groups: dict[str, Group] = {}
    home: dict[str, str] = {}
    for s in (s for s in reversed(nest.stages) if s.name not in done):
        anchor = None if any(c.name in done for c in nest.consumers(s)) else joins(nest, s, groups, home)
        if anchor is None:
            groups[s.name] = Group(s.name)
            anchor = s.name
        home[s.name] = anchor
    return groups


def row_map(s: Stage, consumers: list[Stage], group: Group) -> dict[Var, Var]:
    """Axes of ``s`` that every consumer reads at its own point along the same axis of the anchor."""
    out: dict[Var, Var | None] = {}
    for c in consumers:
        direct = identity_axes(c, s)
        if direct is None:
            return {}
        up = {a: a for a in c.axes} if c.name == group.anchor else group.members[c.name]
        for axis in s.axes:
            here = up.get(direct[axis])
            out[axis] = here if out.get(axis, here) is here else None
    return {a: v for a, v in out.items() if v is not None}


def fills(rows: dict[Var, Var]) -> bool:
    """Whether the anchor has no rows but those of the stage.

    Around a result that is padded or put beside others, a product would be computed for nothing.
    """
    return all(size(v.extent) <= size(a.extent) for a, v in rows.items())
