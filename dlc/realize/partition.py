"""Where kernels begin and end, and what is written to memory between them.

The graph is seen definition by definition. Kernels are filled in the order of recording:

- a kernel holds no product of matrices that depends on another one: the factors of a product are packed while it runs, and the schedule
  of one product does not reach into the next; products side by side, reductions and everything pointwise share a kernel;
- what only gives memory another shape is no part of any kernel: its source is written, and read under the other shape by later kernels;
- a kernel belongs to one phase of a training step, and holds at most :data:`LARGEST` definitions, so that compiling stays quick.

Then, from the last kernel to the first: what another kernel needs is written to memory, unless it is cheap, pointwise, and made of what is
in memory anyway: then it is computed again where it is needed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from dlc.tape import Node, Template

LARGEST = 32
CHEAP = 8.0  # operations per element that cost less than writing and reading it


class Item(NamedTuple):
    """One definition of one node, or the n-th array that exists already: then ``node`` is -1."""

    node: int
    at: int


@dataclass
class Group:
    """One kernel.

    Attributes:
        items: what it computes, in dependence order.
        outputs: those of them that are written to memory.
        inputs: what it reads from memory.
        views: what is other memory under another shape once the kernel ran, with what it is a view of.
        phase: of the training step.
    """

    items: list[Item] = field(default_factory=list)
    outputs: list[Item] = field(default_factory=list)
    inputs: list[Item] = field(default_factory=list)
    views: list[tuple[Item, Item]] = field(default_factory=list)
    phase: str = "forward"


@dataclass(frozen=True)
class Graph:
    """What is to be computed.

    Attributes:
        nodes: in the order of recording.
        arguments: for each node, the items that its inputs are.
        wanted: what must be in memory at the end.
    """

    nodes: Sequence[Node]
    arguments: Sequence[Sequence[Item]]
    wanted: Sequence[Item]

    def template(self, item: Item) -> Template:
        """The template of an item's node."""
        return self.nodes[item.node].template

    def is_view(self, item: Item) -> bool:
        """Whether an item is other memory under another shape."""
        return item.node >= 0 and self.template(item).kinds[item.at] == "alias"

    def sources(self, item: Item) -> list[Item]:
        """What a definition reads."""
        return [self.arguments[item.node][s.number] if s.kind == "input" else Item(item.node, s.number)
                for s in self.template(item).sources[item.at]]


def partition(graph: Graph) -> list[Group]:
    """The kernels, in an order in which they can run."""
    items = _needed(graph)
    places = _place(graph, items)
    order: dict[tuple[int, int, int], list[Item]] = {}
    for item in items:
        order.setdefault(places[item], []).append(item)
    stored = set(graph.wanted)
    groups: list[Group] = []
    for place in sorted(order, reverse=True):
        own = order[place]
        views = _views(graph, own, stored)
        outputs = [i for i in own if i in stored and not graph.is_view(i)]
        if outputs or views:
            group = _fill(graph, set(own), outputs, stored)
            group.views = views
            group.phase = graph.nodes[own[0].node].phase
            groups.append(group)
    return groups[::-1]


def _views(graph: Graph, own: Sequence[Item], stored: set[Item]) -> list[tuple[Item, Item]]:
    """The views among the items of a kernel that somebody reads, with their sources, which are then stored; sources first."""
    found = []
    for item in reversed(own):
        if graph.is_view(item) and item in stored:
            (source,) = graph.sources(item)
            found.append((item, source))
            if source.node >= 0:
                stored.add(source)
    return found[::-1]


def _needed(graph: Graph) -> list[Item]:
    """Every definition that leads to what is wanted, sources first."""
    seen: set[Item] = set()
    stack = [i for i in graph.wanted if i.node >= 0]
    while stack:
        item = stack.pop()
        if item not in seen:
            seen.add(item)
            stack += [s for s in graph.sources(item) if s.node >= 0]
    return sorted(seen)


