"""Every pointwise operation and conversion in Triton: the same values as the tile interpreter, and it compiles for CUDA and HIP."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from codegen.emit.triton import emit_triton
from codegen.emit.triton_helpers import Helpers
from codegen.emit.triton_maths import Operand, pointwise
from codegen.micro.maths_numpy import evaluate
from codegen.tile.interp import run
from codegen.tile.ir import Phase, TileProgram, Value
from codegen.tile.memory import NUMPY
from codegen.tile.verify import verify
from dlc.runtime.triton_compile import compile_triton
from dlc.runtime.triton_run import interpret
from dsl.dim import Var
from dsl.dtype import ALL, Dtype, bf16, bool_, f8e4m3, f8e5m2, f16, f32, f64, i8, i32, i64, u8, u32
from dsl.errors import TargetError
from dsl.opset import MARKS, OPS, result_dtype
from tests.codegen.tile_programs import Writer, buffer, program

N = 256
# positive for logarithms, in [-1, 1] for inverse sines, above 1 for acosh; the rest take any value
DOMAIN = {"log": (1e-3, 50), "log2": (1e-3, 50), "log10": (1e-3, 50), "log1p": (-0.9, 50), "asin": (-1, 1), "acos": (-1, 1),
          "atanh": (-0.99, 0.99), "acosh": (1, 50), "sqrt": (0, 50), "rsqrt": (1e-3, 50), "erfc": (-3, 6), "lgamma": (-4.9, 30),
          "pow": (0.1, 6), "exp": (-10, 10), "exp2": (-10, 10), "sinh": (-10, 10), "cosh": (-10, 10), "tan": (-1.4, 1.4), "expm1": (-5, 10)}
FLOAT_OPS = [n for n, o in OPS.items() if o.rule in ("same", "num", "float", "bool") and n not in MARKS]
INT_OPS = [n for n, o in OPS.items() if o.rule in ("same", "num", "int", "bool") and n != "mulhi" and n not in MARKS]


def elementwise(names: list[str], dtype: Dtype) -> TileProgram:
    """One program that stores every operation's result to an output of its own."""
    i = Var("i", N)
    inputs = [buffer(f"{n}_{k}", dtype, (N,)) for n in names for k in range(OPS[n].arity)]
    by_name = {b.name: b for b in inputs}
    w, outputs = Writer(set()), []
    for n in names:
        rule = result_dtype(n, [dtype] * OPS[n].arity)
        assert not isinstance(rule, str)
        o = buffer(f"{n}_out", rule[1], (N,), "output")
        outputs.append(o)
        w.store(o, (i,), w.map(n, tuple(w.load(by_name[f"{n}_{k}"], (i,)) for k in range(OPS[n].arity)), rule[1]))
    return program("pointwise", (*inputs, *outputs), (), Phase("p", (), w.block))


def inputs_for(p: TileProgram, dtype: Dtype, rng: np.random.Generator) -> dict[str, Any]:
    out = {}
    for b in p.buffers:
        if b.scope == "input":
            name, k = b.name.rsplit("_", 1)
            if dtype.is_float:
                lo, hi = DOMAIN.get(name, (-6, 6))
                out[b.name] = rng.uniform(lo, hi, N).astype(NUMPY[dtype])
            else:
                lo, hi = (0, 5) if name in ("shl", "shr", "pow") and k == "1" else (-9 if dtype.signed else 0, 10)
                out[b.name] = rng.integers(lo, hi, N).astype(NUMPY[dtype])
    return out


def outputs_of(p: TileProgram, arrays: dict[str, Any]) -> dict[str, Any]:
    tensors = arrays | {b.name: np.empty(N, NUMPY[b.dtype]) for b in p.buffers if b.scope == "output"}
    report = interpret(emit_triton(p), tensors)
    assert report.ok, report.findings[:3]
    return report.outputs


@pytest.mark.parametrize("dtype", [f32, f64], ids=str)
def test_float_operations(dtype: Dtype, rng: np.random.Generator) -> None:
    p = elementwise(FLOAT_OPS, dtype)
    verify(p)
    arrays = inputs_for(p, dtype, rng)
    expected, got = run(p, arrays, {}), outputs_of(p, arrays)
    eps = {f32: 4e-6, f64: 1e-13}[dtype]
    for name, value in expected.items():
        loose = 30 if name == "lgamma_out" else 1  # absolute near its zeros
        np.testing.assert_allclose(got[name].astype(np.float64), value.astype(np.float64), rtol=eps, atol=eps * loose, err_msg=name)


