"""The loop nest: what a schedule rearranges.

A :class:`Nest` is a list of stages, producers first. A :class:`Stage` computes one or several tensors over a common box of
axes; its loops are the leaves of a tree of splits and fusions of those axes, in an order, each with a role. A stage is a
*root* with a nest of its own, or *attached* at a loop of a consumer, where it computes just the region that the consumer
needs there; or it is attached *beside* a stage that need not read it, a few of its own points in every round, and is kept for all its
readers. Nothing here is mutable: a primitive makes a new Nest.

Loop extents are never stored: ``dsl/placing.py`` infers them.
"""

from __future__ import annotations

from collections.abc import KeysView, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from dsl.algebra import reads
from dsl.dim import Term, Var, as_term
from dsl.expr import Compute, Expr, Reduce, Scan, Tensor
from dsl.loc import Loc
from dsl.program import Program
from dsl.relation import Fuse, Pad, Relation, Split

TILE_ROLES = frozenset({"unroll", "vectorize", "dot"})
GRID_ROLES = frozenset({"parallel", "grid"})


@dataclass(frozen=True)
class State:
    """What a rolling stage carries from one block of its axis to the next.

    Attributes:
        before: stands for the value that the previous block left: stages attached in the loop read it at the same block and point.
        initial: its value before the first block.
        slots: where an element of it lies in its tensor, over the axes of the stage that brings it up to date; for a sum along rows of the
            pass, which goes on in the tensor's memory from one block of rows to the next. Empty for a state of each row.
    """

    before: Tensor
    initial: Expr
    slots: tuple[Term, ...] = ()


@dataclass(frozen=True)
class Stage:
    """One or several definitions over a common box, with their loops.

    Attributes:
        name: unique; the first tensor's name.
        tensors: definitions whose bodies are over ``axes``. A reducing stage holds the components of one carrier.
        axes: spatial axes.
        bound: the axes its reduction or scan binds.
        relations: splits, fusions and paddings, in the order they were made.
        order: loop names, outermost first.
        roles: loop name to role; ``serial`` when absent.
        attach: (stage, loop) of the consumer it is computed at; None for a root. The loop ``""`` means inside the
            consumer's parallel loops but before any other.
        beside: (loop, axis, points) for loops of the consumer, the last of which is the one it is attached at: it computes that many points
            of an axis, by its loop name, in every round of the loop, and is kept whole, as a root is. Empty where the region is what is
            read there.
        layout: storage dimensions of its buffer as terms over ``axes`` counted from the start of the region; None for row-major.
        notes: loop name to an annotation for the emitters (``unroll_by``, ``pipeline``), and stage-wide ones under ``""``.
        states: one for each tensor of a rolling stage. Such a tensor's definition is a read, at the stage's bound axis, of what a stage
            attached in the loop over that axis computes: the tensor is its value at the last block. Axes that have no loop in ``order``
            are a region which the attached stages run over.
        along: bound axis -> the axis of the stage it is attached in: the reduction takes the elements where that axis is, and others when
            that has moved on.
    """

    name: str
    tensors: tuple[Compute, ...]
    axes: tuple[Var, ...]
    bound: tuple[Var, ...] = ()
    relations: tuple[Relation, ...] = ()
    order: tuple[str, ...] = ()
    roles: Mapping[str, str] = field(default_factory=dict)
    attach: tuple[str, str] | None = None
    beside: tuple[tuple[str, str, int], ...] = ()
    layout: tuple[Term, ...] | None = None
    notes: Mapping[str, Any] = field(default_factory=dict)
    states: tuple[State, ...] = ()
    along: Mapping[Var, Var] = field(default_factory=dict)

    @property
    def body(self) -> Expr:
        """The first tensor's definition."""
        return self.tensors[0].body

    @property
    def kind(self) -> str:
        """``"reduce"``, ``"scan"``, ``"map"`` or ``"roll"``."""
        if self.states:
            return "roll"
        return "reduce" if isinstance(self.body, Reduce) else "scan" if isinstance(self.body, Scan) else "map"

    @property
    def position(self) -> Var | None:
        """The axis that runs over the results of a scan; it has no loop of its own, it goes along with the scanned axis."""
        if not isinstance(self.body, Scan):
            return None
        at: Term = self.body.data[2]
        return next(a for a in self.axes if at == as_term(a))

    def role(self, loop: str) -> str:
        """The role of a loop."""
        return self.roles.get(loop, "serial")

    def sources(self) -> KeysView[Tensor]:
        """Every tensor its bodies read, in the order in which they do."""
        return self._sources

    @cached_property
    def _sources(self) -> KeysView[Tensor]:
        return dict.fromkeys(r.tensor for t in self.tensors for r in reads(t.body)).keys()

    def axis_names(self) -> dict[Var, str]:
        """Loop name of each axis before any split."""
        names: dict[Var, str] = {}
        for v in (*self.axes, *self.bound):
            name, n = v.name, 0
            while name in names.values():
                n += 1
                name = f"{v.name}{n}"
            names[v] = name
        return names

    def reducing(self) -> set[str]:
        """The names of loops that run over a bound axis."""
        names = self.axis_names()
        out = {names[v] for v in self.bound}
        for r in self.relations:
            if isinstance(r, Split) and r.axis in out:
                out |= {r.outer, r.inner}
            elif isinstance(r, Fuse) and r.outer in out:
                out.add(r.fused)
            elif isinstance(r, Pad) and r.axis in out:
                out.add(r.padded)
        return out

    def padded(self) -> set[str]:
        """The axes, by loop name, whose storage reaches to the end of the last tile."""
        return {r.axis for r in self.relations if isinstance(r, Split) and r.tail == "pad"}


