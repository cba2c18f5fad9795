"""Dot-product instructions as data: what each computes, LLVM's name for it, and the feature a target must have.

The meaning of an entry is a :class:`codegen.tile.ir.Dot` over one axis of ``terms`` elements, ``lanes`` results at a time::

    acc[l] += sum over t of a[l, t] * b[l, t]        with the terms of a lane side by side in both operands

so a schedule that contracts a tile axis of that size, with operands that lie so in memory, is emitted as that instruction. An
emitter looks for it by what the tile program says; nothing else in the compiler knows an instruction by name.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from dsl.dtype import Dtype, bf16, f32, i16, i32


@dataclass(frozen=True)
class DotInstruction:
    """One instruction.

    Attributes:
        name: its mnemonic.
        feature: what LLVM calls the instruction set it belongs to.
        intrinsic: the LLVM function.
        lanes, terms: results of one instruction, and products added up in each.
        operand, result: dtypes of the factors and of the accumulator.
        element: the LLVM type of one factor.
    """

    name: str
    feature: str
    intrinsic: str
    lanes: int
    terms: int
    operand: Dtype
    result: Dtype
    element: str


def _widths(name: str, feature: str, intrinsic: str, operand: Dtype, result: Dtype, element: str) -> list[DotInstruction]:
    """The instruction on 512, 256 and 128 bits."""
    terms = result.bits // operand.bits
    return [DotInstruction(name, feature, f"{intrinsic}.{bits}", bits // result.bits, terms, operand, result, element)
            for bits in (512, 256, 128)]


# vdpbf16ps rounds each product and sum to nearest even and flushes denormals, whatever the control register says.
DOTS: tuple[DotInstruction, ...] = (
    *_widths("vdpbf16ps", "avx512bf16", "llvm.x86.avx512bf16.dpbf16ps", bf16, f32, "bfloat"),
    *_widths("vpdpwssd", "avx512vnni", "llvm.x86.avx512.vpdpwssd", i16, i32, "i16"),
)


def dot_instruction(features: Iterable[str], operand: Dtype, result: Dtype, lanes: int) -> DotInstruction | None:
    """The instruction for a product of these dtypes with that many lanes, among those a target has."""
    have = set(features)
    return next((d for d in DOTS if d.feature in have and (d.operand, d.result, d.lanes) == (operand, result, lanes)), None)
