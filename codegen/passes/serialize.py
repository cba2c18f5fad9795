"""Run the grid of a phase one point after another."""

from __future__ import annotations

from dataclasses import replace

from codegen.tile.ir import Block, For, Phase, TileProgram
from dsl.dim import ZERO


def serialize(program: TileProgram, name: str) -> TileProgram:
    """Turn the grid of one phase into loops, outermost first; the other phases are left alone.

    Before: ``with phase("y", grid=[(i, 8), (j, 4)])``. After: one point, in which ``i`` and ``j`` are loops. It is right whatever the
    points share, and uses one thread (one program of a GPU): for phases that could not be proved free of races.
    """
    return replace(program, phases=tuple(_alone(p) if p.name == name else p for p in program.phases))


def _alone(phase: Phase) -> Phase:
    body = phase.body
    for v, extent in reversed(phase.grid):
        loop = For(v, ZERO, extent, (), body)
        loop.loc = phase.loc
        body = Block(ops=[loop])
    return replace(phase, grid=(), body=body, serial=True, group=0)
