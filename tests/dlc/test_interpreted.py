"""What the guarded interpreter notices: strays, gaps, undefined reads, conflicts between programs; and where it mends Triton's own."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from codegen.artifact import Arg, TritonKernel
from dlc.runtime.interpreted_memory import Buffer, Memory
from dlc.runtime.triton_run import interpret
from dsl.dtype import bf16, f16, f32, f64, i32


def buffer(name: str = "x", size: int = 16, *, gaps: bool = False, writable: bool = True, defined: bool = True) -> Buffer:
    own = np.ones(size, bool)
    own[4:8] = not gaps
    return Buffer(name, np.arange(size, dtype=np.uint8), own, writable, np.full(size, defined))


def access(memory: Memory, at: list[int], action: str, size: int = 4, program: int = 0) -> list[bool]:
    memory.program = program
    address = np.array([memory.buffers[0].base + a for a in at], np.uint64)
    return memory.access(address, size, np.ones(len(at), bool), action).tolist()


def test_lanes_out_of_bounds_are_found_and_left_out() -> None:
    memory = Memory([buffer()])
    assert access(memory, [0, 12, 16, -4, 14], "load") == [True, True, False, False, False]
    assert list(memory.findings) == ["load out of bounds: 4 bytes at byte 16 of 'x', which has 16 (and 2 more lanes); program 0"]


@pytest.mark.parametrize("made, action, says", [
    (buffer(gaps=True), "load", "load between the elements of 'x', byte 4"),
    (buffer(defined=False), "load", "load of 'x' before anything was written there"),
    (buffer(writable=False), "store", "store into 'x', which is declared read-only")])
def test_accesses_that_are_in_bounds_and_wrong(made: Buffer, action: str, says: str) -> None:
    memory = Memory([made])
    access(memory, [4], action)
    assert next(iter(memory.findings)).startswith(says)


@pytest.mark.parametrize("first, second, found", [
    ("store", "store", True), ("store", "load", True), ("load", "store", True), ("load", "load", False), ("atomic", "atomic", False),
    ("atomic", "load", True)])
def test_conflicts_between_programs_of_one_launch(first: str, second: str, found: bool) -> None:
    memory = Memory([buffer()])
    access(memory, [8], first, program=0)
    access(memory, [8], second, program=0)
    assert not memory.findings, "a program has no conflict with itself"
    access(memory, [8], second, program=1)
    assert bool(memory.findings) == found
    again = Memory([buffer()])
    access(again, [8], first, program=0)
    again.begin_launch()
    access(again, [8], second, program=1)
    assert not again.findings, "a launch is ordered after the one before it"


def run(body: str, tensors: dict[str, Any], dtypes: dict[str, Any]) -> dict[str, Any]:
    lines = "\n".join(f"    {line}" for line in body.splitlines())
    source = f"import triton\nimport triton.language as tl\n\n\n@triton.jit\ndef k({', '.join(tensors)}):\n{lines}\n"
    args = tuple(Arg.pointer(n, dtypes[n], "w" if n == "out" else "r") for n in tensors)
    report = interpret(TritonKernel("k", source, args), tensors)
    assert report.ok, report.findings
    return report.outputs


def test_a_fused_product_and_sum_is_rounded_once() -> None:
    for dtype, kind in ((f32, np.float32), (f64, np.float64)):
        e = np.finfo(kind).eps
        a = np.full(4, 1 + e, kind)
        exact = run("i = tl.arange(0, 4)\nx = tl.load(a + i)\ntl.store(out + i, tl.fma(x, x, -(x * x)))",
                    {"a": a, "out": np.empty(4, kind)}, {"a": dtype, "out": dtype})["out"]
        assert exact[0] == kind(e) ** 2, "what the product rounded away, and not 0"


def test_a_comparison_of_scalars_is_a_truth_value_when_it_is_repeated() -> None:
    got = run("i = tl.arange(0, 4)\ns = tl.load(a)\nx = tl.load(a + i)\ntl.store(out + i, tl.where((s == 1.0) | (x > 2.0), 1.0, 0.0))",
              {"a": np.array([0, 1, 2, 3], np.float32), "out": np.empty(4, np.float32)}, {"a": f32, "out": f32})["out"]
    assert got.tolist() == [0, 0, 0, 1]


@pytest.mark.parametrize("dtype, kind", [(bf16, torch.bfloat16), (f16, torch.float16)])
def test_narrow_floats_are_computed_as_numbers_and_rounded_to_even(dtype: Any, kind: torch.dtype) -> None:
    a = torch.randn(64).to(kind)
    out = torch.empty(64, dtype=kind)
    got = run("i = tl.arange(0, 64)\nx = tl.load(a + i)\ntl.store(out + i, x * x + x)",
              {"a": a, "out": out}, {"a": dtype, "out": dtype})["out"]
    wide = a.float()
    torch.testing.assert_close(torch.from_numpy(got.astype(np.float32)), (wide * wide + wide), rtol=2e-2, atol=1e-2)
    same = run("i = tl.arange(0, 64)\ntl.store(out + i, (tl.load(a + i) * 1.001).to(tl.bfloat16))" if dtype is bf16 else
               "i = tl.arange(0, 64)\ntl.store(out + i, (tl.load(a + i).to(tl.float32) * 1.001).to(tl.float16))",
               {"a": a.float() if dtype is bf16 else a, "out": out}, {"a": f32 if dtype is bf16 else f16, "out": dtype})["out"]
    np.testing.assert_array_equal(same.astype(np.float32), (a.float() * 1.001).to(kind).float().numpy())


def test_masked_lanes_without_a_value_are_garbage_and_not_zero() -> None:
    got = run("i = tl.arange(0, 4)\ntl.store(out + i, tl.load(a + i, mask=i < 2))",
              {"a": np.array([5, 6, 7, 8], np.int32), "out": np.empty(4, np.int32)}, {"a": i32, "out": i32})["out"]
    assert got[:2].tolist() == [5, 6] and 0 not in got[2:].tolist() and not {7, 8} & set(got[2:].tolist())
