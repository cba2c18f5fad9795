"""Runs compiled kernels block after block, and gathers what was seen."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from codegen.artifact import TritonArtifact, TritonKernel
from dlc.emulate import arithmetic, copies, matrix, movement, synchronise, warp, warpgroup  # each fills the table of operations
from dlc.emulate.block import Block, Launch
from dlc.emulate.formats import width
from dlc.emulate.global_memory import GlobalMemory
from dlc.emulate.ptx import Program, parse
from dlc.emulate.report import Array, EmulationReport, Findings, Footprint, Stop, TrafficMeter
from dlc.emulate.scheduler import Code, Scheduler
from dsl.dtype import ALL
from dsl.errors import ArgumentError, TargetError

OPERATIONS = (arithmetic, copies, matrix, movement, synchronise, warp, warpgroup)
LARGEST_SHARED = 227 * 1024
STEP_LIMIT = 2_000_000


@dataclass(frozen=True)
class Blank:
    """A tensor argument without contents: reading it before it is written is a finding."""

    shape: tuple[int, ...]
    dtype: Any
    strides: tuple[int, ...] | None = None  # in bytes

    def like(self) -> Array:
        """An array of this layout."""
        if self.strides is None or 0 in self.shape:
            return np.empty(self.shape, self.dtype)
        room = np.empty(1, self.dtype).view(f"V{np.dtype(self.dtype).itemsize}")  # a layout only: its memory is never touched
        return np.lib.stride_tricks.as_strided(room, self.shape, self.strides).view(self.dtype)


def emulate(
    code: Any,
    grid: Sequence[int],
    args: Sequence[Any],
    shared: int | None = None,
    limit: int = STEP_LIMIT,
    names: Sequence[str] = (),
) -> EmulationReport:
    """Run a kernel on the CPU, instruction by instruction.

    Args:
        code: PTX text, or a compiled kernel with ``ptx``, ``shared`` and ``scratch_bytes``.
        grid: blocks along one to three axes.
        args: the kernel's arguments in order: numpy arrays (left as they are), :class:`Blank` outputs, numbers.
        shared: bytes of dynamic shared memory, when ``code`` is text; the largest there is when omitted.
        limit: instructions after which a block counts as hanging.
        names: what findings call the arguments.
    """
    session = _Session(limit)
    names = names or [f"argument {n}" for n in range(len(args))]
    tensors = {name: arg for name, arg in zip(names, args) if isinstance(arg, (np.ndarray, Blank))}
    session.place(tensors)
    values = [session.address[name] if name in tensors else arg for name, arg in zip(names, args)]
    session.launch(code, _three(grid), values, shared)
    return session.report(list(tensors))


def emulate_artifact(
    artifact: TritonArtifact | TritonKernel,
    codes: Sequence[Any],
    tensors: Mapping[str, Any],
    sizes: Mapping[str, int | float] | None = None,
    limit: int = STEP_LIMIT,
) -> EmulationReport:
    """Run every kernel of an artifact, compiled already, over one set of tensors known by name.

    Args:
        artifact: what the emitter made.
        codes: the compiled kernels, in the artifact's order.
        tensors: numpy arrays by name, outputs too (the contents of those only written are not read).
        sizes: every scalar argument, and every name the grid and workspace formulas use.
        limit: instructions after which a block counts as hanging.
    """
    artifact = artifact if isinstance(artifact, TritonArtifact) else TritonArtifact((artifact,))
    sizes = dict(sizes or {})
    whole = {name: int(value) for name, value in sizes.items() if not isinstance(value, float)}
    pointers = artifact.pointers()
    placed: dict[str, Any] = {n: Blank(t.shape, t.dtype, t.strides) if n in pointers and pointers[n].access == "w" else t
                              for n, t in tensors.items()}
    kinds = {name: arg.dtype for name, arg in pointers.items()}
    for space in artifact.workspaces:
        dtype = kinds[space.name] if space.name in kinds else ALL[space.dtype.name]
        shape, storage = space.shape_of(whole), np.dtype(f"u{dtype.itemsize}")
        placed[space.name] = np.zeros(shape, storage) if space.zero else Blank(shape, storage)
    if missing := sorted(set(pointers) - set(placed)):
        raise ArgumentError(f"no tensor given for {', '.join(missing)}")
    session = _Session(limit)
    session.place({name: placed[name] for name in pointers})
    for kernel, code in zip(artifact.kernels, codes):
        values = [session.address[a.name] if a.is_pointer else sizes[a.name] for a in kernel.args]
        session.launch(code, kernel.grid_of(whole), _in_order(kernel, values), None)
    written = [name for name, arg in pointers.items() if arg.access != "r" and name in tensors]
    return session.report(list(pointers), written, [n for n in written if pointers[n].access == "w"])


def _in_order(kernel: TritonKernel, values: list[Any]) -> list[Any]:
    """Values in the order of the function's parameters, which may differ from that of ``args``."""
    header = re.search(rf"def\s+{re.escape(kernel.name)}\s*\((.*?)\)\s*:", kernel.source, re.S)
    named = {arg.name: value for arg, value in zip(kernel.args, values)}
    listed = [part.split(":")[0].strip() for part in header.group(1).split(",")] if header else list(named)
    return [named[name] for name in listed if name in named]


def _three(grid: Sequence[int]) -> tuple[int, int, int]:
    x, y, z, *_ = (*map(int, grid), 1, 1, 1)
    return x, y, z


