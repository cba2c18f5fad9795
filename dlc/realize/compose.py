"""One program of the definitions of a kernel, taken from many templates."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dlc.lazy import lazy
from dlc.realize.partition import Graph, Group, Item
from dsl.algebra import substitute, transform
from dsl.dim import Term, Var, as_term
from dsl.expr import Compute, Expr, Input, Reduce, Scan, Tensor
from dsl.loc import UNKNOWN
from dsl.program import Program

if TYPE_CHECKING:
    from dsl.derivative import names
else:
    names = lazy("dsl.derivative.names")

_LONGEST_NAME = 3


def compose(graph: Graph, group: Group) -> Program:
    """The program of a kernel: its inputs and outputs are the group's, in order."""
    taken: set[str] = set()
    tensors: dict[Item, Tensor] = {}
    for item in group.inputs:
        tensors[item] = _input(graph, item, group, names.unique(f"a{len(tensors)}", taken))
    for item in group.items:
        tensors[item] = _instance(graph, item, tensors, taken)
    inputs = tuple(t for i in group.inputs if isinstance(t := tensors[i], Input))
    outputs = tuple(t for i in group.outputs if isinstance(t := tensors[i], Compute))
    return Program(_name(graph, group), inputs, outputs, len(outputs) == 1, UNKNOWN)


def _input(graph: Graph, item: Item, group: Group, name: str) -> Input:
    if item.node >= 0:
        spec = graph.template(item).specs[item.at]
        return Input(name, tuple(as_term(s) for s in spec.shape), spec.dtype, UNKNOWN)
    reader = next(i for i in group.items if item in graph.sources(i))
    position = next(n for n, a in enumerate(graph.arguments[reader.node]) if a == item)
    spec = graph.template(reader).inputs[position]
    return Input(name, tuple(as_term(s) for s in spec.shape), spec.dtype, UNKNOWN)


def _instance(graph: Graph, item: Item, tensors: dict[Item, Tensor], taken: set[str]) -> Compute:
    """A definition with axes of its own, reading the tensors of this program."""
    template = graph.template(item)
    c = template.definitions[item.at]
    axes = tuple(Var(a.name, a.extent) for a in c.axes)
    given: dict[Tensor, Item] = dict(zip(template.form.inputs, graph.arguments[item.node]))
    given |= {d: Item(item.node, n) for n, d in enumerate(template.definitions)}
    reads = {t: tensors[i] for t, i in given.items() if i in tensors}
    body = substitute(_renewed(c.body), {old: as_term(new) for old, new in zip(c.axes, axes)}, reads)
    return Compute(names.unique(c.name, taken), axes, body, c.loc, c.dtype)


def _renewed(body: Expr) -> Expr:
    """The body with bound axes of its own, so that a template can be used twice in one program."""
    def one(e: Expr) -> Expr | None:
        if not isinstance(e, (Reduce, Scan)):
            return None
        old: tuple[Var, ...] = e.data[1] if isinstance(e, Reduce) else (e.data[1],)
        new = tuple(Var(a.name, a.extent) for a in old)
        env: dict[Var, Term] = {a: as_term(b) for a, b in zip(old, new)}
        bound = new if isinstance(e, Reduce) else new[0]
        args = tuple(substitute(a, env) for a in e.args)
        return type(e)(args, (e.data[0], bound, *e.data[2:]), e.dtype, e.loc)

    return transform(body, one)


def _name(graph: Graph, group: Group) -> str:
    """The phase and the operations, the longest lists shortened."""
    names = list(dict.fromkeys(graph.template(i).name.removesuffix("_vjp")
                               for i in group.items if graph.nodes[i.node].phase == group.phase))
    more = [f"and_{len(names) - _LONGEST_NAME}_more"] if len(names) > _LONGEST_NAME + 1 else []
    return "_".join([group.phase, *(names[:_LONGEST_NAME] if more else names), *more])
