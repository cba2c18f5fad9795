"""Moves between registers, conversions, and loads and stores of every space."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from dlc.emulate.block import LOCAL_WINDOW, SHARED_WINDOW, Block
from dlc.emulate.decode import Bools, Decoder, Step, all_lanes, has, operation, unknown, vector
from dlc.emulate.formats import NARROW, PACKED, ROUNDINGS, UNSIGNED, dtype_of, halves, join, round_to, width
from dlc.emulate.ptx import Instruction
from dlc.emulate.report import Array

Rows = NDArray[np.uint8]


@operation("mov")
def decode_move(instruction: Instruction, decoder: Decoder) -> Step:
    """A register to another, or packed into and out of several."""
    kind, (to, source) = instruction.parts[-1], instruction.args
    if to.startswith("{"):
        return _unpack(decoder, vector(to), source, width(kind))
    if source.startswith("{"):
        return _pack(decoder, to, vector(source), width(kind))
    read, write = decoder.read(source, kind), decoder.write(to)

    def step(block: Block, active: Bools) -> None:
        if block.pending and source in block.pending:
            # Inline assembly copies accumulators on their way through: the copy is as unfinished as the original.
            block.pending[to] = dict(block.pending[source])
        write(block, read(block), active)

    return step


def _unpack(decoder: Decoder, names: list[str], source: str, size: int) -> Step:
    part = size // len(names)
    read, writes = decoder.read(source, f"b{8 * size}"), [decoder.write(name) for name in names]

    def step(block: Block, active: Bools) -> None:
        bits = read(block)
        for n, write in enumerate(writes):
            write(block, (bits >> bits.dtype.type(8 * part * n)).astype(UNSIGNED[part]), active)

    return step


def _pack(decoder: Decoder, to: str, names: list[str], size: int) -> Step:
    part = size // len(names)
    reads, write = [decoder.read(name, f"b{8 * part}") for name in names], decoder.write(to)
    wide = UNSIGNED[size]

    def step(block: Block, active: Bools) -> None:
        bits = reads[0](block).astype(wide)
        for n, read in enumerate(reads[1:], 1):
            bits = bits | read(block).astype(wide) << wide.type(8 * part * n)
        write(block, bits, active)

    return step


@operation("cvta")
def decode_address_space(instruction: Instruction, decoder: Decoder) -> Step:
    """Generic addresses: shared and local memory have windows of their own."""
    window = SHARED_WINDOW if any(p.startswith("shared") for p in instruction.parts) else LOCAL_WINDOW if has(instruction, "local") else 0
    back = has(instruction, "to")
    read, write = decoder.read(instruction.args[1], "u64"), decoder.write(instruction.args[0])
    shift = np.uint64(window)
    return lambda block, active: write(block, all_lanes(block, read(block) - shift if back else read(block) + shift), active)


@operation("prmt")
def decode_permute(instruction: Instruction, decoder: Decoder) -> Step:
    """Four bytes chosen out of eight, by a selector."""
    if len(instruction.parts) > 2:
        raise unknown(instruction)
    low, high, choose = (decoder.read(a, "u32") for a in instruction.args[1:4])
    write = decoder.write(instruction.args[0])

    def step(block: Block, active: Bools) -> None:
        both = low(block).astype(np.uint64) | high(block).astype(np.uint64) << np.uint64(32)
        selector = choose(block)
        out = np.zeros(1, np.uint32)
        for n in range(4):
            control = (selector >> np.uint32(4 * n)) & np.uint32(15)
            byte = ((both >> ((control & np.uint32(7)).astype(np.uint64) * np.uint64(8))) & np.uint64(255)).astype(np.uint32)
            byte = np.where(control & 8, np.where(byte & 0x80, np.uint32(255), np.uint32(0)), byte).astype(np.uint32)
            out = out | byte << np.uint32(8 * n)
        write(block, all_lanes(block, out if out.size > 1 else out[0]), active)

    return step


@operation("cvt")
def decode_convert(instruction: Instruction, decoder: Decoder) -> Step:
    """Conversions between types, narrow floats and packed pairs included."""
    parts, args = instruction.parts, instruction.args
    to, source = parts[-2], parts[-1]
    write, reads = decoder.write(args[0]), [decoder.read(a, f"b{8 * width(source)}" if source in PACKED else source) for a in args[1:]]
    mode = next((w for w in parts if w in ("rn", "rz", "rna")), "rn")
    saturate = "satfinite" in parts
    relu = "relu" in parts

    def pair(block: Block, active: Bools) -> None:
        kind = PACKED[to]
        high, low = halves(reads[0](block), PACKED[source])[::-1] if source in PACKED else (reads[0](block), reads[1](block))
        low, high = (np.maximum(v, 0) if relu else v for v in (low, high))
        write(block, all_lanes(block, join(round_to(low, kind, mode, saturate), round_to(high, kind, mode, saturate))), active)

    if to in PACKED:
        return pair
    convert = _conversion(to, source, mode, [w for w in parts if w in ROUNDINGS], saturate, "sat" in parts)
    return lambda block, active: write(block, convert(reads[0](block)), active)


def _conversion(to: str, source: str, mode: str, whole: list[str], saturate: bool, clip: bool) -> Callable[[Array], Array]:
    """One value's conversion; ``whole`` holds the rounding to an integer, if one is named."""
    wide = source in NARROW or source == "f16"
    floats = {"f": True, "s": False, "u": False, "b": to in NARROW}.get(to[0], True)
    from_float = source[0] == "f" or source in NARROW
    dtype = dtype_of(to)

    def convert(x: Array) -> Array:
        x = x.astype(np.float32) if wide else x
        if whole and from_float:
            x = ROUNDINGS[whole[0]](x)
        if floats:
            x = round_to(x if from_float else x.astype(np.float64), to, mode, saturate) if dtype.itemsize < 8 else x.astype(np.float64)
            return np.clip(x, 0, 1) if clip else x
        if from_float:
            limits = np.iinfo(dtype)
            x = np.nan_to_num(x.astype(np.float64), nan=0.0, posinf=np.inf, neginf=-np.inf)
            return (np.where(x >= float(limits.max), limits.max, np.where(x <= limits.min, limits.min, x)).astype(dtype)
                    if dtype.itemsize < 8 else _big(x, dtype))
        return np.clip(x, np.iinfo(dtype).min, np.iinfo(dtype).max).astype(dtype) if clip else x.astype(dtype)

    return convert