@pytest.mark.parametrize("dtype", [i8, u8, i32, i64, u32], ids=str)
def test_integer_operations(dtype: Dtype, rng: np.random.Generator) -> None:
    names = ([n for n in INT_OPS if n not in ("isnan", "isinf", "isfinite") and (dtype.signed or n not in ("neg", "sign"))]
             + ["mulhi"] * (dtype == u32))
    p = elementwise(names, dtype)
    verify(p)
    arrays = inputs_for(p, dtype, rng)
    expected, got = run(p, arrays, {}), outputs_of(p, arrays)
    for name, value in expected.items():
        np.testing.assert_array_equal(got[name], value,
                                      err_msg=f"{name} {[a[got[name] != value][:3] for n, a in arrays.items() if n.startswith(name[:-3])]}")


def test_bool_operations(rng: np.random.Generator) -> None:
    p = elementwise(["add", "mul", "min", "max", "and", "or", "xor", "not", "eq", "ne", "lt", "le", "gt", "ge"], bool_)
    verify(p)
    arrays = {b.name: rng.integers(0, 2, N).astype(bool) for b in p.buffers if b.scope == "input"}
    expected, got = run(p, arrays, {}), outputs_of(p, arrays)
    for name, value in expected.items():
        np.testing.assert_array_equal(got[name], value, err_msg=name)


@pytest.mark.parametrize("dtype", [f32, f64], ids=str)
def test_special_values(dtype: Dtype) -> None:
    special = np.array([0.0, -0.0, np.inf, -np.inf, np.nan, 1.0, -1.0, 0.5, -0.5, 1e-30, -1e-30, 88.0, -88.0, 2.0, 3.5, -2.5], NUMPY[dtype])
    names = [n for n in FLOAT_OPS if n not in ("sin", "cos")]
    p = elementwise(names, dtype)
    arrays = {}
    for b in p.buffers:
        if b.scope == "input":
            arrays[b.name] = np.repeat(special, 16) if b.name.endswith("_0") else np.tile(special, 16)
    expected, got = run(p, arrays, {}), outputs_of(p, arrays)
    for name, value in expected.items():
        np.testing.assert_allclose(got[name].astype(np.float64), value.astype(np.float64), rtol=3e-6, atol=1e-37, err_msg=name)


