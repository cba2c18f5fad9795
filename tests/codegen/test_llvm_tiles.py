"""Dots on tile registers, spelled out in software, compute what the tile program means: wherever their results go."""

import ctypes

import numpy as np
import pytest

from codegen.emit.llvm import emit_llvm
from codegen.tile.interp import run
from codegen.tile.text_parse import parse
from dlc.runtime.cpu import compile_object, load_object
from dlc.runtime.device import host_target
from dsl.dtype import bf16
from dsl.numerics import cast_array
from tests.codegen.test_residents import HEAD, LOADS, ZERO, product_in_loops

SMALL = """
    c: f32[i2, j2] = broadcast(v)
    for n in loop(0, 4):
        for k in loop(0, 8, carry=[(b2, f32[i2, j2], c)], results=[r2]):
            x2: bf16[i2, step2, t] = load(a, [n, k, i2, t + 2*step2])
            w2: bf16[j2, step2, t] = load(b, [k, step2, j2, t])
            m2: f32[i2, j2] = dot(x2, w2, b2, [step2, t])
            yield m2
        store(z, [n, i2, j2], r2)
"""
BOTH = ZERO + """
    for n in loop(0, 4):
        for k in loop(0, 8, carry=[(b1, f32[i, j], acc), (b2, f32[i, j], acc)], results=[s1, s2]):
""" + LOADS.format("            ") + """
            m1: f32[i, j] = dot(x, w, b1, [s, t])
            m2: f32[i, j] = dot(x, w, b2, [s, t])
            yield m1, m2
        store(y, [n, i, j], s1)
        store(z, [n, i, j], s2)
"""
PROGRAMS = {
    "stored": product_in_loops(),
    "computed from": product_in_loops("        e: f32[i, j] = map('neg', [sums])\n        store(y, [n, i, j], e)"),
    "stored and computed from": product_in_loops("        e: f32[i, j] = map('neg', [sums])\n        store(z, [n, i, j], e)\n"
                                                 "        store(y, [n, i, j], sums)"),
    "stored under a mask": product_in_loops("        store(y, [n, i, j], sums, mask=[-i + 20, -j + 8*n + 3])"),
    "stored turned": product_in_loops("        store(y, [n, j, i], sums)"),
    "begun with a constant": product_in_loops().replace("const(0.0)", "const(2.5)"),
    "gone on with": product_in_loops("        store(z, [n, i, j], sums)\n        store(y, [n, i, j], sums)", init="old").replace(
        "        for k in", "        old: f32[i, j] = load(z, [0, i, j], mask=[n - 1])\n        for k in", 1),
    "two in one loop": BOTH,
    "two shapes in one phase": product_in_loops() + SMALL,
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_computes_what_the_program_means(name):
    more = "i2 = axis(5)\nj2 = lane(8)\nstep2 = axis(3)\na ="
    program = parse(HEAD.replace("a =", more, 1) + PROGRAMS[name])
    target, rng = host_target(), np.random.default_rng(0)
    module = emit_llvm(program, target.triple, target.vector_bits, target.features, modelled=("amx-bf16",))
    assert "tdpbf16ps.16.16.16" in module.text
    arrays = {b.name: cast_array(rng.standard_normal([int(n) for n in b.shape]).astype(np.float32), bf16) for b in program.buffers[:2]}
    expected = run(program, dict(arrays), {})
    got = {b.name: np.full([int(n) for n in b.shape], np.nan, np.float32) for b in program.buffers[2:]}
    entry = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64)(
        load_object(compile_object(module.text, target), target, program.name))
    pointers = (ctypes.c_void_p * 4)(*(v.ctypes.data for v in (*arrays.values(), *got.values())))
    assert entry(pointers, None, 1) == 0
    written = {s for s in ("y", "z") if f"store({s}" in PROGRAMS[name]}
    for b in written:
        known = np.isfinite(np.asarray(got[b], np.float64))
        assert known.any()
        np.testing.assert_allclose(got[b][known], np.asarray(expected[b], np.float32)[known], rtol=1e-4, atol=1e-4)
