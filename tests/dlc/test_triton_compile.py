"""Emitted Triton text becomes machine code for every target, and failures are told apart."""

from __future__ import annotations

import dataclasses
import pickle

import pytest

from codegen.artifact import Arg, TritonArtifact, TritonKernel, Workspace, evaluate
from dlc.runtime.child import Child
from dlc.runtime.triton_compile import GpuBinary, compile_many, compile_triton, load_module
from dsl.dtype import bf16, f16, f32, i32
from dsl.errors import InternalError, LaunchError, TargetError
from tests.dlc import triton_kernels as kernels

TARGETS = ("sm_80", "sm_90", "sm_100", "gfx942", "gfx1100")


@pytest.mark.parametrize("target", TARGETS)
def test_every_target_compiles(target: str) -> None:
    binary = compile_triton(kernels.matmul(f16), target)
    assert binary.code[:4] == b"\x7fELF"
    assert "tt.func" in binary.ttir and "ttg" in binary.ttgir
    if target.startswith("sm_"):
        assert ".entry matmul" in binary.ptx and binary.vendor == "cuda" and "MMA" in binary.sass
        assert binary.threads >= 128  # sm_100 adds a warp group of its own
    else:
        assert "matmul" in binary.amdgcn and binary.vendor == "hip" and not binary.sass
        assert binary.threads == 4 * binary.warp_size


SAMPLES = [kernels.vadd(), kernels.softmax(bf16), kernels.layernorm(), kernels.matmul(f32), kernels.attention(f16)]


@pytest.mark.parametrize("kernel", SAMPLES, ids=lambda k: k.name)
def test_kernels_compile_and_travel(kernel: TritonKernel) -> None:
    binary = compile_triton(kernel, "sm_90")
    again: GpuBinary = pickle.loads(pickle.dumps(binary))
    assert again == binary and again.name == kernel.name


def test_promised_alignment_widens_loads() -> None:
    aligned = kernels.vadd(block=512)
    loose = dataclasses.replace(aligned, args=tuple(dataclasses.replace(a, multiple=4) for a in aligned.args))
    assert "ld.global.v4" not in compile_triton(loose, "sm_80").ptx
    promised = dataclasses.replace(aligned, args=(*aligned.args[:3], Arg.scalar("n", i32, 16)))
    assert compile_triton(promised, "sm_80").ptx.count("ld.global.v4") == 2


def test_fused_multiply_add_is_a_choice() -> None:
    body = """def axpy(x, y, o, B: tl.constexpr):
    i = tl.arange(0, B)
    tl.store(o + i, tl.load(x + i) * 2.5 + tl.load(y + i))
"""
    args = (Arg.pointer("x", f32), Arg.pointer("y", f32), Arg.pointer("o", f32, "w"))
    fused, apart = (compile_triton(kernels.custom(body, args, constexprs={"B": 128}, fp_fusion=f), "sm_80") for f in (True, False))
    assert "FFMA" in fused.sass and "FFMA" not in apart.sass


def test_same_text_gives_the_same_module() -> None:
    assert load_module(kernels.vadd().source) is load_module(kernels.vadd().source)


def test_unknown_target() -> None:
    with pytest.raises(TargetError, match="unknown GPU target 'sm90'"):
        compile_triton(kernels.vadd(), "sm90")


def test_malformed_text_is_our_fault() -> None:
    broken = kernels.custom("def broken(x):\n    tl.store(x, undefined_name)\n", (Arg.pointer("x", f32, "w"),))
    with pytest.raises(InternalError, match="undefined_name is not defined"):
        compile_triton(broken, "sm_80")
    with pytest.raises(InternalError, match="does not load"):
        compile_triton(dataclasses.replace(broken, source="def broken(:\n"), "sm_80")
    with pytest.raises(InternalError, match="declares other arguments"):
        compile_triton(dataclasses.replace(kernels.vadd(), args=()), "sm_80")


def test_a_target_too_small_is_told_from_a_defect() -> None:
    with pytest.raises(TargetError, match="does not fit sm_80"):
        compile_triton(dataclasses.replace(kernels.vadd(), num_ctas=2), "sm_80")


def test_pool_keeps_order_and_outlives_failures() -> None:
    broken = kernels.custom("def broken(x):\n    tl.store(x, undefined_name)\n", (Arg.pointer("x", f32, "w"),))
    first, second, third = compile_many([kernels.vadd(), broken, kernels.softmax()], "sm_80", workers=2)
    assert isinstance(first, GpuBinary) and first.name == "vadd"
    assert isinstance(second, InternalError) and "undefined_name" in second.reason
    assert isinstance(third, GpuBinary) and third.name == "softmax"


def test_child_survives_crash_and_hang() -> None:
    child = Child("tests.dlc.test_triton_compile:_misbehave")
    try:
        with pytest.raises(LaunchError, match="exit status 7"):
            child.call("crash", 30)
        with pytest.raises(LaunchError, match=r"within 0\.2 s"):
            child.call("hang", 0.2)
        with pytest.raises(InternalError, match="ValueError"):
            child.call("raise", 30)
        assert child.call("echo", 30) == "echo"
    finally:
        child.close()


def _misbehave(request: str) -> str:
    import os
    import time

    if request == "crash":
        os._exit(7)
    if request == "hang":
        time.sleep(60)
    if request == "raise":
        raise ValueError("no")
    return request


def test_formulas() -> None:
    assert evaluate("cdiv(n, B) * max(1, m // 2) + (n - 1) % 3", {"n": 10, "B": 4, "m": 5}) == 3 * 2 + 0
    assert evaluate(7, {}) == 7
    for bad in ("n +", "missing", "__import__('os')", "n / 2", "n.real", "n // 0"):
        with pytest.raises(InternalError, match="cannot evaluate"):
            evaluate(bad, {"n": 4})
    assert kernels.vadd().grid_of({"n": 1000}) == (4, 1, 1)
    assert Workspace("w", f32, ("n", 2)).shape_of({"n": 3}) == (3, 2)


def test_access_of_a_sequence() -> None:
    one = kernels.vadd()
    two = dataclasses.replace(one, args=(Arg.pointer("o", f32, "rw"), Arg.pointer("x", f32, "w"), Arg.pointer("z", f32)))
    access = {n: a.access for n, a in TritonArtifact((one, two)).pointers().items()}
    assert access == {"x": "rw", "y": "r", "o": "w", "z": "r"}
