"""Cycles that a tile program takes on a CPU, by counts of its instructions: to rank schedules before they are compiled, no prediction.

A step of a loop takes as long as its arithmetic, or its loads and stores, whichever is more; one that carries a value takes at least the
time until the next step can use it. Everything is taken to lie in the nearest cache, which is what register tiles and lanes are judged by;
what blocks and packing gain in the others is left to be measured.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from codegen.analysis.cycles import vector_cycles
from codegen.analysis.traffic import points_of, rounds_of
from codegen.target.model import Target
from codegen.tile.ir import Block, Dot, For, If, Load, Map, Phase, Reduce, Scan, Seek, Store, TileOp, TileProgram, Value
from dsl.dim import Term, Var

_LATENCY = 4.0  # until the result of a multiply-add can be used
_START = 5000.0  # of a parallel phase


def program_cycles(program: TileProgram, target: Target, sizes: Mapping[Var, int] | None = None) -> float:
    """Cycles of all phases, of the thread that has the most points.

    Args:
        program: for a CPU.
        target: the machine.
        sizes: of symbolic dims.
    """
    return sum(_phase(p, _Machine(target, program.lanes, dict(sizes or {}))) for p in program.phases)


class _Machine:
    """What counts depend on: the target, the axes along its lanes, known sizes."""

    def __init__(self, target: Target, lanes: frozenset[Var], sizes: Mapping[Var, int]) -> None:
        self.target, self.lanes, self.sizes = target, lanes, sizes

    def vectors(self, v: Value) -> float:
        """Registers that a tile takes; elements where none of its axes lies along the lanes."""
        along = [a for a in v.axes if a in self.lanes]
        width = self.target.vector_bits // max(32, v.dtype.bits)
        return (math.prod(a.size for a in v.axes if a not in self.lanes)
                * (-(-math.prod(a.size for a in along) // width) if along else 1))

    def moved(self, op: Load | Store, v: Value) -> float:
        """Loads or stores that move a tile: one for a register that lies side by side in memory, else one for each element."""
        steps = [_step(op, a) for a in v.axes if a in self.lanes]
        return self.vectors(v) if all(n in (0, 1) for n in steps) else float(math.prod(a.size for a in v.axes))


def _step(op: Load | Store, axis: Var) -> int | None:
    """How many elements of the buffer lie between neighbours along an axis; None where that is not known."""
    total = 0
    for i, stride in zip(op.indices, op.buffer.strides):
        if not isinstance(i, Term):
            return None
        c = i.coef(axis)
        if c != 0:
            if c is None or not stride.is_const:
                return None
            total += int(c) * int(stride.const)
    return total


def _phase(phase: Phase, m: _Machine) -> float:
    points, each = points_of(phase, m.sizes), _block(phase.body, m)
    return points * each if phase.serial else -(-points // m.target.threads) * each + _START


def _block(block: Block, m: _Machine) -> float:
    """Cycles of one round."""
    inner = busy = moved = 0.0
    for op in block.ops:
        if isinstance(op, For):
            inner += rounds_of(op, m.sizes) * max(_block(op.body, m), _LATENCY if op.inits else 0.0)
        elif not isinstance(op, Seek) and not (isinstance(op, If) and op.conds):  # those may never run
            inner += sum(_block(b, m) for b in op.blocks())
        work, loads = _op(op, m)
        busy, moved = busy + work, moved + loads
    return inner + max(busy, moved)


def _op(op: TileOp, m: _Machine) -> tuple[float, float]:
    """Cycles of the arithmetic of an operation, and of its loads and stores."""
    near = m.target.moves[0]
    if isinstance(op, Load):
        return 0.0, near * m.moved(op, op.results[0])
    if isinstance(op, Store):
        return 0.0, 2 * near * m.moved(op, op.value)
    if isinstance(op, Map):
        return m.vectors(op.results[0]) * vector_cycles(op.name, m.target), 0.0
    if isinstance(op, Dot):
        depth = math.prod(a.size for a in op.axes)
        return depth * m.vectors(op.results[0]) / 2, near * (m.vectors(op.a) + m.vectors(op.b))
    if isinstance(op, (Reduce, Scan)):
        return sum(m.vectors(s) for s in op.states) / 2, 0.0
    return 0.0, 0.0
