"""The steps of a compilation, each with its time: all are there, in order, and they add up."""

import time

import pytest
import torch

import dlc
from codegen.pipelines import passes_of
from codegen.target import by_name
from dlc import errors, f32
from dlc.runtime.device import host_target
from dlc.timings import STEPS, Timings

M, N = dlc.dims("M N")


@dlc.kernel
def normalized(x: f32[M, N]):
    return dlc.softmax(x, 1)


def test_every_step_from_the_sizes_to_machine_code():
    started = time.perf_counter()
    t = normalized.timings(torch.randn(5, 40))
    elapsed = time.perf_counter() - started
    passes = [p.name for p in passes_of(host_target())]
    assert list(t.steps) == ["import", "bind", "stage", "schedule", "lower", *passes, "verify", "emit", "llvm parse", "llvm sroa",
                             "llvm new_gvn", "llvm instruction_combine", "machine code", "load"]
    assert all(s >= 0 for s in t.steps.values()) and t.steps["machine code"] > 0 and sum(t.steps.values()) <= elapsed
    assert t.seconds == pytest.approx(sum(t.steps.values()) - t.steps["import"])
    assert t.name == "normalized" and t.target == host_target().name and t.sizes["text"] > 1000 and t.sizes["code"] > 500


def test_nothing_is_taken_from_the_disk_cache(cache_dir):
    normalized(torch.randn(5, 40))
    assert normalized.timings(torch.empty(5, 40, device="meta")).steps["machine code"] > 0


def test_for_a_gpu_and_for_a_cpu_that_are_not_here():
    t = normalized.timings(torch.empty(5, 40, device="meta"), target=by_name("sm_90"))
    assert [n.split()[0] for n in t.steps][-2:] == ["emit", "triton"]
    assert "load" not in t.steps and "llvm parse" not in t.steps and t.sizes["code"] > 500
    arm = normalized.timings(torch.empty(5, 40, device="meta"), target=by_name("aarch64-neon"))
    assert "machine code" in arm.steps and "load" not in arm.steps


def test_every_step_has_a_meaning_and_the_import_is_no_part_of_the_whole():
    t = Timings("k", "a", {"import": 3.0, "bind": 0.5, "llvm parse": 0.25, "llvm sroa": 0.25}, {"text": 10, "code": 4})
    assert str(t).splitlines() == [
        "k for a: compiled in 1000.0 ms (10 bytes of text, 4 bytes of code)",
        f"  import      3000.00 ms       {STEPS['import']}",
        f"  bind         500.00 ms  50%  {STEPS['bind']}",
        f"  llvm parse   250.00 ms  25%  {STEPS['llvm parse']}",
        f"  llvm sroa    250.00 ms  25%  {STEPS['llvm']}",
    ]
    assert t.as_dict() == {"name": "k", "target": "a", "seconds": 1.0, "steps": dict(t.steps), "sizes": {"text": 10, "code": 4}}


def test_what_does_not_compile_is_the_error_it_always_is():
    with pytest.raises(errors.ShapeError):
        normalized.timings(torch.randn(5))
