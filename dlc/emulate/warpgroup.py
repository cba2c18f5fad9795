"""Asynchronous tensor-core instructions of four warps (wgmma): descriptors, groups, and accumulators not yet ready."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dlc.emulate.block import Block
from dlc.emulate.decode import Bools, Decoder, Read, Step, Write, all_lanes, has, operation, unknown, vector
from dlc.emulate.formats import width
from dlc.emulate.matrix import ELEMENTS, accumulate, gather_a, values_of
from dlc.emulate.ptx import Instruction
from dlc.emulate.report import Array

_LANES = 128


@dataclass(frozen=True)
class _Product:
    """A decoded wgmma: what it multiplies and where everything is."""

    columns: int
    depth: int
    kind: str  # of A and B
    total: str  # of the accumulator
    names: list[str]
    start: list[Read]
    writes: list[Write]
    left: list[Read]  # one descriptor, or registers
    right: Read
    keep: Read
    signs: int
    turned: tuple[bool, bool]  # A, B stored with rows along the fast axis


@operation("wgmma")
def decode_wgmma(instruction: Instruction, decoder: Decoder) -> Step:
    """Products and their groups."""
    if has(instruction, "fence"):
        return lambda block, active: None
    if has(instruction, "commit_group"):
        return _commit
    if has(instruction, "wait_group"):
        return _wait(int(instruction.args[0]))
    return _product_step(_decode_product(instruction, decoder))


def _decode_product(instruction: Instruction, decoder: Decoder) -> _Product:
    shape = next((re.fullmatch(r"m64n(\d+)k(\d+)", p) for p in instruction.parts if p.startswith("m64")), None)
    kinds = instruction.parts[-3:]
    if shape is None or kinds[1] not in ELEMENTS or kinds[1] != kinds[2] or has(instruction, "sp"):
        raise unknown(instruction)
    args, names = instruction.args, vector(instruction.args[0])
    in_registers = args[1].startswith("{")
    flags = [int(a) for a in args[4:]]
    turns = flags[2:] if ELEMENTS[kinds[1]] == 2 else []
    turned = (False, bool(turns[0])) if in_registers and turns else (bool(turns[0]), bool(turns[1])) if turns else (False, False)
    return _Product(
        columns=int(shape.group(1)),
        depth=int(shape.group(2)),
        kind=kinds[1],
        total=kinds[0],
        names=names,
        start=[decoder.read(n, "b32") for n in names],
        writes=[decoder.write(n) for n in names],
        left=[decoder.read(n, "b32" if in_registers else "u64") for n in vector(args[1])],
        right=decoder.read(args[2], "u64"),
        keep=decoder.read(args[3], "pred"),
        signs=(flags[0] * flags[1]) if len(flags) > 1 else 1,
        turned=turned,
    )


def _product_step(product: _Product) -> Step:
    def step(block: Block, active: Bools) -> None:
        results = [np.zeros(block.threads, np.uint32) for _ in product.names]
        for group in np.unique(block.thread[active] // _LANES).tolist():
            lanes = slice(group * _LANES, (group + 1) * _LANES)
            _multiply(block, product, group, lanes, results)
            block.launch.matrix_flops += 2 * 64 * product.columns * product.depth
        for write, bits in zip(product.writes, results):
            write(block, bits, active)

    return step


def _multiply(block: Block, product: _Product, group: int, lanes: slice, results: list[Array]) -> None:
    """One warp group's share, left in ``results``; its accumulators are unfinished until the group is waited for."""
    right = _operand(block, product, int(all_lanes(block, product.right(block))[lanes][0]), group, product.columns, product.turned[1])
    if len(product.left) > 1:
        registers = [read(block) for read in product.left]
        left = gather_a(block, registers, product.kind, product.depth)[group * 4 : group * 4 + 4].reshape(64, product.depth)
    else:
        left = _operand(block, product, int(all_lanes(block, product.left[0](block))[lanes][0]), group, 64, product.turned[0])
    total = product.signs * (left @ right.T)
    keep = bool(all_lanes(block, product.keep(block))[lanes][0])
    rows, quad = np.arange(_LANES) // 32 * 16 + np.arange(_LANES) % 32 // 4, np.arange(_LANES) % 4
    serial = len(block.matrix_groups.get(group, [])) + block.matrix_done.get(group, 0)
    for n, (name, read) in enumerate(zip(product.names, product.start)):
        if width(product.total) == 2:
            row, column = rows + 8 * (n % 2), (quad * 2 + 8 * (n // 2))[:, None] + np.arange(2)
        else:
            row, column = rows + 8 * (n // 2 % 2), (quad * 2 + n % 2 + 8 * (n // 4))[:, None]
        start = read(block)[lanes] if keep else np.zeros(_LANES, np.uint32)
        results[n][lanes] = accumulate(total[row[:, None], column], start, product.total)
        block.pending.setdefault(name, {})[group] = serial


def _operand(block: Block, product: _Product, descriptor: int, group: int, rows: int, turned: bool) -> Array:
    """The ``[rows, depth]`` operand behind a shared-memory descriptor; its bytes are in use until the group is done."""
    size = ELEMENTS[product.kind]
    base, lead, stride = ((descriptor >> bit & 0x3FFF) << 4 for bit in (0, 16, 32))
    swizzle = {0: 0, 1: 3, 2: 2, 3: 1}[descriptor >> 62 & 3]
    span = 16 << swizzle
    row, column = np.arange(rows)[:, None], np.arange(product.depth)[None, :]
    if turned:
        if not swizzle:
            raise block.findings.stop("undefined", "the emulator does not know transposed operands without a swizzle")
        each = span // size
        at = base + row // each * lead + column // 8 * stride + column % 8 * span + row % each * size
    else:
        byte = column * size
        at = base + row // 8 * stride + row % 8 * span + (byte if swizzle else byte // 16 * lead + byte % 16)
    at = at ^ ((at >> 7 & ((1 << swizzle) - 1)) << 4) if swizzle else at
    offsets: NDArray[np.int64] = (at[:, :, None] + np.arange(size)).astype(np.int64)
    warps = np.arange(group * 4, group * 4 + 4)
    cells = block.shared.begin_use(offsets.ravel(), warps)
    block.matrix_open.setdefault(group, []).append(cells)
    raw = np.ascontiguousarray(block.shared.bytes_at(offsets))
    return values_of(raw.reshape(-1).view(np.uint32), product.kind).reshape(rows, product.depth)


def _commit(block: Block, active: Bools) -> None:
    for group in np.unique(block.thread[active] // _LANES).tolist():
        block.matrix_groups.setdefault(group, []).append(block.matrix_open.pop(group, []))


def _wait(remaining: int) -> Step:
    def step(block: Block, active: Bools) -> None:
        for group in np.unique(block.thread[active] // _LANES).tolist():
            groups = block.matrix_groups.get(group, [])
            while len(groups) > remaining:
                for cells in groups.pop(0):
                    block.shared.end_use(cells, np.arange(group * 4, group * 4 + 4))
                block.matrix_done[group] = block.matrix_done.get(group, 0) + 1
            _settle(block, group)

    return step


def _settle(block: Block, group: int) -> None:
    """Forget the accumulators whose group is done."""
    done = block.matrix_done.get(group, 0)
    for name in [n for n, groups in block.pending.items() if groups.get(group, done) < done]:
        del block.pending[name][group]
        if not block.pending[name]:
            del block.pending[name]


def check_pending(block: Block, instruction: Instruction, registers: frozenset[str]) -> None:
    """A finding when an instruction reads an accumulator whose product may still be running."""
    if instruction.parts[0] in ("wgmma", "mov") or block.pending.keys().isdisjoint(registers):
        return
    name = next(r for r in registers if r in block.pending)
    groups = set(np.unique(block.thread[block.now] // _LANES).tolist())
    if groups & block.pending[name].keys():
        block.findings.add("wait", f"{name} is read before wgmma.wait_group says its product is done")
