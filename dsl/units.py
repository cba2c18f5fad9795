"""Axes of one point are taken out of intermediate definitions.

``max[i, j] = max[k](x[i, k])`` over ``j < 1``, read as ``max[i, 0]`` (a reduction that keeps its dimension), becomes ``max[i]``: what it
shares its rows with is then plain to see. Outputs keep their shape (one that others read is a copy of what they read), and so does a
dimension that is indexed by data.
"""

from __future__ import annotations

from collections.abc import Mapping

from dsl.algebra import reads, substitute, transform
from dsl.dim import ZERO, Term, Var
from dsl.expr import Compute, Expr, Read, Tensor, index
from dsl.program import Program


def squeeze(program: Program, like: Program | None = None) -> Program:
    """The program without the unit axes of its intermediate definitions.

    Args:
        program: sizes known.
        like: the same program at other sizes; only axes that are of one point there too are taken out, so that a schedule made for those
            sizes finds the axes it speaks of.
    """
    there = dict(zip(program.computes, (program if like is None else like).computes))
    by_data = {(r.tensor, n) for c in program.computes for r in reads(c.body) for n, i in enumerate(r.indices) if not isinstance(i, Term)}
    used = {r.tensor for c in program.computes for r in reads(c.body)}
    whole = {t for t in program.outputs if t not in used}
    kept: dict[Tensor, tuple[int, ...]] = {}
    for c in program.computes:
        dims = tuple(n for n, a in enumerate(c.axes)
                     if c in whole or not (_is_unit(a) and _is_unit(there[c].axes[n])) or (c, n) in by_data)
        if len(dims) < len(c.axes):
            kept[c] = dims
    if not kept:
        return program
    moved: dict[Tensor, Compute] = {}
    for c in program.computes:
        dims = kept.get(c, tuple(range(len(c.axes))))
        point = {a: ZERO for n, a in enumerate(c.axes) if n not in dims}
        body = _narrow_reads(substitute(c.body, point), kept, moved)
        moved[c] = Compute(c.name, tuple(c.axes[n] for n in dims), body, c.loc, c.dtype)
    outputs = tuple(_restored(t, kept[t], moved[t]) if t in kept else moved[t] for t in program.outputs)
    return Program(program.name, program.inputs, outputs, program.single, program.loc)


def _restored(t: Compute, dims: tuple[int, ...], narrow: Compute) -> Compute:
    """A copy with the unit axes that an output has."""
    axes = tuple(Var(a.name, a.extent) for a in t.axes)
    return Compute(t.name, axes, narrow.read(*(index(axes[n]) for n in dims)), t.loc, t.dtype)


def _is_unit(axis: Var) -> bool:
    return axis.extent is not None and axis.extent.is_const and axis.extent.const == 1


def _narrow_reads(body: Expr, kept: Mapping[Tensor, tuple[int, ...]], moved: Mapping[Tensor, Compute]) -> Expr:
    def one(e: Expr) -> Expr | None:
        if not isinstance(e, Read) or e.tensor not in moved:
            return None
        indices = [_narrow_reads(i, kept, moved) if isinstance(i, Expr) else i for i in e.indices]
        return moved[e.tensor].read(*(indices[n] for n in kept.get(e.tensor, range(len(indices)))))

    return transform(body, one)
