"""Panels: a constant factor of a product kept in memory as packing would lay it out, the lanes of one register tile side by side.

``w[j, k]`` becomes ``p[j // n, k, j % n]``, with zeros after the last element. A program that reads ``p`` needs no copy while it runs.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from codegen.analysis.access import Strides, product_reads
from codegen.heuristics.blocking import busy_rows, register_tile
from codegen.heuristics.dots import multiplied_by_dots
from codegen.heuristics.fusion import is_contraction
from codegen.heuristics.packing import dimension, separable
from codegen.heuristics.product import analyse
from codegen.target.model import Target
from dsl.algebra import inputs_and_computes, reads, transform
from dsl.dim import Term, as_term, product
from dsl.expr import Compute, Expr, Input, Read, Tensor, const, where
from dsl.loc import here
from dsl.nest import Nest
from dsl.ops.dispatch import build
from dsl.program import Program

_ROWS = 64  # for so many rows or more the width of a panel is chosen; it serves any number


@dataclass(frozen=True)
class Panels:
    """How one input is kept.

    Attributes:
        name: of the input.
        axis: the dimension that lies along the lanes.
        width: elements of a panel.
        rows: results that each element goes into: rows of the product that share it.
        fewest: so many of them keep the multipliers busy; products of fewer rows read the input as it lies.
    """

    name: str
    axis: int
    width: int
    rows: Term
    fewest: int

    def shape(self, t: Tensor) -> tuple[Term, ...]:
        """The shape of the panels of an input."""
        n = t.shape[self.axis]
        return ((n + self.width - 1) // self.width, *(s for d, s in enumerate(t.shape) if d != self.axis), as_term(self.width))


def find_panels(nest: Nest, names: Collection[str], target: Target, strides: Strides) -> list[Panels]:
    """The inputs among ``names`` that are worth keeping in panels: read by one product alone, as the factor that has its lanes.

    Dtypes of which an instruction of the target adds several products at a time are left out: those want the terms side by side.

    Args:
        nest: of the program, unscheduled.
        names: of inputs that do not change.
        target: a CPU.
        strides: of the inputs.
    """
    readers = [(s, r) for s in nest.stages for t in s.tensors for r in reads(t.body)]
    found: list[Panels] = []
    for s in nest.stages:
        if not is_contraction(s) or product_reads(s.body.args[0]) is None:
            continue
        p = analyse(s, strides)
        r = p.lanes
        if r is None or p.row is None or r.tensor.name not in names or nest.producer(r.tensor) is not None or not separable(r, p.lane):
            continue
        lanes = target.vector_bits // p.accumulator.bits
        alone = sum(other.tensor is r.tensor for _, other in readers) == 1
        if alone and p.columns >= lanes and not multiplied_by_dots(p, target):
            width, _ = register_tile(target, p.columns, _ROWS, p.accumulator.bits)
            rows = product([v.extent for v in s.axes if v.extent is not None and v not in r.free])
            found.append(Panels(r.tensor.name, dimension(r, p.lane), width, rows, busy_rows(target, width, p.accumulator.bits)))
    return found


def in_panels(program: Program, found: Collection[Panels]) -> Program:
    """The program with inputs in panels, under their names."""
    by_name = {p.name: p for p in found}
    inputs = [t if own is None else Input(t.name, own.shape(t), t.dtype, t.loc)
              for t in program.inputs for own in [by_name.get(t.name)]]
    computes: dict[Tensor, Compute] = {}
    tensors: dict[Tensor, Tensor] = dict(zip(program.inputs, inputs))

    def one(e: Expr) -> Expr | None:
        if not isinstance(e, Read) or tensors.get(e.tensor, e.tensor) is e.tensor:
            return None
        made = tensors[e.tensor]
        own = by_name.get(e.tensor.name) if isinstance(e.tensor, Input) else None
        if own is None:
            return made.read(*e.indices)
        lane = e.indices[own.axis]
        rest = [i for d, i in enumerate(e.indices) if d != own.axis]
        return made.read(lane // own.width, *rest, lane % own.width)

    for c in inputs_and_computes(program.outputs)[1]:
        body = transform(c.body, one)
        tensors[c] = computes[c] = c if body is c.body else Compute(c.name, c.axes, body, c.loc, c.dtype)
    return Program(program.name, tuple(inputs), tuple(computes[t] for t in program.outputs), program.single, program.loc)


def packer(t: Input, own: Panels) -> Program:
    """The program that lays an input out in panels."""
    def element(panel: Any, *at: Any) -> Expr:
        *others, lane = at
        j = panel * own.width + lane
        x = t.read(*others[:own.axis], j, *others[own.axis:])
        return x if (t.shape[own.axis] % own.width) == 0 else where(j < t.shape[own.axis], x, const(0, t.dtype))

    made = build("panels", own.shape(t), element)
    return Program(f"{t.name}_panels", (t,), (made,), True, here())
