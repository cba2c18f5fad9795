"""Tensor-core instructions of a warp: ldmatrix, stmatrix and mma, with the fragment layouts PTX documents."""

from __future__ import annotations

import re

import numpy as np
from numpy.typing import NDArray

from dlc.emulate.block import Block
from dlc.emulate.decode import Bools, Decoder, Step, has, operation, unknown, vector
from dlc.emulate.formats import NARROW, bits_of, dtype_of, tensor_tf32, width
from dlc.emulate.ptx import Instruction
from dlc.emulate.report import Array

ELEMENTS = {"f16": 2, "bf16": 2, "tf32": 4, "e4m3": 1, "e5m2": 1, "s8": 1, "u8": 1, "f64": 8}


def _fragment_rows(block: Block, number: int, active: Bools) -> tuple[Bools, NDArray[np.int64]]:
    """The lanes that hold the row addresses of 8x8 matrix ``number``, as a mask and as indices."""
    who = (np.arange(block.warps)[:, None] * 32 + number * 8 + np.arange(8)).ravel()
    mask = np.zeros(block.threads, bool)
    mask[who] = True
    return mask & active, who


@operation("ldmatrix")
def decode_ldmatrix(instruction: Instruction, decoder: Decoder) -> Step:
    """8x8 matrices of 16-bit elements from shared memory, each row at an address one lane gives."""
    if not has(instruction, "m8n8", "b16"):
        raise unknown(instruction)
    writes, address = [decoder.write(n) for n in vector(instruction.args[0])], decoder.address(instruction.args[1])
    turned = has(instruction, "trans")

    def step(block: Block, active: Bools) -> None:
        where, lane = address(block), block.lane
        for n, write in enumerate(writes):
            mask, who = _fragment_rows(block, n, active)
            block.launch.traffic.shared_access(instruction, "load", where[mask], 16, block.warp[mask])
            rows = block.shared.read(where, 16, mask, block.warp)[who].view(np.uint16).reshape(block.warps, 8, 8)
            rows = rows.transpose(0, 2, 1) if turned else rows
            pairs = np.ascontiguousarray(rows).view(np.uint32)
            write(block, pairs[block.warp, lane // 4, lane % 4], active)

    return step


@operation("stmatrix")
def decode_stmatrix(instruction: Instruction, decoder: Decoder) -> Step:
    """8x8 matrices of 16-bit elements into shared memory."""
    if not has(instruction, "m8n8", "b16"):
        raise unknown(instruction)
    address, reads = decoder.address(instruction.args[0]), [decoder.read(n, "b32") for n in vector(instruction.args[1])]
    turned = has(instruction, "trans")

    def step(block: Block, active: Bools) -> None:
        where = address(block)
        for n, read in enumerate(reads):
            mask, who = _fragment_rows(block, n, active)
            tiles = np.ascontiguousarray(read(block)).reshape(block.warps, 8, 4).view(np.uint16)
            tiles = tiles.transpose(0, 2, 1) if turned else tiles
            rows = np.zeros((block.threads, 16), np.uint8)
            rows[who] = np.ascontiguousarray(tiles).reshape(-1, 8).view(np.uint8)
            block.launch.traffic.shared_access(instruction, "store", where[mask], 16, block.warp[mask])
            block.shared.write(where, rows, mask, block.warp)

    return step


def values_of(bits: Array, kind: str) -> Array:
    """The elements packed in 32-bit registers (64-bit for f64), as float64, or int64 for integers."""
    dtype = np.dtype({"s8": "i1", "u8": "u1"}.get(kind, "f4")) if kind in ("s8", "u8", "tf32") else dtype_of(kind)
    parts = np.ascontiguousarray(bits).view(dtype).reshape(bits.size, -1)
    parts = tensor_tf32(parts) if kind == "tf32" else parts
    if dtype.kind in "iu":
        return parts.astype(np.int64)
    return parts.astype(np.float32 if kind in NARROW else np.float64).astype(np.float64)


def gather_a(block: Block, registers: list[Array], kind: str, depth: int, rows: int = 16) -> Array:
    """Operand A of each warp, ``[warps, rows, depth]``, from its registers."""
    values = [values_of(r, kind) for r in registers]
    out = np.zeros((block.warps, rows, depth), values[0].dtype)
    group, quad, each = block.lane[:, None] // 4, block.lane[:, None] % 4, values[0].shape[1]
    for n, part in enumerate(values):
        row = group + 8 * (n % 2 if rows == 16 else 0)
        column = quad * each + np.arange(each) + 4 * each * (n // 2 if rows == 16 else n)
        out[block.warp[:, None], row, column] = part
    return out


def _gather_b(block: Block, registers: list[Array], kind: str, depth: int) -> Array:
    values = [values_of(r, kind) for r in registers]
    out = np.zeros((block.warps, depth, 8), values[0].dtype)
    group, quad, each = block.lane[:, None] // 4, block.lane[:, None] % 4, values[0].shape[1]
    for n, part in enumerate(values):
        out[block.warp[:, None], quad * each + np.arange(each) + 4 * each * n, group] = part
    return out


@operation("mma")
def decode_mma(instruction: Instruction, decoder: Decoder) -> Step:
    """D = A @ B + C of one warp, summed exactly and rounded once (hardware keeps fewer bits between)."""
    shape = next((re.fullmatch(r"m(8|16)n8k(\d+)", p) for p in instruction.parts if p.startswith("m") and "n8k" in p), None)
    kinds = instruction.parts[-4:]
    if shape is None or kinds[1] not in ELEMENTS or not has(instruction, "row", "col") or has(instruction, "sp"):
        raise unknown(instruction)
    rows, depth = int(shape.group(1)), int(shape.group(2))
    left, right, start = ([decoder.read(n, f"b{32 if k != 'f64' else 64}") for n in vector(a)]
                          for a, k in zip(instruction.args[1:4], kinds[1:]))
    writes, clip = [decoder.write(n) for n in vector(instruction.args[0])], has(instruction, "satfinite")

    def step(block: Block, active: Bools) -> None:
        a = gather_a(block, [read(block) for read in left], kinds[1], depth, rows)
        b = _gather_b(block, [read(block) for read in right], kinds[2], depth)
        product = a @ b
        spread = _spread(block, len(writes), kinds[0])
        for read, write, (row, column) in zip(start, writes, spread):
            total = accumulate(product[block.warp[:, None], row, column], read(block), kinds[0], clip)
            write(block, total, active)
        block.launch.matrix_flops += 2 * rows * 8 * depth * block.warps_of(active).size

    return step


def _spread(block: Block, registers: int, kind: str) -> list[tuple[Array, Array]]:
    """Rows and columns of the accumulator elements each register holds."""
    group, quad = block.lane[:, None] // 4, block.lane[:, None] % 4
    if width(kind) == 2:
        return [(group + 8 * n, quad * 2 + np.arange(2)) for n in range(registers)]
    return [(group + 8 * (n // 2), quad * 2 + n % 2) for n in range(registers)]


def accumulate(product: Array, start: Array, kind: str, clip: bool = False) -> Array:
    """Register bits of product + start, rounded once to the accumulator's type."""
    if kind == "s32":
        total = product[:, 0] + np.broadcast_to(start.view(np.int32), product.shape[:1])
        return bits_of((np.clip(total, -(2**31), 2**31 - 1) if clip else total).astype(np.int32))
    dtype = dtype_of(kind)
    before = np.broadcast_to(start, product.shape[:1]).copy().view(dtype).reshape(product.shape[0], -1).astype(np.float64)
    total = (product + before).astype(dtype)
    return np.ascontiguousarray(total).view(np.uint32 if dtype.itemsize < 8 else np.uint64)[:, 0]
