"""Every dot instruction compiles for a target that has its feature, to the mnemonic it is listed under."""

import pytest
from llvmlite import ir

from codegen.emit.llvm_types import intrinsic, named_type, scalar_type, vector
from codegen.micro.instructions import DOTS, dot_instruction
from codegen.target import by_name
from dlc.runtime.cpu import assembly
from dsl.dtype import bf16, f32


@pytest.mark.parametrize("d", DOTS, ids=lambda d: f"{d.name}-{d.lanes}")
def test_compiles_to_its_mnemonic(d):
    acc, factors = vector(scalar_type(d.result), d.lanes), vector(named_type(d.element), d.lanes * d.terms)
    module = ir.Module()
    target = by_name("x86-64-avx512-bf16")
    module.triple = target.triple
    fn = ir.Function(module, ir.FunctionType(acc, [acc, factors, factors]), "dot")
    b = ir.IRBuilder(fn.append_basic_block())
    b.ret(intrinsic(b, d.intrinsic, acc, list(fn.args)))
    assert d.feature in target.features
    assert d.name in assembly(str(module), target)
    assert d.terms * d.operand.bits == d.result.bits


def test_an_instruction_is_found_by_what_it_computes():
    features = by_name("x86-64-avx512-bf16").features
    found = dot_instruction(features, bf16, f32, 16)
    assert found is not None and (found.name, found.terms) == ("vdpbf16ps", 2)
    assert dot_instruction(features, bf16, f32, 5) is None
    assert dot_instruction(by_name("x86-64-avx512").features, bf16, f32, 16) is None
