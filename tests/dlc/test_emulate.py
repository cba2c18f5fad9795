"""What Triton emits for sm_80 and sm_90 computes right under emulation, without a single finding."""

from __future__ import annotations

import dataclasses
import json

import ml_dtypes
import numpy as np
import pytest

from codegen.artifact import Arg, TritonArtifact, TritonKernel, Workspace
from dlc.emulate import EmulationReport, emulate, emulate_artifact
from dlc.runtime.triton_compile import compile_triton
from dlc.runtime.triton_run import interpret
from dsl.dtype import Dtype, bf16, bool_, f8e4m3, f8e5m2, f16, f32, f64, i8, i32, i64, u8
from dsl.errors import ArgumentError
from tests.dlc import triton_kernels as kernels

RNG = np.random.default_rng(0)
TARGETS = ("sm_80", "sm_90")
NUMPY = {
    "f16": "f2", "f32": "f4", "f64": "f8", "i8": "i1", "u8": "u1", "i32": "i4", "i64": "i8", "bool": "?",
    "bf16": ml_dtypes.bfloat16, "f8e4m3": ml_dtypes.float8_e4m3fn, "f8e5m2": ml_dtypes.float8_e5m2,
}  # fmt: skip


def run(kernel: TritonKernel, target: str, tensors: dict[str, np.ndarray], sizes: dict[str, int | float] | None = None) -> EmulationReport:
    report = emulate_artifact(kernel, [compile_triton(kernel, target)], tensors, sizes)
    assert report.ok, report
    return report


def error(got: np.ndarray, want: np.ndarray) -> float:
    return float(np.linalg.norm(got.astype(np.float64) - want) / np.linalg.norm(want))


Shape = tuple[int, int, int]


def matmul(target: str, kind: Dtype, out: Dtype = f32, shape: Shape = (64, 64, 64), **facts: object) -> tuple[EmulationReport, float]:
    (m, n, k), dtype = shape, np.dtype(NUMPY[kind.name])
    a, b = RNG.standard_normal((m, k)).astype(dtype), RNG.standard_normal((k, n)).astype(dtype)
    if kind is i8:
        a, b = RNG.integers(-9, 9, (m, k), "i1"), RNG.integers(-9, 9, (k, n), "i1")
    tensors = {"a": a, "b": b, "c": np.empty((m, n), NUMPY[out.name])}
    sizes: dict[str, int | float] = {"M": m, "N": n, "K": k, "sam": k, "sbk": n, "scm": n}
    report = run(kernels.matmul(kind, out, **facts), target, tensors, sizes)  # type: ignore[arg-type]
    return report, error(report.outputs["c"], a.astype(np.float64) @ b.astype(np.float64))


@pytest.mark.parametrize("target", TARGETS)
def test_add_softmax_layernorm(target: str) -> None:
    x, y = RNG.standard_normal((2, 1000)).astype(np.float32)
    report = run(kernels.vadd(), target, {"x": x, "y": y, "o": np.empty_like(x)}, {"n": 1000})
    assert np.array_equal(report.outputs["o"], x + y)
    assert (report.bytes_read, report.bytes_written, report.blocks) == (8000, 4000, 4)
    x = RNG.standard_normal((3, 300)).astype(np.float32)
    report = run(kernels.softmax(), target, {"x": x, "o": np.empty_like(x)}, {"rows": 3, "sx": 300, "so": 300, "n": 300})
    want = np.exp(x.astype(np.float64) - x.max(1, keepdims=True))
    assert error(report.outputs["o"], want / want.sum(1, keepdims=True)) < 1e-6
    w, b = RNG.standard_normal((2, 300)).astype(np.float32)
    report = run(kernels.layernorm(), target, {"x": x, "w": w, "b": b, "o": np.empty_like(x)}, {"rows": 3, "n": 300, "eps": 1e-5})
    wide = x.astype(np.float64)
    assert error(report.outputs["o"], (wide - wide.mean(1, keepdims=True)) / np.sqrt(wide.var(1, keepdims=True) + 1e-5) * w + b) < 1e-6


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("kind", [f16, bf16], ids=str)
def test_matmul_tensor_core(target: str, kind: Dtype) -> None:
    report, wrong = matmul(target, kind, num_stages=1)
    assert wrong < 2e-7 and report.matrix_flops == 2 * 64**3 and report.efficiency("global") == 1.0
    report, wrong = matmul(target, kind, shape=(128, 64, 128), num_stages=3)
    assert wrong < 2e-7 and ("wgmma" if target == "sm_90" else "mma") in report.families
    assert any(op.startswith("cp.async.cg") for op in report.instructions)
    _, wrong = matmul(target, kind, kind, (70, 90, 50), aligned=False)
    assert wrong < (4e-4 if kind is f16 else 4e-3)


