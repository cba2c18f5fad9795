"""Rows too short to fill vectors: one in every lane, and turned in registers on the way in and out."""

from __future__ import annotations

import math

from codegen.analysis.access import accesses, cost, size
from codegen.heuristics.decisions import Setting
from dsl.dim import Var
from dsl.nest import Stage

_SPELLED = 600  # operations of a stage that are written out for a row
_ACROSS = 3  # shuffles for each register of a square block that is turned
_STEP = 2  # instructions of a step that joins halves of a register


def side_by_side(stages: list[tuple[Stage, tuple[Var, ...]]], rows: tuple[Var, ...], setting: Setting) -> Var | None:
    """The row axis to put along the lanes though memory is contiguous inside of rows; None where lanes do better along them.

    By counts of instructions for a row. Along it, every stage takes whole vectors, however few elements it has, and every reduction ends
    with steps across the lanes; across, a row takes its share of them, and what lies in memory is turned.

    Args:
        stages: what is computed for a row, each with its own axes that run over rows; what all but the first make stays in registers.
        rows: the axes over rows.
        setting: the machine, how inputs lie in memory.
    """
    lanes = setting.target.vector_bits // 32
    row = max(rows, key=lambda v: size(v.extent), default=None)
    if row is None or size(row.extent) < 2 * lanes or any(s.kind == "scan" for s, _ in stages):
        return None
    along, across = 0.0, 0.0
    kept = {t for s, _ in stages[1:] for t in s.tensors}
    for s, own in stages:
        inner = [v for v in (*s.axes, *s.bound) if v not in own]
        points, work = math.prod(size(v.extent) for v in inner), max(1, max(cost(t.body) for t in s.tensors))
        if points > 2 * lanes or points * work > _SPELLED or any(v.extent is None or not v.extent.is_const for v in inner):
            return None  # what is written out has a known length
        turned = sum(points for x in accesses(s, setting.strides)
                     if x.tensor not in kept and any(x.stride(v) == 1 and size(v.extent) > 1 for v in inner))
        along += -(-points // lanes) * work + (_STEP * (lanes.bit_length() - 1) * len(s.tensors) if s.bound else 0)
        across += (points * work + _ACROSS * turned) / lanes
    return row if across < along else None
