"""Sums over few results are made from partial sums, so that every processor has work: split-k, and reductions in two kernels."""

from __future__ import annotations

import math
from collections.abc import Set as AbstractSet

from codegen.analysis.access import size
from codegen.analysis.product import Product, product_of
from codegen.heuristics.decisions import Setting
from codegen.heuristics.fusion import iterations
from codegen.heuristics.gpu.contraction import contracted_tiles, matrix_tile
from codegen.heuristics.gpu.tiles import power
from dsl.expr import Reduce
from dsl.nest import Nest, Stage
from dsl.primitives.loops import split
from dsl.primitives.reduction import neutral_input, rfactor

_FACTOR = 1 << 15  # elements from which a reduction over few rows is worth two kernels
_ROWS = 4096  # elements of one partial result, at least
_STEPS = 8  # steps along the contracted axis that one program takes at least: fewer do not hide the partial results' way through memory


def part_reductions(nest: Nest, setting: Setting, done: AbstractSet[str]) -> Nest:
    """Factor every reduction that is too long for the few programs there would be, but for those that are scheduled already (``done``)."""
    for s in nest.stages:
        if s.kind != "reduce" or s.attach is not None or s.name in done:
            continue
        p = product_of(s)
        nest = _split_k(nest, s, p, setting) if p is not None else _two_kernels(nest, s, setting)
    return nest


def _split_k(nest: Nest, s: Stage, p: Product, setting: Setting) -> Nest:
    """Partial products over parts of the longest contracted axis, where the tiles of the result do not fill the processors."""
    axis = max(p.contracted, key=lambda v: size(v.extent))
    tile = matrix_tile(s, p, s.name, setting, ask=False)
    step = contracted_tiles(p, s, setting.target)[axis] if p.unit else 16
    programs = math.prod(-(-size(v.extent) // tile.get(v, 1)) for v in s.axes)
    steps = -(-size(axis.extent) // max(step, 1))
    wanted = min(setting.target.threads // max(programs, 1), steps // _STEPS)
    parts = 1 << (max(wanted, 1).bit_length() - 1)
    parts = setting.choose(f"{s.name}.split_k", parts, [n for n in (1, 2, 4, 8, 16, 32) if n <= max(1, steps // 2)])
    chunk = -(-steps // parts) * max(step, 1)
    if parts == 1 or chunk >= size(axis.extent):
        return nest
    loop = s.axis_names()[axis]
    return rfactor(split(nest, s.name, loop, chunk), s.name, f"{loop}.o", factors=True)[0]


def _two_kernels(nest: Nest, s: Stage, setting: Setting) -> Nest:
    """Partial results of chunks, then one result of those."""
    rows = math.prod(size(a.extent) for a in s.axes)
    if rows >= setting.target.threads or iterations(s) // max(rows, 1) < _FACTOR:
        return nest
    axis = max(s.bound, key=lambda a: size(a.extent))
    step = _chunk(s, size(axis.extent), rows, setting)
    if step is None:
        return nest
    loop = s.axis_names()[axis]
    return rfactor(split(nest, s.name, loop, step), s.name, f"{loop}.o")[0]


def _chunk(s: Stage, extent: int, rows: int, setting: Setting) -> int | None:
    """Points along the longest axis that make one partial result; a divisor of it for a carrier that has no neutral input."""
    each = max(1, iterations(s) // max(rows, 1) // extent)
    wanted = min(2 * setting.target.threads // max(rows, 1), each * extent // _ROWS)
    chunks = setting.choose(f"{s.name}.chunks", max(1, wanted), [n for n in (8, 32, 128, 512) if n * each < each * extent])
    step = -(-extent // chunks)
    step = power(step) if step * each >= 256 and chunks > 1 else step
    if extent % step and isinstance(s.body, Reduce) and neutral_input(s.body, 0) is None:
        step = next(n for n in range(step, 0, -1) if extent % n == 0)
    return step if chunks > 1 and step < extent and step * each >= 64 else None