@pytest.mark.parametrize("target", TARGETS)
def test_matmul_float32(target: str) -> None:
    _, wrong = matmul(target, f32, tile=(32, 32, 32), shape=(32, 32, 64), precision="ieee")
    assert wrong < 5e-7
    _, wrong = matmul(target, f32, precision="tf32")
    assert 1e-4 < wrong < 2e-3
    _, wrong = matmul(target, f32, tile=(32, 32, 32), shape=(32, 32, 32), precision="tf32x3")
    assert wrong < 2e-6


@pytest.mark.parametrize("target", TARGETS)
def test_matmul_int8(target: str) -> None:
    body = ("def dot8(x, y, o, B: tl.constexpr):\n    i = tl.arange(0, B)\n    p = i[:, None] * B + i[None, :]\n"
            "    tl.store(o + p, tl.dot(tl.load(x + p), tl.load(y + p)))\n")
    x, y = RNG.integers(-128, 128, (2, 64, 64), "i1")
    kernel = kernels.custom(body, (Arg.pointer("x", i8), Arg.pointer("y", i8), Arg.pointer("o", i32, "w")), constexprs={"B": 64})
    assert np.array_equal(run(kernel, target, {"x": x, "y": y, "o": np.empty((64, 64), "i4")}).outputs["o"],
                          x.astype("i4") @ y.astype("i4"))


def test_matmul_fp8() -> None:
    for kind in (f8e4m3, f8e5m2):
        report, wrong = matmul("sm_90", kind)
        assert wrong < 1e-6 and "wgmma" in report.families


def test_matmul_tensor_copies() -> None:
    report, wrong = matmul("sm_90", f16, f16, (100, 136, 72), tma=True, num_stages=3)
    assert wrong < 4e-4 and any("bulk.tensor" in op for op in report.instructions)
    _, wrong = matmul("sm_90", bf16, f32, (128, 128, 64), tma=True, tile=(128, 128, 64), num_warps=8)
    assert wrong < 2e-7


def test_matmul_with_specialised_warps() -> None:
    kernel = kernels.matmul(f16, f16, tma=True, num_stages=2)
    source = kernel.source.replace("in range(0, K, BK)", "in tl.range(0, K, BK, warp_specialize=True)")
    binary = compile_triton(dataclasses.replace(kernel, source=source), "sm_90")
    assert binary.threads > 32 * kernel.num_warps
    a, b = RNG.standard_normal((64, 96)).astype("f2"), RNG.standard_normal((96, 64)).astype("f2")
    sizes: dict[str, int | float] = {"M": 64, "N": 64, "K": 96, "sam": 96, "sbk": 64, "scm": 64}
    report = emulate_artifact(kernel, [binary], {"a": a, "b": b, "c": np.empty((64, 64), "f2")}, sizes)
    assert report.ok and error(report.outputs["c"], a.astype("f8") @ b.astype("f8")) < 4e-4


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize(("kind", "causal"), [(f16, False), (bf16, True)], ids=str)
def test_attention(target: str, kind: Dtype, causal: bool) -> None:
    q, k, v = RNG.standard_normal((3, 2, 70, 32)).astype(NUMPY[kind.name])
    tensors = {"q": q, "k": k, "v": v, "o": np.empty_like(q)}
    report = run(kernels.attention(kind, 32, causal), target, tensors, {"S": 70, "heads": 2, "scale": 0.2})
    scores = np.einsum("hid,hjd->hij", q.astype("f8"), k.astype("f8")) * 0.2
    scores = np.where(np.tril(np.ones((70, 70), bool)) | (not causal), scores, -np.inf)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    assert error(report.outputs["o"], weights / weights.sum(-1, keepdims=True) @ v.astype("f8")) < (1e-3 if kind is f16 else 8e-3)


