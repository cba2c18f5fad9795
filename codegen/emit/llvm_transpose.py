"""Transposes between registers: rows of memory to columns of lanes by shuffles, where a gather would take a cycle per element."""

from __future__ import annotations

from collections.abc import Sequence

from llvmlite import ir

from codegen.emit.llvm_builder import Builder
from codegen.emit.llvm_types import lane_numbers

_SEGMENT_BITS = 128  # shuffles inside these segments of a register cost one cycle on every x86 and on NEON


def transpose(b: Builder, rows: Sequence[ir.Value]) -> list[ir.Value]:
    """The columns of a square block: ``out[j]`` holds lane ``j`` of every row. The number of rows is the lane count, a power of two.

    First every 128-bit segment is transposed against its neighbours in the same place, then whole segments change places; both are
    networks of perfect shuffles.
    """
    width = len(rows)
    if width == 1:
        return list(rows)
    bits = _element_bits(rows[0].type.element)
    group = min(max(_SEGMENT_BITS // bits, 1), width)
    parts = [_network(b, list(rows[at:at + group]), 1, group) for at in range(0, width, group)]
    columns: list[ir.Value] = [None] * width
    for j in range(group):
        for at, v in enumerate(_network(b, [part[j] for part in parts], group, width)):
            columns[at * group + j] = v
    return columns


def _network(b: Builder, rows: list[ir.Value], unit: int, segment: int) -> list[ir.Value]:
    """Transpose ``len(rows)`` rows of units inside every segment: as many rounds of perfect shuffles as the count has bits.

    Args:
        b: the builder.
        rows: registers; their number is a power of two and the count of units in a segment.
        unit: elements that move together.
        segment: elements of the segments that units do not leave.
    """
    count = len(rows)
    for _ in range(count.bit_length() - 1):
        half = count // 2
        rows = [_interleave(b, rows[n // 2], rows[n // 2 + half], unit, segment, n % 2) for n in range(count)]
    return rows


def _interleave(b: Builder, x: ir.Value, y: ir.Value, unit: int, segment: int, high: int) -> ir.Value:
    """Units of the low (or high) half of every segment of ``x`` and ``y``, in turn."""
    width = x.type.count
    picked = []
    for start in range(0, width, segment):
        for n in range(segment // (2 * unit)):
            first = start + high * segment // 2 + n * unit
            picked += [*range(first, first + unit), *range(width + first, width + first + unit)]
    return b.shuffle_vector(x, y, lane_numbers(*picked))


def concatenate(b: Builder, parts: Sequence[ir.Value]) -> ir.Value:
    """One register of the lanes of several of equal width; their number is a power of two."""
    while len(parts) > 1:
        width = 2 * parts[0].type.count
        order = lane_numbers(*range(width))
        parts = [b.shuffle_vector(parts[n], parts[n + 1], order) for n in range(0, len(parts), 2)]
    return parts[0]


def alternate(b: Builder, parts: Sequence[ir.Value]) -> ir.Value:
    """One register with the first lane of every part, then the second of every part, and so on."""
    width, count = parts[0].type.count, len(parts)
    order = [part * width + lane for lane in range(width) for part in range(count)]
    whole = concatenate(b, [*parts, *[parts[-1]] * ((1 << (count - 1).bit_length()) - count)])
    return b.shuffle_vector(whole, whole, lane_numbers(*order))


def lanes_between(b: Builder, v: ir.Value, first: int, count: int) -> ir.Value:
    """The lanes ``first .. first + count - 1`` of a register."""
    if count == v.type.count:
        return v
    return b.shuffle_vector(v, v, lane_numbers(*range(first, first + count)))


def _element_bits(t: ir.Type) -> int:
    return t.width if isinstance(t, ir.IntType) else {"half": 16, "float": 32, "double": 64}[str(t)]
