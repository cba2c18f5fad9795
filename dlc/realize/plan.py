"""Plans: a graph cut into compiled kernels, kept by the graph's shape, and run."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from weakref import ref

import torch

from dlc.realize.compose import compose
from dlc.realize.counters import counts
from dlc.realize.generated import Generated, generated
from dlc.realize.partition import Graph, Group, Item, partition
from dlc.runtime.launch import Launcher
from dlc.tape import Node, Value
from dlc.tape.graph import LONGEST
from dlc.tape.mode import mode
from dsl.errors import DerivativeError
from dsl.program import Program
from dsl.text import show_compute

_MOST = 4096  # plans kept
_plans: dict[tuple[int, ...], Plan] = {}
_strides: dict[tuple[tuple[int, ...], tuple[int, ...]], int] = {}
_lock = threading.RLock()


@dataclass(frozen=True)
class Step:
    """One launch: a kernel, the slots it reads and writes, and those that nobody reads after it."""

    program: Program
    phase: str
    kernel: Generated
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    dead: tuple[int, ...]

    @property
    def launcher(self) -> Launcher:
        """The kernel's code as it stands."""
        return self.kernel.launcher


@dataclass(frozen=True)
class View:
    """Memory under another shape: nothing runs."""

    source: int
    target: int
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Plan:
    """Launches and views in order; ``slots`` arrays in all, the first of them given."""

    steps: tuple[Step | View, ...]
    slots: int
    results: tuple[int, ...]

    def run(self, given: list[torch.Tensor]) -> list[torch.Tensor]:
        """Launch everything; the memory of what was asked for."""
        counts.realized += 1
        memory: list[torch.Tensor | None] = [*given, *[None] * (self.slots - len(given))]
        for step in self.steps:
            if isinstance(step, View):
                source = memory[step.source]
                assert source is not None  # it is not dead yet
                memory[step.target] = source.view(step.shape)
                continue
            results = step.launcher([memory[n] for n in step.inputs])
            for n, r in zip(step.outputs, results):
                memory[n] = r
            for n in step.dead:
                memory[n] = None
            counts.launches[step.phase] += 1
            counts.kernels[step.program.name] += 1
        return [memory[n] for n in self.results]


def realize(values: Sequence[Value]) -> None:
    """Give values their memory: compute them, whatever the user holds that they are made of, and what a backward will need.

    Raises:
        BoundsError: a data-dependent index is out of range.
    """
    if mode.recording is not None or all([v.buffer is not None for v in values]):
        return  # what is recorded is computed when the recording ends
    with _lock:
        found = Collected(values)
        found.fill(found.plan().run(found.memory))


def _fill(node: Node, index: int, buffer: torch.Tensor) -> None:
    value = node.results.get(index)
    alive = value() if value is not None else None
    if alive is not None:
        alive.fill(buffer)
    elif node.edges is not None:  # a backward will ask for it
        kept = node.value(index)
        kept.fill(buffer)
        node.kept.append(kept)


def explain(values: Sequence[Value]) -> str:
    """The kernels that would compute values, as mathematics, without running them."""
    plan = Collected(values).plan()
    return "\n\n".join(f"# {s.program.name}\n" + "\n".join(show_compute(c) for c in s.program.computes)
                       for s in plan.steps if isinstance(s, Step))


class Collected:
    """The part of the graph that values need, in the order of recording, with a key that is the same for every graph of this shape.

    Attributes:
        nodes: the applications.
        given: the values whose arrays exist, in the order in which they are met.
        memory: those arrays.
        wanted: what must be in memory at the end.
        key: of the shape.
    """

    def __init__(self, values: Sequence[Value]) -> None:
        asked, self.nodes = _asked(values)
        self.memory: list[torch.Tensor] = []
        self._places = {node: n for n, node in enumerate(self.nodes)}
        self._known: dict[Value, int] = {}
        self.arguments: list[list[tuple[int, int]]] = []
        key: list[int] = []
        for node in self.nodes:
            key.append(node.template.uid)
            key.append(ord(node.phase[0]))
            self.arguments.append([self._argument(v, key) for v in node.inputs])
        self.wanted = self._wanted(asked)
        for n, index in self.wanted:
            key.append(-1 - n)
            key.append(index)
        key += torch.get_num_threads(), mode.untuned
        self.key = tuple(key)

    @property
    def given(self) -> list[Value]:
        """The values whose arrays exist."""
        return list(self._known)

    def plan(self) -> Plan:
        """The plan, made where no graph of this shape has come before."""
        return _plans.get(self.key) or _planned(self)

    def fill(self, buffers: Sequence[torch.Tensor]) -> None:
        """Give what was wanted its memory."""
        for (node, index), buffer in zip(self.wanted, buffers):
            _fill(self.nodes[node], index, buffer)

    def _argument(self, v: Value, key: list[int]) -> tuple[int, int]:
        if v.buffer is None:
            assert v.node is not None
            place = self._places[v.node]
            key.append(place * _MOST + v.index)
            return place, v.index
        known = self._known.get(v)
        if known is None:
            known = self._known[v] = len(self.memory)
            self.memory.append(v.buffer)
            if not v.buffer.is_contiguous():
                key.append(-_MOST * _MOST - _layout(v.buffer))
        key.append(-1 - known)
        return -1, known

    def _wanted(self, asked: Sequence[Value]) -> list[tuple[int, int]]:
        """What was asked for, what the user holds, and what the backward of these nodes will read."""
        wanted: dict[tuple[int, int], None] = {}
        for v in asked:
            if v.node is not None:
                wanted[self._places[v.node], v.index] = None
        for n, node in enumerate(self.nodes):
            for index, value in node.results.items():
                alive = value()
                if alive is not None and alive.handles and alive.buffer is None:
                    wanted[n, index] = None
            if node.edges is not None:
                for v in _for_backward(node):
                    if v.node in self._places and v.buffer is None:
                        wanted[self._places[v.node], v.index] = None
        return list(wanted)


