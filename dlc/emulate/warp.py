"""Operations across the lanes of a warp, atomics, and the instructions that change nothing a result can show."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dlc.emulate.block import SHARED_WINDOW, Block
from dlc.emulate.decode import Bools, Decoder, Step, all_lanes, has, operation, unknown, vector
from dlc.emulate.formats import NARROW, PACKED, UNSIGNED, bits_of, dtype_of, halves, join, round_to, width
from dlc.emulate.ptx import Instruction
from dlc.emulate.report import Array


@operation("shfl")
def decode_shuffle(instruction: Instruction, decoder: Decoder) -> Step:
    """Each lane reads a register of another lane of its warp."""
    mode, args = next(p for p in instruction.parts if p in ("up", "down", "bfly", "idx")), instruction.args
    value, by, control = decoder.read(args[1], "b32"), decoder.read(args[2], "u32"), decoder.read(args[3], "u32")
    writes = [decoder.write(name) for name in args[0].split("|")]

    def step(block: Block, active: Bools) -> None:
        lane, shift, limits = block.lane, by(block).astype(np.int64) & 31, control(block).astype(np.int64)
        segment, clamp = limits >> 8 & 31, limits & 31
        low, high = lane & segment, lane & segment | clamp & ~segment
        wanted = {"up": lane - shift, "down": lane + shift, "bfly": lane ^ shift, "idx": low | shift & ~segment}[mode]
        inside = wanted >= high if mode == "up" else wanted <= high
        source = block.warp * 32 + np.where(inside, wanted, lane)
        if (active & ~active[source]).any():
            block.findings.add("undefined", "a lane reads a register of a lane that does not take part")
        writes[0](block, all_lanes(block, value(block))[source], active)
        if len(writes) > 1:
            writes[1](block, inside, active)

    return step


def _by_warp(block: Block, values: Array) -> Array:
    return all_lanes(block, values).reshape(block.warps, 32)


@operation("vote", "activemask")
def decode_vote(instruction: Instruction, decoder: Decoder) -> Step:
    """A predicate over the participating lanes of each warp."""
    mode = "ballot" if instruction.parts[0] == "activemask" else instruction.parts[2 if has(instruction, "sync") else 1]
    test = decoder.read(instruction.args[1], "pred") if len(instruction.args) > 1 else None
    write = decoder.write(instruction.args[0])

    def step(block: Block, active: Bools) -> None:
        held = np.ones(block.threads, bool) if test is None else all_lanes(block, test(block))
        yes, no = _by_warp(block, held & active), _by_warp(block, ~held & active)
        if mode == "ballot":
            per_warp: Array = (yes << np.arange(32, dtype=np.uint32)).sum(1).astype(np.uint32)
        else:
            some, others = np.asarray(yes.any(1)), np.asarray(no.any(1))
            per_warp = {"any": some, "all": ~others, "uni": ~(some & others)}[mode]
        write(block, per_warp[block.warp], active)

    return step


@operation("elect")
def decode_elect(instruction: Instruction, decoder: Decoder) -> Step:
    """One leader for each warp."""
    lane, leader = (decoder.write(name) for name in instruction.args[0].split("|"))

    def step(block: Block, active: Bools) -> None:
        first = _by_warp(block, active).argmax(1)[block.warp]
        lane(block, first.astype(np.uint32), active)
        leader(block, active & (block.lane == first), active)

    return step


@operation("redux")
def decode_redux(instruction: Instruction, decoder: Decoder) -> Step:
    """A reduction over the participating lanes of each warp."""
    kind = instruction.parts[-1]
    name = instruction.parts[2]
    function = {"add": np.add, "min": np.minimum, "max": np.maximum, "and": np.bitwise_and, "or": np.bitwise_or,
                "xor": np.bitwise_xor}[name]
    value, write = decoder.read(instruction.args[1], kind), decoder.write(instruction.args[0])
    dtype = dtype_of(kind)
    neutral = {"min": _largest(dtype), "max": _smallest(dtype), "and": dtype.type(-1 if dtype.kind == "i" else 0xFFFFFFFF)}

    def step(block: Block, active: Bools) -> None:
        filled = np.where(active, value(block), neutral.get(name, dtype.type(0))) if dtype.kind != "u" or name != "x" else value(block)
        write(block, function.reduce(_by_warp(block, filled.astype(dtype)), axis=1).astype(dtype)[block.warp], active)

    return step


def _largest(dtype: np.dtype[Any]) -> Any:
    return dtype.type(np.inf) if dtype.kind == "f" else dtype.type(np.iinfo(dtype).max)


def _smallest(dtype: np.dtype[Any]) -> Any:
    return dtype.type(-np.inf) if dtype.kind == "f" else dtype.type(np.iinfo(dtype).min)


@operation("match")
def decode_match(instruction: Instruction, decoder: Decoder) -> Step:
    """The lanes of a warp that hold the same value."""
    if not has(instruction, "any"):
        raise unknown(instruction)
    value, write = decoder.read(instruction.args[1], instruction.parts[-1]), decoder.write(instruction.args[0])

    def step(block: Block, active: Bools) -> None:
        held, part = _by_warp(block, value(block)), _by_warp(block, active)
        same = (held[:, :, None] == held[:, None, :]) & part[:, None, :]
        masks = (same << np.arange(32, dtype=np.uint32)).sum(2).astype(np.uint32)
        write(block, masks.reshape(-1), active)

    return step


_UPDATE: dict[str, Callable[[Any, Any], Any]] = {
    "add": lambda old, new: old + new,
    "min": lambda old, new: min(old, new),
    "max": lambda old, new: max(old, new),
    "and": lambda old, new: old & new,
    "or": lambda old, new: old | new,
    "xor": lambda old, new: old ^ new,
    "exch": lambda old, new: new,
    "inc": lambda old, new: type(old)(0) if old >= new else old + type(old)(1),
    "dec": lambda old, new: new if old == 0 or old > new else old - type(old)(1),
}


@operation("atom", "red")
def decode_atomic(instruction: Instruction, decoder: Decoder) -> Step:
    """Atomic updates, lane after lane."""
    kind, args = instruction.parts[-1], list(instruction.args)
    names = vector(args.pop(0)) if instruction.parts[0] == "atom" else []
    address, sources = decoder.address(args[0]), [vector(a) for a in args[1:]]
    name = next((p for p in instruction.parts[1:] if p in _UPDATE or p == "cas"), "")
    if not name or (name == "cas") != (len(sources) == 2):
        raise unknown(instruction)
    update, raw = _updater(name, kind), f"b{8 * width(kind)}"
    reads, writes = [[decoder.read(s, raw) for s in group] for group in sources], [decoder.write(n) for n in names]
    ordering = not has(instruction, "relaxed")
    shared = any(p.startswith("shared") for p in instruction.parts)

    def step(block: Block, active: Bools) -> None:
        if ordering:
            block.memory.synchronise()
        where, operands = address(block), [[all_lanes(block, read(block)) for read in group] for group in reads]
        count, old = len(operands[0]), []
        for n in range(count):
            lanes = [group[n] for group in operands]
            old.append(_apply(block, instruction, where + n * width(kind), lanes, update, active, shared))
        for write, values in zip(writes, old):
            write(block, values, active)

    return step


def _updater(name: str, kind: str) -> Callable[..., Any]:
    """Bits of the old value and the operands to bits of the new value."""
    if name == "cas":
        return lambda old, expected, new: new if old == expected else old
    function = _UPDATE[name]
    if kind in PACKED:
        part = PACKED[kind]

        def packed(old: Any, new: Any) -> Any:
            pairs = zip(halves(np.atleast_1d(old), part), halves(np.atleast_1d(new), part))
            return join(*(round_to(np.atleast_1d(function(x, y)), part) for x, y in pairs))[0]

        return packed
    dtype, narrow = dtype_of(kind), kind in NARROW or kind == "f16"

    def plain(old: Any, new: Any) -> Any:
        x, y = old.view(dtype), new.view(dtype)
        result = round_to(np.atleast_1d(function(np.float32(x), np.float32(y))), kind)[0] if narrow else dtype.type(function(x, y))
        return bits_of(np.atleast_1d(result))[0]

    return plain


def _apply(block: Block, at: Instruction, where: NDArray[np.int64], operands: list[Array], update: Callable[..., Any], active: Bools,
           shared: bool) -> Array:
    """Update one element a lane; returns the old bits."""
    size = operands[0].dtype.itemsize
    old = np.zeros(block.threads, UNSIGNED[size])
    if shared or (active.any() and int(where[active][0]) >= SHARED_WINDOW):
        where = where % SHARED_WINDOW
        lanes = block.shared.inside(where, size, active, "atomic")
        cells = np.unique(block.shared.grains(where[lanes], size))
        block.shared.defined[cells] = True
        _update(block.shared.data.view(UNSIGNED[size]), where[lanes] // size, np.flatnonzero(lanes), operands, update, old)
        return old
    block.launch.traffic.global_access(at, "store", where[active], size, block.warp[active])
    for region, lanes, offset in block.memory.places(where, size, active, "atomic"):
        block.memory.note_atomic(region, offset, size)
        _update(region.store.view(UNSIGNED[size]), offset // size, np.flatnonzero(lanes), operands, update, old)
    return old


def _update(cells: Array, at: NDArray[np.int64], lanes: NDArray[np.int64], operands: list[Array], update: Callable[..., Any],
            old: Array) -> None:
    for cell, lane in zip(at.tolist(), lanes.tolist()):
        old[lane] = cells[cell]
        cells[cell] = update(cells[cell], *(group[lane] for group in operands))


@operation("membar", "fence")
def decode_fence(instruction: Instruction, decoder: Decoder) -> Step:
    """Fences order nothing here, where steps follow each other; but their absence is checked for elsewhere."""
    if has(instruction, "proxy", "async"):
        return lambda block, active: block.shared.fence(block.warps_of(active))
    if any(p.startswith("async") for p in instruction.parts):
        return lambda block, active: block.shared.fence(block.warps_of(active))
    wide = bool({"gl", "sys", "gpu"} & set(instruction.parts)) and "proxy" not in instruction.parts
    return lambda block, active: block.memory.synchronise() if wide else None


@operation("nanosleep", "setmaxnreg", "griddepcontrol", "prefetch", "prefetchu", "discard", "applypriority", "pmevent")
def decode_hint(instruction: Instruction, decoder: Decoder) -> Step:
    """Hints about time and caches."""
    return lambda block, active: None


@operation("createpolicy")
def decode_policy(instruction: Instruction, decoder: Decoder) -> Step:
    """A cache policy is a number nobody looks at."""
    write = decoder.write(instruction.args[0])
    return lambda block, active: write(block, np.zeros(block.threads, np.uint64), active)
