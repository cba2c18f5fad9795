"""Emitted Triton text runs right under the checked interpreter, and every planted bug is named."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
import torch

from codegen.artifact import Arg, TritonArtifact, TritonKernel, Workspace
from dlc.runtime.triton_run import InterpretReport, device_target, interpret, launch
from dsl.dtype import Dtype, bf16, f8e4m3, f16, f32, i32, i64
from dsl.errors import ArgumentError, InternalError, LaunchError, TargetError
from tests.dlc import triton_kernels as kernels

RNG = np.random.default_rng(0)
BF16 = np.dtype(ml_dtypes.bfloat16)


def _error(got: np.ndarray, want: np.ndarray) -> float:
    return float(np.linalg.norm(got.astype(np.float64) - want) / np.linalg.norm(want))


def _add(n: int = 1000, kernel: TritonKernel | None = None) -> tuple[InterpretReport, np.ndarray]:
    x, y = RNG.standard_normal((2, n)).astype(np.float32)
    return interpret(kernel or kernels.vadd(), {"x": x, "y": y, "o": np.empty_like(x)}, {"n": n}), x + y


def _matmul(dtype: np.dtype, kind: Dtype, **facts: object) -> tuple[InterpretReport, np.ndarray]:
    m, n, k = 70, 90, 50
    a, b = RNG.standard_normal((m, k)).astype(dtype), RNG.standard_normal((k, n)).astype(dtype)
    sizes = {"M": m, "N": n, "K": k, "sam": k, "sbk": n, "scm": n}
    report = interpret(kernels.matmul(kind, **facts), {"a": a, "b": b, "c": np.empty((m, n), np.float32)}, sizes)  # type: ignore[arg-type]
    return report, a.astype(np.float64) @ b.astype(np.float64)


def test_ragged_add() -> None:
    report, want = _add()
    assert report.ok and report.programs == 4 and np.array_equal(report.outputs["o"], want)


def test_missing_mask_is_named() -> None:
    report, want = _add(kernel=kernels.vadd(masked=False))
    assert np.array_equal(report.outputs["o"], want)  # nothing stray reached memory
    assert any(
        "store out of bounds: 4 bytes at byte 4000 of 'o'" in f and "(and 23 more lanes); program 3, line 9" in f for f in report.findings
    )


def test_unwritten_output_is_named() -> None:
    x = np.ones(1000, np.float32)
    report = interpret(kernels.vadd(), {"x": x, "y": x, "o": np.empty(1000, np.float32)}, {"n": 900})
    assert report.findings == ("output 'o' is not fully written: 400 bytes missing, the first at byte 3600",)


def test_softmax_and_layernorm() -> None:
    x = RNG.standard_normal((8, 300)).astype(np.float32)
    report = interpret(kernels.softmax(), {"x": x, "o": np.empty_like(x)}, {"rows": 8, "sx": 300, "so": 300, "n": 300})
    want = np.exp(x.astype(np.float64) - x.max(1, keepdims=True))
    assert report.ok and _error(report.outputs["o"], want / want.sum(1, keepdims=True)) < 1e-6
    w, b = RNG.standard_normal((2, 300)).astype(np.float32)
    report = interpret(kernels.layernorm(), {"x": x, "w": w, "b": b, "o": np.empty_like(x)}, {"rows": 8, "n": 300, "eps": 1e-5})
    wide = x.astype(np.float64)
    want = (wide - wide.mean(1, keepdims=True)) / np.sqrt(wide.var(1, keepdims=True) + 1e-5) * w + b
    assert report.ok and _error(report.outputs["o"], want) < 1e-6


@pytest.mark.parametrize(
    ("dtype", "kind"), [(np.dtype("f4"), f32), (np.dtype("f2"), f16), (BF16, bf16), (np.dtype(ml_dtypes.float8_e4m3fn), f8e4m3)], ids=str
)
def test_matmul(dtype: np.dtype, kind: Dtype) -> None:
    report, want = _matmul(dtype, kind)
    assert report.ok and _error(report.outputs["c"], want) < 1e-6


def test_tf32_is_visible() -> None:
    report, want = _matmul(np.dtype("f4"), f32, precision="tf32")
    assert report.ok and 1e-4 < _error(report.outputs["c"], want) < 2e-3


def test_attention() -> None:
    q, k, v = RNG.standard_normal((3, 2, 70, 16)).astype(BF16)
    sizes: dict[str, int | float] = {"S": 70, "heads": 2, "scale": 0.25}
    report = interpret(kernels.attention(bf16, 16, causal=True), {"q": q, "k": k, "v": v, "o": np.empty_like(q)}, sizes)
    want = torch.nn.functional.scaled_dot_product_attention(*(torch.from_numpy(t.astype(np.float64)) for t in (q, k, v)), is_causal=True)
    assert report.ok and _error(report.outputs["o"], want.numpy()) < 6e-3


def test_bf16_arithmetic_rounds_to_nearest() -> None:
    x, y = np.array([0.31, 1.0117, 3e38, 1e-40], np.float32).astype(BF16), np.array([0.31, 0.0, 3e38, 0.0], np.float32).astype(BF16)
    report = interpret(kernels.vadd(bf16), {"x": x, "y": y, "o": np.empty_like(x)}, {"n": 4})
    with np.errstate(over="ignore"):
        assert report.ok and np.array_equal(report.outputs["o"], x + y)
    body = "def cast(x, o, B: tl.constexpr):\n    i = tl.arange(0, B)\n    tl.store(o + i, tl.load(x + i).to(tl.bfloat16))\n"
    cast = kernels.custom(body, (Arg.pointer("x", f32), Arg.pointer("o", bf16, "w")), constexprs={"B": 4})
    values = np.array([1.00390625, 1.01171875, 3.0e38, 1e-40], np.float32)
    assert np.array_equal(interpret(cast, {"x": values, "o": np.empty(4, BF16)}).outputs["o"], values.astype(BF16))


def _one(body: str, count: int, *args: Arg, **tensors: np.ndarray) -> InterpretReport:
    kernel = kernels.custom(body, args, constexprs={"B": 8}, grid=(count,))
    return interpret(kernel, tensors)


def test_program_conflicts_are_named() -> None:
    x = np.ones(32, np.float32)
    racy = """def racy(x, o, B: tl.constexpr):
    s = tl.sum(tl.load(x + tl.program_id(0) * B + tl.arange(0, B)), 0)
    tl.store(o, tl.load(o) + s)
