"""Errors by kind of data: every side on the same inputs, what takes long left out unless it is named, one table."""

import pytest
import torch

import dlc
from dlc import f32
from dlc.tune import exactness
from dlc.tune.bounds import Bound
from dlc.tune.exactness import Row, as_dict, compare, study, table
from dsl.errors import ArgumentError

M, N = dlc.dims("M N")


@dlc.kernel
def variance(x: f32[M, N]):
    return dlc.var(x, axis=1)


def textbook(x: torch.Tensor) -> torch.Tensor:
    """E[x^2] - E[x]^2, which cancels."""
    n = x.shape[1]
    return ((x * x).mean(1) - x.mean(1) ** 2) * n / (n - 1)


def studied(data, patience=60.0):
    x = torch.randn(4, 300, generator=torch.Generator().manual_seed(0))
    return study(variance.plan(x), (x,), variance.reference, {"dlc": variance, "peer": textbook}, data, patience)


def test_a_large_offset_tells_a_good_algorithm_from_a_bad_one() -> None:
    rows, notes = studied("ordinary,offset")
    ordinary, offset = rows
    assert [r.data for r in rows] == ["ordinary", "offset"] and not notes
    assert all(e.relative < 1e-5 for e in ordinary.errors.values())
    assert offset.errors["peer"].relative > 100 * offset.errors["dlc"].relative and offset.errors["peer"].ulp > 1000
    assert all(r.bound.relative is not None and r.errors["dlc"].relative <= r.bound.relative for r in rows)


def test_what_takes_long_is_left_out_unless_it_is_named() -> None:
    rows, notes = studied(None, patience=0.0)
    assert [r.data for r in rows] == ["ordinary"] and rows[0].bound.relative is None
    assert notes[0].startswith("no errors on data of the kinds offset, cancel, denormal, extreme: float64 took")
    rows, notes = studied("all", patience=0.0)
    assert len(rows) == 5 and not notes and all(r.bound.relative is not None for r in rows)


def test_sides_that_raise_and_sides_that_do_not_fit() -> None:
    x = torch.ones(2, 3)
    exact = (torch.ones(2).double().numpy(),)

    def broken(x):
        raise RuntimeError("no")

    errors, failures = compare({"dlc": lambda x: x[:, 0], "peer": broken}, (x,), exact)
    assert errors["dlc"].relative == 0 and failures == {"peer": "RuntimeError: no"}
    with pytest.raises(RuntimeError):
        compare({"dlc": broken}, (x,), exact)
    with pytest.raises(ArgumentError, match="2 results, the definition 1"):
        compare({"peer": lambda x: (x, x)}, (x,), exact)
    with pytest.raises(ArgumentError, match="result of peer has shape"):
        compare({"peer": lambda x: x}, (x,), exact)


def test_the_table_and_the_plain_data() -> None:
    e = exactness.Error(1.5e-7, 0.5)
    rows = [Row("ordinary", {"default": e, "tuned": e}, Bound(2e-6), "tuned", {"peer": "RuntimeError: no"}),
            Row("offset", {"dlc": e}, Bound(None, "so"))]
    text = exactness.shown(table(rows, "errors"))
    assert [line.split() for line in text.splitlines()][2:] == [
        ["ordinary", "default", "1.5e-07", "0.5"], ["tuned", "1.5e-07", "0.5", "2.0e-06"], ["peer", "RuntimeError:", "no"],
        ["offset", "dlc", "1.5e-07", "0.5", "-"]]
    assert as_dict(rows)["ordinary"] == {"errors": {"default": {"relative": 1.5e-7, "ulp": 0.5}, "tuned": {"relative": 1.5e-7, "ulp": 0.5}},
                                         "bound": 2e-6, "why_no_bound": "", "failures": {"peer": "RuntimeError: no"}}
    assert exactness.remarks(rows) == ["no bound: so"]
