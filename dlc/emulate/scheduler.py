"""Runs one block: always the threads that are furthest behind, so that what diverged meets again."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from dlc.emulate.block import Block
from dlc.emulate.copies import unfinished
from dlc.emulate.decode import Decoder, Step
from dlc.emulate.ptx import Instruction, Program
from dlc.emulate.warpgroup import check_pending

Bools = NDArray[np.bool_]
_CONTROL = ("bra", "ret", "exit", "trap", "bar", "barrier")


class Code:
    """A program whose instructions are decoded when first met."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self._decoder = Decoder(program)
        self._steps: list[Step | None] = [None] * len(program.code)
        self.sources = [_registers_read(i) for i in program.code]
        self.guards = [self._decoder.read(("!" if i.negated else "") + i.guard, "pred") if i.guard else None for i in program.code]
        self.control = [i.parts[0] in _CONTROL and "warp" not in i.parts for i in program.code]

    def step(self, position: int) -> Step:
        """The decoded instruction at a position."""
        step = self._steps[position]
        if step is None:
            instruction = self.program.code[position]
            step = (lambda block, active: None) if "warp" in instruction.parts else self._decoder.step(instruction)
            self._steps[position] = step
        return step


def _registers_read(instruction: Instruction) -> frozenset[str]:
    stores = instruction.parts[0] in ("st", "red", "stmatrix", "cp")
    texts = instruction.args if stores else instruction.args[1:]
    return frozenset(name for text in texts for name in re.findall(r"%\w+", text))


@dataclass
class _Meeting:
    """Lanes that arrived at one bar."""

    waiting: Bools
    expected: int | None  # threads, or all that have not ended
    arrived: Bools = field(init=False)

    def __post_init__(self) -> None:
        self.arrived = np.zeros_like(self.waiting)


class Scheduler:
    """Program counters of one block's threads."""

    def __init__(self, block: Block, code: Code, limit: int) -> None:
        self.block, self.code, self.limit = block, code, limit
        self.end = len(code.program.code)
        self.counter = np.zeros(block.threads, np.int64)
        self.meetings: dict[int, _Meeting] = {}
        self.steps = 0

    def run(self) -> None:
        """Run every thread to its end; raises Stop when that cannot be."""
        block, seen = self.block, -1
        while (live := self.counter < self.end).any():
            waiting = np.logical_or.reduce([m.waiting for m in self.meetings.values()]) if self.meetings else np.zeros_like(live)
            ready = live & ~waiting & ~block.stalled
            if ready.any():
                self._stretch(ready)
            elif (live & block.stalled).any() and seen != block.progress:
                seen = block.progress
                block.stalled[:] = False
            else:
                raise self._stuck(live, waiting)
        if left := unfinished(block):
            block.findings.add("wait", left)

    def _stuck(self, live: Bools, waiting: Bools) -> Exception:
        block = self.block
        position = int(self.counter[live].min())
        block.findings.instruction = self.code.program.code[position]
        if (live & waiting).any():
            counts = {number: int(m.waiting.sum() + m.arrived.sum()) for number, m in self.meetings.items()}
            text = ", ".join(f"barrier {n} has {c} of {block.threads} threads" for n, c in counts.items())
            return block.findings.stop("barrier", f"threads wait at a barrier the others never reach: {text}")
        return block.findings.stop("hang", "an mbarrier is waited for that never completes")

    def _stretch(self, ready: Bools) -> None:
        """Run the threads furthest behind until they branch, wait, or meet the next ones."""
        block, code = self.block, self.code
        position = int(self.counter[ready].min())
        block.now = ready & (self.counter == position)
        block.full = bool(block.now.all())
        ahead = self.counter[ready & (self.counter > position)]
        stop = int(ahead.min()) if ahead.size else self.end
        warps = block.warps if block.full else block.warps_of(block.now).size
        while position < stop:
            instruction = code.program.code[position]
            block.findings.instruction = instruction
            block.launch.issued[position] += warps
            self._count()
            guard = code.guards[position]
            active = block.now if guard is None else block.now & guard(block)
            if code.control[position]:
                self._control(instruction, position, active)
                return
            if block.pending:
                check_pending(block, instruction, code.sources[position])
            position += 1
            if (guard is None or active.any()) and code.step(position - 1)(block, active):
                break
        self.counter[block.now] = position

    def _count(self) -> None:
        self.steps += 1
        if self.steps > self.limit:
            raise self.block.findings.stop("hang", f"the block has not ended after {self.limit} instructions")

    def _control(self, instruction: Instruction, position: int, active: Bools) -> None:
        now, word = self.block.now, instruction.parts[0]
        if word == "trap" and active.any():
            raise self.block.findings.stop("hang", "the kernel traps")
        if word in ("bar", "barrier"):
            self._bar(instruction, position, active)
            return
        self.counter[now] = position + 1
        if word == "bra":
            self.counter[active] = self.code.program.labels[instruction.args[0]]
        elif word in ("ret", "exit"):
            self.counter[active] = self.end
            for number in list(self.meetings):
                self._meet(number)

    def _bar(self, instruction: Instruction, position: int, active: Bools) -> None:
        block, parts = self.block, instruction.parts
        if "cluster" in parts or "red" in parts:
            raise block.findings.stop("barrier", f"the emulator does not know {instruction.opcode}")
        numbers = [int(a) if a.lstrip("-").isdigit() else int(block.registers[a][active][0]) for a in instruction.args]
        number, expected = numbers[0], numbers[1] if len(numbers) > 1 else None
        self.counter[block.now & ~active] = position + 1
        meeting = self.meetings.setdefault(number, _Meeting(np.zeros(block.threads, bool), expected))
        if "arrive" in parts:
            meeting.arrived |= active
            self.counter[active] = position + 1
        else:
            meeting.waiting |= active
            self.counter[active] = position
        self._meet(number)

    def _meet(self, number: int) -> None:
        """Open the barrier when all it expects are there."""
        meeting, block = self.meetings[number], self.block
        there = meeting.waiting | meeting.arrived
        expected = int((self.counter < self.end).sum()) if meeting.expected is None else meeting.expected
        if there.sum() < expected:
            return
        block.clocks.barrier(block.warps_of(there))
        self.counter[meeting.waiting] += 1
        del self.meetings[number]
