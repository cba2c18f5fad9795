"""Emitted Triton: computes what the tile interpreter computes, under the checked interpreter; compiles for every GPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from codegen.emit.triton import TritonOptions, buffer_names, emit_triton, needs_wide, size_names
from codegen.tile.interp import run
from codegen.tile.ir import Phase, TileProgram
from codegen.tile.memory import NUMPY
from codegen.tile.verify import verify
from dlc.runtime.triton_compile import compile_triton
from dlc.runtime.triton_run import interpret
from dsl.dim import Var, as_term
from dsl.dtype import Dtype, bf16, bool_, f16, f32, f64, i8, i32
from dsl.errors import TargetError
from tests.codegen.tile_programs import CASES, Case, Writer, attention, buffer, gather, matmul, program, vadd

TARGETS = ("sm_80", "sm_90", "sm_100", "gfx942")


def execute(case: Case, options: TritonOptions | None = None) -> dict[str, Any]:
    """The outputs under the checked Triton interpreter."""
    p = case.program
    artifact = emit_triton(p, options)
    tensors: dict[str, Any] = {}
    names = size_names(p)
    for b in p.buffers:
        shape = tuple(int(s.eval(case.sizes)) for s in b.shape)
        if b.scope == "output":
            tensors[b.name] = np.empty(shape, NUMPY[b.dtype])
        elif b.scope == "input":
            given = np.asarray(case.arrays[b.name])
            strides = [int(s.eval(case.sizes)) * given.itemsize for s in b.strides]
            tensors[b.name] = given if given.shape == shape else np.lib.stride_tricks.as_strided(given, shape, strides)
    if artifact.error:
        tensors[artifact.error] = np.zeros(1, np.int32)
    report = interpret(artifact, tensors, {names[v]: n for v, n in case.sizes.items()})
    assert not report.findings, report.findings[:3]
    return report.outputs


def agree(case: Case, tolerance: float = 1e-6, options: TritonOptions | None = None) -> None:
    """Triton and the tile interpreter give the same."""
    verify(case.program)
    expected = run(case.program, case.arrays, case.sizes)
    got = execute(case, options)
    for name, value in expected.items():
        wide = np.int64 if value.dtype == np.int64 else np.float64
        np.testing.assert_allclose(got[name].astype(wide), value.astype(wide), rtol=tolerance, atol=tolerance, err_msg=name)


@pytest.mark.parametrize("name", CASES)
def test_agrees_with_the_tile_interpreter(name: str, rng: np.random.Generator) -> None:
    case = CASES[name](rng)
    agree(case, max(case.tolerance / 10, 1e-6))  # the order within a reduction differs


@pytest.mark.parametrize("name", ["matmul_strided", "fused_index", "bounded_loop"])
def test_wide_addresses(name: str, rng: np.random.Generator) -> None:
    agree(CASES[name](rng), options=TritonOptions(wide=True))


@pytest.mark.parametrize("dtype", [f16, bf16, f64], ids=str)
def test_dtypes(dtype: Dtype, rng: np.random.Generator) -> None:
    agree(vadd(rng, 300, dtype))


@pytest.mark.parametrize("name", CASES)
def test_compiles(name: str, rng: np.random.Generator) -> None:
    for kernel in emit_triton(CASES[name](rng).program).kernels:
        compile_triton(kernel, "sm_90")


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("case", [lambda r: matmul(r, tile=(64, 64, 32), dtype=f16, group=4, stages=3), attention, CASES["argmax"], gather],
                         ids=["matmul", "attention", "argmax", "gather"])
def test_compiles_everywhere(target: str, case: Callable[[Any], Case], rng: np.random.Generator) -> None:
    for kernel in emit_triton(case(rng).program).kernels:
        compile_triton(kernel, target)


def test_matmul_reads_like_triton(rng: np.random.Generator, golden: Any) -> None:
    case = matmul(rng, tile=(64, 64, 32), dtype=f16, group=8, stages=3)
    golden(emit_triton(case.program, TritonOptions(mathematics="o[i, j] = max(sum[k](x[i, k] * w[k, j]) + b[j], 0)")).kernels[0].source)


def test_attention_reads_like_triton(rng: np.random.Generator, golden: Any) -> None:
    golden(emit_triton(attention(rng).program).kernels[0].source)


def test_tensor_cores_and_pipelining(rng: np.random.Generator) -> None:
    kernel = emit_triton(matmul(rng, tile=(128, 128, 64), dtype=f16, group=8, stages=3).program, TritonOptions()).kernels[0]
    assert "HMMA" in compile_triton(kernel, "sm_80").sass and "wgmma" in compile_triton(kernel, "sm_90").ptx


def test_failed_check_leaves_its_code(rng: np.random.Generator) -> None:
    case = gather(rng)
    case.arrays["idx"][5] = 11
    assert execute(case)["error"].tolist() == [1]


def test_arguments_never_clash() -> None:
    """Buffers and sizes may have any name: those of Triton's modules, of helpers, of each other."""
    n, i = Var("tl", kind="dim"), Var("tanh_f32", 16)
    x, o = buffer("_tanh_f32", f32, (n,)), buffer("pid", f32, (n,), "output")
    w = Writer({n})
    mask = (as_term(n) - 1 - i,)
    w.store(o, (i,), w.map("tanh", (w.load(x, (i,), mask),), f32), mask)
    p = program("triton", (x, o), (n,), Phase("range", (), w.block))
    assert buffer_names(p) == {x: "tanh_f32", o: "pid_1"} and size_names(p) == {n: "tl_1"}
    a = np.linspace(-1, 1, 9, dtype=np.float32)
    report = interpret(emit_triton(p), {"tanh_f32": a, "pid_1": np.empty(9, np.float32)}, {"tl_1": 9})
    assert report.ok
    np.testing.assert_allclose(report.outputs["pid_1"], np.tanh(a), rtol=1e-6)


