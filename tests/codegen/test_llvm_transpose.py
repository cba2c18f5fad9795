"""Square blocks of registers, transposed by shuffles, for every width and element size."""

import ctypes

import numpy as np
import pytest
from llvmlite import ir

from codegen.emit.llvm_builder import Builder
from codegen.emit.llvm_transpose import alternate, concatenate, lanes_between, transpose
from codegen.emit.llvm_types import I64, PTR
from dlc.runtime.cpu import compile_object, load_object
from dlc.runtime.device import host_target

ELEMENTS = {"int8": ir.IntType(8), "int16": ir.IntType(16), "float32": ir.FloatType(), "float64": ir.DoubleType()}


def call(dtype, size, width, build, rows):
    """Load ``size`` rows of ``width`` elements, apply ``build`` to the registers, store what it returns."""
    module = ir.Module()
    target = host_target()
    module.triple = target.triple
    fn = ir.Function(module, ir.FunctionType(ir.VoidType(), [PTR, PTR]), "turned")
    b = Builder(fn.append_basic_block())
    element = ELEMENTS[dtype]
    registers = []
    for n in range(size):
        v = b.load(b.gep(fn.args[0], [I64(n * width)], source_etype=element), typ=ir.VectorType(element, width))
        v.align = 1
        registers.append(v)
    at = 0
    for v in build(b, registers):
        b.store(v, b.gep(fn.args[1], [I64(at)], source_etype=element)).align = 1
        at += v.type.count
    b.ret_void()
    address = load_object(compile_object(str(module), target), target, "turned")
    out = np.zeros(at, dtype)
    ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p)(address)(rows.ctypes.data, out.ctypes.data)
    return out


@pytest.mark.parametrize("dtype", ELEMENTS)
@pytest.mark.parametrize("width", [1, 2, 4, 8, 16])
def test_transpose(dtype, width):
    rows = np.arange(width * width).astype(dtype).reshape(width, width)
    if width == 1:
        assert transpose(None, ["x"]) == ["x"]
        return
    assert np.array_equal(call(dtype, width, width, transpose, rows).reshape(width, width), rows.T)


def alternate_all(b, registers):
    return [alternate(b, registers)]


def test_concatenate_and_take_apart():
    rows = np.arange(16, dtype=np.float32).reshape(4, 4)
    assert np.array_equal(call("float32", 4, 4, lambda b, v: [concatenate(b, v)], rows), np.arange(16))
    assert np.array_equal(call("float32", 4, 4, alternate_all, rows), rows.T.ravel())
    assert np.array_equal(call("float32", 1, 8, lambda b, v: [lanes_between(b, v[0], 2, 4)], rows), [2, 3, 4, 5])


