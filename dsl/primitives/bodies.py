"""What primitives share that give stages other bodies."""

from __future__ import annotations

from dataclasses import replace

from dsl.algebra import substitute
from dsl.expr import Compute, Tensor
from dsl.nest import Nest, Stage
from dsl.program import Program
from dsl.stages import inline_reads


def with_bodies(s: Stage, moved: dict[Tensor, Tensor], producers: dict[Tensor, Compute]) -> Stage:
    """A stage whose bodies read the tensors that took the places of others, and have ``producers`` inlined.

    ``moved`` grows by the stage's own tensors when they change; unchanged stages keep their identity.
    """
    if s.sources().isdisjoint(producers) and s.sources().isdisjoint(moved):
        return s
    new = tuple(Compute(t.name, t.axes, inline_reads(substitute(t.body, {}, moved), producers), t.loc, t.dtype) for t in s.tensors)
    moved.update(zip(s.tensors, new))
    return replace(s, tensors=new)


def moved_nest(nest: Nest, stages: tuple[Stage, ...], moved: dict[Tensor, Tensor]) -> Nest:
    """The nest with other stages, whose program returns the tensors that took the places of its outputs."""
    p = nest.program
    outputs = tuple(new if isinstance(new := moved.get(t, t), Compute) else t for t in p.outputs)
    return replace(nest, stages=stages, program=Program(p.name, p.inputs, outputs, p.single, p.loc))


def unique_stage(nest: Nest, name: str) -> str:
    """A stage name that is free."""
    n, out = 1, name
    while any(s.name == out for s in nest.stages):
        out, n = f"{name}{n}", n + 1
    return out
