"""Listings of machine code: classes of instructions, branches back, the loop where the work is."""

from __future__ import annotations

import pytest

from dlc.runtime.disassembly import Instruction, count, loops, main_loop, parse_gcn, parse_sass

SASS = """
        /*0000*/                   MOV R1, c[0x0][0x28] ;                    /* 0x00000a0000017a02 */
                                                                             /* 0x000fe40000000f00 */
        /*0010*/                   LDG.E.128 R4, [R2.64] ;                   /* 0x0000000402047981 */
                                                                             /* 0x000ea8000c1e1d00 */
        /*0020*/              @!P0 HMMA.16816.F32 R8, R4, R6, R8 ;           /* 0x000000060408723c */
                                                                             /* 0x004fe20000001808 */
        /*0030*/               @P1 BRA 0x10 ;                                /* 0xffffffd000001947 */
                                                                             /* 0x000fea000383ffff */
        /*0040*/                   EXIT ;                                    /* 0x000000000000794d */
                                                                             /* 0x000fea0003800000 */
        /*0050*/                   BRA 0x50;                                 /* 0xfffffff000007947 */
                                                                             /* 0x000fc0000383ffff */
"""
GCN = """
kernel:
        s_load_dwordx2 s[0:1], s[4:5], 0x0 ; a comment
.LBB0_1:
        global_load_dwordx4 v[0:3], v4, s[0:1]
        v_mfma_f32_16x16x16f16 a[0:3], v[0:1], v[2:3], a[0:3]
        s_cbranch_scc1 .LBB0_1
        s_endpgm
"""


def test_sass() -> None:
    code = parse_sass(SASS)
    assert [i.opcode for i in code] == ["MOV", "LDG.E.128", "HMMA.16816.F32", "BRA", "EXIT", "BRA"]
    assert [i.kind for i in code] == ["integer", "global.load.16", "matrix.warp", "branch", "branch", "branch"]
    assert [i.target for i in code] == [None, None, None, 0x10, None, 0x50]
    assert [i.stall for i in code[:2]] == [2, 4]
    assert [i.address for i in main_loop(code)] == [0x10, 0x20, 0x30] and len(loops(code)) == 1, "the trap after the end is no loop"
    assert count(code)["branch"] == 3


def test_gcn() -> None:
    code = parse_gcn(GCN)
    assert [i.kind for i in code][1:4] == ["global.load.16", "matrix.warp", "branch"]
    assert [i.opcode for i in main_loop(code)] == ["global_load_dwordx4", "v_mfma_f32_16x16x16f16", "s_cbranch_scc1"]


@pytest.mark.parametrize("opcode, kind", [
    ("HGMMA.64x64x16.F32", "matrix.warpgroup"), ("UTCHMMA", "matrix.tensor-memory"), ("LDGSTS.E.BYPASS.128", "copy.async.16"),
    ("LDGSTS.E", "copy.async"), ("UTMALDG.2D", "copy.tensor"), ("STG.E.64", "global.store"), ("LDS.128", "shared.load"), ("LDSM.16.M88.4",
     "shared.matrix"), ("STL", "local"), ("FFMA", "float"), ("MUFU.EX2", "special"), ("ds_read_b128", "shared.load"),
    ("buffer_store_dwordx4", "global.store.16"), ("scratch_load_dword", "local"), ("IMAD.WIDE", "integer")])
def test_classes(opcode: str, kind: str) -> None:
    assert Instruction(0, opcode, opcode).kind == kind


def test_a_program_without_loops_has_no_main_loop() -> None:
    assert main_loop(parse_sass("")) == () and loops(parse_gcn("    s_endpgm\n")) == []
