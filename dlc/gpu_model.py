"""How long a compiled GPU kernel takes at least, with no GPU to ask: a model to rank candidates by, not a prediction of times.

For each kernel, with ``b`` programs resident on each of ``P`` processors and ``W = P b`` programs in a wave:

- *matrix*: operations of its products over what a processor's matrix unit does in a cycle (published peak over clock and processors; f32
  and f64 products and other arithmetic over the peak of their dtype);
- *issue*: instructions of the main loop times its rounds, and the rest once, times the warps, over four schedulers;
- *L2*: bytes that the programs ask for over 64 bytes a cycle and processor;
- *latency*: rounds of the main loop times the way to memory, over the stages fetched ahead: what one program takes if nothing else binds;
- *DRAM*: bytes that a wave asks for, each tile counted once however many of its programs share it, over the published bandwidth; inputs
  and outputs once where they fit the second-level cache.

A wave takes ``max(b * max(matrix, issue, L2), latency)`` cycles, and there are ``ceil(programs / W)`` of them: a last wave that fills few
processors costs a whole one. The kernel takes the longer of its waves and of DRAM, and a launch. What spills, cannot be launched or has
its warpgroup products serialised is refused, not ranked: such figures predict nothing.

Static figures prune and explain; among good candidates their order is rough. A GPU, when there is one, decides.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from codegen.analysis.traffic import Work, points_of, work_of
from codegen.target import Target
from codegen.tile.ir import Phase, TileProgram
from dlc.runtime.gpu_report import ResourceReport
from dsl.dim import Var

L2_BYTES = 64  # a cycle and processor
LATENCY = 700.0  # cycles to memory and back, with some queueing
LAUNCH = 2e-6
_SCHEDULERS = 4


@dataclass(frozen=True)
class Estimate:
    """The least time of one kernel, in seconds, and what binds it.

    Attributes:
        name: of the kernel.
        seconds: the least time, a launch included.
        binds: ``matrix``, ``arithmetic``, ``issue``, ``L2``, ``latency`` or ``DRAM``.
        parts: seconds that each of those would take alone.
        waves: of programs; the last may be nearly empty.
        fill: share of the waves' places that have a program.
        dram: bytes from and to memory.
    """

    name: str
    seconds: float
    binds: str
    parts: Mapping[str, float]
    waves: int
    fill: float
    dram: float

    def as_dict(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


def refusal(reports: Sequence[ResourceReport]) -> str | None:
    """Why a candidate is out of the race; None when it is not."""
    for r in reports:
        if not r.launchable:
            return f"{r.name} cannot be launched: {r.refusal}"
        if r.spills:
            return f"{r.name} spills {r.spill_stores + r.spill_loads} bytes a thread"
        if r.serialized:
            return f"the warpgroup products of {r.name} are serialised (C7511)"
    return None


@dataclass(frozen=True)
class Figures:
    """What the model takes from a kernel's machine code, or supposes before there is any."""

    name: str
    threads: int
    blocks_per_sm: int
    instructions: int = 0
    loop_instructions: int = 0


def supposed(program: TileProgram, target: Target) -> list[Estimate]:
    """The least time of every kernel before it is compiled: no instructions counted, as many programs resident as their threads allow."""
    figures = [Figures(p.name, p.warps * target.warp, max(1, 1024 // (p.warps * target.warp))) for p in program.phases]
    return [_kernel(phase, f, target, {}) for phase, f in zip(program.phases, figures)]


def estimate(program: TileProgram, reports: Sequence[ResourceReport], target: Target,
             sizes: Mapping[Var, int] | None = None) -> list[Estimate]:
    """The least time of every kernel of a program.

    Args:
        program: the tile program the kernels were made of, a phase each.
        reports: what their machine code shows.
        target: with its published figures.
        sizes: of symbolic dims.
    """
    return [_kernel(phase, r, target, sizes or {}) for phase, r in zip(program.phases, reports)]


def _kernel(phase: Phase, r: Figures | ResourceReport, target: Target, sizes: Mapping[Var, int]) -> Estimate:
    work, points = work_of(phase, sizes), max(points_of(phase, sizes), 1)
    resident = max(r.blocks_per_sm, 1)
    waves = math.ceil(points / (target.threads * resident))
    beside = min(resident, math.ceil(points / target.threads))
    cycles = _cycles(work, r, target)
    latency = work.rounds * LATENCY / max(phase.stages - 1, 1)
    busy = {name: beside * n for name, n in cycles.items()}
    wave = max(*busy.values(), latency)
    traffic = _dram(phase, work, points, target, resident, sizes)
    parts = {name: waves * n / target.clock for name, n in {**busy, "latency": latency}.items()} | {"DRAM": traffic / target.bandwidth}
    seconds = max(waves * wave / target.clock, parts["DRAM"])
    return Estimate(r.name, seconds + LAUNCH, max(parts, key=lambda n: parts[n]), parts, waves,
                    points / (waves * target.threads * resident), traffic)


def _cycles(work: Work, r: Figures | ResourceReport, target: Target) -> dict[str, float]:
    """Cycles of a processor that one program takes, by what it needs."""
    peak = dict(target.peak)
    per_cycle = {name: flops / target.threads / target.clock for name, flops in peak.items()}
    fast = {name: n for name, n in work.products.items() if name in per_cycle and name not in ("f32", "f64")}
    slow = sum(n / per_cycle.get(name, per_cycle["f32"]) for name, n in work.products.items() if name not in fast)
    warps = math.ceil(r.threads / target.warp)
    instructions = r.loop_instructions * work.rounds + max(r.instructions - r.loop_instructions, 0)
    return {
        "matrix": sum(n / per_cycle[name] for name, n in fast.items()),
        "arithmetic": slow + work.arithmetic / per_cycle["f32"],
        "issue": instructions * warps / _SCHEDULERS,
        "L2": work.moved / L2_BYTES,
    }


def _dram(phase: Phase, work: Work, points: int, target: Target, resident: int, sizes: Mapping[Var, int]) -> float:
    """Bytes that cross the memory bus."""
    held = {a.buffer: a.buffer.dtype.itemsize * math.prod(int(n.eval(sizes)) for n in a.buffer.shape) for a in work.accesses}
    once = float(sum(held.values()))
    if once <= target.caches[2] / 2:
        return once
    width = _wave(phase, min(points, target.threads * resident), sizes)
    waves = points / min(points, target.threads * resident)
    total = 0.0
    for a in work.accesses:
        distinct = math.prod(width[v] for v in a.grid if v in width)
        total += min(waves * distinct * a.bytes, max(points * a.bytes, held[a.buffer]))
    return max(total, once)


def _wave(phase: Phase, programs: int, sizes: Mapping[Var, int]) -> dict[Var, float]:
    """How many values of each grid variable the programs of one wave have."""
    left, out = float(programs), dict[Var, float]()
    grid = [(v, int(n.eval(sizes))) for v, n in phase.grid]
    if phase.group and len(grid) >= 2:
        (rows, m), (columns, n) = grid[-2:]
        out[rows] = float(min(m, phase.group))
        out[columns] = min(float(n), max(left / out[rows], 1.0))
        out[rows] = min(float(m), max(left / out[columns], out[rows])) if out[columns] == n else out[rows]
        left, grid = max(left / (out[rows] * out[columns]), 1.0), grid[:-2]
    for v, n in reversed(grid):
        out[v] = min(float(n), left)
        left = max(left / n, 1.0)
    return out


__all__ = ["Estimate", "estimate", "refusal"]
