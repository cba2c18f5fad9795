"""What the compiled code of a GPU kernel tells without running it: registers, spills, occupancy, instruction mix.

These are facts for gates and pruning (no spills, matrix units used, wide loads, fits the device). None is a time.
"""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass, field
from typing import Any

from dlc.runtime.disassembly import Instruction, count, main_loop, parse_gcn, parse_sass
from dlc.runtime.triton_compile import GpuBinary, assembler, nvidia_tool
from dsl.errors import TargetError


@dataclass(frozen=True)
class _Chip:
    """Published limits of one multiprocessor (NVIDIA) or compute unit (AMD)."""

    registers: int  # 32-bit registers a lane-warp file holds; per SIMD and lane on AMD
    register_granule: int  # allocation step: registers of a warp, or registers of a lane on AMD
    shared: int
    shared_per_block: int
    shared_reserved: int  # taken from every resident block
    threads: int
    blocks: int
    warps_per_simd: int = 0  # AMD
    tensor_memory: int = 0


_K = 1024
_CHIPS = {
    "sm_80": _Chip(65536, 256, 164 * _K, 163 * _K, _K, 2048, 32),
    "sm_86": _Chip(65536, 256, 100 * _K, 99 * _K, _K, 1536, 16),
    "sm_89": _Chip(65536, 256, 100 * _K, 99 * _K, _K, 1536, 24),
    "sm_90": _Chip(65536, 256, 228 * _K, 227 * _K, _K, 2048, 32),
    "sm_100": _Chip(65536, 256, 228 * _K, 227 * _K, _K, 2048, 32, tensor_memory=512),
    "gfx90a": _Chip(512, 8, 64 * _K, 64 * _K, 0, 2048, 32, warps_per_simd=8),
    "gfx942": _Chip(512, 8, 64 * _K, 64 * _K, 0, 2048, 32, warps_per_simd=8),
    "gfx950": _Chip(512, 8, 160 * _K, 160 * _K, 0, 2048, 32, warps_per_simd=8),
}
_SIMDS = 4  # of an AMD compute unit
_MAX_BLOCK_THREADS = 1024


@dataclass(frozen=True)
class ResourceReport:
    """Static figures of one compiled kernel. ``str()`` is a table; :meth:`as_dict` is for JSON."""

    name: str
    target: str
    threads: int
    registers: int  # per thread; on AMD vector registers, accumulators included
    accumulators: int  # AMD only, part of ``registers``
    scalars: int  # AMD only
    spill_stores: int  # bytes a thread; on AMD spilled registers x 4
    spill_loads: int
    stack: int  # bytes a thread
    static_shared: int
    dynamic_shared: int
    blocks_per_sm: int
    occupancy: float  # resident warps over the most there can be
    limited_by: str
    refusal: str  # why it would not launch; empty when it would
    instructions: int
    mix: dict[str, int] = field(hash=False)
    loop_instructions: int = 0
    loop_mix: dict[str, int] = field(default_factory=dict, hash=False)
    loop_stalls: int = 0  # cycles one warp spends issuing one iteration (NVIDIA)
    advice: tuple[str, ...] = ()  # what ptxas warns about, such as C7511

    @property
    def launchable(self) -> bool:
        """Whether the device would accept the kernel."""
        return not self.refusal

    @property
    def matrix_instructions(self) -> int:
        """Matrix-unit instructions in the whole kernel."""
        return sum(n for kind, n in self.mix.items() if kind.startswith("matrix"))

    @property
    def wide_loads(self) -> int:
        """Global reads of 16 bytes a thread, asynchronous and tensor copies included."""
        return sum(self.mix.get(kind, 0) for kind in ("global.load.16", "copy.async.16", "copy.tensor"))

    @property
    def spills(self) -> bool:
        """Whether any register lives in memory."""
        return bool(self.spill_stores or self.spill_loads)

    @property
    def serialized(self) -> bool:
        """Whether ptxas serialised the asynchronous matrix instructions."""
        return any("C7511" in a or "C7510" in a or "serialized" in a for a in self.advice)

    def as_dict(self) -> dict[str, Any]:
        """Every figure, derived ones included, as JSON values."""
        derived = {name: getattr(self, name) for name in ("launchable", "matrix_instructions", "wide_loads", "spills", "serialized")}
        return {**dataclasses.asdict(self), "advice": list(self.advice), **derived}

    def __str__(self) -> str:
        per_block = f"{self.threads} threads, {self.dynamic_shared + self.static_shared} B shared"
        rows = [
            ("kernel", f"{self.name} for {self.target}"),
            ("launch", "fits" if self.launchable else f"REFUSED: {self.refusal}"),
            ("block", per_block),
            ("registers", _registers(self)),
            (
                "spills",
                f"{self.spill_stores} B stored, {self.spill_loads} B loaded, stack {self.stack} B" if self.spills or self.stack else "none",
            ),
            ("occupancy", f"{self.occupancy:.0%}: {self.blocks_per_sm} blocks a multiprocessor, limited by {self.limited_by}"),
            ("whole code", f"{self.instructions} instructions: {_listing(self.mix)}"),
        ]
        if self.loop_instructions:
            rows.append(("main loop", f"{self.loop_instructions} instructions: {_listing(self.loop_mix)}"))
        rows += [("advice", line) for line in self.advice]
        return "\n".join(f"{label:<11}{text}" for label, text in rows)


def _registers(report: ResourceReport) -> str:
    extra = f" ({report.accumulators} accumulators), {report.scalars} scalar" if report.scalars else ""
    return f"{report.registers} a thread{extra}"


