"""The lazy graph: values that need not exist yet, and the applications of templates that would compute them."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any
from weakref import ref

import torch

from dlc.tape.mode import mode
from dlc.tape.template import Spec, Template

_numbers = itertools.count()
next_number = _numbers.__next__
LONGEST = 512
"""Operations in a row after which the recorded ones are computed, so that no loop can make a graph without end."""


class Value:
    """An array: its memory, or the node that computes it; with memory the node is forgotten.

    Attributes:
        spec: shape and dtype.
        node: the application it is a result of; None once it has memory.
        index: which definition of the node's template it is.
        buffer: its memory; None until it is computed.
        handles: how many tensors of the user stand for it; those are computed together with what depends on them.
        group: values that are computed when this one is: the gradients of one backward, say.
    """

    __slots__ = ("__weakref__", "buffer", "group", "handles", "index", "node", "spec")

    def __init__(self, spec: Spec, node: Node | None, index: int = 0, buffer: torch.Tensor | None = None) -> None:
        self.spec, self.node, self.index, self.buffer = spec, node, index, buffer
        self.handles = 0
        self.group: list[ref[Value]] | None = None

    def fill(self, buffer: torch.Tensor) -> None:
        """Give the value its memory."""
        self.buffer, self.node, self.group = buffer, None, None


class Leaf:
    """Where gradients of one tensor arrive."""

    __slots__ = ("__weakref__", "hooks", "tensor")

    def __init__(self, tensor: Any) -> None:
        self.tensor = ref(tensor)
        self.hooks: dict[int, Callable[[Any], Any]] | None = None


Edge = Leaf | tuple["Node", int]


class Node:
    """One application of a template.

    Attributes:
        template: what is computed.
        inputs: of what.
        edges: for each input, where its gradient goes, None for nowhere; None altogether where no gradient will be asked for (any more).
        phase: of the training step, ``forward``, ``backward`` or ``update``.
        number: nodes made later have greater ones, so inputs come before.
        depth: operations in a row up to here that are not computed yet.
        results: definitions that somebody may still ask for.
        kept: values held for the backward.
        hooks: definition -> functions that see and may replace its gradient.
    """

    __slots__ = ("__weakref__", "depth", "edges", "hooks", "inputs", "kept", "number", "phase", "released", "results", "template")

    def __init__(self, template: Template, inputs: Sequence[Value], edges: Sequence[Edge | None] | None) -> None:
        self.template, self.inputs, self.edges = template, inputs, edges
        self.phase, self.number, self.released = mode.phase, next(_numbers), False
        depth = 0
        for v in inputs:
            if v.node is not None and v.node.depth > depth:
                depth = v.node.depth
        self.depth: int = depth + 1
        self.results: dict[int, ref[Value]] = {}
        self.kept: list[Value] = []
        self.hooks: dict[int, dict[int, Callable[[Any], Any]]] | None = None

    def value(self, index: int) -> Value:
        """The value of a definition."""
        found = self.results.get(index)
        value = found() if found is not None else None
        if value is None:
            value = Value(self.template.specs[index], self, index)
            self.results[index] = ref(value)
        return value

    def release(self) -> None:
        """Forget what was held for gradients."""
        self.edges, self.released = None, True
        self.kept.clear()


def apply(template: Template, inputs: Sequence[Value], edges: Sequence[Edge | None]) -> list[tuple[Value, Edge | None]]:
    """Record an application; the results with where their gradients go."""
    tracked = False
    if mode.grad and template.differentiable:
        for e in edges:
            if e is not None:
                tracked = True
    node = Node(template, inputs, edges if tracked else None)
    if mode.recording is not None:
        mode.recording.nodes.append(node)
    out: list[tuple[Value, Edge | None]] = []
    for n in template.results:
        if n < 0:
            out.append((inputs[-1 - n], edges[-1 - n] if mode.grad else None))
        else:
            out.append((node.value(n), (node, n) if tracked and template.specs[n].dtype.is_float else None))
    return out