def _big(x: Array, dtype: np.dtype[np.generic]) -> Array:
    """Floats to 64-bit integers, whose limits no float64 holds."""
    limits = np.iinfo(dtype.name)
    inside = (x < float(limits.max)) & (x > float(limits.min))
    return np.where(inside, np.where(inside, x, 0).astype(dtype), np.where(x > 0, limits.max, limits.min).astype(dtype))


_SPACES = ("param", "shared", "global", "local", "const")


def _space(instruction: Instruction) -> str:
    words = [p.split(":")[0] for p in instruction.parts]
    return next((s for s in _SPACES if s in words), "generic")


@operation("ld", "ldu")
def decode_load(instruction: Instruction, decoder: Decoder) -> Step:
    """Loads of one value or a vector."""
    kind, space = instruction.parts[-1], _space(instruction)
    if space == "param":
        return _load_parameter(instruction, decoder, kind)
    names = vector(instruction.args[0])
    writes, size = [decoder.write(name) for name in names], width(kind)
    address, dtype = decoder.address(instruction.args[1]), dtype_of(kind)
    acquires = has(instruction, "acquire")

    def step(block: Block, active: Bools) -> None:
        if acquires:
            block.memory.synchronise()
        rows = read_memory(block, instruction, space, address(block), size * len(names), active)
        for n, write in enumerate(writes):
            write(block, np.ascontiguousarray(rows[:, n * size : (n + 1) * size]).view(dtype)[:, 0], active)

    return step


def _load_parameter(instruction: Instruction, decoder: Decoder, kind: str) -> Step:
    name, _, offset = instruction.args[1].strip("[] ").partition("+")
    writes, size, skip = [decoder.write(n) for n in vector(instruction.args[0])], width(kind), int(offset or "0", 0)

    def step(block: Block, active: Bools) -> None:
        raw = np.frombuffer(block.launch.parameters[name + ":bytes"], np.uint8)
        for n, write in enumerate(writes):
            at = skip + n * size
            write(block, all_lanes(block, raw[at : at + size].copy().view(dtype_of(kind))[0]), active)

    return step


@operation("st")
def decode_store(instruction: Instruction, decoder: Decoder) -> Step:
    """Stores of one value or a vector."""
    kind, space = instruction.parts[-1], _space(instruction)
    size = width(kind)
    reads, address = [decoder.read(name, f"b{8 * size}") for name in vector(instruction.args[1])], decoder.address(instruction.args[0])
    releases = has(instruction, "release")

    def step(block: Block, active: Bools) -> None:
        if releases:
            block.memory.synchronise()
        values = [np.ascontiguousarray(all_lanes(block, read(block))) for read in reads]
        rows = np.stack(values, 1).view(np.uint8).reshape(block.threads, size * len(values))
        write_memory(block, instruction, space, address(block), rows, active)

    return step


def read_memory(block: Block, at: Instruction, space: str, address: NDArray[np.int64], size: int, active: Bools) -> Rows:
    """Load rows from a space; generic addresses go by their window."""
    if space == "generic":
        space, address = _resolve(address, active)
    if space == "local":
        return _local(block, address, size)
    if space == "shared":
        block.launch.traffic.shared_access(at, "load", address[active], size, block.warp[active])
        return block.shared.read(address, size, active, block.warp)
    block.launch.traffic.global_access(at, "load", address[active], size, block.warp[active])
    return block.memory.read(address, size, active)


def write_memory(block: Block, at: Instruction, space: str, address: NDArray[np.int64], rows: Rows, active: Bools) -> None:
    """Store rows to a space; generic addresses go by their window."""
    size = rows.shape[1]
    if space == "generic":
        space, address = _resolve(address, active)
    if space == "local":
        at_byte = (address % LOCAL_WINDOW)[active, None] + np.arange(size)
        block.local[block.thread[active][:, None], at_byte] = rows[active]
    elif space == "shared":
        block.launch.traffic.shared_access(at, "store", address[active], size, block.warp[active])
        block.shared.write(address, rows, active, block.warp)
    else:
        block.launch.traffic.global_access(at, "store", address[active], size, block.warp[active])
        block.memory.write(address, rows, active)


def _resolve(address: NDArray[np.int64], active: Bools) -> tuple[str, NDArray[np.int64]]:
    first = int(address[active][0]) if active.any() else 0
    if first >= LOCAL_WINDOW:
        return "local", address
    return ("shared", address - SHARED_WINDOW) if first >= SHARED_WINDOW else ("global", address)


def _local(block: Block, address: NDArray[np.int64], size: int) -> Rows:
    at = np.clip(address % LOCAL_WINDOW, 0, block.local.shape[1] - size)[:, None] + np.arange(size)
    return block.local[block.thread[:, None], at]
