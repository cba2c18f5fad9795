"""Exact arithmetic and least traffic of a program whose sizes are known."""

from __future__ import annotations

from dsl.algebra import walk
from dsl.dim import Var, product
from dsl.errors import ShapeError
from dsl.expr import Expr, Op, Reduce, Scan
from dsl.opset import OPS
from dsl.program import Program


def flops(program: Program) -> int:
    """Operations of all definitions, each evaluated once per point; a reduction costs one combination per element.

    Raises:
        ShapeError: a size is not known; specialize the program first.
    """
    return sum(_cost(c.body, c.axes) for c in program.computes)


def _cost(body: Expr, axes: tuple[Var, ...]) -> int:
    """Cost over a box: what stands under a reduction is counted over its axes too."""
    inside: dict[Expr, tuple[Var, ...]] = {}
    total = 0
    for e in reversed(list(walk(body))):
        box = inside.setdefault(e, axes)
        if isinstance(e, (Reduce, Scan)):
            box = (*box, *(e.data[1] if isinstance(e, Reduce) else (e.data[1],)))
            total += _points(box)
        elif isinstance(e, Op):
            total += OPS[e.name].flops * _points(box)
        for a in e.args:
            if len(box) > len(inside.get(a, ())):
                inside[a] = box
    return total


def _points(axes: tuple[Var, ...]) -> int:
    n = product(a.extent for a in axes if a.extent is not None)
    if not n.is_const:
        raise ShapeError(f"the size {n} is not known", remedy="specialize the program to the shapes of a call")
    return n.const


def bytes_moved(program: Program) -> int:
    """Bytes of all inputs and outputs, each moved once: the least traffic any implementation has.

    Raises:
        ShapeError: a size is not known.
    """
    total = 0
    for t in (*program.inputs, *program.outputs):
        n = product(t.shape)
        if not n.is_const:
            raise ShapeError(f"the size {n} of {t.name} is not known", remedy="specialize the program to the shapes of a call")
        total += n.const * t.dtype.itemsize
    return total