"""
    report = _one(racy, 4, Arg.pointer("x", f32), Arg.pointer("o", f32, "rw"), x=x, o=np.zeros(1, np.float32))
    assert (
        report.outputs["o"] == 32
        and any("two programs write 'o'" in f for f in report.findings)
        and any("reads 'o' where program 0 wrote" in f for f in report.findings)
    )
    fine = racy.replace("tl.store(o, tl.load(o) + s)", "tl.atomic_add(o, s)")
    report = _one(fine, 4, Arg.pointer("x", f32), Arg.pointer("o", f32, "rw"), x=x, o=np.zeros(1, np.float32))
    assert report.ok and report.outputs["o"] == 32


def test_undefined_lanes_are_garbage() -> None:
    body = "def bad(x, o, B: tl.constexpr):\n    i = tl.arange(0, B)\n    tl.store(o, tl.sum(tl.load(x + i, mask=i < 3), 0))\n"
    report = _one(body, 1, Arg.pointer("x", f32), Arg.pointer("o", f32, "w"), x=np.ones(8, np.float32), o=np.zeros(1, np.float32))
    assert np.isnan(report.outputs["o"]).all()


def test_declared_access_is_held_to() -> None:
    body = """def swap(x, o, B: tl.constexpr):
    i = tl.arange(0, B)
    v = tl.load(o + i)
    tl.store(x + i, v)
    tl.store(o + i, v)
"""
    report = _one(body, 1, Arg.pointer("x", f32), Arg.pointer("o", f32, "w"), x=np.ones(8, np.float32), o=np.zeros(8, np.float32))
    assert any("load of 'o' before anything was written" in f for f in report.findings) and any(
        "'x', which is declared read-only" in f for f in report.findings
    )


def test_views_keep_their_strides() -> None:
    store = np.zeros((8, 10), np.float32)
    body = "def fill(o, B: tl.constexpr):\n    tl.store(o + tl.program_id(0) * 10 + tl.arange(0, B), 1.0)\n"
    assert _one(body, 8, Arg.pointer("o", f32, "w"), o=store[:, :8]).ok
    report = _one(body, 8, Arg.pointer("o", f32, "w"), o=store[:, :7])
    assert any("between the elements of 'o'" in f for f in report.findings) and report.outputs["o"].shape == (8, 7)


def test_own_combine_function_and_scan() -> None:
    body = """def fold(x, o, c, B: tl.constexpr):
    i = tl.arange(0, B)
    j = tl.arange(0, 4)
    v = tl.load(x + i[:, None] * 4 + j[None, :])
    tl.store(o + j, tl.reduce(v, 0, _mul))
    tl.store(c + i[:, None] * 4 + j[None, :], tl.associative_scan(v, 0, _mul))


@triton.jit
def _mul(a, b):
    return a * b