def _place(graph: Graph, items: Sequence[Item]) -> dict[Item, tuple[int, int, int]]:
    """For each definition (segment of one phase, depth of products, part): kernels run in the order of these."""
    places: dict[Item, tuple[int, int, int]] = {}
    product: dict[Item, bool] = {}  # whether a product of the same kernel lies behind
    filled: dict[tuple[int, int, int], int] = {}
    segment, phase = 0, None
    for item in items:
        node = graph.nodes[item.node]
        if node.phase != phase:
            segment, phase = segment + 1, node.phase
        behind = [s for s in graph.sources(item) if s.node >= 0]
        if graph.is_view(item):
            places[item], product[item] = max([(segment, 0, 0), *(places[s] for s in behind)]) if not behind else places[behind[0]], False
            continue
        place = max([(segment, 0, 0), *(_after(places[s]) if graph.is_view(s) else places[s] for s in behind)])
        follows = any(product[s] for s in behind if places[s] == place)
        contraction = node.template.kinds[item.at] == "contraction"
        if contraction and follows:
            place, follows = (place[0], place[1] + 1, 0), False
        while filled.get(place, 0) >= LARGEST:
            place, follows = (place[0], place[1], place[2] + 1), False
        filled[place] = filled.get(place, 0) + 1
        places[item], product[item] = place, contraction or follows
    return places


def _after(place: tuple[int, int, int]) -> tuple[int, int, int]:
    return place[0], place[1], place[2] + 1


def _fill(graph: Graph, own: set[Item], outputs: list[Item], stored: set[Item]) -> Group:
    """The kernel that writes ``outputs``; what it needs of earlier kernels is added to ``stored``."""
    inside, outside = _reach(graph, own, outputs)
    light = [i for i in outside if i.node >= 0 and i not in stored and _cheap(graph, i)]
    stored.update(i for i in outside if i.node >= 0 and i not in light)
    known = {*inside, *(i for i in outside if i.node < 0 or i in stored)}
    for item in light:
        if item not in known and not _again(graph, item, stored, known):
            stored.add(item)
    again = known - inside - stored
    return _closed(graph, inside | {i for i in again if i.node >= 0}, outputs, stored, own)


def _reach(graph: Graph, own: set[Item], outputs: Sequence[Item]) -> tuple[set[Item], list[Item]]:
    """From the outputs back: definitions of this kernel, and what it reads from outside, in order."""
    inside: set[Item] = set()
    outside: dict[Item, None] = {}
    stack = list(outputs)
    while stack:
        item = stack.pop()
        if item in inside:
            continue
        if item not in own:
            outside[item] = None
            continue
        inside.add(item)
        stack += graph.sources(item)
    return inside, sorted(outside)


def _cheap(graph: Graph, item: Item) -> bool:
    template = graph.template(item)
    return template.kinds[item.at] == "map" and template.work[item.at] <= CHEAP


def _again(graph: Graph, item: Item, stored: set[Item], known: set[Item]) -> bool:
    """Whether a cheap definition can be computed again from what is in memory; it and what it takes is then known."""
    found: set[Item] = set()
    stack = [item]
    while stack:
        i = stack.pop()
        if i in known or i in found or i.node < 0 or i in stored:
            continue
        if not _cheap(graph, i) or len(found) > 4:
            return False
        found.add(i)
        stack += graph.sources(i)
    known |= found
    return True


def _closed(graph: Graph, inside: set[Item], outputs: list[Item], stored: set[Item], own: set[Item]) -> Group:
    """The kernel's definitions, outputs and inputs in a fixed order."""
    used: set[Item] = set()
    inputs: set[Item] = set()
    stack = list(outputs)
    while stack:
        item = stack.pop()
        if item in used or item in inputs:
            continue
        if item not in inside or (item in stored and item not in own):
            inputs.add(item)
            continue
        used.add(item)
        stack += graph.sources(item)
    return Group(sorted(used), sorted(outputs), sorted(inputs))