MATHS = """def maths(x, o, xi, oi, B: tl.constexpr):
    i = tl.arange(0, B)
    v, w = tl.load(x + i), tl.load(xi + i)
    p = tl.abs(v) + 0.1
    tl.store(o + i, tl.erf(v) + tl.sigmoid(v))
    tl.store(o + B + i, tl.log(p) + tl.log2(p) + tl.sqrt(p) + tl.rsqrt(p))
    tl.store(o + 2 * B + i, tl.floor(v) + tl.ceil(v) * 2 + tl.fma(v, v, v) + v / 3.0)
    tl.store(o + 3 * B + i, tl.exp2(v) + tl.sin(v) + tl.cos(v))
    tl.store(o + 4 * B + i, tl.cumsum(v, 0))
    tl.store(o + 5 * B + i, tl.sort(v) + tl.flip(v, 0) + tl.max(v, 0) + tl.argmax(v, 0))
    tl.store(oi + i, w // 7 + w % 5 + (w >> 2) + (w << 1) + (w & 3) + (w | 5) + (w ^ 9) + ~w)
    tl.store(oi + B + i, tl.umulhi(w.to(tl.uint32), 12345678).to(tl.int32) + tl.max(w, 0) + tl.sum(w, 0) + tl.xor_sum(w, 0))
    tl.store(oi + 2 * B + i, (v * 1000).to(tl.int32) + tl.cdiv(w, 3) + tl.where(w > 3, w, -w))
"""


@pytest.mark.parametrize("target", TARGETS)
def test_maths_against_the_interpreter(target: str) -> None:
    n = 128
    args = (Arg.pointer("x", f32), Arg.pointer("o", f32, "w"), Arg.pointer("xi", i32), Arg.pointer("oi", i32, "w"))
    kernel = kernels.custom(MATHS, args, constexprs={"B": n})
    x, xi = RNG.standard_normal(n).astype("f4"), RNG.integers(-(2**30), 2**30, n, "i4")
    tensors = {"x": x, "xi": xi, "o": np.empty((6, n), "f4"), "oi": np.empty((3, n), "i4")}
    report, want = run(kernel, target, tensors), interpret(kernel, tensors)
    assert want.ok
    np.testing.assert_allclose(report.outputs["o"], want.outputs["o"], rtol=2e-5, atol=2e-5)
    assert np.array_equal(report.outputs["oi"], want.outputs["oi"])


