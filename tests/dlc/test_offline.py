"""Tuning for a GPU that is not here: what is refused and why, what is kept and found again, what the model says."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import numpy as np
import pytest
import torch

import dlc
from codegen.target import by_name
from dlc import f16, f32, gpu_model, records
from dlc.gpu import GpuCompilation
from dlc.kernel import Kernel
from dlc.tune.offline import small_work
from dsl.errors import ArgumentError
from dsl.portable import loads
from tests.dlc.gpu_cases import softmax

M, N, K = dlc.dims("M N K")


@dlc.kernel
def product(x: f16[M, K], w: f16[K, N]):
    return x @ w


def meta(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.empty(*shape, dtype=dtype, device="meta")


def halves(m: int, k: int, n: int) -> tuple[torch.Tensor, torch.Tensor]:
    return meta(m, k, dtype=torch.float16), meta(k, n, dtype=torch.float16)


def compiled(kernel: Kernel, target: str, *args: Any, **decisions: Any) -> GpuCompilation:
    changed = Kernel.of(kernel.program)
    changed.decisions = {n.replace("__", "."): v for n, v in decisions.items()}
    return changed.compile(target, *args)


def test_search(cache_dir, tmp_path):
    args = (meta(64, 2000),)
    report = softmax.tune(*args, target="sm_90", budget=12, candidates=2, progress=False)
    assert 1 <= len(report.history) <= 3 and report.emulated and report.history[0].least > 0
    assert json.loads(json.dumps(report.as_dict()))["target"] == "sm_90" and "no GPU was asked" in str(report)
    found = records.find(report.record.key)
    assert found is not None and found.reasons["0"] and not found.confirmed and found.key.machine == ""
    plan = softmax.plan(*args, target=by_name("sm_90"))
    assert (plan.tile and plan.record == found
            and {c.name: c.value for c in plan.decisions.made.values()} == {c.name: c.value for c in report.best.choices})
    assert softmax.plan(*args, target=by_name("sm_80")).record is None
    assert records.export(tmp_path / "all.json") == 1 and records.remove(found.key)
    assert records.import_(tmp_path / "all.json") == 1 and records.find(found.key) == found


def test_no_peer_on_a_gpu_that_is_not_here():
    with pytest.raises(ArgumentError, match="peer"):
        softmax.tune(meta(64, 200), target="sm_90", against=torch.softmax)


def test_small_sizes_keep_ragged_edges():
    request = dataclasses.replace(product.plan(*halves(4096, 777, 1000), target=by_name("sm_90")).request)
    work, _ = small_work(request)
    (m, k), (_, n) = work.shapes
    assert m * k <= 1 << 15 and k * n <= 1 << 15 and k % 2 == 1 and m > 16
    assert loads(work.program).name == "product"


# -- the model -----------------------------------------------------------------------------------------------------
def test_a_large_product_is_bound_by_the_matrix_unit():
    plan = product.plan(*halves(4096, 4096, 4096), target=by_name("sm_90"))
    made = GpuCompilation(plan)
    (e,) = made.estimates
    assert e.binds == "matrix" and not made.spills
    peak = dict(by_name("sm_90").peak)["f16"]
    assert 2 * 4096**3 / peak <= e.seconds <= 1.3 * 2 * 4096**3 / peak
    assert "bound" in str(made) and json.loads(made.to_json())["estimates"][0]["binds"] == "matrix"
    (before,) = gpu_model.supposed(plan.tile, plan.request.target)
    assert np.isclose(before.parts["matrix"], e.parts["matrix"], rtol=0.5) and np.isclose(before.dram, e.dram, rtol=0.5)


def test_a_softmax_is_bound_by_memory():
    (e,) = softmax.compile("sm_80", meta(8192, 4096)).estimates
    assert e.binds == "DRAM" and np.isclose(e.dram, 2 * 8192 * 4096 * 4)


def test_small_tiles_ask_for_more_of_the_cache():
    args = halves(2048, 2048, 2048)
    small, large = (compiled(product, "sm_80", *args, matmul__tile=tile).estimates[0] for tile in ((64, 32), (128, 128)))
    assert small.parts["L2"] > 2 * large.parts["L2"] and small.seconds > large.seconds


def test_a_last_wave_costs_a_whole_one():
    full, over = (gpu_model.supposed(product.plan(*halves(128 * n, 2048, 1024), target=by_name("sm_80")).tile, by_name("sm_80"))[0]
                  for n in (108, 109))
    assert full.fill == 1.0 and over.fill < 0.9 and over.waves == full.waves + 1


def test_what_cannot_be_fast_is_refused():
    made = compiled(product, "sm_80", *halves(2048, 2048, 2048), matmul__tile=(64, 128), matmul__warps=1, matmul__depth=16)
    assert "spills" in (gpu_model.refusal([k.resources for k in made.kernels]) or "")
    good = softmax.compile("sm_80", meta(64, 64)).kernels[0].resources
    assert gpu_model.refusal([good]) is None
    assert "cannot be launched" in (gpu_model.refusal([dataclasses.replace(good, refusal="too much")]) or "")
    assert "C7511" in (gpu_model.refusal([dataclasses.replace(good, advice=("(C7511) serialized",))]) or "")


def test_saved_files(tmp_path):
    made = product.compile("sm_90", *halves(64, 64, 64))
    names = {p.name for p in made.save(tmp_path / "out")}
    assert names == {"product.py", "product.asm", "product.json", "product.launch.json", "product.txt", "product.ptx", "product.cubin"}
    facts = json.loads((tmp_path / "out" / "product.launch.json").read_text())
    (k,) = facts["kernels"]
    assert ([p["name"] for p in k["parameters"]] == ["x", "w", "matmul"] and k["threads"] % 32 == 0
            and facts["outputs"][0]["shape"] == [64, 64])
    assert (tmp_path / "out" / k["file"]).read_bytes()[:4] == b"\x7fELF"


def test_precision_is_part_of_the_definition():
    @dlc.kernel
    def fast(x: f32[M, K], w: f32[K, N]):
        return dlc.matmul(x, w, precision="tf32")

    args = (meta(256, 128), meta(128, 256))
    assert fast.compile("sm_80", *args).kernels[0].resources.matrix_instructions > 0
    assert ('input_precision="tf32"' in fast.source("sm_90", *args)
            and 'input_precision="tf32"' in fast.vjp.source("sm_90", *args, meta(256, 256)))
    x, w = torch.randn(33, 40), torch.randn(40, 35)
    seen = dlc.emulate(fast, x, w, target="sm_80")
    assert seen.ok and seen.error.relative > 1e-5  # the rounding that was permitted shows
    torch.testing.assert_close(fast(x, w), x @ w)  # a CPU does not use the permission
