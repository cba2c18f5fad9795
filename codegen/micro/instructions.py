"""Dot-product instructions as data: what each computes, LLVM's name for it, and the feature a target must have.

The meaning of an entry is a :class:`codegen.tile.ir.Dot` of small tiles::

    acc[r, l] += sum over s, t of a[r, s, t] * b[s, l, t]

for ``rows`` r, ``lanes`` l, ``steps`` s and ``terms`` t. The terms of a lane lie side by side in both factors. A vector instruction is the
case of one row and one step: its operands are registers, and ``a`` is one group of terms repeated in every lane. Where there are more
rows, operands are tile registers, loaded from rows of memory at any distance; a product with fewer rows, lanes or steps configures them
smaller. An emitter looks for an instruction by what the tile program says, and a heuristic by the product it schedules; nothing in the
compiler knows one by name.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from dsl.dtype import Dtype, bf16, f16, f32, i8, i16, i32, u8
from dsl.widen import contains


@dataclass(frozen=True)
class DotInstruction:
    """One instruction.

    Attributes:
        name: its mnemonic.
        feature: what LLVM calls the instruction set it belongs to.
        intrinsic: the LLVM function.
        rows, lanes: results of one instruction: exactly so many lanes of a vector, at most so many rows and lanes of a tile.
        steps, terms: products added up in each result are ``steps * terms``; the terms of a step lie side by side.
        operand, result: dtypes of the factors and of the accumulator.
        element: the LLVM type of one factor.
        cycles: between the starts of two instructions, on the processors that have it.
        adds: whether it adds to the accumulator; else it gives the sum of its own products, and another instruction adds that.
    """

    name: str
    feature: str
    intrinsic: str
    rows: int
    lanes: int
    steps: int
    terms: int
    operand: Dtype
    result: Dtype
    element: str
    cycles: float = 0.5
    adds: bool = True

    @property
    def tiled(self) -> bool:
        """Whether its operands are tiles of several rows, in registers of their own."""
        return self.rows > 1


@dataclass(frozen=True)
class TileRegisters:
    """The registers of instructions with several rows: how many there are, and the rows and bytes of a row that each holds at most."""

    count: int
    rows: int
    row_bytes: int


TILES = TileRegisters(8, 16, 64)


def _widths(name: str, feature: str, intrinsic: str, operand: Dtype, result: Dtype, element: str) -> list[DotInstruction]:
    """The instruction on 512, 256 and 128 bits."""
    terms = result.bits // operand.bits
    return [DotInstruction(name, feature, f"{intrinsic}.{bits}", 1, bits // result.bits, 1, terms, operand, result, element)
            for bits in (512, 256, 128)]


def _tile(name: str, feature: str, operand: Dtype, result: Dtype, element: str) -> DotInstruction:
    """The instruction on tile registers."""
    lanes = 8 * TILES.row_bytes // result.bits
    return DotInstruction(name, feature, f"llvm.x86.{name}", TILES.rows, lanes, TILES.rows, result.bits // operand.bits, operand, result,
                          element, 16.0)


# vdpbf16ps and tdpbf16ps round each product and sum to nearest even and flush denormals, whatever the control register says.
DOTS: tuple[DotInstruction, ...] = (
    _tile("tdpbf16ps", "amx-bf16", bf16, f32, "bfloat"),
    _tile("tdpfp16ps", "amx-fp16", f16, f32, "half"),
    _tile("tdpbssd", "amx-int8", i8, i32, "i8"),
    _tile("tdpbuud", "amx-int8", u8, i32, "i8"),
    *_widths("vdpbf16ps", "avx512bf16", "llvm.x86.avx512bf16.dpbf16ps", bf16, f32, "bfloat"),
    *_widths("vpdpwssd", "avx512vnni", "llvm.x86.avx512.vpdpwssd", i16, i32, "i16"),
    DotInstruction("vpmaddwd", "avx512bw", "llvm.x86.avx512.pmaddw.d.512", 1, 16, 1, 2, i16, i32, "i16", adds=False),
    DotInstruction("vpmaddwd", "avx2", "llvm.x86.avx2.pmadd.wd", 1, 8, 1, 2, i16, i32, "i16", adds=False),
    DotInstruction("pmaddwd", "sse4.2", "llvm.x86.sse2.pmadd.wd", 1, 4, 1, 2, i16, i32, "i16", adds=False),
)


def multiplies_low(features: Iterable[str]) -> bool:
    """Whether a target with these instruction sets multiplies floats narrower than 32 bits as they are."""
    have = set(features)
    return any(d.feature in have and d.operand.is_low for d in DOTS)


def dot_instructions(features: Iterable[str], operand: Dtype, result: Dtype) -> tuple[DotInstruction, ...]:
    """The instructions for products of these dtypes among those a target has, the most work at a time first."""
    have = set(features)
    return tuple(d for d in DOTS if d.feature in have and (d.operand, d.result) == (operand, result))


def exact_instructions(features: Iterable[str], factors: Iterable[Dtype], results: Iterable[Dtype]) -> tuple[DotInstruction, ...]:
    """The instructions whose operands hold every value of the factors, for an accumulator of one of the dtypes ``results``."""
    have, held, sums = set(features), tuple(factors), tuple(results)
    return tuple(d for d in DOTS if d.feature in have and d.result in sums and all(contains(d.operand, f) for f in held))