def _listing(mix: dict[str, int]) -> str:
    return ", ".join(f"{n} {kind}" for kind, n in mix.items())


def report(binary: GpuBinary) -> ResourceReport:
    """Read a compiled kernel's resources, occupancy and instruction mix from its machine code."""
    if binary.target not in _CHIPS:
        raise TargetError(f"no published limits of {binary.target!r} are known here", remedy="one of " + ", ".join(_CHIPS))
    facts = _nvidia(binary) if binary.vendor == "cuda" else _amd(binary)
    code: tuple[Instruction, ...] = facts.pop("code")
    loop = main_loop(code)
    return ResourceReport(
        name=binary.name,
        target=binary.target,
        threads=binary.threads,
        dynamic_shared=binary.shared,
        instructions=len(code),
        mix=count(code),
        loop_instructions=len(loop),
        loop_mix=count(loop),
        loop_stalls=sum(max(i.stall, 1) for i in loop if binary.vendor == "cuda"),
        **facts,
        **_residency(binary, _CHIPS[binary.target], facts["registers"], facts["static_shared"]),
    )


def _nvidia(binary: GpuBinary) -> dict[str, Any]:
    usage = nvidia_tool("cuobjdump", "--dump-resource-usage", code=binary.code)
    log = nvidia_tool(*_ptxas(binary), code=binary.ptx.encode(), merge=True)
    static = _number(r"SHARED:(\d+)", usage)
    # From sm_90 on the tool counts the kilobyte the system keeps of every block's shared memory.
    reserved = _CHIPS[binary.target].shared_reserved if static and not re.search(r"\d+ bytes smem", log) else 0
    return {
        "registers": _number(r"REG:(\d+)", usage),
        "accumulators": 0,
        "scalars": 0,
        "stack": _number(r"STACK:(\d+)", usage),
        "static_shared": max(static - reserved, 0),
        "spill_stores": _number(r"(\d+) bytes spill stores", log),
        "spill_loads": _number(r"(\d+) bytes spill loads", log),
        "advice": tuple(re.findall(r"(\(C\d+\).*|warning.*)", log)),
        "code": parse_sass(binary.sass),
    }


def _ptxas(binary: GpuBinary) -> tuple[str, ...]:
    """The command Triton assembled the kernel with, so that the log is of the same code."""
    architecture = int(binary.target.removeprefix("sm_"))
    suffix = "a" if architecture >= 90 else ""
    fused = () if binary.fp_fusion else ("--fmad=false",)
    return (assembler(binary.target), "-v", "-lineinfo", "--regAllocOptLevel=2", *fused, f"--gpu-name=sm_{architecture}{suffix}", "-o",
            "/dev/null")


def _amd(binary: GpuBinary) -> dict[str, Any]:
    text = binary.amdgcn
    spilled = 4 * _number(r"\.vgpr_spill_count:\s+(\d+)", text)
    return {
        "registers": _number(r"\.vgpr_count:\s+(\d+)", text),
        "accumulators": _number(r"\.agpr_count:\s+(\d+)", text),
        "scalars": _number(r"\.sgpr_count:\s+(\d+)", text),
        "stack": _number(r"\.private_segment_fixed_size:\s+(\d+)", text),
        "static_shared": _number(r"\.group_segment_fixed_size:\s+(\d+)", text),
        "spill_stores": spilled,
        "spill_loads": spilled,
        "advice": (),
        "code": parse_gcn(text),
    }


def _number(pattern: str, text: str) -> int:
    found = re.search(pattern, text)
    return int(found.group(1)) if found else 0


def _residency(binary: GpuBinary, chip: _Chip, registers: int, static_shared: int) -> dict[str, Any]:
    """How many blocks one multiprocessor holds, what stops one more, and whether it holds any."""
    warps = -(-binary.threads // binary.warp_size)
    shared = binary.shared + static_shared
    limits = {"threads": chip.threads // binary.threads, "blocks": chip.blocks, "registers": _by_registers(chip, registers, warps)}
    if shared:
        limits["shared memory"] = chip.shared // (shared + chip.shared_reserved)
    if binary.tensor_columns:
        limits["tensor memory"] = chip.tensor_memory // binary.tensor_columns
    blocks = min(limits.values())
    most_warps = _SIMDS * chip.warps_per_simd or chip.threads // binary.warp_size
    return {
        "blocks_per_sm": blocks,
        "occupancy": min(1.0, blocks * warps / most_warps),
        "limited_by": " and ".join(name for name, limit in limits.items() if limit == blocks),
        "refusal": _refusal(binary, chip, shared, limits),
    }


def _by_registers(chip: _Chip, registers: int, warps: int) -> int:
    """Blocks that fit the register file."""
    if chip.warps_per_simd:
        lane = -(-max(registers, 1) // chip.register_granule) * chip.register_granule
        return _SIMDS * min(chip.warps_per_simd, chip.registers // lane) // warps
    warp = -(-max(registers, 1) * 32 // chip.register_granule) * chip.register_granule
    return chip.registers // warp // warps


def _refusal(binary: GpuBinary, chip: _Chip, shared: int, limits: dict[str, int]) -> str:
    if binary.threads > _MAX_BLOCK_THREADS:
        return f"{binary.threads} threads a block, the limit is {_MAX_BLOCK_THREADS}"
    if shared > chip.shared_per_block:
        return f"{shared} bytes of shared memory a block, the limit is {chip.shared_per_block}"
    empty = [name for name, blocks in limits.items() if blocks < 1]
    return f"not one block fits: {empty[0]}" if empty else ""
