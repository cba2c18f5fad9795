"""Every dot instruction compiles for a target that has its feature, to the mnemonic it is listed under."""

import pytest
from llvmlite import ir

from codegen.emit.llvm_builder import Builder
from codegen.emit.llvm_tiles import HardwareTiles
from codegen.emit.llvm_types import I64, PTR, intrinsic, named_type, scalar_type, vector
from codegen.micro.instructions import DOTS, TILES, dot_instructions, exact_instructions
from codegen.micro.tile_block import TileBlock
from codegen.target import TARGETS, by_name
from dlc.runtime.cpu import assembly
from dsl.dtype import bf16, f32, i8, i32, i64, u8


def target_with(feature):
    return next(t for t in TARGETS.values() if feature in t.features)


@pytest.mark.parametrize("d", [d for d in DOTS if not d.tiled], ids=lambda d: f"{d.name}-{d.lanes}")
def test_on_vectors(d):
    acc, factors = vector(scalar_type(d.result), d.lanes), vector(named_type(d.element), d.lanes * d.terms)
    module, target = ir.Module(), target_with(d.feature)
    module.triple = target.triple
    fn = ir.Function(module, ir.FunctionType(acc, [acc, factors, factors]), "dot")
    b = Builder(fn.append_basic_block())
    b.ret(intrinsic(b, d.intrinsic, acc, list(fn.args) if d.adds else list(fn.args)[1:]))
    assert d.name in assembly(str(module), target)
    assert d.terms * d.operand.bits == d.result.bits and (d.rows, d.steps) == (1, 1)


@pytest.mark.parametrize("d", [d for d in DOTS if d.tiled], ids=lambda d: d.name)
def test_on_tiles(d):
    module, target = ir.Module(), target_with(d.feature)
    module.triple = target.triple
    fn = ir.Function(module, ir.FunctionType(ir.VoidType(), [PTR]), "dot")
    b = Builder(fn.append_basic_block())
    registers = HardwareTiles(b)
    registers.configure(TileBlock.of(d, d.rows, d.lanes, d.steps))
    registers.zero(0)
    for n in (1, 2):
        registers.load(n, (16, 64), fn.args[0], I64(64))
    registers.dot(0, 1, 2)
    registers.store(0, (16, 64), fn.args[0], I64(64))
    registers.release()
    b.ret_void()
    words = [line.split()[0] for line in assembly(str(module), target).splitlines() if line.strip()]
    named = ("ldtilecfg", "tilezero", "tileloadd", d.name, "tilestored", "tilerelease")
    assert [x for x in words if x in named] == ["ldtilecfg", "tilezero", "tileloadd", "tileloadd", d.name, "tilestored", "tilerelease"]


@pytest.mark.parametrize("d", DOTS, ids=lambda d: f"{d.name}-{d.lanes}")
def test_terms_of_a_lane_fill_it_and_tiles_fill_registers(d):
    assert d.terms * d.operand.bits == d.result.bits
    if d.tiled:
        assert d.rows <= TILES.rows and d.steps <= TILES.rows
        assert d.lanes * d.result.itemsize == d.steps * d.terms * d.operand.itemsize == TILES.row_bytes


def test_instructions_are_found_by_what_they_compute_the_most_work_first():
    found = dot_instructions(by_name("x86-64-amx").features, bf16, f32)
    assert [(d.name, d.rows, d.lanes) for d in found] == [
        ("tdpbf16ps", 16, 16), ("vdpbf16ps", 1, 16), ("vdpbf16ps", 1, 8), ("vdpbf16ps", 1, 4)]
    assert [d.name for d in dot_instructions(by_name("x86-64-amx").features, i8, i32)] == ["tdpbssd"]
    assert [d.name for d in exact_instructions(by_name("x86-64-amx").features, (i8, u8), (i64, i32))][:1] == ["vpdpwssd"]
    assert [d.name for d in exact_instructions(by_name("x86-64-avx2").features, (i8, i8), (i64, i32))] == ["vpmaddwd", "pmaddwd"]
    assert exact_instructions(by_name("x86-64-avx2").features, (i8, i8), (i64,)) == ()
    assert dot_instructions(by_name("x86-64-avx512").features, bf16, f32) == ()
