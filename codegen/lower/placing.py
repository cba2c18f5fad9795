"""Where the region of an attached stage is kept."""

from __future__ import annotations

from codegen.lower.context import Context
from codegen.lower.values import match_tile
from dsl.algebra import reads
from dsl.expr import Tensor
from dsl.nest import Stage
from dsl.placing import Placed, PlacedLoop


def in_registers(cx: Context, stage: Stage, p: Placed) -> bool:
    """Whether the stage's region is one tile that all its consumers read whole."""
    if stage.kind in ("scan", "roll") or stage.layout is not None or any(not x.reduce and not x.tile and not single(x) for x in p.loops):
        return False
    # A rolling stage takes its states whole, whatever their tiles
    return all(reads_tile(cx, c, t, p) for c in cx.nest.consumers(stage) if c.kind != "roll" for t in stage.tensors)


def reads_tile(cx: Context, consumer: Stage, t: Tensor, p: Placed) -> bool:
    """Whether a stage reads a tensor, where it does, as the whole tile that ``p`` makes."""
    q = cx.placed[consumer.name]
    stepped = {x.var for x in q.loops if not x.tile}
    for r in (r for own in consumer.tensors for r in reads(own.body) if r.tensor is t):
        pairs = match_tile(r, q, p, {})
        if pairs is None or any(there in stepped for _, there in pairs):
            return False
    return True


def single(x: PlacedLoop) -> bool:
    """Whether a loop has one iteration."""
    return x.extent.is_const and x.extent.const == 1
