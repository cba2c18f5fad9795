"""Move what does not change from round to round out of loops."""

from __future__ import annotations

from collections.abc import Iterable

from codegen.tile.ir import PURE, Block, Buffer, For, If, Iota, Load, Predicate, Store, TileOp, TileProgram, Value, walk_ops
from dsl.dim import Term, Var


def hoist(program: TileProgram) -> TileProgram:
    """Take pure operations out of every loop that runs at least once and whose variable and values they do not use.

    Before: ``for k: s = load(scale[i]); acc += dot(x[k] * s, w[k])``. After: ``s = load(scale[i])`` stands in front of the loop. Loads of
    buffers that the phase writes stay, as do stores, checks, dots and reductions, whose results a loop seldom repeats.
    """
    for phase in program.phases:
        written = {op.buffer for op in walk_ops(phase.body) if isinstance(op, Store)}
        _hoist(phase.body, written)
    return program


def _hoist(block: Block, written: set[Buffer]) -> None:
    out: list[TileOp] = []
    for op in block.ops:
        for inner in op.blocks():
            _hoist(inner, written)
        if isinstance(op, For) and _runs(op):
            out += _invariant(op, written)
        out.append(op)
    block.ops = out


def _runs(loop: For) -> bool:
    """Whether the loop has a first round for sure."""
    rounds = loop.hi - loop.lo
    return rounds.is_const and rounds.const > 0


def _invariant(loop: For, written: set[Buffer]) -> list[TileOp]:
    """Take the operations that are the same in every round out of a loop's body."""
    moving: set[Value] = {*loop.body.params, *(v for op in walk_ops(loop.body) for v in op.results)}
    out: list[TileOp] = []
    kept: list[TileOp] = []
    for op in loop.body.ops:
        still = isinstance(op, PURE) and not any(v in moving for v in op.operands()) and loop.var not in _variables(op)
        if still and not (isinstance(op, Load) and op.buffer in written):
            out.append(op)
            moving.difference_update(op.results)
        else:
            kept.append(op)
    loop.body.ops = kept
    return out


def _variables(op: TileOp) -> set[Var]:
    """The variables in an operation's own terms."""
    terms: Iterable[object] = ()
    if isinstance(op, Load):
        terms = (*op.indices, *op.mask)
    elif isinstance(op, Iota):
        terms = (op.term,)
    elif isinstance(op, (Predicate, If)):
        terms = op.terms
    return {v for t in terms if isinstance(t, Term) for v in t.vars}