LOW = """def low(x, y, o, p, B: tl.constexpr):
    i = tl.arange(0, B)
    v, w = tl.load(x + i), tl.load(y + i)
    tl.store(p + i, v.to(tl.float32) * 2 + w.to(tl.float32))
    tl.store(o + i, (v.to(tl.float32) + w.to(tl.float32)).to(o.dtype.element_ty))
"""
SUM = "(v.to(tl.float32) + w.to(tl.float32)).to(o.dtype.element_ty)"
ARITHMETIC = LOW.replace(SUM, "v * w + v - tl.maximum(v, w) + tl.where(v < w, v, -w)")


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("kind", [f16, bf16, f8e5m2, f8e4m3, f64, i8, u8, i64, bool_], ids=str)
def test_every_dtype_against_the_interpreter(target: str, kind: Dtype) -> None:
    if kind is f8e4m3 and target == "sm_80":
        pytest.skip("Triton has e4m3 from sm_89 on")
    args = (Arg.pointer("x", kind), Arg.pointer("y", kind), Arg.pointer("o", kind, "w"), Arg.pointer("p", f32, "w"))
    for body in (LOW, ARITHMETIC) if kind in (f16, bf16, f64) else (LOW,):
        kernel = kernels.custom(body, args, constexprs={"B": 256}, fp_fusion=False)
        data = RNG.standard_normal((2, 256)) * 9 if kind.is_float else RNG.integers(0, 2 if kind is bool_ else 60, (2, 256))
        x, y = data.astype(NUMPY[kind.name])
        tensors = {"x": x, "y": y, "o": np.empty_like(x), "p": np.empty(256, "f4")}
        report, want = run(kernel, target, tensors), interpret(kernel, tensors)
        assert np.array_equal(report.outputs["p"], want.outputs["p"])
        got, expected = (r.outputs["o"].astype("f8") for r in (report, want))
        if kind is f8e5m2 and target == "sm_80":  # Triton's own conversion there rounds ties away from zero
            ties = got != expected
            assert ties.mean() < 0.3 and (np.abs(got[ties]) > np.abs(expected[ties])).all()
        else:
            assert np.array_equal(got, expected)


@pytest.mark.parametrize("target", TARGETS)
def test_atomics(target: str) -> None:
    body = """def histogram(x, h, s, n, B: tl.constexpr):
    i = tl.program_id(0) * B + tl.arange(0, B)
    v = tl.load(x + i, mask=i < n, other=0)
    tl.atomic_add(h + v, 1, mask=i < n)
    tl.atomic_add(s, tl.sum(v.to(tl.float32), 0))
    tl.atomic_max(s + 1, tl.max(v.to(tl.float32), 0))
"""
    args = (Arg.pointer("x", i32), Arg.pointer("h", i32, "rw"), Arg.pointer("s", f32, "rw"), Arg.scalar("n", i32))
    kernel = kernels.custom(body, args, constexprs={"B": 128}, grid=("cdiv(n, B)",))
    x = RNG.integers(0, 16, 500, "i4")
    report = run(kernel, target, {"x": x, "h": np.zeros(16, "i4"), "s": np.zeros(2, "f4")}, {"n": 500})
    assert np.array_equal(report.outputs["h"], np.bincount(x, minlength=16)) and report.outputs["s"].tolist() == [x.sum(), x.max()]


def test_own_combine_function_and_transposed_store() -> None:
    body = """def both(x, o, t, B: tl.constexpr):
    i = tl.arange(0, B)
    v = tl.load(x + i[:, None] * B + i[None, :])
    m, s, n = tl.reduce((v, v * 0, v * 0 + 1), 1, _welford)
    tl.store(o + i, m + s / n)
    tl.store(t + i[:, None] * B + i[None, :], v.T)


@triton.jit
def _welford(m1, s1, n1, m2, s2, n2):
    n = n1 + n2
    d = m2 - m1
    return m1 + d * n2 / n, s1 + s2 + d * d * n1 * n2 / n, n
"""
    args = (Arg.pointer("x", f32), Arg.pointer("o", f32, "w"), Arg.pointer("t", f32, "w"))
    kernel = kernels.custom(body, args, constexprs={"B": 64})
    x = RNG.standard_normal((64, 64)).astype("f4")
    report = run(kernel, "sm_80", {"x": x, "o": np.empty(64, "f4"), "t": np.empty_like(x)})
    np.testing.assert_allclose(report.outputs["o"], x.mean(1) + x.var(1), rtol=1e-5, atol=1e-6)
    assert np.array_equal(report.outputs["t"], x.T) and report.efficiency("global") == 1.0


