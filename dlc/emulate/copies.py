"""Copies between global and shared memory that run beside the threads: cp.async, and tensor copies (TMA)."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dlc.emulate.block import Block, CopyGroup
from dlc.emulate.decode import Bools, Decoder, Read, Step, all_lanes, has, operation, unknown
from dlc.emulate.formats import width
from dlc.emulate.global_memory import Region
from dlc.emulate.ptx import Instruction

Index = NDArray[np.int64]


@operation("cp")
def decode_copy(instruction: Instruction, decoder: Decoder) -> Step:
    """Every kind of asynchronous copy and the waits for it."""
    if has(instruction, "bulk"):
        return _bulk(instruction, decoder)
    if has(instruction, "commit_group"):
        return _commit
    if has(instruction, "wait_group") or has(instruction, "wait_all"):
        return _wait(int(instruction.args[0]) if instruction.args else 0, has(instruction, "wait_all"))
    if has(instruction, "mbarrier"):
        raise unknown(instruction)
    return _thread_copy(instruction, decoder)


def _thread_copy(instruction: Instruction, decoder: Decoder) -> Step:
    """cp.async of 4, 8 or 16 bytes a thread; fewer source bytes than that are filled up with zeros."""
    args = instruction.args[:-1] if "cache_hint" in instruction.opcode else instruction.args
    to, source, size = decoder.address(args[0]), decoder.address(args[1]), int(args[2], 0)
    given = decoder.read(args[3], "u32") if len(args) > 3 else None

    def step(block: Block, active: Bools) -> None:
        target, origin = to(block), source(block)
        lanes = block.shared.inside(target, size, active, "asynchronous store")
        count = np.full(block.threads, size) if given is None else np.minimum(all_lanes(block, given(block)), size).astype(np.int64)
        rows = np.zeros((block.threads, size), np.uint8)
        whole = lanes & (count == size)
        rows[whole] = block.memory.read(origin, size, whole, "asynchronous load")[whole]
        for n in range(size) if (lanes & (count > 0) & ~whole).any() else ():
            some = lanes & ~whole & (count > n)
            rows[some, n] = block.memory.read(origin + n, 1, some, "asynchronous load")[some, 0]
        asked = lanes & (count > 0)
        block.launch.traffic.global_access(instruction, "load", origin[asked], size, block.warp[asked])
        block.launch.traffic.shared_access(instruction, "store", target[lanes], size, block.warp[lanes])
        block.shared.begin_copy(block.shared.grains(target[lanes], size), block.warp[lanes][:, None])
        block.open_copies.append((target, rows, lanes))

    return step


def _commit(block: Block, active: Bools) -> None:
    group = CopyGroup(active.copy())
    for target, rows, lanes in block.open_copies:
        group.copies.append((target, rows, lanes & active))
    block.open_copies = [(t, r, lanes & ~active) for t, r, lanes in block.open_copies if (lanes & ~active).any()]
    block.copy_groups.append(group)


def _wait(remaining: int, uncommitted: bool) -> Step:
    def step(block: Block, active: Bools) -> None:
        if uncommitted:
            _commit(block, active)
        later = np.zeros(block.threads, np.int64)  # groups of each lane that are newer
        for group in reversed(block.copy_groups):
            due = active & group.lanes & (later >= remaining)
            later += group.lanes
            if due.any():
                group.lanes = group.lanes & ~due
                for target, rows, lanes in group.copies:
                    _land(block, target, rows, lanes & due)
        block.copy_groups = [g for g in block.copy_groups if g.lanes.any()]

    return step


def _land(block: Block, target: Index, rows: NDArray[np.uint8], lanes: Bools) -> None:
    at, size = target[lanes], rows.shape[1]
    if at.size:
        offsets = at[:, None] + np.arange(size)
        block.shared.land(offsets, rows[lanes], block.shared.grains(at, size), block.warp[lanes][:, None])


# A tensor map in memory, in a layout of our own (the real one is secret): field -> offset, bytes between its members.
_FIELDS = {
    "global_address": (0, 0),
    "rank": (8, 0),
    "box_dim": (12, 4),
    "global_dim": (32, 4),
    "global_stride": (56, 8),
    "elemtype": (88, 0),
    "swizzle_mode": (92, 0),
    "element_stride": (96, 4),
    "interleave_layout": (116, 0),
    "fill_mode": (120, 0),
}
_MAP_BYTES = 128
_ELEMENT_BYTES = {0: 1, 1: 2, 2: 4, 3: 4, 4: 8, 5: 8, 6: 2, 7: 4, 8: 4, 9: 8, 10: 2, 11: 4, 12: 4}


@operation("tensormap")
def decode_tensormap(instruction: Instruction, decoder: Decoder) -> Step:
    """Writing the fields of a tensor map in shared memory, and publishing it to global memory."""
    if has(instruction, "replace"):
        return _replace(instruction, decoder)
    to, source = (decoder.address(a) for a in instruction.args[:2])

    def publish(block: Block, active: Bools) -> None:
        leader = active & (block.lane == 0)
        offsets = source(block)[leader][:, None] + np.arange(_MAP_BYTES)
        for lane, raw in zip(np.flatnonzero(leader), block.shared.bytes_at(offsets)):
            one = block.thread == lane
            for n in range(0, _MAP_BYTES, 16):
                block.memory.write(to(block) + n, np.broadcast_to(raw[n : n + 16], (block.threads, 16)), one)

    return publish


def _replace(instruction: Instruction, decoder: Decoder) -> Step:
    field, kind, args = instruction.parts[3].split(":")[0], instruction.parts[-1], instruction.args
    offset, step_bytes = _FIELDS[field]
    offset += step_bytes * int(args[1], 0) if len(args) == 3 else 0
    address, value, size = decoder.address(args[0]), decoder.read(args[-1], kind), width(kind)

    def step(block: Block, active: Bools) -> None:
        rows = np.ascontiguousarray(all_lanes(block, value(block))).view(np.uint8).reshape(block.threads, size)
        block.shared.write(address(block) + offset, rows, active, block.warp)

    return step


@dataclass(frozen=True)
class _Box:
    """The elements one tensor copy moves: where in the tensor, where in shared memory, which exist."""

    region: Region
    outside: Index  # byte offsets in the region, one an element
    inside: Index  # byte offsets in shared memory
    exists: Bools
    size: int  # bytes of an element


def _bulk(instruction: Instruction, decoder: Decoder) -> Step:
    if has(instruction, "commit_group"):
        return _commit_bulk
    if has(instruction, "wait_group"):
        return _wait_bulk(int(instruction.args[0]))
    if not has(instruction, "tensor") or any(word in instruction.opcode for word in ("im2col", "gather", "scatter", "multicast", "reduce")):
        raise unknown(instruction)
    spaces = [p for p in instruction.parts if p.startswith(("shared", "global"))]
    load = spaces[0].startswith("shared")
    args = instruction.args
    tensor = args[1] if load else args[0]
    shared = decoder.address(args[0] if load else args[1])
    found = re.fullmatch(r"\[\s*([^\s,]+)\s*,\s*\{([^}]*)\}\s*\]", tensor)
    if found is None:
        raise unknown(instruction)
    tensor_map = decoder.read(found.group(1), "u64")
    place = [decoder.read(c.strip(), "s32") for c in found.group(2).split(",")]
    barrier = decoder.address(args[2]) if load else None

    def step(block: Block, active: Bools) -> None:
        for thread in np.flatnonzero(active).tolist():
            box = _box(block, thread, tensor_map, place, int(shared(block)[thread]))
            if barrier is None:
                _store_box(block, instruction, thread, box)
            else:
                _load_box(block, instruction, thread, box, int(barrier(block)[thread]))

    return step


def _box(block: Block, thread: int, tensor_map: Read, place: list[Read], shared: int) -> _Box:
    """Read a tensor map and work out the box a copy at these coordinates covers."""
    address = int(all_lanes(block, tensor_map(block))[thread])
    one = block.thread == thread
    raw = np.concatenate([block.memory.read(np.full(block.threads, address + n), 16, one)[thread] for n in range(0, _MAP_BYTES, 16)])

    def field(name: str, dtype: str, count: int = 1) -> Index:
        return raw[_FIELDS[name][0] :][: count * np.dtype(dtype).itemsize].view(dtype).astype(np.int64)

    rank = int(field("rank", "u4")[0]) + 1
    if rank != len(place):
        raise block.findings.stop("undefined", f"a tensor map of rank {rank} is used with {len(place)} coordinates")
    extent, dims, strides = field("box_dim", "u4", rank), field("global_dim", "u4", rank), field("global_stride", "u8", rank - 1)
    size, swizzle = _ELEMENT_BYTES[int(field("elemtype", "u4")[0])], int(field("swizzle_mode", "u4")[0])
    steps = np.concatenate([[size], strides])
    grid = np.meshgrid(*(np.arange(n) for n in extent[::-1]), indexing="ij")[::-1]  # innermost first
    at = [g + int(all_lanes(block, c(block))[thread]) for g, c in zip(grid, place)]
    exists = np.logical_and.reduce([(a >= 0) & (a < n) for a, n in zip(at, dims)]).ravel()
    base = int(field("global_address", "u8")[0])
    outside = base + sum(a * s for a, s in zip(at, steps)).ravel()
    inside = shared + np.arange(outside.size) * size
    if swizzle:
        if int(extent[0]) * size > 16 << swizzle:
            raise block.findings.stop("bounds", f"a box row of {int(extent[0]) * size} bytes is wider than its swizzle")
        inside = inside ^ ((inside >> 7 & ((1 << swizzle) - 1)) << 4)
    return _Box(_region(block, base, outside, exists, size), outside, inside, exists, size)


def _region(block: Block, base: int, outside: Index, exists: Bools, size: int) -> Region:
    region = next((r for r in block.memory.regions if r.base <= base < r.base + max(r.size, 1)), None)
    if region is None:
        raise block.findings.stop("bounds", "a tensor map points at no tensor")
    real = outside[exists] - region.base
    if real.size and (int(real.min()) < 0 or int(real.max()) + size > region.size):
        raise block.findings.stop("bounds", f"a tensor copy reaches byte {int(real.max())} of {region.name!r}, which has {region.size}")
    return region


def _load_box(block: Block, instruction: Instruction, thread: int, box: _Box, barrier: int) -> None:
    raw = np.zeros((box.outside.size, box.size), np.uint8)  # what lies outside the tensor reads as zero
    real = box.outside[box.exists] - box.region.base
    raw[box.exists] = box.region.store[real[:, None] + np.arange(box.size)]
    block.memory.note_bytes(box.region, real, box.size, False)
    _meter(block, instruction, "load", box, thread)
    cells = np.unique(block.shared.grains(box.inside, box.size))
    if box.inside.size and int(box.inside.max()) + box.size > block.shared.size:
        raise block.findings.stop("bounds", f"a tensor copy fills shared memory up to {int(box.inside.max())} of {block.shared.size}")
    block.shared.begin_copy(cells, np.full(1, block.warp[thread]))
    if barrier not in block.barriers:
        raise block.findings.stop("barrier", "a tensor copy signals an mbarrier nobody initialised")
    offsets = box.inside[:, None] + np.arange(box.size)
    block.barriers[barrier].arrivals.append((offsets, raw, cells))


def _store_box(block: Block, instruction: Instruction, thread: int, box: _Box) -> None:
    offsets = box.inside[:, None] + np.arange(box.size)
    cells = block.shared.begin_use(offsets.ravel(), np.array([block.warp[thread]]))
    block.bulk_open.setdefault(thread, []).append(cells)
    real = box.outside[box.exists] - box.region.base
    box.region.store[real[:, None] + np.arange(box.size)] = block.shared.bytes_at(offsets)[box.exists]
    block.memory.note_bytes(box.region, real, box.size, True)
    _meter(block, instruction, "store", box, thread)


def _meter(block: Block, instruction: Instruction, action: str, box: _Box, thread: int) -> None:
    address = box.outside[box.exists]
    block.launch.traffic.global_access(instruction, action, address, box.size, np.full(address.size, block.warp[thread]))


def _commit_bulk(block: Block, active: Bools) -> None:
    for thread in set(block.bulk_open) | set(block.bulk_groups):
        if active[thread]:
            block.bulk_groups.setdefault(thread, []).append(block.bulk_open.pop(thread, []))


def _wait_bulk(remaining: int) -> Step:
    def step(block: Block, active: Bools) -> None:
        for thread, groups in block.bulk_groups.items():
            while active[thread] and len(groups) > remaining:
                for cells in groups.pop(0):
                    block.shared.end_use(cells, np.array([block.warp[thread]]))

    return step


def unfinished(block: Block) -> str:
    """What a block that ends leaves running, in words; empty when nothing."""
    if any(block.bulk_open.values()) or any(g for groups in block.bulk_groups.values() for g in groups):
        return "the block ends while a tensor store still reads its shared memory"
    if any(b.arrivals for b in block.barriers.values()):
        return "the block ends while a tensor copy into its shared memory is under way"
    return ""