"""
    x = RNG.uniform(0.5, 1.5, (8, 4)).astype(np.float32)
    report = _one(
        body,
        1,
        Arg.pointer("x", f32),
        Arg.pointer("o", f32, "w"),
        Arg.pointer("c", f32, "w"),
        x=x,
        o=np.empty(4, np.float32),
        c=np.empty_like(x),
    )
    assert report.ok
    np.testing.assert_allclose(report.outputs["o"], x.prod(0), rtol=1e-5)
    np.testing.assert_allclose(report.outputs["c"], x.cumprod(0), rtol=1e-5)


def test_two_kernels_share_a_workspace() -> None:
    first = kernels.vadd()
    args = (Arg.pointer("o", f32), Arg.pointer("w", f32, "w"), Arg.scalar("n", i32))
    body = (
        kernels.VADD.replace("vadd(x, y, o, n", "twice(o, w, n")
        .replace("tl.load(x + i, mask=m) + tl.load(y + i, mask=m)", "tl.load(o + i, mask=m) * 2")
        .replace("tl.store(o", "tl.store(w")
    )
    second = kernels.custom(body, args, constexprs={"B": 64}, grid=("cdiv(n, B)",))
    x = np.ones(100, np.float32)
    artifact = TritonArtifact((first, second), (Workspace("o", f32, ("n",)),))
    report = interpret(artifact, {"x": x, "y": x, "w": np.empty_like(x)}, {"n": 100})
    assert report.ok and set(report.outputs) == {"w"} and (report.outputs["w"] == 4).all() and report.programs == 3
    report = interpret(TritonArtifact((second,), artifact.workspaces), {"w": np.empty_like(x)}, {"n": 100})
    assert any("load of 'o' before anything was written" in f for f in report.findings)


def test_wide_scalars_and_torch_tensors() -> None:
    body = "def shift(o, n, B: tl.constexpr):\n    i = tl.arange(0, B)\n    tl.store(o + i, n * 1000000000000 + i)\n"
    kernel = kernels.custom(body, (Arg.pointer("o", i64, "w"), Arg.scalar("n", i64)), constexprs={"B": 4})
    assert interpret(kernel, {"o": torch.empty(4, dtype=torch.int64)}, {"n": 3}).outputs["o"].tolist() == [3 * 10**12 + i for i in range(4)]
    x = torch.randn(10, dtype=torch.bfloat16)
    assert np.array_equal(
        interpret(kernels.vadd(bf16), {"x": x, "y": x, "o": torch.empty_like(x)}, {"n": 10}).outputs["o"].astype(np.float32),
        (x + x).float().numpy(),
    )


def test_errors() -> None:
    x = np.ones(8, np.float32)
    with pytest.raises(ArgumentError, match="no tensor given for o, y"):
        interpret(kernels.vadd(), {"x": x}, {"n": 8})
    with pytest.raises(ArgumentError, match="'x' has dtype float64"):
        interpret(kernels.vadd(), {"x": x.astype(np.float64), "y": x, "o": x}, {"n": 8})
    with pytest.raises(InternalError, match=r"fails under the interpreter, program 0"):
        _one("def bad(o, B: tl.constexpr):\n    tl.store(o + tl.arange(0, B), missing)\n", 1, Arg.pointer("o", f32, "w"), o=x)
    spin = "def spin(o, B: tl.constexpr):\n    while tl.load(o) > 0:\n        pass\n"
    with pytest.raises(LaunchError, match=r"within 0\.5 s"):
        interpret(kernels.custom(spin, (Arg.pointer("o", f32),), constexprs={"B": 1}), {"o": x}, timeout=0.5)
    assert _add()[0].ok  # a fresh process answers the next request


@pytest.mark.skipif(torch.cuda.is_available(), reason="says what happens without a GPU")
def test_launch_without_a_gpu() -> None:
    x = torch.ones(8)
    with pytest.raises(ArgumentError, match="must be on one GPU"):
        launch(kernels.vadd(), {"x": x, "y": x, "o": x}, {"n": 8})
    with pytest.raises(TargetError, match="no GPU is present"):
        device_target(torch.device("cuda"))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_launch_on_a_gpu() -> None:
    x, y = torch.randn(2, 1001, device="cuda")
    for at in (0, 1):  # the second pair is not 16-byte aligned, so the promise must be dropped
        o = torch.full((1001 - at,), float("nan"), device="cuda")
        launch(kernels.vadd(), {"x": x[at:], "y": y[at:], "o": o}, {"n": 1001 - at})
        torch.testing.assert_close(o, x[at:] + y[at:])
    a, b = torch.randn(200, 136, device="cuda", dtype=torch.float16), torch.randn(136, 264, device="cuda", dtype=torch.float16)
    for tma in (False, True):
        c = torch.empty(200, 264, device="cuda")
        launch(
            kernels.matmul(f16, aligned=False, tma=tma),
            {"a": a, "b": b, "c": c},
            {"M": 200, "N": 264, "K": 136, "sam": 136, "sbk": 264, "scm": 264},
        )
        torch.testing.assert_close(c, a.float() @ b.float(), rtol=1e-2, atol=1e-2)
