"""The order of a phase's tile axes: what every tile's dimensions follow, chosen so that products need no transposes."""

from __future__ import annotations

from collections.abc import Iterable

from codegen.tile.ir import Block, Dot, Load, Store, TileOp, Value, walk_ops
from dsl.dim import Var
from dsl.errors import TargetError

Edges = set[tuple[Var, Var]]


def axis_order(body: Block, bound: Iterable[Var]) -> dict[Var, int]:
    """A rank for every tile axis: for as many dots as possible, batch before rows before contracted before columns.

    Raises:
        TargetError: an axis whose extent is not a power of two.
    """
    fixed = set(bound)
    axes = sorted({a for op in walk_ops(body) for a in _axes(op, fixed)}, key=lambda a: a.uid)
    for a in axes:
        if a.size & (a.size - 1) or a.size == 0:
            title = f"tile axis `{a}` has {a.size} elements, and a GPU tile needs a power of two"
            raise TargetError(title, remedy="tile by 16, 32, 64, 128")
    edges: Edges = set()
    for op in walk_ops(body):
        if isinstance(op, Dot):
            _prefer(op, edges)
    order: dict[Var, int] = {}
    while len(order) < len(axes):
        ready = next(a for a in axes if a not in order and all(b in order for b, c in edges if c is a))
        order[ready] = len(order)
    return order


def _axes(op: TileOp, fixed: set[Var]) -> set[Var]:
    found = {a for v in (*op.operands(), *op.results) for a in v.axes}
    found |= {a for b in op.blocks() for p in b.params for a in p.axes}
    if isinstance(op, (Load, Store)):
        loops = {v for i in op.indices if not isinstance(i, Value) for v in i.vars if v.kind == "axis"}
        found |= loops - fixed
    return found


def _prefer(op: Dot, edges: Edges) -> None:
    """Ask for batch, rows, contracted, columns; with the factors exchanged when that contradicts an earlier dot; else not at all."""
    both = set(op.a.axes) & set(op.b.axes)
    batch = both - set(op.axes)
    for a, b in ((op.a, op.b), (op.b, op.a)):
        groups = [batch, set(a.axes) - both, set(op.axes), set(b.axes) - both]
        wanted = {(x, y) for n, g in enumerate(groups) for h in groups[n + 1:] for x in g for y in h}
        if not _cyclic(edges | wanted):
            edges |= wanted
            return


def _cyclic(edges: Edges) -> bool:
    left = set(edges)
    while left:
        targets = {b for _, b in left}
        free = {e for e in left if e[0] not in targets}
        if not free:
            return True
        left -= free
    return False