def test_strides_show_as_wasted_sectors() -> None:
    body = "def strided(x, o, S: tl.constexpr, B: tl.constexpr):\n    i = tl.arange(0, B)\n    tl.store(o + i, tl.load(x + i * S))\n"
    got = []
    for stride in (1, 2, 8):
        kernel = kernels.custom(body, (Arg.pointer("x", f32), Arg.pointer("o", f32, "w")), constexprs={"S": stride, "B": 128})
        report = run(kernel, "sm_80", {"x": np.zeros(1024, "f4"), "o": np.empty(128, "f4")})
        got.append(report.efficiency("global", "load"))
        assert report.bytes_read == 512
    assert got == [1.0, 0.5, 0.125]
    assert "wasteful: kernel line 9" in str(report)


def test_views_keep_their_strides() -> None:
    body = "def fill(x, o, B: tl.constexpr):\n    i = tl.program_id(0) * 10 + tl.arange(0, B)\n    tl.store(o + i, tl.load(x + i))\n"
    kernel = kernels.custom(body, (Arg.pointer("x", f32), Arg.pointer("o", f32, "w", 4)), constexprs={"B": 8}, grid=(8,))
    x, o = RNG.standard_normal((8, 10)).astype("f4"), np.zeros((8, 10), "f4")
    report = run(kernel, "sm_80", {"x": x, "o": o[:, :8]})
    assert np.array_equal(report.outputs["o"], x[:, :8]) and not o.any()
    report = emulate_artifact(kernel, [compile_triton(kernel, "sm_80")], {"x": x[:, :7], "o": o})
    assert [f.kind for f in report.findings] == ["bounds", "undefined"] and "between the elements" in report.findings[0].text


def test_artifact_with_a_workspace() -> None:
    first = kernels.vadd(block=128)
    body = """def twice(o, w, n, B: tl.constexpr):
    i = tl.program_id(0) * B + tl.arange(0, B)
    tl.store(w + i, tl.load(o + i, mask=i < n) * 2, mask=i < n)
"""
    args = (Arg.scalar("n", i32), Arg.pointer("w", f32, "w"), Arg.pointer("o", f32))
    second = kernels.custom(body, args, constexprs={"B": 64}, grid=("cdiv(n, B)",))
    artifact = TritonArtifact((first, second), (Workspace("o", f32, ("n",)),))
    codes = [compile_triton(k, "sm_80") for k in artifact.kernels]
    x = np.ones(200, np.float32)
    report = emulate_artifact(artifact, codes, {"x": x, "y": x, "w": np.empty_like(x)}, {"n": 200})
    assert report.ok and (report.outputs["w"] == 4).all() and set(report.outputs) == {"w"} and report.blocks == 6
    report = emulate_artifact(TritonArtifact((second,), artifact.workspaces), codes[1:], {"w": np.empty_like(x)}, {"n": 200})
    assert any(f.kind == "undefined" and "'o' is read where nothing was written" in f.text for f in report.findings)
    with pytest.raises(ArgumentError, match="no tensor given for y"):
        emulate_artifact(artifact, codes, {"x": x, "w": x}, {"n": 200})


def test_report_is_readable_and_json() -> None:
    x = RNG.standard_normal(100).astype("f4")
    binary = compile_triton(kernels.vadd(), "sm_80")
    report = emulate(binary, (1,), [x, x, np.empty_like(x), 100])
    figures = json.loads(json.dumps(report.as_dict()))
    assert figures["ok"] and figures["bytes_read"] == 800 and figures["instructions"]["ld"] > 0
    assert "no findings" in str(report) and np.array_equal(report.arrays[2], x + x)
    text = emulate(dataclasses.replace(binary).ptx, (1,), [x, x, np.empty_like(x), 100])
    assert np.array_equal(text.arrays[2], x + x)
