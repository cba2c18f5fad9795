"""Sizes of register tiles and cache blocks, from counts of instructions and footprints."""

from __future__ import annotations

import math
from dataclasses import dataclass

from codegen.target.model import Target

_LATENCY = 8  # independent accumulations that keep the multipliers busy: latency times throughput
_LOAD = 1.2  # a load in half-cycles: two start in a cycle, less what collides
_COPY = 10  # copying an element into a packed block, in multiply-adds
_READ = 4  # reading an element from beyond the caches, likewise
_SETS = 64 * 64  # bytes after which addresses fall into the same set of a first-level cache
_RUN = 1024  # bytes of a row that are copied at a time: a run this long repays the translation of its page


@dataclass(frozen=True)
class Blocks:
    """A product as the choice of its blocks sees it.

    Attributes:
        columns, rows: extents of the lane and the row axis.
        nr, mr: the register tile.
        depth: terms of each sum.
        batch: independent products.
        inside: products that share the lane factor, computed one after another in a block.
        itemsize: bytes of a packed element.
        copy: copying an element into a packed block, in multiply-adds.
    """

    columns: int
    rows: int
    nr: int
    mr: int
    depth: int
    batch: int
    inside: int = 1
    itemsize: int = 4
    copy: int = _COPY


def register_tile(target: Target, columns: int, rows: int, bits: int = 32) -> tuple[int, int]:
    """(lane extent, row extent) of the accumulator tile: the fewest cycles a step for the whole result, edges included.

    ``bits`` are those of an accumulator.
    """
    w = target.vector_bits // bits
    while w > 128 // bits and w // 2 >= columns:
        w //= 2
    room = target.vector_registers
    shapes = [(nv, mr) for nv in range(1, 9) for mr in range(1, room)
              if nv * mr + nv + 1 <= room and (nv == 1 or (nv - 1) * w < columns) and mr <= rows]
    nv, mr = min(shapes, key=lambda s: (_tile_cycles(*s) * -(-columns // (s[0] * w)) * -(-rows // s[1]), -s[0] * s[1]))
    return nv * w, mr


def register_rows(target: Target, nr: int, rows: int, bits: int = 32) -> tuple[int, list[int]]:
    """The row extent of an accumulator tile ``nr`` lanes wide: the best as in :func:`register_tile`, and every one that fits."""
    nv = max(nr * bits // target.vector_bits, 1)
    fits = [mr for mr in range(1, target.vector_registers) if nv * mr + nv + 1 <= target.vector_registers and mr <= rows] or [1]
    return min(fits, key=lambda mr: (_tile_cycles(nv, mr) * -(-rows // mr), -mr)), fits


def busy_rows(target: Target, nr: int, bits: int = 32) -> int:
    """How many rows of ``nr`` lanes hide the latency of a multiply-add."""
    return -(-_LATENCY // max(nr * bits // target.vector_bits, 1))


def crowded(apart: int, lines: int) -> bool:
    """Whether so many cache lines at this distance displace one another in a first-level cache, which has 64 sets of eight or more."""
    return lines > 8 * (_SETS // max(math.gcd(apart, _SETS), 64))


def _tile_cycles(nv: int, mr: int) -> float:
    """Half-cycles of one step of an ``mr`` x ``nv`` tile.

    Multiply-adds (or the latency that few of them cannot hide), loads, bytes from L2.
    """
    return max(nv * mr, _LOAD * (nv + mr), _LATENCY) + 0.1 * (nv + mr) + 0.02 * (64 * nv + 4 * mr)


def register_tiles(target: Target, lanes: int, rows: int, bits: int = 32) -> list[tuple[int, int]]:
    """Other accumulator tiles no larger than the registers hold, and no larger than twice the default in either direction."""
    w = target.vector_bits // bits
    room = target.vector_registers - 2
    return [(nv * w, mr) for nv in (1, 2, 3, 4) for mr in (1, 2, 4, 6, 8, 9, 12, 13, 14, 24)
            if nv * mr + nv <= room and nv * w <= max(2 * lanes, w) and mr <= 2 * rows]


def thread_blocks(target: Target, b: Blocks, packs: tuple[bool, bool], most: int = 0) -> tuple[int, int]:
    """(lane tiles, row tiles) of one thread's block: equal shares, few copies, and packed rows that stay in a core's share of the cache.

    ``most`` row tiles where that is said; else as many as stay.
    """
    lane_tiles, row_tiles = -(-b.columns // b.nr), -(-b.rows // b.mr)
    room = max(target.caches[1] // 2, target.caches[2] // (2 * target.threads))
    most = most or (max(1, room // (b.itemsize * max(b.depth, 1) * b.mr)) if packs[1] else row_tiles)
    best: tuple[float, tuple[int, int]] | None = None
    for lp in _parts(lane_tiles, 4 * target.threads):
        for rp in _parts(row_tiles, max(4 * target.threads, 2 * -(-row_tiles // most))):
            cb, rb = -(-lane_tiles // lp), -(-row_tiles // rp)
            if rb <= most:
                cost = _cost(target.threads, b, (cb, rb), (lane_tiles, row_tiles), packs)
                if best is None or cost < best[0]:
                    best = cost, (cb, rb)
    return best[1] if best is not None else (lane_tiles, min(row_tiles, most))


def _parts(tiles: int, most: int) -> range:
    return range(1, min(tiles, most) + 1)


def _cost(threads: int, b: Blocks, block: tuple[int, int], tiles: tuple[int, int], packs: tuple[bool, bool]) -> float:
    """Multiply-adds of the thread with the largest share, with copies, or reads of the lane factor, counted as such."""
    points = b.batch * -(-tiles[0] // block[0]) * -(-tiles[1] // block[1])
    rounds = -(-points // threads)
    width, height = block[0] * b.nr, block[1] * b.mr
    return rounds * (width * height * b.inside + width * (b.copy if packs[0] else _READ) + b.copy * height * packs[1] + 1)


def panels_together(target: Target, b: Blocks, lane_tiles: int) -> int:
    """How many panels are packed at a time when rows cross them: long runs of every row, in a quarter of a core's share of the cache."""
    room = max(target.caches[1] // 2, target.caches[2] // (4 * target.threads))
    most = max(1, room // (b.itemsize * max(b.depth, 1) * b.nr))
    return max(1, min(lane_tiles, most, _RUN // (b.itemsize * b.nr)))
