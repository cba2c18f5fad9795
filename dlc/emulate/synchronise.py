"""Transaction barriers (mbarrier): counts, bytes due, and what waiting for them teaches."""

from __future__ import annotations

import numpy as np

from dlc.emulate.block import Barrier, Block
from dlc.emulate.clocks import Clock
from dlc.emulate.decode import Bools, Decoder, Step, all_lanes, has, operation, unknown
from dlc.emulate.ptx import Instruction


@operation("mbarrier")
def decode_mbarrier(instruction: Instruction, decoder: Decoder) -> Step:
    """Initialise, arrive, expect bytes, wait."""
    action = instruction.parts[1]
    if action in ("inval", "fence_init"):
        return lambda block, active: None
    if action == "init":
        return _init(instruction, decoder)
    if action in ("arrive", "expect_tx"):
        return _arrive(instruction, decoder)
    if action in ("try_wait", "test_wait") and has(instruction, "parity"):
        return _wait(instruction, decoder)
    raise unknown(instruction)


def _init(instruction: Instruction, decoder: Decoder) -> Step:
    address, count = decoder.address(instruction.args[0]), decoder.read(instruction.args[1], "u32")

    def step(block: Block, active: Bools) -> None:
        where, counts = address(block), all_lanes(block, count(block))
        for lane in np.flatnonzero(active).tolist():
            block.barriers[int(where[lane])] = Barrier(int(counts[lane]), int(counts[lane]))

    return step


def _arrive(instruction: Instruction, decoder: Decoder) -> Step:
    args = instruction.args
    at = next(n for n, a in enumerate(args) if a.startswith("["))
    address, amount = decoder.address(args[at]), decoder.read(args[at + 1], "u32") if len(args) > at + 1 else None
    expects, arrives = has(instruction, "expect_tx"), instruction.parts[1] == "arrive"

    def step(block: Block, active: Bools) -> None:
        where = address(block)
        amounts = all_lanes(block, amount(block)) if amount else None
        for lane in np.flatnonzero(active).tolist():
            barrier = _find(block, int(where[lane]))
            value = int(amounts[lane]) if amounts is not None else 1
            if expects:
                barrier.bytes_due += value
            if arrives:
                barrier.left -= 1 if expects else value
                barrier.collected = _merge(barrier.collected, block.clocks.release(int(block.warp[lane])))
            _complete(block, barrier)

    return step


def _wait(instruction: Instruction, decoder: Decoder) -> Step:
    write, address = decoder.write(instruction.args[0]), decoder.address(instruction.args[1])
    parity = decoder.read(instruction.args[2], "u32")

    def step(block: Block, active: Bools) -> bool:
        where, wanted = address(block), all_lanes(block, parity(block)) & 1
        done = np.zeros(block.threads, bool)
        for place in np.unique(where[active]).tolist():
            barrier = _find(block, place)
            _land_arrivals(block, barrier)
            lanes = active & (where == place)
            done |= lanes & ((barrier.phase & 1) != wanted)
            for warp in block.warps_of(lanes & done).tolist():
                if barrier.published is not None:
                    block.shared.learn(warp, barrier.published)
        write(block, done, active)
        block.stalled |= active & ~done
        return bool((active & ~done).any())

    return step


def _find(block: Block, place: int) -> Barrier:
    if place not in block.barriers:
        raise block.findings.stop("barrier", "an mbarrier is used that nobody initialised")
    return block.barriers[place]


def _land_arrivals(block: Block, barrier: Barrier) -> None:
    """Copies become visible when somebody looks: never earlier, so that not looking shows."""
    arrivals, barrier.arrivals = barrier.arrivals, []
    for offsets, raw, cells in arrivals:
        block.shared.land(offsets, raw, cells, np.full(1, block.clocks.engine))
        barrier.bytes_due -= raw.size
    if arrivals:
        barrier.collected = _merge(barrier.collected, block.clocks.engine_step())
        _complete(block, barrier)


def _complete(block: Block, barrier: Barrier) -> None:
    if barrier.left == 0 and barrier.bytes_due == 0:
        barrier.phase += 1
        barrier.left = barrier.count
        barrier.published, barrier.collected = barrier.collected, None
        block.stalled[:] = False
        block.progress += 1


def _merge(old: Clock | None, new: Clock) -> Clock:
    return new if old is None else np.maximum(old, new)