@dataclass(frozen=True)
class Step:
    """One primitive that was applied: its name, its arguments as plain data, and the user's line that asked for it (None: a heuristic)."""

    name: str
    args: Mapping[str, Any]
    loc: Loc | None = field(default=None, compare=False)

    def as_data(self) -> dict[str, Any]:
        """Plain data for JSON; :meth:`of_data` reads it back."""
        out: dict[str, Any] = {"step": self.name, "args": dict(self.args)}
        return out if self.loc is None else out | {"at": f"{self.loc.file}:{self.loc.line}"}

    @staticmethod
    def of_data(data: Mapping[str, Any]) -> Step:
        """The step of :meth:`as_data`.

        Raises:
            KeyError, TypeError, ValueError: it is no such data.
        """
        file, _, line = str(data["at"]).rpartition(":") if data.get("at") else ("", "", "")
        return Step(str(data["step"]), dict(data["args"]), Loc(file, int(line)) if file else None)


@dataclass(frozen=True)
class Nest:
    """Stages, producers first, of one program; ``trace`` lists the primitives that made it out of the unscheduled nest, in order."""

    program: Program
    stages: tuple[Stage, ...]
    trace: tuple[Step, ...] = ()

    def __getitem__(self, name: str) -> Stage:
        return self._named[name]

    @cached_property
    def _named(self) -> dict[str, Stage]:
        return {s.name: s for s in reversed(self.stages)}

    @cached_property
    def _producers(self) -> dict[Tensor, Stage]:
        return {t: s for s in reversed(self.stages) for t in s.tensors}

    @cached_property
    def _consumers(self) -> dict[Tensor, list[Stage]]:
        out: dict[Tensor, list[Stage]] = {}
        for s in self.stages:
            for t in s.sources():
                out.setdefault(t, []).append(s)
        return out

    def with_stage(self, stage: Stage) -> Nest:
        """The nest with the stage of that name replaced."""
        return replace(self, stages=tuple(stage if s.name == stage.name else s for s in self.stages))

    def producer(self, tensor: Tensor) -> Stage | None:
        """The stage that defines a tensor; None for an input."""
        return self._producers.get(tensor)

    def consumers(self, stage: Stage) -> list[Stage]:
        """The stages that read any of a stage's tensors."""
        if len(stage.tensors) == 1:
            return list(self._consumers.get(stage.tensors[0], ()))
        return [s for s in self.stages if any(t in s.sources() for t in stage.tensors)]

    def is_output(self, stage: Stage) -> bool:
        """Whether the program returns one of the stage's tensors."""
        return any(t in self.program.outputs for t in stage.tensors)


__all__ = ["GRID_ROLES", "TILE_ROLES", "Fuse", "Nest", "Pad", "Relation", "Split", "Stage", "State", "Step"]
