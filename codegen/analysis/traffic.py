"""What one point of a phase does, read off the tile program: bytes asked for, products, arithmetic, rounds of the longest loop."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from codegen.tile.ir import Block, Buffer, Dot, For, If, Load, Map, Phase, Reduce, Seek, Slot, Store, TileOp, Value
from dsl.dim import Term, Var
from dsl.opset import OPS


@dataclass(frozen=True)
class Access:
    """One load or store: bytes a point asks for over all rounds, and the grid variables its address depends on."""

    buffer: Buffer
    bytes: float
    grid: frozenset[Var]
    write: bool


@dataclass
class Work:
    """The work of one point of a grid.

    Attributes:
        accesses: every load and store.
        products: multiply-adds twice over, by the name of the operands' dtype; ``tf32`` and ``bf16`` where the definition permits them.
        arithmetic: scalar operations on tiles.
        rounds: rounds of the innermost loops, the most of any chain of them.
    """

    accesses: list[Access] = field(default_factory=list)
    products: dict[str, float] = field(default_factory=dict)
    arithmetic: float = 0.0
    rounds: float = 1.0

    @property
    def moved(self) -> float:
        """Bytes asked for."""
        return sum(a.bytes for a in self.accesses)


def work_of(phase: Phase, sizes: Mapping[Var, int]) -> Work:
    """The work of one point, masks ignored: a point at a ragged edge asks for less. What data decides over is left out."""
    grid = {v for v, _ in phase.grid}
    out = Work()
    out.rounds = _walk(phase.body, 1.0, out, {}, grid, sizes)
    return out


def points_of(phase: Phase, sizes: Mapping[Var, int]) -> int:
    """How many points the grid has."""
    return math.prod(int(n.eval(sizes)) for _, n in phase.grid)


def _walk(block: Block, times: float, out: Work, depends: dict[Var | Value, frozenset[Var]], grid: set[Var],
          sizes: Mapping[Var, int]) -> float:
    longest = 1.0
    seen: set[object] = set()
    for op in block.ops:
        if isinstance(op, For):
            rounds = rounds_of(op, sizes)
            longest = max(longest, rounds * _walk(op.body, times * rounds, out, depends, grid, sizes))
            continue
        for inner in op.blocks() if not (isinstance(op, Seek) or (isinstance(op, If) and op.conds)) else ():  # it may never run
            longest = max(longest, _walk(inner, times, out, depends, grid, sizes))
        used: frozenset[Var] = frozenset().union(*(depends.get(v, frozenset()) for v in op.operands()))
        for v in op.results:
            depends[v] = used
        place = _place(op)
        if place is None or place not in seen:  # stages that share a program read the same tile, which Triton reads once
            _count(op, times, out, used, grid)
        seen.add(place)
    return longest


def _place(op: TileOp) -> object | None:
    """What two loads of one tile have in common, whatever their axes are called; None for all else."""
    if not isinstance(op, Load) or any(isinstance(i, Value) for i in op.indices):
        return None
    tile = set(op.results[0].axes)
    terms = [frozenset((tuple(a.size if isinstance(a, Var) and a in tile else a for a in mono), c)
                       for mono, c in i.parts.items()) | {i.const}
             for i in op.indices if isinstance(i, Term)]
    return op.buffer, tuple(terms)


def rounds_of(loop: For, sizes: Mapping[Var, int]) -> float:
    """Rounds of a loop; where its bounds move with the grid, the most there can be."""
    n = loop.hi - loop.lo
    try:
        return max(float(n.eval(sizes)), 0.0)
    except KeyError:
        high = n.subs({v: s for v, s in sizes.items() if v in n.vars}).bounds[1]
        return max(float(high), 0.0) if math.isfinite(high) else 1.0


def _count(op: TileOp, times: float, out: Work, used: frozenset[Var], grid: set[Var]) -> None:
    if isinstance(op, (Load, Store)):
        value = op.results[0] if isinstance(op, Load) else op.value
        at = used | {v for i in op.indices for v in _vars(i) if v in grid}
        out.accesses.append(Access(op.buffer, times * _size(value) * op.buffer.dtype.itemsize, frozenset(at), isinstance(op, Store)))
    elif isinstance(op, Dot):
        name = ({"tf32": "tf32", "bf16x3": "bf16"}.get(op.precision, op.a.dtype.name) if op.a.dtype.bits == 32 and op.a.dtype.is_float
                else op.a.dtype.name)
        name = "f8" if name.startswith("f8") else name
        flops = 2.0 * _size(op.results[0]) * math.prod(a.size for a in op.axes) * (3 if op.precision == "bf16x3" else 1)
        out.products[name] = out.products.get(name, 0.0) + times * flops
    elif isinstance(op, Map):
        out.arithmetic += times * _size(op.results[0]) * (OPS[op.name].flops if op.name in OPS else 1)
    elif isinstance(op, Reduce):
        out.arithmetic += times * sum(_size(s) for s in op.states)


def _vars(i: Slot) -> frozenset[Var]:
    return frozenset(i.vars) if isinstance(i, Term) else frozenset()


def _size(v: Value) -> int:
    return math.prod(a.size for a in v.axes)
