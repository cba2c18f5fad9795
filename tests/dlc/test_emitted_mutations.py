"""Mistakes an emitter could make, planted into its own sources: each must show under emulation, as a finding or as wrong numbers."""

from __future__ import annotations

import dataclasses
import re

import numpy as np
import pytest
import torch

from codegen.target import by_name
from dlc.emulate import emulate_artifact
from dlc.gpu import parameter_names, triton_artifact
from dlc.gpu_check import bind
from dlc.runtime.triton_compile import compile_triton
from dlc.tune.accuracy import error
from tests.dlc.gpu_cases import CASES

# case, what is found in the source of its first kernel, what stands there instead
MUTATIONS = {
    "a load without its mask": ("softmax", r"tl\.load\((.*?), mask=.*?\)$", r"tl.load(\1)"),
    "a store without its mask": ("chain", r"(tl\.store\(.*?), mask=[^\n]*\)$", r"\1)"),
    "another stride": ("matmul + bias + gelu", r"\* 37\b", "* 36"),
    "rows and columns exchanged": ("transposed", r"\* 45\b", "* 1"),
    "an accumulator that forgets": ("matmul + bias + gelu", r"tl\.dot\((\w+), (\w+), acc,", r"tl.dot(\1, \2,"),
    "a maximum in the place of a sum": ("softmax", r"tl\.sum\(", "tl.max("),
    "one round too few": ("matmul + bias + gelu", r"in range\(0, (\d+)\)", lambda m: f"in range(0, {int(m[1]) - 1})"),
    "a neutral element that is not": ("column extremes", r"float\(['\"]-inf['\"]\)", "0.0"),
}


@pytest.mark.parametrize("name", MUTATIONS)
def test_is_caught(name: str) -> None:
    case, pattern, new = MUTATIONS[name]
    torch.manual_seed(0)
    kernel, make = CASES[case]
    args = make()
    args = tuple(a - 5.0 for a in args) if name.startswith("a neutral") else args  # so that zero would win
    plan = kernel.plan(*args, target=by_name("sm_80"))
    artifact = triton_artifact(plan)
    first, *rest = artifact.kernels
    source = re.sub(pattern, new, first.source, flags=re.M)
    assert source != first.source, first.source
    changed = dataclasses.replace(artifact, kernels=(dataclasses.replace(first, source=source), *rest))
    report = emulate_artifact(changed, [compile_triton(k, "sm_80") for k in changed.kernels], bind(plan, artifact, args), limit=200_000)
    exact = kernel.reference(*args)
    wrong = [n for n, e in zip(parameter_names(plan)[1], exact if isinstance(exact, tuple) else (exact,))
             if not error(report.outputs[n].astype(np.float64), np.asarray(e)).relative < 1e-5]
    assert report.findings or wrong
