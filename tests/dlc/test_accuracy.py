"""dlc.tune.accuracy: distances from the exact values, relative and in units in the last place, at every edge."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from dlc.tune.accuracy import Error, error, tolerance, worst
from dsl.errors import ArgumentError

INF, NAN = math.inf, math.nan


def of(got: list[float], exact: list[float], dtype: torch.dtype = torch.float32) -> Error:
    return error(torch.tensor(got, dtype=dtype), np.array(exact, np.float64))


@pytest.mark.parametrize("dtype, eps",
                         [(torch.float32, 2.0**-23), (torch.float16, 2.0**-10), (torch.bfloat16, 2.0**-7), (torch.float64, 2.0**-52)])
def test_one_unit_in_the_last_place(dtype: torch.dtype, eps: float) -> None:
    e = of([1.0 + eps, 4.0], [1.0, 4.0], dtype)
    assert e.ulp == 1.0 and e.relative == eps / 4
    assert of([4.0 + 4 * eps], [4.0], dtype).ulp == 1.0


def test_equal_specials_are_no_error_and_others_are() -> None:
    assert of([INF, -INF, NAN, 0.0], [INF, -INF, NAN, -0.0]) == Error(0.0, 0.0)
    assert of([INF], [1e39]) == Error(0.0, 0.0)
    assert of([-INF], [1e39]).relative == INF
    assert math.isnan(of([NAN], [1.0]).relative) and math.isnan(of([NAN], [1.0]).ulp)


def test_zeros_and_tiny_values_count_in_the_smallest_step() -> None:
    assert of([2.0**-149], [0.0]).ulp == 1.0
    assert of([0.0], [0.0]) == Error()


def test_a_few_cancelled_elements_do_not_hide_the_rest() -> None:
    exact = np.ones(1000)
    exact[0] = 1e-12
    got = torch.ones(1000)
    got[0] = 1e-7
    assert error(got, exact).ulp == 0.0 and error(got, exact).relative == pytest.approx(1e-7, rel=1e-3)


def test_integers_differ_by_their_difference() -> None:
    e = error(torch.tensor([2**62, 5]), np.array([2**62 - 3, 5]))
    assert e.ulp == 3.0 and e.relative > 0
    assert error(torch.tensor([True, False]), np.array([True, False])) == Error()
    assert error(torch.tensor([True, False]), np.array([True, True])).ulp == 1.0


def test_empty_and_numpy_results() -> None:
    assert error(torch.empty(0, 3), np.empty((0, 3))) == Error()
    assert error(np.float32(1.5), np.array(1.5)) == Error()
    with pytest.raises(ArgumentError, match="peer has shape"):
        error(torch.zeros(2), np.zeros(3), "the peer")


def test_the_worst_of_several() -> None:
    assert worst([Error(1.0, 2.0), Error(0.5, 9.0)]) == Error(1.0, 9.0)
    assert worst([]) == Error()
    assert math.isnan(worst([Error(NAN, 0.0), Error(1.0, 0.0)]).relative)


def test_what_a_candidate_may_do_worse() -> None:
    assert tolerance(Error(1e-3), [torch.float32]) == 4e-3
    assert tolerance(Error(0.0), [torch.float32, torch.bfloat16]) == 8 * 2.0**-7
    assert tolerance(Error(0.0), [torch.int64]) == 0.0
