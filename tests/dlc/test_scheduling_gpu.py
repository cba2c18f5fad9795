"""Schedules by hand for GPUs: their Triton source in the checked interpreter, against the oracle."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from codegen.target import by_name
from dlc.gpu import parameter_names, triton_artifact
from dlc.runtime.arguments import torch_dtype
from dlc.runtime.triton_run import interpret
from tests.dlc.gpu_cases import column_extremes, conv_relu, matmul_bias_gelu, row_sums, softmax
from tests.dlc.test_gpu import interpreted
from tests.dlc.test_scheduling_random import CASES
from tests.schedules import Shuffler


def check(kernel, s, args, tolerance=1e-5):
    """The Triton source of a schedule computes the oracle's result."""
    exact = kernel.reference(*args)
    got = interpreted(kernel.with_schedule(s).plan(*args, target=by_name("sm_90")), args)
    for g, want in zip(got, exact if isinstance(exact, tuple) else (exact,)):
        np.testing.assert_allclose(g.astype(np.float64), want, rtol=tolerance, atol=tolerance * max(1.0, np.max(np.abs(want))),
                                   err_msg=f"{s}")


def check_padded(kernel, s, args):
    """The same where private regions reach past the end of their tensors: what lies there is read with its tile, and never kept."""
    plan = kernel.with_schedule(s).plan(*args, target=by_name("sm_90"))
    artifact, (inputs, outputs) = triton_artifact(plan), parameter_names(plan)
    tensors = dict(zip(inputs, args)) | {n: torch.empty([int(d) for d in t.shape], dtype=torch_dtype(t.dtype))
                                         for n, t in zip(outputs, plan.program.outputs)}
    report = interpret(artifact, tensors)
    assert all("before anything was written there" in f for f in report.findings), report.findings
    exact = kernel.reference(*args)
    for n, want in zip(outputs, exact if isinstance(exact, tuple) else (exact,)):
        np.testing.assert_allclose(report.outputs[n].astype(np.float64), want, rtol=1e-4, atol=1e-4 * max(1.0, np.max(np.abs(want))),
                                   err_msg=f"{s}")


def plain(kernel, *args):
    return kernel.schedule("sm_90", *args, default=False)


def test_a_product_with_an_epilogue():
    args = torch.randn(50, 37), torch.randn(37, 70), torch.randn(70)
    s = plain(matmul_bias_gelu, *args)
    product = next(t for t in s.nest.stages if t.kind == "reduce")
    for t in s.nest.stages[:-1]:
        if t.kind == "map":
            s.compute_inline(t.name)
    i, j, k = product.order
    out = s.nest.stages[-1].name
    s.stage(product.name).tile({i: 32, j: 32, k: 16}).grid(f"{i}.o", f"{j}.o").reverse_compute_at(out, f"{product.name}:{j}.o")
    names = s.nest[out].order
    s.vectorize(*(f"{out}:{x}" for x in names[-2:])).dot(f"{product.name}:{k}.i").pipeline(f"{product.name}:{k}.o", 2).warps(4).swizzle(2)
    text = s.source("triton")
    assert "tl.dot(" in text and "num_stages=2" in text and "groups of 2 rows" in text
    check(matmul_bias_gelu, s, args)


def test_rows_in_one_tile():
    args = (torch.randn(13, 50),)
    s = softmax.schedule("sm_90", *args).warps(2)
    check(softmax, s, args)


def test_padded_rows():
    args = (torch.randn(13, 50),)
    s = plain(row_sums, *args)
    i, k = s.nest.stages[0].order
    s.grid(i).pad(k, 64).vectorize(f"{k}.pad")
    check(row_sums, s, args)


def test_partial_sums():
    args = (torch.randn(5, 300),)
    s = plain(row_sums, *args)
    name = s.nest.stages[0].name
    i, k = s.nest.stages[0].order
    s.split_k(f"{name}:{k}", 4).stage(f"{name}.part").grid(f"{k}.o", i).split(f"{k}.i", 32).vectorize(f"{k}.i.i")
    check(row_sums, s, args)


def test_a_state_in_memory():
    args = (torch.randn(9, 20),)
    s = plain(column_extremes, *args)
    first = s.nest.stages[0].name
    j, k = s.nest[first].order
    s.stage(first).reorder(k, j).split(j, 8).vectorize(f"{j}.i")
    check(column_extremes, s, args)


def test_a_convolution():
    args = torch.randn(1, 5, 9, 7), torch.randn(7, 5, 3, 3), torch.randn(7)
    s = conv_relu.schedule("sm_90", *args)
    check(conv_relu, s, args)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("name", ["matmul + bias + gelu", "softmax", "chain", "scan", "extremes"])
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_random_schedules(name, seed):
    kernel, shapes = CASES[name]
    rng = np.random.default_rng(seed)
    args = [torch.from_numpy(rng.standard_normal(s).astype(np.float32)) for s in shapes]
    x = Shuffler(kernel.schedule("sm_90", *args, default=seed % 2 == 0), seed)
    check_padded(kernel, x.run(10), args)
