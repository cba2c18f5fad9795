"""Loops and the multiples that they count, run and read."""

import ctypes

import pytest
from llvmlite import ir

from codegen.emit.llvm_builder import Builder
from codegen.emit.llvm_loop import emit_loop
from codegen.emit.llvm_types import I64
from dlc.runtime.cpu import compile_object, load_object
from dlc.runtime.device import host_target


def _loop(factor_of, runs=False):
    """``sum of i * factor for i in lo..hi`` as a module; ``factor_of`` makes the factor of the function's third argument."""
    module = ir.Module()
    fn = ir.Function(module, ir.FunctionType(I64, [I64, I64, I64]), "multiples")
    b = Builder(fn.append_basic_block("entry"))
    lo, hi, n = fn.args

    def body(i, carried):
        first = i.times(factor_of(n))
        assert i.times(factor_of(n)) is first
        return [b.add(carried[0], first)]

    b.ret(*emit_loop(b, "i", lo, hi, [I64(0)], body, runs))
    return module


@pytest.mark.parametrize("factor", [lambda n: I64(24), lambda n: n], ids=["number", "size"])
def test_multiples_are_counted(factor):
    target, module = host_target(), _loop(factor)
    code = load_object(compile_object(str(module), target), target, "multiples")
    call = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64, ctypes.c_int64, ctypes.c_int64)(code)
    for lo, hi in ((0, 0), (0, 5), (3, 4), (-2, 7), (5, 2)):
        assert call(lo, hi, 24) == 24 * sum(range(lo, hi))


def test_an_iteration_multiplies_nothing():
    text = str(_loop(lambda n: n))
    before, inside = text.split("br i1", 1)
    assert before.count("= mul ") == 1 and "= mul " not in inside
