"""Conversions between dtypes on every target: against the oracle where this machine runs it, and never by an unknown library call."""

import ml_dtypes
import numpy as np
import pytest
import torch
from llvmlite import ir

import dlc
from codegen.emit.llvm_types import literal, vector
from codegen.target import TARGETS
from codegen.tile.interp import convert
from dlc.compiler import Plan
from dlc.runtime.arguments import torch_dtype
from dlc.runtime.device import host_features, host_target
from dlc.runtime.elf import undefined_symbols
from dsl.dtype import ALL as DTYPES
from dsl.dtype import Dtype, f16, f32, f64, i8, i16, i32, i64

CPUS = [t for t in TARGETS.values() if t.kind == "cpu"]
HERE = [t.name for t in CPUS if set(t.features) <= host_features()]
KNOWN = {"_GLOBAL_OFFSET_TABLE_", "GOMP_parallel", "omp_get_thread_num", "omp_get_num_threads", "memset", "memcpy"}
ALL = tuple(DTYPES.values())
N = dlc.dims("N")
SPECIAL = [0.0, -0.0, 1.0, -1.5, 2.5, 3.5, 127.5, -129.0, 255.4, 300.0, 65504.0, 65519.9, 65520.0, -70000.0, 6.1e-5, 5.96e-8, 2.9e-8,
           2.98023e-8, 2.0 ** -9, 0.0009765, 1.00048828125, 1.0014648, 240.0, 448.0, 464.1, 465.0, 57344.0, 61440.1, 2e-3, 3e38,
           float("inf"), -float("inf"), float("nan"), 2147483520.0, 2147483647.5, -2147483648.5, 2.0 ** 31, -2.0 ** 31, 4294967040.0,
           4294967295.7, -4294967296.5, 6442450943.9, 2.0 ** 52 + 1, 2.0 ** 53 - 1, 2.0 ** 63 - 1024, 2.0 ** 63 - 2.0 ** 31 - 1024,
           2.0 ** 63, -2.0 ** 63, -2.0 ** 63 - 2048]


def casts(source: Dtype):
    """A kernel that converts one vector to every dtype."""
    @dlc.kernel
    def cast(x: source[N]):
        return tuple(dlc.compute((N,), lambda i, d=d: dlc.cast(x[i], d)) for d in ALL if d != source)

    return cast


def values(source: Dtype) -> torch.Tensor:
    """Every value of a dtype of up to 16 bits; special and random ones of the others."""
    if source.bits in (8, 16) and source.name != "bool":
        bits = torch.arange(1 << source.bits, dtype=torch.int32).to(torch.uint8 if source.bits == 8 else torch.int16)
        return bits.view(torch_dtype(source))
    rng = np.random.default_rng(3)
    if source.is_float:
        return torch.tensor(np.concatenate([SPECIAL, rng.normal(size=400) * 10.0 ** rng.integers(-9, 21, 400)]), dtype=torch_dtype(source))
    if source.name == "bool":
        return torch.tensor(rng.integers(0, 2, 70) > 0)
    edges = np.concatenate([np.array([0, 1, 127, 128, 255, 256, 2047, 2049, 65519, 65520]), rng.integers(0, 1 << (source.bits - 2), 300)])
    return torch.tensor(np.concatenate([edges, -edges]) if source.signed else edges).to(torch_dtype(source))


def as_numpy(t: torch.Tensor) -> np.ndarray:
    """The values of a tensor, exactly, in a dtype that numpy knows."""
    narrow = {torch.bfloat16: ml_dtypes.bfloat16, torch.float8_e4m3fn: ml_dtypes.float8_e4m3fn, torch.float8_e5m2: ml_dtypes.float8_e5m2}
    return t.view(torch.uint8 if t.element_size() == 1 else torch.int16).numpy().view(narrow[t.dtype]) if t.dtype in narrow else t.numpy()


@pytest.mark.parametrize("target", HERE)
@pytest.mark.parametrize("source", ALL, ids=str)
def test_every_conversion_agrees_with_the_oracle(source, target):
    x = values(source)
    with np.errstate(all="ignore"):
        results = Plan(casts(source).plan(x).request.on(host_target(target))).launcher()([x])
        for d, got in zip((d for d in ALL if d != source), results):
            through = convert(as_numpy(x), dlc.f32) if d.is_low and source == f64 else as_numpy(x)  # rounded to f32 first, as in torch
            expected, mine = convert(through, d), as_numpy(got)
            if d.is_low:
                expected, mine = expected.astype(np.float32), mine.astype(np.float32)
            np.testing.assert_array_equal(mine, expected, f"{source} to {d} on {target}")


@pytest.mark.parametrize("target", CPUS, ids=lambda t: t.name)
def test_no_conversion_calls_a_library(target):
    for source in ALL:
        code = Plan(casts(source).plan(values(source)).request.on(target)).object_code
        assert set(undefined_symbols(code)) <= KNOWN, str(source)


def test_half_converts_by_instruction_where_there_is_one():
    x = values(f16)
    assembly = {t.name: Plan(casts(f16).plan(x).request.on(t)).assembly() for t in CPUS}
    assert "vcvtph2ps" in assembly["x86-64-avx2"] and "vcvtph2ps" in assembly["x86-64-avx512"]
    assert "fcvt" in assembly["aarch64-neon"]
    assert "cvtph2ps" not in assembly["x86-64"]


def test_types_and_literals_are_made_once_and_never_mistaken():
    single = ir.FloatType()
    assert vector(single, 8) is vector(single, 8) and vector(single, 8) != vector(single, 4) and vector(single, 0) is single
    assert literal(single, 0.5, 8) is literal(single, 0.5, 8)
    plus, minus = (str(literal(single, x, 8)) for x in (0.0, -0.0))
    assert "0x8000000000000000" in minus and "0x8" not in plus and "splat (float" in plus
    assert str(literal(ir.IntType(32), 1)) == "i32 1" and str(literal(single, 1)) == str(literal(single, 1.0))


@pytest.mark.parametrize("source", [f32, f64], ids=str)
def test_vectors_of_floats_become_integers_without_going_lane_by_lane(source):
    x = torch.zeros(1024, dtype=torch_dtype(source))
    for name in ("x86-64-avx2", "x86-64-avx512"):
        @dlc.kernel
        def cast(x: source[1024]):
            return tuple(dlc.compute((1024,), lambda i, d=d: dlc.cast(x[i], d)) for d in (i8, i16, i32, i64))

        assembly = Plan(cast.plan(x).request.on(TARGETS[name])).assembly()
        assert "cvttss2si" not in assembly and "cvttsd2si" not in assembly, name
