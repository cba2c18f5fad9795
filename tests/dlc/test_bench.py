"""dlc.bench: both sides measured, warm and cold, with their errors; figures that add up; peers that do not fit are told."""

from __future__ import annotations

import json

import pytest
import torch

import dlc
from dlc import f32
from dsl.errors import ArgumentError, UserError

M, N, K = dlc.dims("M N K")


@dlc.kernel
def product(x: f32[M, K], w: f32[K, N]):
    return x @ w


@dlc.kernel
def both(x: f32[M, N], s: f32):
    return x * s, dlc.sum(x, 1)


def test_figures_add_up() -> None:
    x, w = torch.randn(48, 32), torch.randn(32, 40)
    r = product.bench(x, w, against=torch.matmul, budget=0.4)
    assert r.flops == 2 * 48 * 32 * 40 and r.bytes == 4 * (48 * 32 + 32 * 40 + 48 * 40)
    assert set(r.warm) == set(r.cold) == set(r.exactness) == {"dlc", "peer"} and set(r.ratios) == {"warm", "cold"}
    assert all(0 < e.relative < 1e-6 for e in r.exactness.values())
    assert r.limits is not None and r.limits.threads == r.threads == torch.get_num_threads()
    plain = json.loads(json.dumps(r.as_dict()))
    ours = plain["seconds"]["warm"]["dlc"]
    assert ours["gflops"] == pytest.approx(r.flops / ours["median"] / 1e9) and ours["p25"] <= ours["median"] <= ours["p75"]
    assert 0 < ours["share_of_limit"] < 1.5
    assert plain["ratios"]["warm"]["median"] == r.ratio
    assert [row.data for row in r.rows] == ["ordinary", "offset", "cancel", "denormal", "extreme"]
    assert all(set(row["errors"]) == {"dlc", "peer"} and row["errors"]["dlc"]["relative"] <= row["bound"] for row in plain["data"].values())
    text = str(r)
    assert all(name in text for name in ("errors against float64", "ulp", "bound", "extreme"))
    assert "x: f32[48, 32]" in text and "peer / dlc, cold" in text and all(len(line) <= 140 for line in text.splitlines())


def test_errors_on_the_data_that_is_named() -> None:
    r = product.bench(torch.randn(8, 8), torch.randn(8, 8), budget=0.05, limits=False, data="cancel,offset")
    assert [row.data for row in r.rows] == ["cancel", "offset"] and list(r.as_dict()["data"]) == ["cancel", "offset"]
    assert r.exactness == r.rows[0].errors and "cancel" in str(r) and "ordinary" not in str(r)
    with pytest.raises(ArgumentError, match="no data of the kind 'huge'"):
        product.bench(torch.randn(8, 8), torch.randn(8, 8), budget=0.05, data="huge")


def test_one_state_and_a_number_of_threads() -> None:
    before = torch.get_num_threads()
    r = product.bench(torch.randn(8, 8), torch.randn(8, 8), cold=True, budget=0.05, threads=1, limits=False)
    assert r.threads == 1 and not r.warm and r.ratio is None and r.limits is None and torch.get_num_threads() == before
    assert r.as_dict()["seconds"]["cold"]["dlc"]["share_of_limit"] is None


def test_several_results_and_scalars() -> None:
    r = dlc.bench(both, torch.randn(8, 9), 3.0, against=lambda x, s: (x * s, x.sum(1)), budget=0.05)
    assert r.arguments == ("x: f32[8, 9]", "s: f32") and r.errors["dlc"] < 1e-6
    with pytest.raises(ArgumentError, match="1 results, the definition 2"):
        dlc.bench(both, torch.randn(8, 9), 3.0, against=lambda x, s: x * s, budget=0.05)


def test_peers_that_do_not_fit() -> None:
    x, w = torch.randn(8, 8), torch.randn(8, 8)
    with pytest.raises(UserError, match=r"result of peer has shape \(8,\)"):
        product.bench(x, w, against=lambda x, w: x[0], budget=0.05)
    r = product.bench(x, w, against=lambda x, w: x.nothing, budget=0.05, limits=False)
    assert "nothing" in r.failures["peer"] and r.ratio is None and not r.warm["peer"].ok
    assert "failed" in str(r)
    with pytest.raises(ArgumentError, match="budget"):
        product.bench(x, w, budget=0)
