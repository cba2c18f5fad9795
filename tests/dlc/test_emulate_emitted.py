"""Kernels from our own emitter: the PTX made of them computes what the tile interpreter computes, without a finding."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from codegen.emit.triton import emit_triton, size_names
from codegen.tile.interp import run
from codegen.tile.memory import NUMPY
from dlc.emulate import emulate_artifact
from dlc.runtime.triton_compile import compile_triton
from tests.codegen.tile_programs import CASES, Case


def tensors_of(case: Case) -> dict[str, Any]:
    """The arguments of a case's artifact, views with their strides."""
    found: dict[str, Any] = {}
    for b in case.program.buffers:
        shape = tuple(int(s.eval(case.sizes)) for s in b.shape)
        if b.scope == "output":
            found[b.name] = np.empty(shape, NUMPY[b.dtype])
        elif b.scope == "input":
            given = np.asarray(case.arrays[b.name])
            strides = [int(s.eval(case.sizes)) * given.itemsize for s in b.strides]
            found[b.name] = given if given.shape == shape else np.lib.stride_tricks.as_strided(given, shape, strides)
    return found


@pytest.mark.parametrize("target", ["sm_80", "sm_90"])
@pytest.mark.parametrize("name", CASES)
def test_agrees_with_the_tile_interpreter(name: str, target: str) -> None:
    case = CASES[name](np.random.default_rng(0))
    artifact = emit_triton(case.program)
    tensors = tensors_of(case)
    if artifact.error:
        tensors[artifact.error] = np.zeros(1, np.int32)
    names = size_names(case.program)
    codes = [compile_triton(kernel, target) for kernel in artifact.kernels]
    report = emulate_artifact(artifact, codes, tensors, {names[v]: n for v, n in case.sizes.items()})
    assert report.ok, report
    for output, want in run(case.program, case.arrays, case.sizes).items():
        np.testing.assert_allclose(report.outputs[output].astype("f8"), want.astype("f8"), rtol=1e-4, atol=1e-4, err_msg=output)
