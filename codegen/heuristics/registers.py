"""Tiles of schedules by hand cut to the registers of a CPU.

A tile is what a block of work computes; on a GPU it is one tensor, on a CPU an array of vector registers, of which there are few. A tile
larger than that becomes loops over smaller ones, inside the loops that were around it and outside the reduction loops that end in it, so
that accumulators stay in registers along them.
"""

from __future__ import annotations

import math

from codegen.target.model import Target
from dsl.nest import TILE_ROLES, Nest, Stage
from dsl.placing import Placed, place
from dsl.primitives.loops import reorder, split

_SPELLED = 64  # registers of a stage without accumulators that are spelled out at a time


def fit_registers(nest: Nest, target: Target) -> Nest:
    """Cut the spatial axes of every tile that does not fit.

    Before: ``for k: for i in 64 (unroll): for j in 96 (vectorize)``. After, on a machine with 16 registers of 8 lanes:
    ``for i.r in 16: for j.r in 4: for k: for i.v in 4 (unroll): for j.v in 24 (vectorize)``. Axes that are reduced within the tile are
    left alone, and so is the order of every sum.
    """
    for s in nest.stages:
        nest = _fit(nest, place(nest)[s.name], target)
    return nest


def _fit(nest: Nest, p: Placed, target: Target) -> Nest:
    s = p.stage
    width = target.vector_bits // 32
    spatial = [x for x in p.loops if x.tile and not x.reduce and x.extent.is_const and x.extent.const > 1]
    sides = {x.name: x.extent.const for x in spatial}
    lane = next((x.name for x in reversed(spatial) if x.role == "vectorize"), None)
    reduced = math.prod(x.extent.const for x in p.loops if x.tile and x.reduce and x.role != "dot" and x.extent.is_const)
    count = math.prod(-(-n // width) if x == lane else n for x, n in sides.items())
    room = max(1, target.vector_registers // reduced) if s.kind == "reduce" else _SPELLED
    if count <= room or s.kind == "scan":
        return nest
    parts = _parts(sides, lane, width, room)
    cut = [x for x in sides if parts[x] < sides[x]]
    for x in cut:
        nest = split(nest, s.name, x, parts[x], f"{x}.r", f"{x}.v")
    return reorder(nest, s.name, _order(nest, nest[s.name], [f"{x}.r" for x in cut], p))


def _parts(sides: dict[str, int], lane: str | None, width: int, room: int) -> dict[str, int]:
    """The part of each side that is computed at once: divisors, as nearly square as fits.

    The lanes are whole vectors where they are that many.
    """
    rows = [x for x in sides if x != lane]
    row = rows[-1] if rows else None
    out = dict.fromkeys(sides, 1)
    best = (0.0, 1, 1)
    for n in _divisors(sides[lane]) if lane else [1]:
        vectors = -(-n // width)
        for m in _divisors(sides[row]) if row else [1]:
            if vectors * m + vectors + 1 <= max(room, 3):
                best = max(best, (n * m / (n + width * m) if lane else m, n, m))
    if lane is not None:
        out[lane] = best[1]
    if row is not None:
        out[row] = best[2]
    return out


def _divisors(n: int) -> list[int]:
    return [d for d in range(1, n + 1) if n % d == 0]


def _order(nest: Nest, s: Stage, rounds: list[str], p: Placed) -> list[str]:
    """The rounds over small tiles go inside every loop at which something is computed or that is not of the reduction."""
    plain = [x for x in s.order if x not in rounds and s.role(x) not in TILE_ROLES]
    reduced = {x.name for x in p.loops if x.reduce}
    busy = {x.attach[1] for x in nest.stages if x.attach is not None and x.attach[0] == s.name}
    at = len(plain)
    while at and plain[at - 1] in reduced and plain[at - 1] not in busy:
        at -= 1
    return [*plain[:at], *rounds, *plain[at:], *(x for x in s.order if x not in rounds and s.role(x) in TILE_ROLES)]
