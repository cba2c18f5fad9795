"""Machine code as a list of instructions: what kinds there are, where the main loop is, what it is made of."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

# The first pattern that matches an opcode from its beginning names its class; NVIDIA and AMD spellings side by side.
CLASSES: tuple[tuple[str, str], ...] = (
    ("matrix.warpgroup", r"HGMMA|QGMMA|IGMMA|BGMMA"),
    ("matrix.tensor-memory", r"UTC\w*MMA"),
    ("matrix.warp", r"HMMA|IMMA|QMMA|OMMA|DMMA|BMMA|v_mfma|v_smfmac|v_wmma|v_swmmac"),
    ("copy.tensor", r"UTMALDG|UTMASTG|UTMAREDG|UBLKCP"),
    ("copy.async.16", r"LDGSTS.*\.128"),
    ("copy.async", r"LDGSTS|global_load_lds|buffer_load.*_lds"),
    ("global.load.16", r"LDG.*\.(128|256)|(global|buffer|flat)_load_(dwordx4|b128)"),
    ("global.load", r"LDG\b|LD\b|(global|buffer|flat)_load"),
    ("global.store.16", r"STG.*\.(128|256)|(global|buffer|flat)_store_(dwordx4|b128)"),
    ("global.store", r"STG\b|ST\b|(global|buffer|flat)_store"),
    ("atomic", r"ATOM|RED\b|(global|buffer|flat)_atomic"),
    ("shared.matrix", r"LDSM|STSM|LDTM|STTM"),
    ("shared.load", r"LDS\b|ds_read|ds_load|ds_b?permute|ds_swizzle"),
    ("shared.store", r"STS\b|ds_write|ds_store"),
    ("local", r"LDL|STL|scratch_load|scratch_store|v_accvgpr_(read|write).*spill"),
    ("barrier", r"BAR\b|s_barrier|WARPGROUP\.(ARRIVE|DEPBAR)|UTCBAR"),
    ("sync", r"SYNCS|LDGDEPBAR|DEPBAR|MEMBAR|FENCE|ERRBAR|CCTL|UTMACMDFLUSH|UTMACCTL|s_waitcnt|s_wait_|s_nop|s_delay"),
    ("special", r"MUFU|v_(exp|log|rcp|rsq|sqrt|sin|cos)_"),
    ("shuffle", r"SHFL|REDUX|VOTE|v_readlane|v_readfirstlane|v_writelane|v_.*dpp"),
    ("float", r"[FHD](FMA|ADD|MUL)|[FHD]2?(SETP?|MNMX|SEL|SET)|HADD2|HMUL2|HFMA2|FCHK|v_(pk_)?(fma|fmac|add|sub|mul|max|min|cmp\w*)_f"),
    ("convert", r"F2F|F2I|I2F|I2I|F2FP|FRND|v_cvt|v_perm"),
    ("branch", r"BRA|BRX|JMP|EXIT|RET|CALL|BSSY|BSYNC|s_c?branch|s_endpgm|s_setpc"),
)


@dataclass(frozen=True)
class Instruction:
    """One machine instruction; ``stall`` is the cycles its control word makes the warp wait (NVIDIA)."""

    address: int
    opcode: str
    text: str
    stall: int = 0
    target: int | None = None  # of a branch

    @property
    def kind(self) -> str:
        """Its class in :data:`CLASSES`, or ``integer`` for all that is none of them."""
        return next((name for name, pattern in CLASSES if re.match(pattern, self.opcode)), "integer")


_SASS = re.compile(r"/\*([0-9a-f]{4,})\*/\s+(.*?)\s*;\s*/\*\s*0x[0-9a-f]{16}\s*\*/\s*\n\s*/\*\s*(0x[0-9a-f]{16})\s*\*/")


def parse_sass(text: str) -> tuple[Instruction, ...]:
    """Instructions of a ``cuobjdump -sass`` listing; the stall count is bits 41-44 of the upper word."""
    code = []
    for address, words, upper in _SASS.findall(text):
        body = re.sub(r"^@!?U?P\w+\s+", "", words)
        jump = re.search(r"^BRA\S*\s.*?(0x[0-9a-f]+)", body)
        target = int(jump.group(1), 16) if jump else None
        code.append(Instruction(int(address, 16), body.split()[0].rstrip(","), words, int(upper, 16) >> 41 & 15, target))
    return tuple(code)


def parse_gcn(text: str) -> tuple[Instruction, ...]:
    """Instructions of AMD assembly text; addresses are positions in the listing."""
    labels: dict[str, int] = {}
    rows: list[str] = []
    for line in (raw.split(";")[0].rstrip() for raw in text.splitlines()):
        if found := re.match(r"(\.L\w+):", line):
            labels[found.group(1)] = len(rows)
        elif re.match(r"\s+[a-z]\w+(\s|$)", line):
            rows.append(line.strip())
    jumps = [re.match(r"s_c?branch\w*\s+(\.L\w+)", row) for row in rows]
    goals = [labels.get(jump.group(1)) if jump else None for jump in jumps]
    return tuple(Instruction(n, row.split()[0], row, 0, goal) for n, (row, goal) in enumerate(zip(rows, goals, strict=True)))


def count(code: Sequence[Instruction]) -> dict[str, int]:
    """How many instructions of each class."""
    return dict(Counter(i.kind for i in code).most_common())


def loops(code: Sequence[Instruction]) -> list[tuple[Instruction, ...]]:
    """The instructions under every backward branch (a branch to itself is the trap after the end, not a loop)."""
    ends = [(i.target, i.address) for i in code if i.target is not None and i.target < i.address]
    return [tuple(i for i in code if start <= i.address <= end) for start, end in ends]


def main_loop(code: Sequence[Instruction]) -> tuple[Instruction, ...]:
    """The loop where the work is: densest in matrix instructions, else in global memory accesses; empty without loops."""
    for wanted in (("matrix",), ("copy", "global"), ("",)):
        scored = [(sum(i.kind.startswith(wanted) for i in body), body) for body in loops(code)]
        most = max((score for score, _ in scored), default=0)
        if most:
            # A slow path out of line jumps back and so spans foreign code: density finds the loop itself.
            return max((pair for pair in scored if 2 * pair[0] >= most), key=lambda pair: pair[0] / len(pair[1]))[1]
    return ()
