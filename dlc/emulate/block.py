"""The state of one running block: registers of all its threads as vectors, program counters, shared and local memory."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dlc.emulate.clocks import Clock, Clocks
from dlc.emulate.formats import UNSIGNED, width
from dlc.emulate.global_memory import GlobalMemory
from dlc.emulate.ptx import Program
from dlc.emulate.report import Array, Findings, TrafficMeter
from dlc.emulate.shared_memory import SharedMemory

Bools = NDArray[np.bool_]
Index = NDArray[np.int64]
SHARED_WINDOW, LOCAL_WINDOW = 1 << 60, 1 << 61  # where generic addresses of the two spaces begin


@dataclass
class Launch:
    """What all blocks of a launch share."""

    program: Program
    grid: tuple[int, int, int]
    memory: GlobalMemory
    findings: Findings
    traffic: TrafficMeter
    shared_size: int
    grain: int  # of shared memory's history
    parameters: dict[str, Any] = field(default_factory=dict)  # name -> bits, or address of a structure
    symbols: dict[str, int] = field(default_factory=dict)  # module variables
    matrix_flops: int = 0
    issued: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))  # warp instructions by position


@dataclass
class CopyGroup:
    """Asynchronous copies committed together: which lanes wait for them, and what each will put where."""

    lanes: Bools
    copies: list[tuple[Index, NDArray[np.uint8], Bools]] = field(default_factory=list)  # addresses, rows, lanes


@dataclass
class Barrier:
    """A transaction barrier in shared memory."""

    count: int
    left: int
    bytes_due: int = 0
    phase: int = 0
    collected: Clock | None = None  # what arrivals of the running phase published
    published: Clock | None = None  # what waiting for the last complete phase teaches
    arrivals: list[tuple[Index, NDArray[np.uint8], Index]] = field(default_factory=list)  # copies to come: offsets, bytes, cells


class Registers(dict[str, Array]):
    """Bits by name; a register nobody has written reads as zero, as the compiler may leave it undefined."""

    def __init__(self, program: Program, threads: int) -> None:
        super().__init__()
        self._program, self._threads = program, threads

    def __missing__(self, name: str) -> Array:
        kind = self._program.kind_of(name)
        value = np.zeros(self._threads, bool if kind == "pred" else UNSIGNED[width(kind)])
        self[name] = value
        return value


class Block:
    """One block of threads in execution."""

    def __init__(self, launch: Launch, place: tuple[int, int, int]) -> None:
        program = launch.program
        self.launch, self.program, self.place = launch, program, place
        self.threads = program.threads
        self.warps = -(-self.threads // 32)
        thread = np.arange(self.threads)
        self.thread, self.lane, self.warp = thread, thread % 32, thread // 32
        self.registers = Registers(program, self.threads)
        self.clocks = Clocks(self.warps)
        self.memory, self.findings = launch.memory, launch.findings
        self.shared = SharedMemory(launch.shared_size, launch.grain, self.warps, self.clocks, launch.findings)
        self.local = np.zeros((self.threads, program.local_size + 8), np.uint8)
        self.special = self._special(launch.grid)
        self.now = np.ones(self.threads, bool)  # lanes executing the current instruction, before its guard
        self.full = True
        self.stalled = np.zeros(self.threads, bool)  # lanes whose barrier test failed: asleep until something completes
        self.progress = 0  # completions of barriers, which may wake stalled lanes
        self.open_copies: list[tuple[Index, NDArray[np.uint8], Bools]] = []
        self.copy_groups: list[CopyGroup] = []
        self.barriers: dict[int, Barrier] = {}
        self.matrix_open: dict[int, list[Index]] = {}  # warp group -> cells its uncommitted wgmma read
        self.matrix_groups: dict[int, list[list[Index]]] = {}  # warp group -> committed groups, oldest first
        self.matrix_done: dict[int, int] = {}  # warp group -> how many groups are complete
        self.pending: dict[str, dict[int, int]] = {}  # accumulator -> warp group -> number of the group that fills it
        self.bulk_open: dict[int, list[Index]] = {}  # thread -> cells its uncommitted bulk stores read
        self.bulk_groups: dict[int, list[list[Index]]] = {}  # thread -> committed groups, oldest first

    def _special(self, grid: tuple[int, int, int]) -> dict[str, Array]:
        zero = np.zeros(self.threads, np.uint32)
        thread = self.thread.astype(np.uint32)
        values: dict[str, Any] = {"%tid.x": thread, "%ntid.x": self.threads, "%laneid": thread % 32, "%warpid": thread // 32}
        values |= {"%tid.y": 0, "%tid.z": 0, "%ntid.y": 1, "%ntid.z": 1, "%nwarpid": self.warps, "%smid": 0, "%nsmid": 1}
        values |= {f"%ctaid.{axis}": self.place[n] for n, axis in enumerate("xyz")}
        values |= {f"%nctaid.{axis}": grid[n] for n, axis in enumerate("xyz")}
        values |= {"%cluster_ctarank": 0, "%cluster_nctarank": 1, "%clock": 0, "%dynamic_smem_size": self.launch.shared_size}
        return {name: (zero + np.uint32(value)).astype(np.uint32) for name, value in values.items()}

    def put(self, name: str, bits: Array, active: Bools) -> None:
        """Write the active lanes of a register of the same width."""
        if active is self.now and self.full:
            self.registers[name] = bits if bits.ndim else np.full(self.threads, bits)
        else:
            self.registers[name] = np.where(active, bits, self.registers[name])

    def warps_of(self, active: Bools) -> Index:
        """The warps that have an active lane."""
        return np.unique(self.warp[active])
