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

LANES = 8
i, lane = Var("i", 1000), Var("lane", LANES)
TERMS = [as_term(i) * 3 + 5, as_term(i) // 7, (as_term(i) - 20) // 7, (as_term(i) - 20) % 7, tmin(i, 9), tmax(as_term(i) - 12, 0),
         as_term(i) * 2 + lane, (as_term(i) + as_term(lane) * 5) % 11, (as_term(lane) - i) // 3, tmin(as_term(i) + lane, 15)]


@pytest.mark.parametrize("term", TERMS, ids=str)
def test_terms_as_code(term):
    target = host_target()
    module = ir.Module()
    fn = ir.Function(module, ir.FunctionType(ir.VoidType(), [I64, PTR]), "terms")
    b = Builder(fn.append_basic_block())
    b.store(Terms(b, {i: fn.args[0]}).lanes(term, lane, 0, LANES), fn.args[1]).align = 8
    b.ret_void()
    call = ctypes.CFUNCTYPE(None, ctypes.c_int64, ctypes.c_void_p)(load_object(compile_object(str(module), target), target, "terms"))
    out = np.zeros(LANES, np.int64)
    for at in (0, 1, 19, 20, 33, 999):
        call(at, out.ctypes.data)
        assert out.tolist() == [int(term.eval({i: at, lane: n})) for n in range(LANES)]
