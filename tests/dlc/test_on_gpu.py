"""``pytest -m gpu``: on a real GPU, every case computes what its definition says. Skipped without one."""

from __future__ import annotations

import pytest
import torch

from codegen.target import TARGETS, by_name
from dlc.gpu_launch import GpuLauncher
from dlc.runtime.arguments import as_tensor
from dlc.runtime.triton_run import device_target, to_numpy
from dlc.tune.accuracy import allowed_error, error, worst
from dsl.interp import evaluate
from tests.dlc.gpu_cases import CASES
from tests.dlc.gpu_sweep import SWEEP


@pytest.mark.gpu
@pytest.mark.parametrize("name", [*CASES, *SWEEP])
def test_on_the_device(name: str) -> None:
    target = device_target("cuda")
    if target not in TARGETS or (target == "sm_80" and ("f8e4m3" in name or "float8" in name)):
        pytest.skip(f"{name} has no instructions on {target}")
    torch.manual_seed(0)
    kernel, make = {**CASES, **SWEEP}[name]
    tensors = [as_tensor(a, t) for a, t in zip(make(), kernel.program.inputs)]
    results = GpuLauncher(kernel.plan(*tensors, target=by_name(target)))([t.cuda() for t in tensors])
    arrays = [to_numpy(t) for t in tensors]
    exact = evaluate(kernel.program, *arrays, float64=True)
    assert worst(error(got, e) for got, e in zip(results, exact)).relative <= allowed_error(kernel.program, arrays, exact)