def test_needs_wide(rng: np.random.Generator) -> None:
    case = matmul(rng)
    assert not needs_wide(case.program, case.sizes)
    assert needs_wide(case.program, {v: 1 << 16 for v in case.sizes})


def test_extents_must_be_powers_of_two() -> None:
    i, o = Var("i", 12), buffer("o", f32, (12,), "output")
    w = Writer(set())
    w.store(o, (i,), w.const(1.0, f32))
    with pytest.raises(TargetError, match="tile axis `i` has 12 elements"):
        emit_triton(program("p", (o,), (), Phase("p", (), w.block)))


def test_scratch_is_private(rng: np.random.Generator) -> None:
    """Each program writes a tile to its own scratch and reads it back transposed."""
    g, i, j = Var("g", 3), Var("i", 8), Var("j", 4)
    x, o, t = buffer("x", f32, (3, 8, 4)), buffer("o", f32, (3, 4, 8), "output"), buffer("t", f32, (8, 4), "scratch")
    w = Writer({g})
    w.store(t, (i, j), w.load(x, (g, i, j)))
    i2, j2 = Var("i", 8), Var("j", 4)
    w.store(o, (g, j2, i2), w.load(t, (i2, j2)))
    a = rng.standard_normal((3, 8, 4)).astype(np.float32)
    p = TileProgram("t", (x, o), (), (Phase("t", ((g, as_term(3)),), w.block, scratch=(t,)),))
    agree(Case(p, {"x": a}, {}, {}))
    assert emit_triton(p).kernels[0].source.count("tl.debug_barrier()") == 2


def test_grouped_grid_with_outer_axis(rng: np.random.Generator) -> None:
    """Three grid axes, the last two walked in groups; every program lands on its own element."""
    a, b, c = Var("a", 2), Var("b", 5), Var("c", 3)
    o = buffer("o", i32, (2, 5, 3), "output")
    w = Writer({a, b, c})
    from codegen.tile.ir import Iota, Value
    from dsl.dtype import i64
    v = w.add(Iota(as_term(a) * 15 + as_term(b) * 3 + c), Value(i64, ()))
    w.store(o, (a, b, c), w.map("cast", (v,), i32))
    grid = ((a, as_term(2)), (b, as_term(5)), (c, as_term(3)))
    agree(Case(program("ids", (o,), (), Phase("ids", grid, w.block, group=2)), {}, {}, {}))


def test_bool_memory(rng: np.random.Generator) -> None:
    i = Var("i", 16)
    x, y, o, n = buffer("x", bool_, (16,)), buffer("y", i8, (16,)), buffer("o", bool_, (16,), "output"), buffer("n", i8, (16,), "output")
    w = Writer(set())
    u, v = w.load(x, (i,)), w.load(y, (i,))
    both = w.map("and", (u, w.map("lt", (v, w.const(3, i8)), bool_)), bool_)
    w.store(o, (i,), w.map("not", (both,), bool_))
    w.store(n, (i,), w.map("where", (both, v, w.const(-7, i8)), i8))
    arrays = {"x": rng.integers(0, 2, 16).astype(bool), "y": rng.integers(-9, 9, 16).astype(np.int8)}
    agree(Case(program("p", (x, y, o, n), (), Phase("p", (), w.block)), arrays, {}, {}))


@pytest.mark.parametrize("shape", [(4, 8, 4), (16, 16, 16), (1, 32, 16)], ids=str)
@pytest.mark.parametrize("dtype", [f32, f64, i8, f16], ids=str)
def test_batched_and_small_dots(dtype: Dtype, shape: tuple[int, int, int], rng: np.random.Generator) -> None:
    """``o[b, i, j] = sum[k] x[b, i, k] * y[b, j, k]``, short products without the matrix unit."""
    m, n, k = shape
    bb, i, j, kk = Var("b", 2), Var("i", m), Var("j", n), Var("k", k)
    out = f64 if dtype == f64 else i32 if dtype == i8 else f32
    x, y, o = buffer("x", dtype, (2, m, k)), buffer("y", dtype, (2, n, k)), buffer("o", out, (2, m, n), "output")
    w = Writer(set())
    w.store(o, (bb, i, j), w.dot(w.load(x, (bb, i, kk)), w.load(y, (bb, j, kk)), w.const(0 if out == i32 else 0.0, out), (kk,)))
    arrays = {b.name: (rng.standard_normal(tuple(map(int, b.shape))) * 4).astype(NUMPY[dtype]) for b in (x, y)}
    case = Case(program("bmm", (x, y, o), (), Phase("bmm", (), w.block)), arrays, {}, {})
    agree(case, 1e-5)
    compile_triton(emit_triton(case.program).kernels[0], "sm_90")