class _Session:
    """Memory and findings over one or more launches."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.findings = Findings()
        self.memory = GlobalMemory(self.findings)
        self.traffic = TrafficMeter()
        self.address: dict[str, int] = {}
        self.footprints: list[Footprint] = []
        self.instructions: Counter[str] = Counter()
        self.stats: list[Any] = []
        self.flops = self.blocks = 0
        self.started = time.perf_counter()

    def place(self, tensors: Mapping[str, Any]) -> None:
        """Give every tensor an address."""
        for name, tensor in tensors.items():
            blank = isinstance(tensor, Blank)
            array = tensor.like() if isinstance(tensor, Blank) else tensor
            if any(stride < 0 for stride in array.strides):
                raise ArgumentError(f"tensor {name!r} has a negative stride", remedy="pass numpy.ascontiguousarray of it")
            self.address[name] = self.memory.add(array, name, _grain(array.itemsize), blank)

    def launch(self, code: Any, grid: tuple[int, int, int], values: Sequence[Any], shared: int | None) -> None:
        """Run all blocks of one kernel."""
        text = code if isinstance(code, str) else code.ptx
        program = parse(text)
        if program.threads % 32:
            raise TargetError(f"a block of {program.threads} threads has a partial warp, which the emulator does not model")
        dynamic = getattr(code, "shared", None) if shared is None else shared
        size = program.shared_size + (LARGEST_SHARED if dynamic is None else dynamic)
        launch = Launch(program, grid, self.memory, self.findings, TrafficMeter(), size, _shared_grain(program))
        launch.issued = np.zeros(len(program.code), np.int64)
        self._bind(launch, values, getattr(code, "scratch_bytes", 0) * int(np.prod(grid)))
        self.memory.begin_launch()
        try:
            with np.errstate(all="ignore"):
                self._blocks(launch, Code(program))
        except Stop:
            pass  # the finding says why; what was computed so far is in the report
        for instruction, count in zip(program.code, launch.issued.tolist()):
            if count:
                self.instructions[instruction.opcode] += count
        self.footprints += [r.footprint() for r in self.memory.regions if not r.name.startswith(".")]
        self.stats += list(launch.traffic.stats.values())
        self.flops += launch.matrix_flops

    def _blocks(self, launch: Launch, code: Code) -> None:
        for number, (z, y, x) in enumerate(np.ndindex(launch.grid[::-1])):
            self.memory.block, self.findings.block = number, (x, y, z)
            Scheduler(Block(launch, (x, y, z)), code, self.limit).run()
            self.blocks += 1

    def _bind(self, launch: Launch, values: Sequence[Any], scratch: int) -> None:
        """Parameters as bytes; Triton adds two pointers to scratch memory after the kernel's own."""
        declared = launch.program.parameters
        if not len(values) <= len(declared) <= len(values) + 2:
            raise ArgumentError(f"the kernel takes {len(declared)} parameters, {len(values)} were given")
        extra = [self.memory.add(np.zeros(scratch, np.uint8), ".scratch")] if scratch else [0]
        for parameter, value in zip(declared, [*values, *extra, 0]):
            launch.parameters[parameter.name + ":bytes"] = _pack(parameter.kind, value)
            launch.parameters[parameter.name] = 0
        for name, raw in launch.program.constants.items():
            launch.symbols[name] = self.memory.add(np.frombuffer(raw, np.uint8), f".{name}")
        launch.symbols |= {"global_smem": launch.program.shared.get("global_smem", 0)}

    def report(self, tensors: list[str], outputs: Sequence[str] = (), complete: Sequence[str] = ()) -> EmulationReport:
        """Everything seen, with the tensors as they are now."""
        regions = {r.name: r for r in self.memory.regions}
        self.findings.instruction = None
        for name in complete:
            if missing := regions[name].missing():
                self.findings.add("undefined", f"output {name!r} is not fully written: {missing} bytes missing", name)
        return EmulationReport(
            arrays=tuple(regions[name].result() for name in tensors),
            findings=tuple(self.findings.found.values()),
            accesses=tuple(self.stats),
            footprints=tuple(self.footprints),
            instructions=dict(self.instructions),
            matrix_flops=self.flops,
            blocks=self.blocks,
            seconds=time.perf_counter() - self.started,
            outputs={name: regions[name].result() for name in outputs},
        )


def _pack(kind: str, value: Any) -> bytes:
    size = width(kind)
    if isinstance(value, (float, np.floating)) or kind.startswith("f"):
        return np.array(value, f"f{size}").tobytes()
    return (int(value) & ((1 << 8 * size) - 1)).to_bytes(size, "little")


def _grain(itemsize: int) -> int:
    return itemsize if itemsize in (1, 2, 4, 8) else 1


def _shared_grain(program: Program) -> int:
    """The smallest access to shared memory in the code: history at that step loses nothing."""
    sizes = [16]
    for instruction in program.code:
        parts = instruction.parts
        if parts[0] in ("ld", "st", "atom", "red") and any(p.startswith("shared") for p in parts) and parts[-1][1:].isdigit():
            sizes.append(width(parts[-1]) * (int(found.group(1)) if (found := re.search(r"\.v(\d)", instruction.opcode)) else 1))
        elif parts[0] == "cp" and not instruction.opcode.startswith("cp.async.bulk") and len(instruction.args) > 2:
            sizes.append(int(instruction.args[2], 0))
        elif parts[0] == "tensormap":
            sizes.append(4)
    return min(sizes)