@pytest.mark.parametrize("dtype", [f32, f64], ids=str)
def test_remainders_are_exact_whatever_the_quotient(dtype: Dtype, rng: np.random.Generator) -> None:
    a, b = (np.concatenate([rng.choice([-1, 1], N) * 10 ** rng.uniform(-38, 38, N), rng.integers(-50, 50, N) * 0.1]).astype(NUMPY[dtype])
            for _ in range(2))
    a, b = a[::2].copy(), np.where(b == 0, 0.7, b)[::2].astype(NUMPY[dtype])
    got = outputs_of(elementwise(["mod", "floordiv"], dtype), {"mod_0": a, "mod_1": b, "floordiv_0": a, "floordiv_1": b})
    exact = [math.fmod(float(x), float(y)) for x, y in zip(a, b)]
    rests = [NUMPY[dtype](r + float(y) if r and (r < 0) != (y < 0) else r) for r, y in zip(exact, b)]
    np.testing.assert_array_equal(got["mod_out"], rests)
    with np.errstate(over="ignore"):
        whole = np.array([(Fraction(float(x)) // Fraction(float(y))) for x, y in zip(a, b)], object)
        np.testing.assert_allclose(got["floordiv_out"], whole.astype(np.float64).astype(NUMPY[dtype]), rtol=np.finfo(NUMPY[dtype]).eps)


def test_tangents_of_large_angles(rng: np.random.Generator) -> None:
    x = rng.integers(0x4300000000000000, 0x7FEFFFFFFFFFFFFF, N).view(np.float64)
    got = outputs_of(elementwise(["tan"], f64), {"tan_0": x})["tan_out"]
    np.testing.assert_array_equal(got, evaluate("tan", x))


@pytest.mark.parametrize("target", ["sm_80", "sm_90", "gfx942"])
@pytest.mark.parametrize("dtype", [f32, f64], ids=str)
def test_float_operations_compile(dtype: Dtype, target: str) -> None:
    compile_triton(emit_triton(elementwise(FLOAT_OPS, dtype)).kernels[0], target)


@pytest.mark.parametrize("target", ["sm_80", "gfx942"])
@pytest.mark.parametrize("dtype", [i8, i64, u32, bool_], ids=str)
def test_integer_operations_compile(dtype: Dtype, target: str) -> None:
    names = [n for n in INT_OPS if not isinstance(result_dtype(n, [dtype]), str)]
    compile_triton(emit_triton(elementwise(names, dtype)).kernels[0], target)


def casts() -> TileProgram:
    i = Var("i", N)
    sources = [buffer(f"x_{d}", d, (N,)) for d in ALL.values()]
    w, outputs = Writer(set()), []
    for x in sources:
        v = w.load(x, (i,))
        for d in ALL.values():
            if d is not x.dtype:
                outputs.append(buffer(f"{x.dtype}_to_{d}", d, (N,), "output"))
                w.store(outputs[-1], (i,), w.map("cast", (v,), d))
    return program("casts", (*sources, *outputs), (), Phase("p", (), w.block))


def test_casts(rng: np.random.Generator) -> None:
    p = casts()
    verify(p)
    wild = np.array([0.0, 1.5, -1.5, 2.5, 300.0, -300.0, 3e9, -3e9, 1e20, -1e20, np.nan, np.inf, -np.inf, 127.6, 464.0, 465.0,
                     61440.0, 57344.0])
    arrays: dict[str, Any] = {}
    for b in p.buffers:
        if b.scope == "input":
            values = np.concatenate([wild, rng.standard_normal(N - len(wild)) * 100])
            with np.errstate(all="ignore"):
                arrays[b.name] = (values.astype(NUMPY[b.dtype]) if b.dtype.is_float
                                  else rng.integers(0, 2 if b.dtype is bool_ else 120, N).astype(NUMPY[b.dtype]))
    expected, got = run(p, arrays, {}), outputs_of(p, arrays)
    for name, value in expected.items():
        np.testing.assert_array_equal(got[name].astype(np.float64), value.astype(np.float64), err_msg=name)


@pytest.mark.parametrize("target", ["sm_90", "gfx942"])
def test_casts_compile(target: str) -> None:
    p = casts()
    if target == "gfx942":  # it has fp8 formats of its own
        keep = [b for b in p.buffers if "f8" not in b.name]
        ops = [op for op in p.phases[0].body.ops if not _touches_fp8(op)]
        p.phases[0].body.ops[:] = ops
        p = TileProgram(p.name, tuple(keep), p.sizes, p.phases)
    compile_triton(emit_triton(p).kernels[0], target)


def _touches_fp8(op: Any) -> bool:
    values: tuple[Value, ...] = (*op.operands(), *op.results)
    return any(v.dtype in (f8e4m3, f8e5m2) for v in values) or any(
        d in getattr(getattr(op, "buffer", None), "name", "") for d in ("f8e4m3", "f8e5m2"))


def test_literals() -> None:
    h = Helpers()
    x = Operand("x", f64)
    assert pointwise("mul", [x, Operand.const(0.1, f64)], f64, h) == "x * 0.1"
    greatest = pointwise("max", [x, Operand.const(0.1, f64)], f64, h)
    assert greatest == "tl.maximum(x, tl.full([], 0.1, tl.float64), propagate_nan=tl.PropagateNan.ALL)"
    assert pointwise("add", [Operand("a * b", f32), Operand.const(0.10000000149011612, f32)], f32, h) == "a * b + 0.1"
    assert pointwise("add", [Operand.const(1, i8), Operand.const(2, i8)], i8, h) == "tl.full([], 1, tl.int8) + tl.full([], 2, tl.int8)"
    chosen = pointwise("where", [Operand("c", bool_), Operand("y", i8), Operand.const(1, i8)], i8, h)
    assert chosen == "tl.where(c, y, tl.full([], 1, tl.int8))"


def test_unknown_operations_are_refused() -> None:
    with pytest.raises(TargetError, match="`mulhi` of i64"):
        pointwise("mulhi", [Operand("x", i64), Operand("y", i64)], i64, Helpers())
    assert {bf16, f16}  # low floats never reach an operation: the verifier refuses them
