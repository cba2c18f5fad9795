"""Masks of which a register's worth of lanes is off in every run, beside conditions on the whole tile."""

import re

import numpy as np
import pytest

import dlc
from dlc import f32, f64
from dsl.interp import evaluate


def kernels(dtype, n):
    @dlc.kernel
    def total(x: dtype[n]):
        r = dlc.reduce_axis(n)
        return dlc.compute((5,), lambda i: dlc.sum(dlc.where((4 - i < 1) & ((5 * r + 5) // 6 >= 5), x[r], 0.0), r))

    @dlc.kernel
    def last(x: dtype[4, n]):
        return dlc.compute((4, n), lambda i, j: dlc.where((i >= 2) & (j >= n - 1), x[i, j], 0.0))

    @dlc.kernel
    def mirrored(x: dtype[4, n]):
        return dlc.compute((4, n), lambda i, j: dlc.where((i >= 2) & (j >= n - 1), x[i, n - 1 - j], 0.0))

    return total, last, mirrored


@pytest.mark.parametrize("dtype", [f32, f64])
@pytest.mark.parametrize("n", [6, 9, 17])
def test_a_register_that_is_off_in_every_run(dtype, n):
    kind = {"f32": np.float32, "f64": np.float64}[dtype.name]
    for kernel in kernels(dtype, n):
        shape = [int(s.const) for s in kernel.program.inputs[0].shape]
        x = np.arange(1, 1 + np.prod(shape)).reshape(shape).astype(kind)
        np.testing.assert_array_equal(kernel(x), evaluate(kernel.program, x)[0])


def test_registers_that_are_never_there_have_no_code():
    @dlc.kernel
    def windows(x: f32[1, 8, 10, 10], w: f32[16, 8, 3, 3]):
        return dlc.conv2d(x, w, padding=1)

    x, w = np.ones((1, 8, 10, 10), np.float32), np.ones((16, 8, 3, 3), np.float32)
    text = windows.plan(x, w).module.text
    assert not re.search(r"icmp sge i64 -\d+, 0", text)  # a condition that is known to fail
    np.testing.assert_array_equal(windows(x, w), evaluate(windows.program, x, w)[0])
