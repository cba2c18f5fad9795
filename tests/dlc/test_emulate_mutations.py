"""Planted bugs in good kernels: each must be seen, and named for what it is."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable

import numpy as np
import pytest

from codegen.artifact import Arg, TritonKernel
from dlc.emulate import EmulationReport, emulate_artifact
from dlc.runtime.triton_compile import compile_triton
from dsl.dtype import f16, f32
from tests.dlc import triton_kernels as kernels

RNG = np.random.default_rng(0)
X = RNG.standard_normal((2, 300)).astype(np.float32)
A, B = RNG.standard_normal((64, 128)).astype("f2"), RNG.standard_normal((128, 64)).astype("f2")
Edit = Callable[[str], str]


def run(kernel: TritonKernel, target: str, edit: Edit, tensors: dict[str, np.ndarray], sizes: dict[str, int | float]) -> EmulationReport:
    binary = compile_triton(kernel, target)
    edited = edit(binary.ptx)
    assert edited != binary.ptx, "the edit must change something"
    return emulate_artifact(kernel, [dataclasses.replace(binary, ptx=edited)], tensors, sizes, limit=100_000)


def softmax(edit: Edit, target: str = "sm_80") -> EmulationReport:
    return run(kernels.softmax(), target, edit, {"x": X, "o": np.empty_like(X)}, {"rows": 2, "sx": 300, "so": 300, "n": 300})


def matmul(target: str, edit: Edit, **facts: object) -> tuple[EmulationReport, float]:
    kernel = kernels.matmul(f16, **{"num_stages": 3, **facts})  # type: ignore[arg-type]
    sizes: dict[str, int | float] = {"M": 64, "N": 64, "K": 128, "sam": 128, "sbk": 64, "scm": 64}
    report = run(kernel, target, edit, {"a": A, "b": B, "c": np.empty((64, 64), "f4")}, sizes)
    want = A.astype("f8") @ B.astype("f8")
    return report, float(np.linalg.norm(report.outputs["c"] - want) / np.linalg.norm(want))


def kinds(report: EmulationReport) -> set[str]:
    return {f.kind for f in report.findings}


def drop(pattern: str, which: int = 0) -> Edit:
    """Remove the statement that matches, the first or the given one."""

    def edit(text: str) -> str:
        found = list(re.finditer(rf"^[ \t]*{pattern}[^;]*;", text, re.M))[which]
        return text[: found.start()] + text[found.end() :]

    return edit


def drop_all(pattern: str) -> Edit:
    return lambda text: re.sub(rf"^[ \t]*{pattern}[^;]*;", "", text, flags=re.M)


@pytest.mark.parametrize("target", ["sm_80", "sm_90"])
def test_missing_mask(target: str) -> None:
    x = np.ones(1000, np.float32)
    kernel = kernels.vadd(masked=False)
    report = emulate_artifact(kernel, [compile_triton(kernel, target)], {"x": x, "y": x, "o": np.empty_like(x)}, {"n": 1000})
    assert kinds(report) == {"bounds"} and "byte 4000 of 'o', which has 4000" in str(report.findings[-1])
    assert report.findings[0].source == 11 or report.findings[0].source == 9


def test_predicate_turned_around() -> None:
    def edit(text: str) -> str:
        return re.sub(r"@(%p\d+) ld\.global", r"@!\1 ld.global", text)

    assert {"bounds"} <= kinds(softmax(edit))


@pytest.mark.parametrize("which", [0, 1])
def test_missing_barrier(which: int) -> None:
    report = softmax(drop(r"bar\.sync", which))
    assert kinds(report) & {"race", "undefined"}


def test_barrier_not_reached_by_all() -> None:
    skip = "\tmov.u32 %r9999, %tid.x;\n\tsetp.lt.u32 %p999, %r9999, 32;\n\t@%p999 ret;\n\tbar.sync \t0, 128;"
    report = softmax(lambda text: text.replace("\tbar.sync \t0;", skip, 1))
    assert any(f.kind == "barrier" and "barrier 0 has 96 of 128 threads" in f.text for f in report.findings)


def test_wrong_stride_gives_wrong_numbers() -> None:
    good = kernels.matmul(f16)
    bad = dataclasses.replace(good, source=good.source.replace("rn[None, :]", "rm[None, :]", 1))
    report, wrong = matmul("sm_80", lambda text: text + " ")
    assert report.ok and wrong < 1e-6
    sizes: dict[str, int | float] = {"M": 64, "N": 64, "K": 128, "sam": 64, "sbk": 64, "scm": 64}
    report = emulate_artifact(bad, [compile_triton(bad, "sm_80")], {"a": A, "b": B, "c": np.empty((64, 64), "f4")}, sizes)
    want = A.astype("f8") @ B.astype("f8")
    assert np.linalg.norm(report.outputs["c"] - want) / np.linalg.norm(want) > 0.1


@pytest.mark.parametrize("target", ["sm_80", "sm_90"])
def test_missing_copy_wait(target: str) -> None:
    report, wrong = matmul(target, drop_all(r"cp\.async\.wait_group"))
    assert {"wait", "undefined"} <= kinds(report) and not wrong < 0.9
    late = re.compile(r"cp\.async\.wait_group\s+(\d)")
    report, _ = matmul(target, lambda text: late.sub(lambda m: f"cp.async.wait_group {int(m.group(1)) + 2}", text))
    assert "wait" in kinds(report)


@pytest.mark.parametrize(("target", "tma"), [("sm_80", False), ("sm_90", False), ("sm_90", True)])
def test_missing_barriers_in_a_pipeline(target: str, tma: bool) -> None:
    report, _ = matmul(target, drop_all(r"bar\.sync"), tma=tma)
    assert kinds(report) & {"race", "wait", "undefined", "barrier"}


def test_missing_transaction_wait() -> None:
    def edit(text: str) -> str:
        return re.sub(r"mbarrier\.try_wait\.parity[^;]*;", "setp.eq.u32 complete, 0, 0;", text)

    report, wrong = matmul("sm_90", edit, tma=True)
    assert {"wait", "undefined"} <= kinds(report) and not wrong < 0.9


def test_wrong_byte_count_never_completes() -> None:
    report, _ = matmul("sm_90", lambda text: re.sub(r"(expect_tx[^,]*, \[[^\]]*\]), 8192", r"\1, 9000", text), tma=True)
    assert "hang" in kinds(report)


def test_missing_wgmma_wait() -> None:
    report, _ = matmul("sm_90", drop_all(r"wgmma\.wait_group"))
    assert any(f.kind == "wait" and "wgmma.wait_group" in f.text for f in report.findings)
    report, _ = matmul("sm_90", lambda text: text.replace("wgmma.wait_group.sync.aligned 1", "wgmma.wait_group.sync.aligned 3"))
    assert any(f.kind == "wait" and "overwritten" in f.text for f in report.findings)


def test_missing_proxy_fence() -> None:
    report, wrong = matmul("sm_90", drop_all(r"fence\.proxy\.async"))
    assert kinds(report) == {"fence"} and wrong < 1e-6  # right here, luck on a GPU


def test_missing_store_wait() -> None:
    report, _ = matmul("sm_90", drop(r"cp\.async\.bulk\.wait_group\s+0", -1), tma=True)
    assert any("the block ends while a tensor store" in f.text for f in report.findings)


def test_conflict_between_blocks() -> None:
    body = """def racy(x, o, B: tl.constexpr):
    s = tl.sum(tl.load(x + tl.program_id(0) * B + tl.arange(0, B)), 0)
    tl.store(o, tl.load(o) + s)
"""
    kernel = kernels.custom(body, (Arg.pointer("x", f32), Arg.pointer("o", f32, "rw")), constexprs={"B": 128}, grid=(4,))
    tensors = {"x": np.ones(512, np.float32), "o": np.zeros(1, np.float32)}
    report = emulate_artifact(kernel, [compile_triton(kernel, "sm_80")], tensors)
    assert report.outputs["o"] == 512 and kinds(report) == {"conflict"}
    fixed = dataclasses.replace(kernel, source=kernel.source.replace("tl.store(o, tl.load(o) + s)", "tl.atomic_add(o, s)"))
    report = emulate_artifact(fixed, [compile_triton(fixed, "sm_80")], tensors)
    assert report.outputs["o"] == 512 and report.ok


def test_output_left_unwritten() -> None:
    x = np.ones(1000, np.float32)
    kernel = kernels.vadd()
    report = emulate_artifact(kernel, [compile_triton(kernel, "sm_80")], {"x": x, "y": x, "o": np.empty_like(x)}, {"n": 900})
    assert [f.text for f in report.findings] == ["output 'o' is not fully written: 400 bytes missing"]