def _for_backward(node: Node) -> list[Value]:
    """The values that the backward of a node will read and that are not cheap to compute again."""
    edges, template = node.edges, node.template
    assert edges is not None
    wanted = tuple(n for n, e in enumerate(edges) if e is not None and template.inputs[n].dtype.is_float)
    given = tuple(n for n in template.results if n >= 0 and template.specs[n].dtype.is_float)
    try:
        sources = template.gradient(wanted, given).sources
    except DerivativeError:  # told when somebody asks for it
        return []
    needed = [node.inputs[n] if kind == "input" else node.value(n) for kind, n in sources if kind != "cotangent"]
    out = [v for v in needed if v.node is not None and v.node.template.kinds[v.index] != "map"]
    node.kept.extend(v for v in out if not any(v is k for k in node.kept))
    return out


def _asked(values: Sequence[Value]) -> tuple[list[Value], list[Node]]:
    """The values with those of their groups, and every node that is not computed yet, in the order of recording."""
    asked = [v for v in values if v.buffer is None]
    seen = {v.node for v in asked if v.node is not None}
    stack = list(seen)
    groups: set[int] = set()
    for v in asked:
        if v.group is not None:
            _join(v.group, groups, asked, seen, stack)
    while stack:
        for v in stack.pop().inputs:
            node = v.node
            if node is not None:
                if v.group is not None:
                    _join(v.group, groups, asked, seen, stack)
                if node not in seen:
                    seen.add(node)
                    stack.append(node)
    return asked, sorted(seen, key=_number)


def _join(group: list[ref[Value]], groups: set[int], asked: list[Value], seen: set[Node], stack: list[Node]) -> None:
    """Ask for the members of a group too."""
    if id(group) in groups:
        return
    groups.add(id(group))
    for other in group:
        v = other()
        if v is not None and v.node is not None:
            asked.append(v)
            if v.node not in seen:
                seen.add(v.node)
                stack.append(v.node)


def _number(node: Node) -> int:
    return node.number


def _layout(buffer: torch.Tensor) -> int:
    """A number for shape and strides."""
    return _strides.setdefault((tuple(buffer.shape), buffer.stride()), len(_strides))


def _planned(found: Collected) -> Plan:
    graph = Graph(found.nodes, [[Item(*a) for a in row] for row in found.arguments], [Item(*w) for w in found.wanted])
    groups = partition(graph)
    slots = {Item(-1, n): n for n in range(len(found.memory))}
    for group in groups:
        for item in (*group.outputs, *(view for view, _ in group.views)):
            slots[item] = len(slots)
    results = tuple(slots[i] for i in graph.wanted)
    steps: list[Step | View] = []
    for group, dead in zip(groups, _dead(groups, slots, results)):
        if group.outputs:
            program = compose(graph, group)
            inputs = tuple(slots[i] for i in group.inputs)
            strides = [found.memory[s].stride() if s < len(found.memory) else None for s in inputs]
            kernel = generated(program, strides, any(graph.template(i).reproducible for i in group.items))
            steps.append(Step(program, group.phase, kernel, inputs, tuple(slots[i] for i in group.outputs), dead))
        steps += [View(slots[source], slots[view], graph.template(view).specs[view.at].shape) for view, source in group.views]
    counts.plans += 1
    if len(_plans) >= _MOST:
        _plans.clear()
    plan = _plans[found.key] = Plan(tuple(steps), len(slots), results)
    return plan


def _dead(groups: Sequence[Group], slots: dict[Item, int], results: Sequence[int]) -> list[tuple[int, ...]]:
    """For each kernel, the slots that nobody reads after it; a view keeps its memory by itself."""
    last: dict[int, int] = {}
    for n, group in enumerate(groups):
        for item in (*group.inputs, *group.outputs, *(i for pair in group.views for i in pair)):
            last[slots[item]] = n
    out: list[list[int]] = [[] for _ in groups]
    for slot, n in last.items():
        viewed = any(slots[i] == slot for g in groups for pair in g.views for i in pair)
        if slot not in results and not viewed:
            out[n].append(slot)
    return [tuple(dead) for dead in out]


__all__ = ["LONGEST", "Collected", "Plan", "Step", "explain", "realize"]
