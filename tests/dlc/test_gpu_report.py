"""Static figures of compiled kernels: what the tools say, and the arithmetic on top of it."""

from __future__ import annotations

import dataclasses
import json

import pytest

from codegen.artifact import TritonKernel
from dlc.runtime.disassembly import Instruction, loops, main_loop, parse_gcn, parse_sass
from dlc.runtime.gpu_report import ResourceReport, report
from dlc.runtime.triton_compile import GpuBinary, compile_triton
from dsl.dtype import f16, f32
from dsl.errors import TargetError
from tests.dlc import triton_kernels as kernels

MATMUL = kernels.matmul(f16, f16, (128, 128, 64), num_warps=8, num_stages=3)
HUGE = kernels.matmul(f16, f16, (256, 256, 64), tma=True, num_warps=8, num_stages=3)


def _report(kernel: TritonKernel, target: str) -> ResourceReport:
    return report(compile_triton(kernel, target))


def test_ampere_matmul() -> None:
    r = _report(MATMUL, "sm_80")
    assert r.launchable and not r.spills and r.threads == 256 and r.dynamic_shared == 64 * 1024
    assert r.loop_mix["matrix.warp"] == 64  # 128x128x64 over 8 warps of m16n8k16
    assert r.loop_mix["copy.async.16"] == 8 and r.wide_loads >= 8
    assert r.blocks_per_sm == 1 and r.occupancy == 8 / 64 and "registers" in r.limited_by
    assert r.loop_stalls >= r.loop_instructions > 64


def test_hopper_tensor_copies() -> None:
    r = _report(dataclasses.replace(kernels.matmul(f16, f16, (128, 128, 64), tma=True), num_warps=8, num_stages=3), "sm_90")
    assert r.loop_mix["matrix.warpgroup"] == 4 and r.loop_mix["copy.tensor"] == 2 and not r.serialized


def test_spills_and_advice_are_seen() -> None:
    r = _report(HUGE, "sm_90")
    assert r.spills and r.stack > 0 and r.loop_mix["local"] > 0 and r.serialized
    assert "C7511" in str(r) and "B stored" in str(r)


def test_blackwell_tensor_memory() -> None:
    r = _report(kernels.matmul(f16, f16, (128, 128, 64), tma=True, num_warps=8), "sm_100")
    assert r.loop_mix["matrix.tensor-memory"] == 4 and r.launchable


def test_amd() -> None:
    r = _report(kernels.matmul(f16, f16, (128, 128, 64)), "gfx942")
    assert r.scalars and r.registers and not r.spills and r.loop_mix["matrix.warp"] == 32 and r.loop_mix["global.load.16"] >= 4
    assert r.blocks_per_sm == 2 and r.occupancy == 2 * 4 / 32
    assert _report(kernels.matmul(f16, f16, (256, 256, 64), num_warps=8), "gfx942").spills


def test_narrow_loads_are_not_wide() -> None:
    r = _report(kernels.softmax(), "sm_80")
    assert r.wide_loads == 0 and r.mix["global.load"] == 4 and r.matrix_instructions == 0 and r.loop_instructions == 0
    assert r.occupancy == 1.0 and r.limited_by == "threads"


@pytest.mark.parametrize(("shared", "columns", "why"), [(200 * 1024, 0, "bytes of shared memory"), (1024, 1024, "tensor memory")])
def test_refusals(shared: int, columns: int, why: str) -> None:
    binary = compile_triton(kernels.vadd(), "sm_100" if columns else "sm_80")
    r = report(dataclasses.replace(binary, shared=shared, tensor_columns=columns))
    assert not r.launchable and why in r.refusal and "REFUSED" in str(r)


def test_too_many_threads() -> None:
    r = _report(kernels.vadd(num_warps=32, block=2048), "sm_80")
    assert r.launchable and r.threads == 1024
    binary: GpuBinary = dataclasses.replace(compile_triton(kernels.vadd(), "gfx942"), num_warps=32)
    assert "2048 threads" in report(binary).refusal


def test_unknown_chip() -> None:
    with pytest.raises(TargetError, match="no published limits"):
        _report(kernels.vadd(), "gfx1100")


def test_json() -> None:
    figures = json.loads(json.dumps(_report(kernels.matmul(f32), "sm_80").as_dict()))
    assert figures["matrix_instructions"] == 0 and figures["launchable"] and figures["mix"]["float"] > 100


def test_loops_in_a_listing() -> None:
    gcn = ".LBB0_1:\n\tv_mfma_f32_32x32x8_f16 a, b\n\ts_cbranch_scc1 .LBB0_1\n.LBB0_2:\n\ts_branch .LBB0_2\n\ts_endpgm\n"
    assert [i.opcode for i in main_loop(parse_gcn(gcn))] == ["v_mfma_f32_32x32x8_f16", "s_cbranch_scc1"]
    assert parse_sass("") == ()
    # A slow path out of line jumps back over foreign code; the dense loop wins.
    work, branch = Instruction(16, "HMMA.16816.F32", ""), Instruction(32, "BRA", "", target=16)
    code = (Instruction(0, "MOV", ""), work, branch, Instruction(48, "MOV", ""), Instruction(64, "BRA", "", target=0))
    assert len(loops(code)) == 2 and main_loop(code) == (work, branch)
