"""What an emulation found: tensors, findings, and the memory traffic of every access in the code."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dlc.emulate.ptx import Instruction

Array = NDArray[Any]


class Stop(Exception):
    """The emulation cannot go on; the finding that says why is already recorded."""


@dataclass(frozen=True)
class Finding:
    """Something wrong, seen while running.

    Kinds: ``bounds``, ``alignment``, ``undefined`` (memory read before it was written), ``race`` (warps of one block),
    ``conflict`` (between blocks), ``wait`` (asynchronous work used before it is done), ``fence``, ``barrier``, ``hang``.
    """

    kind: str
    text: str
    instruction: str
    line: int  # of the PTX
    source: int  # of the kernel, 0 when the PTX does not say
    block: tuple[int, int, int]

    def __str__(self) -> str:
        place = f"kernel line {self.source}, " if self.source else ""
        return f"{self.kind}: {self.text} ({place}PTX line {self.line}: {self.instruction}; block {self.block})"


@dataclass
class AccessStat:
    """Traffic of one instruction: warp requests, bytes asked for, and the units that served them."""

    space: str  # "global" or "shared"
    action: str  # "load" or "store"
    instruction: str
    source: int
    requests: int = 0
    bytes: int = 0
    units: int = 0  # 32-byte sectors, or shared-memory wavefronts
    least: int = 0  # units a perfect layout would need

    @property
    def efficiency(self) -> float:
        """1.0 when no unit is wasted."""
        return self.least / self.units if self.units else 1.0


@dataclass(frozen=True)
class Footprint:
    """Distinct bytes of one tensor a launch touched."""

    name: str
    size: int
    read: int
    written: int


class Findings:
    """Collects findings, one for each instruction and kind; knows where execution stands."""

    def __init__(self) -> None:
        self.found: dict[tuple[str, int, str], Finding] = {}
        self.instruction: Instruction | None = None
        self.block = (0, 0, 0)

    def add(self, kind: str, text: str, what: str = "") -> None:
        """Record a finding at the current instruction; ``what`` tells apart several of one kind there."""
        at = self.instruction
        line, source, words = (at.line, at.source, str(at)) if at else (0, 0, "")
        self.found.setdefault((kind, line, what), Finding(kind, text, words[:120], line, source, self.block))

    def stop(self, kind: str, text: str) -> Stop:
        """Record a finding after which nothing sensible can follow."""
        self.add(kind, text)
        return Stop(text)


@dataclass(frozen=True)
class EmulationReport:
    """The result of one or more emulated launches."""

    arrays: tuple[Array, ...] = field(hash=False)  # every tensor argument after the run, in order
    findings: tuple[Finding, ...] = ()
    accesses: tuple[AccessStat, ...] = ()
    footprints: tuple[Footprint, ...] = ()
    instructions: dict[str, int] = field(default_factory=dict, hash=False)  # warp instructions by opcode
    matrix_flops: int = 0
    blocks: int = 0
    seconds: float = 0.0
    outputs: dict[str, Array] = field(default_factory=dict, hash=False)  # of an artifact: written tensors by name

    @property
    def ok(self) -> bool:
        """Whether nothing wrong was seen."""
        return not self.findings

    def units(self, space: str, action: str = "") -> int:
        """Sectors (global) or wavefronts (shared) of all loads, stores, or both."""
        return sum(a.units for a in self.accesses if a.space == space and action in ("", a.action))

    def efficiency(self, space: str, action: str = "") -> float:
        """Least units over units used: coalescing for global memory, freedom from bank conflicts for shared."""
        least = sum(a.least for a in self.accesses if a.space == space and action in ("", a.action))
        return least / self.units(space, action) if self.units(space, action) else 1.0

    @property
    def bytes_read(self) -> int:
        """Distinct bytes of global memory read, each counted once a launch."""
        return sum(f.read for f in self.footprints)

    @property
    def bytes_written(self) -> int:
        """Distinct bytes of global memory written, each counted once a launch."""
        return sum(f.written for f in self.footprints)

    @property
    def families(self) -> dict[str, int]:
        """Warp instructions by the first word of the opcode."""
        total: Counter[str] = Counter()
        for opcode, number in self.instructions.items():
            total[opcode.split(".")[0]] += number
        return dict(total.most_common())

    def as_dict(self) -> dict[str, Any]:
        """Figures and findings as JSON values; arrays are left out."""
        return {
            "ok": self.ok,
            "findings": [str(f) for f in self.findings],
            "bytes_read": self.bytes_read,
            "bytes_written": self.bytes_written,
            "global_sectors": self.units("global"),
            "coalescing": self.efficiency("global"),
            "shared_wavefronts": self.units("shared"),
            "bank_efficiency": self.efficiency("shared"),
            "matrix_flops": self.matrix_flops,
            "instructions": self.families,
            "blocks": self.blocks,
            "seconds": self.seconds,
        }

    def __str__(self) -> str:
        rows = [f"{self.blocks} blocks, {sum(self.instructions.values())} warp instructions, emulated in {self.seconds:.2f} s"]
        rows.append(f"global  {self.units('global')} sectors, coalescing {self.efficiency('global'):.0%}")
        rows.append(f"        {self.bytes_read} distinct bytes read, {self.bytes_written} written")
        if self.units("shared"):
            rows.append(f"shared  {self.units('shared')} wavefronts, {self.efficiency('shared'):.0%} of them needed")
        worst = sorted((a for a in self.accesses if a.efficiency < 0.9), key=lambda a: a.least - a.units)
        rows += [f"  wasteful: kernel line {a.source}, {a.instruction}: {a.efficiency:.0%} of {a.units}" for a in worst[:5]]
        rows += [f"FOUND   {finding}" for finding in self.findings] or ["no findings"]
        return "\n".join(rows)


def _distinct(values: Array) -> int:
    ordered = np.sort(values)
    return 1 + int(np.count_nonzero(ordered[1:] != ordered[:-1]))


class TrafficMeter:
    """Counts sectors and wavefronts of every memory instruction."""

    def __init__(self) -> None:
        self.stats: dict[tuple[int, str], AccessStat] = {}

    def _stat(self, at: Instruction, space: str, action: str) -> AccessStat:
        return self.stats.setdefault((at.position, action), AccessStat(space, action, str(at)[:80], at.source))

    def global_access(self, at: Instruction, action: str, address: Array, size: int, warp: Array) -> None:
        """One instruction of active lanes: 32-byte sectors, each counted once a warp."""
        if not address.size:
            return
        stat = self._stat(at, "global", action)
        key = (warp << np.int64(48)) | address  # addresses stay below 2**48
        sectors = _distinct(np.concatenate([(key >> 5) + n for n in range(max(1, size // 32))]))
        wanted = _distinct(key) * size  # lanes that ask for the same bytes ask once
        stat.requests += _distinct(warp)
        stat.bytes += address.size * size
        stat.units += sectors
        stat.least += min(sectors, -(-wanted // 32))

    def shared_access(self, at: Instruction, action: str, address: Array, size: int, warp: Array) -> None:
        """One instruction of active lanes: wavefronts of 32 four-byte banks; wide accesses go in halves or quarters."""
        if not address.size:
            return
        stat = self._stat(at, "shared", action)
        words = max(1, size // 4)
        lane = np.arange(address.size)
        first = np.searchsorted(warp, warp)  # lanes of a warp are in order
        phase = (lane - first) * words // 32
        key = (warp * 64 + phase) << 32
        word = (address >> 2)[:, None] + np.arange(words)
        distinct = np.unique(key[:, None] | word)
        bank = np.unique((distinct >> 32) << 5 | distinct & 31, return_counts=True)
        group, start = np.unique(bank[0] >> 5, return_index=True)
        stat.requests += int(np.unique(warp).size)
        stat.bytes += address.size * size
        stat.units += int(np.maximum.reduceat(bank[1], start).sum())
        stat.least += int(group.size)
