"""Reverse mode over recorded nodes: gradients are recorded like everything else, and computed when somebody looks."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

from dlc.tape.graph import Edge, Leaf, Node, Value, apply
from dlc.tape.template import Gradient
from dsl.errors import DerivativeError
from dsl.loc import UNKNOWN

Grad = tuple[Value, Edge | None]
Add = Callable[[Grad, Grad], Grad]
Hook = Callable[[Grad, Mapping[int, Callable[[Any], Any]]], Grad]


def pull(seeds: Sequence[tuple[Edge, Grad]], add: Add, hook: Hook, keep: bool,
         stop: frozenset[Hashable] | None = None) -> list[tuple[Edge, Grad]]:
    """Pull gradients back from some edges to the leaves.

    Args:
        seeds: edges with the gradients that start there.
        add: the sum of two gradients.
        hook: what the user's functions make of a gradient.
        keep: whether the graph can be walked again; otherwise its nodes forget what they held.
        stop: leaves and results of nodes (see :func:`place`) at which gradients are wanted; only what leads there is
            visited. None for every leaf.

    Returns:
        The gradients that arrived at leaves, and at the nodes of ``stop``, each with its edge.

    Raises:
        DerivativeError: the graph was walked before and has forgotten what it held, or an operation has no derivative.
    """
    sweep = _Sweep(add, hook, stop)
    for edge, grad in seeds:
        sweep.give(edge, grad)
    sweep.run()
    if not keep:
        for node in sweep.visited:
            node.release()
    return [sweep.arrived[key] for key in sweep.order]


def place(edge: Edge) -> Hashable:
    """What an edge is looked up by."""
    return id(edge) if isinstance(edge, Leaf) else (id(edge[0]), edge[1])


class _Sweep:
    """One walk, from the node made last to the first."""

    def __init__(self, add: Add, hook: Hook, stop: frozenset[Hashable] | None) -> None:
        self.add, self.hook, self.stop = add, hook, stop
        self.pending: dict[Node, dict[int, Grad]] = {}
        self.queue: list[tuple[int, Node]] = []
        self.visited: list[Node] = []
        self.arrived: dict[Hashable, tuple[Edge, Grad]] = {}
        self.order: list[Hashable] = []
        self.useful: dict[Node, bool] = {}

    def give(self, edge: Edge, grad: Grad) -> None:
        """A gradient arrives."""
        if isinstance(edge, Leaf):
            if self.stop is None or place(edge) in self.stop:
                self._arrive(edge, grad)
            return
        node, index = edge
        waiting = self.pending.get(node)
        if waiting is None:
            waiting = self.pending[node] = {}
            heapq.heappush(self.queue, (-node.number, node))
        waiting[index] = self.add(waiting[index], grad) if index in waiting else grad

    def _arrive(self, edge: Edge, grad: Grad) -> None:
        key = place(edge)
        if key in self.arrived:
            grad = self.add(self.arrived[key][1], grad)
        else:
            self.order.append(key)
        self.arrived[key] = (edge, grad)

    def run(self) -> None:
        """Visit every node after all its users."""
        while self.queue:
            _, node = heapq.heappop(self.queue)
            grads = self.pending.pop(node)
            if node.hooks:
                grads = {n: self.hook(g, node.hooks[n]) if n in node.hooks else g for n, g in grads.items()}
            if self.stop is not None:
                for n, g in grads.items():
                    if place((node, n)) in self.stop:
                        self._arrive((node, n), g)
            if self._leads_on(node):
                self._through(node, grads)

    def _through(self, node: Node, grads: dict[int, Grad]) -> None:
        self.visited.append(node)
        if node.edges is None:
            raise DerivativeError("this graph was already walked backward", "what it held for gradients was given back then",
                                  "say backward(retain_graph=True) the first time", UNKNOWN)
        edges, template = node.edges, node.template
        wanted = tuple([n for n, e in enumerate(edges) if e is not None and template.inputs[n].dtype.is_float and self._wanted(e)])
        if not wanted:
            return
        given = tuple(sorted(grads))
        found = record(node, template.gradient(wanted, given), grads)
        for n, grad in zip(wanted, found):
            if (edge := edges[n]) is not None:
                self.give(edge, grad)

    def _wanted(self, edge: Edge) -> bool:
        if self.stop is None:
            return True
        return place(edge) in self.stop or (not isinstance(edge, Leaf) and self._leads_on(edge[0]))

    def _leads_on(self, start: Node) -> bool:
        """Whether something wanted lies behind a node; walked with a stack, since graphs are deep."""
        if self.stop is None:
            return True
        stack = [start]
        while stack:
            node = stack[-1]
            behind = [e for e in node.edges or () if e is not None]
            unknown = [e[0] for e in behind if not isinstance(e, Leaf) and e[0] not in self.useful]
            if node in self.useful or not unknown:
                stack.pop()
                self.useful[node] = any(place(e) in self.stop or (not isinstance(e, Leaf) and self.useful[e[0]]) for e in behind)
            else:
                stack.extend(unknown)
        return self.useful[start]


def record(node: Node, gradient: Gradient, grads: dict[int, Grad]) -> list[Grad]:
    """Record the backward of one node."""
    values: list[Value] = []
    edges: list[Edge | None] = []
    own = node.edges or ()
    for kind, n in gradient.sources:
        if kind == "cotangent":
            value, edge = grads[n]
        elif kind == "input":
            value, edge = node.inputs[n], own[n]
        else:
            value, edge = node.value(n), (node, n) if node.template.specs[n].dtype.is_float else None
        values.append(value)
        edges.append(edge)
    return apply(gradient.template, values, edges)
