"""Index terms as code give what the terms give as numbers, in every lane."""

import ctypes

import numpy as np
import pytest
from llvmlite import ir

from codegen.emit.llvm_builder import Builder
from codegen.emit.llvm_terms import Terms
from codegen.emit.llvm_types import I64, PTR
from dlc.runtime.cpu import compile_object, load_object
from dlc.runtime.device import host_target
from dsl.dim import Var, as_term, tmax, tmin
from dsl.errors import InternalError

LANES = 8
i, j, lane = Var("i", 1000), Var("j", 7), Var("lane", LANES)
TERMS = [as_term(i) * 3 + 5, as_term(i) // 7, (as_term(i) - 20) // 7, (as_term(i) - 20) % 7, tmin(i, 9), tmax(as_term(i) - 12, 0),
         as_term(i) * 2 + lane, (as_term(i) + as_term(lane) * 5) % 11, (as_term(lane) - i) // 3, tmin(as_term(i) + lane, 15)]


@pytest.mark.parametrize("term", TERMS, ids=str)
def test_terms_as_code(term):
    target = host_target()
    module = ir.Module()
    fn = ir.Function(module, ir.FunctionType(ir.VoidType(), [I64, PTR]), "terms")
    b = Builder(fn.append_basic_block())
    terms = Terms(b)
    terms.enter({i: fn.args[0]})
    b.store(terms.lanes(term, lane, 0, LANES), fn.args[1]).align = 8
    b.ret_void()
    call = ctypes.CFUNCTYPE(None, ctypes.c_int64, ctypes.c_void_p)(load_object(compile_object(str(module), target), target, "terms"))
    out = np.zeros(LANES, np.int64)
    for at in (0, 1, 19, 20, 33, 999):
        call(at, out.ctypes.data)
        assert out.tolist() == [int(term.eval({i: at, lane: n})) for n in range(LANES)]


def test_a_term_is_computed_once_in_the_scope_of_its_last_variable():
    fn = ir.Function(ir.Module(), ir.FunctionType(ir.VoidType(), [I64, I64]), "scopes")
    b = Builder(fn.append_basic_block("outer"))
    terms = Terms(b)
    terms.enter({i: fn.args[0]})
    inner = fn.append_basic_block("inner")
    b.branch(inner)
    b.position_at_end(inner)
    terms.enter({j: fn.args[1]})
    first = terms.scalar(as_term(i) * 3 + j)
    assert terms.scalar(as_term(i) * 3 + j) is first and first.parent is inner
    assert terms.scalar(as_term(i) * 3).parent is fn.blocks[0]
    assert str(fn.blocks[0]).count("mul i64") == 1 and "mul" not in str(inner)
    terms.leave()
    b.ret_void()


def test_a_division_that_may_fail_stays_where_it_is_asked_for():
    fn = ir.Function(ir.Module(), ir.FunctionType(ir.VoidType(), [I64, I64]), "guarded")
    b = Builder(fn.append_basic_block("outer"))
    terms = Terms(b)
    terms.enter({i: fn.args[0]})
    with b.if_then(b.icmp_signed("<", fn.args[0], I64(9))):
        inside = b.block
        assert terms.scalar(as_term(i) // (9 - as_term(i))).parent is inside


def test_a_variable_without_a_value_is_an_error_of_the_compiler():
    terms = Terms(Builder(ir.Function(ir.Module(), ir.FunctionType(ir.VoidType(), []), "none").append_basic_block()))
    terms.enter({})
    with pytest.raises(InternalError, match="`i` has no value here"):
        terms.scalar(as_term(i))
