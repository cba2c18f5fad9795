"""Which points of a phase's grid a thread computes, and in what order."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir

from codegen.emit.llvm_types import I32, I64, PTR, intrinsic
from dsl.dim import Var

_LINE = ir.ArrayType(ir.IntType(8), 64)  # keeps what threads write to away from what they read
CONTEXT = ir.LiteralStructType([PTR, PTR, I32, _LINE, I64, _LINE])  # args, scratch, error, then points of the phase that threads have taken
TAKEN = 4
_RUNS = 64  # that a thread takes, about

Axis = tuple[Var, ir.Value]  # a grid axis and its extent


def deal(b: Any, context: ir.Value, total: ir.Value, threads: ir.Value, backwards: bool,
         each: Callable[[ir.Value, ir.Value], object]) -> None:
    """Short runs of points to whichever thread is free, those with the most work first; no result depends on who computes it.

    ``each`` takes a run: from, to. A thread's whole share is several dozens of them, since threads wait for each other to take one.
    """
    taken = b.gep(context, [I32(0), I32(TAKEN)], source_etype=CONTEXT)
    size = intrinsic(b, "llvm.smax.i64", I64, [b.sdiv(total, b.mul(threads, I64(_RUNS))), I64(1)])
    take, inside, after = (b.function.append_basic_block(name) for name in ("take", "points", "points.end"))
    b.branch(take)
    b.position_at_end(take)
    n = b.atomic_rmw("add", taken, size, "monotonic")
    b.cbranch(b.icmp_signed("<", n, total), inside, after)
    b.position_at_end(inside)
    end = intrinsic(b, "llvm.smin.i64", I64, [b.add(n, size), total])
    each(*((b.sub(total, end), b.sub(total, n)) if backwards else (n, end)))
    b.branch(take)
    b.position_at_end(after)


def run(b: Any, total: ir.Value, thread: ir.Value, threads: ir.Value) -> tuple[ir.Value, ir.Value]:
    """A thread's share as a run of points: from, to."""
    return b.sdiv(b.mul(total, thread), threads), b.sdiv(b.mul(total, b.add(thread, I64(1))), threads)


def place(b: Any, point: ir.Value, axes: list[Axis], group: int) -> dict[Var, Any]:
    """The value of every axis at a point: in row-major order, or the last two ``group`` rows at a time, column by column."""
    scalars: dict[Var, Any] = {}
    if group and len(axes) >= 2:
        point, axes = _grouped(b, point, axes[-2:], group, scalars), axes[:-2]
    for v, n in reversed(axes):
        scalars[v] = b.urem(point, n)
        point = b.udiv(point, n)
    return scalars


def _grouped(b: Any, point: ir.Value, last: list[Axis], group: int, scalars: dict[Var, ir.Value]) -> ir.Value:
    """Walk ``group`` rows of points column by column; returns what is left of the point for the other axes."""
    (row, rows), (column, columns) = last
    area, block = b.mul(rows, columns), b.mul(I64(group), columns)
    at = b.urem(point, area)
    first, left = b.mul(b.udiv(at, block), I64(group)), b.urem(at, block)
    height = intrinsic(b, "llvm.smin.i64", I64, [b.sub(rows, first), I64(group)])
    scalars[row], scalars[column] = b.add(first, b.urem(left, height)), b.udiv(left, height)
    return b.udiv(point, area)
