"""Which dot instruction a dot of the tile program is: by its dtypes, its extents, and how its factors lie in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from codegen.emit.llvm_regs import Shape
from codegen.micro.instructions import DotInstruction, dot_instructions
from codegen.micro.tile_block import TileBlock
from codegen.tile.ir import Block, Buffer, Dot, Load, TileOp, Value, walk_ops
from dsl.dim import Term, Var, as_term


@dataclass(frozen=True)
class Factor:
    """A factor that an instruction takes straight from memory: whole, its terms side by side, at an element offset."""

    buffer: Buffer
    offset: Term


@dataclass(frozen=True)
class DotMatch:
    """A dot as one instruction, or a block of them.

    Attributes:
        instruction: which one.
        lanes, rows: the factor along the lanes, and the one that all lanes share.
        lane, row, step, term: the axes; no row or step for a vector instruction, no step for a sum of a single one.
        block: the registers of an instruction on tiles; None for one on vectors.
    """

    instruction: DotInstruction
    lanes: Factor
    rows: Factor
    lane: Var
    row: Var | None
    step: Var | None
    term: Var
    block: TileBlock | None = None


def match_dot(op: Dot, out: Shape, features: Iterable[str]) -> DotMatch | None:
    """The first instruction that computes a dot whose result has the register shape ``out``; None when none does."""
    lane = out.lane
    if lane is None or op.a.dtype != op.b.dtype:
        return None
    lanes, rows = (op.a, op.b) if lane in op.a.axes else (op.b, op.a)
    x, y = _factor(lanes), _factor(rows)
    if x is None or y is None or lane in y.offset.vars:
        return None
    for d in dot_instructions(features, op.a.dtype, op.acc.dtype):
        found = _on_tiles(op, d, x, y, lane) if d.tiled else _on_vectors(op, d, x, y, out)
        if found is not None:
            return found
    return None


def operand_loads(body: Block, match: Callable[[Dot], DotMatch | None]) -> set[TileOp]:
    """The loads that instructions make themselves, and nothing else needs."""
    ops = list(walk_ops(body))
    matched = {op for op in ops if isinstance(op, Dot) and match(op) is not None}
    needed = {v for op in ops for v in ((op.acc,) if isinstance(op, Dot) and op in matched else op.operands())}
    needed |= {v for op in ops for b in op.blocks() for v in b.yields}
    return {v.op for op in matched for v in (op.a, op.b) if v not in needed and v.op is not None}


def _factor(v: Value) -> Factor | None:
    """The memory that a value is loaded from, whole."""
    load = v.op
    if not isinstance(load, Load) or load.mask or load.conds or any(isinstance(i, Value) for i in load.indices):
        return None
    return Factor(load.buffer, sum((i * s for i, s in zip(load.indices, load.buffer.strides) if not isinstance(i, Value)), as_term(0)))


def _on_vectors(op: Dot, d: DotInstruction, x: Factor, y: Factor, out: Shape) -> DotMatch | None:
    """A register of results an instruction; the rows are whatever else the result has."""
    term = op.axes[0]
    if out.lane is None or len(op.axes) != 1 or out.width != d.lanes or not _side_by_side(d, x, y, out.lane, term):
        return None
    return DotMatch(d, x, y, out.lane, None, None, term)


def _on_tiles(op: Dot, d: DotInstruction, x: Factor, y: Factor, lane: Var) -> DotMatch | None:
    """A block of tiles; rows of the one factor and steps of the other at whatever distance, steps of the first one side by side."""
    term = next((v for v in op.axes if v.size == d.terms and _side_by_side(d, x, y, lane, v)), None)
    steps, rows = [v for v in op.axes if v is not term], [v for v in op.results[0].axes if v is not lane]
    if term is None or len(steps) > 1 or len(rows) != 1 or rows[0] in x.offset.vars or y.offset.coef_term(rows[0]) is None:
        return None
    step = steps[0] if steps else None
    if step is not None and (y.offset.coef(step) != d.terms or x.offset.coef_term(step) is None):
        return None
    block = TileBlock.of(d, rows[0].size, lane.size, step.size if step is not None else 1)
    return None if block is None else DotMatch(d, x, y, lane, rows[0], step, term, block)


def _side_by_side(d: DotInstruction, x: Factor, y: Factor, lane: Var, term: Var) -> bool:
    return term.size == d.terms == x.offset.coef(lane) and x.offset.coef(term) == y.offset.coef(term) == 1
