"""Dot instructions spelled out in software compute what the instruction does, for every instruction and shape."""

import ctypes

import numpy as np
import pytest
from llvmlite import ir

from codegen.emit.llvm_model import SoftwareTiles, spell_dot
from codegen.emit.llvm_types import I64, PTR, Builder, scalar_type, vector
from codegen.micro.instructions import DOTS
from codegen.micro.tile_block import TileBlock
from dlc.runtime.cpu import compile_object, load_object
from dlc.runtime.device import host_target
from dsl.numerics import cast_array, numpy_dtype

RNG = np.random.default_rng(0)


def values(d, *shape):
    """Values a factor can have, as they lie in memory."""
    if d.operand.is_float:
        return cast_array(RNG.standard_normal(shape).astype(np.float32), d.operand)
    low, high = (-128, 128) if d.operand.signed else (0, 256)
    return RNG.integers(low * (1 << d.operand.bits - 8), high * (1 << d.operand.bits - 8), shape).astype(numpy_dtype(d.operand))


def function(name, arguments, body):
    target = host_target()
    module = ir.Module()
    module.triple = target.triple
    fn = ir.Function(module, ir.FunctionType(ir.VoidType(), [PTR] * arguments), name)
    b = Builder(fn.append_basic_block("entry"), target.features)
    body(b, fn.args)
    b.ret_void()
    address = load_object(compile_object(str(module), target), target, name)
    return ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * arguments)(address)


def close(d, got, expected):
    if d.result.is_float:
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-4)
    else:
        np.testing.assert_array_equal(got, expected.astype(np.int64).astype(np.int32))


@pytest.mark.parametrize("d", [d for d in DOTS if not d.tiled], ids=lambda d: f"{d.name}-{d.lanes}")
def test_on_vectors(d):
    def body(b, args):
        types = [vector(scalar_type(d.result), d.lanes), *[vector(scalar_type(d.operand), d.lanes * d.terms)] * 2]
        acc, rows, lanes = (b.load(p, typ=t) for p, t in zip(args, types))
        for v in (acc, rows, lanes):
            v.align = 1
        b.store(spell_dot(b, d, acc, rows, lanes), args[0]).align = 1

    rows, lanes = values(d, d.lanes, d.terms), values(d, d.lanes, d.terms)
    acc = RNG.integers(-9, 9, d.lanes).astype(np.float32 if d.result.is_float else np.int32)
    expected = acc + (rows.astype(np.float64) * lanes.astype(np.float64)).sum(1)
    function("dot", 3, body)(*(v.ctypes.data for v in (acc, rows, lanes)))
    close(d, acc, expected)


@pytest.mark.parametrize("rows, lanes, steps", [(16, 16, 16), (5, 16, 3), (16, 7, 16), (1, 1, 1)])
@pytest.mark.parametrize("d", [d for d in DOTS if d.tiled], ids=lambda d: d.name)
def test_on_tiles(d, rows, lanes, steps):
    block = TileBlock.of(d, rows, lanes, steps)
    size = d.result.itemsize

    def body(b, args):
        tiles = SoftwareTiles(b)
        tiles.configure(block)
        tiles.zero(0)
        tiles.load(0, (rows, lanes * size), args[0], I64(80))
        tiles.load(1, (rows, steps * size), args[1], I64(steps * size))
        tiles.load(2, (steps, lanes * size), args[2], I64(lanes * size))
        tiles.dot(0, 1, 2)
        tiles.store(0, (rows, lanes * size), args[0], I64(80))
        tiles.release()

    a, c = values(d, rows, steps, d.terms), values(d, steps, lanes, d.terms)
    acc = np.full((rows, 20), 7, np.float32 if d.result.is_float else np.int32)
    expected = acc.astype(np.float64)
    expected[:, :lanes] += np.einsum("rst,slt->rl", a.astype(np.float64), c.astype(np.float64))
    function("tiles", 3, body)(*(v.ctypes.data for v in (acc, a, c)))
    close(d, acc, expected)
