"""Unit axes leave intermediate definitions, and nothing else changes."""

import numpy as np
import pytest

import dlc
from dlc import f32, i64
from dsl.interp import evaluate
from dsl.units import squeeze

M, N = dlc.dims("M N")


@dlc.kernel
def softmax(x: f32[M, N]):
    return dlc.softmax(x, 1)


@dlc.kernel
def centred(x: f32[M, N]):
    mean = dlc.mean(x, 1, keepdim=True)
    return x - mean, mean


@dlc.kernel
def looked_up(x: f32[M, N], at: i64[M]):
    top = dlc.max(x, 0, keepdim=True)
    return dlc.compute((M,), lambda i: top[at[i], 0])


def special(kernel, *arrays):
    return kernel.specialized(*arrays)


def test_kept_dimensions_go():
    x = np.random.default_rng(0).standard_normal((5, 7)).astype(np.float32)
    program = special(softmax, x)
    assert any(len(c.axes) == 2 and int(c.axes[1].extent) == 1 for c in program.computes)
    after = squeeze(program)
    assert all(int(a.extent) > 1 for c in after.computes for a in c.axes)
    np.testing.assert_array_equal(evaluate(after, x)[0], evaluate(program, x)[0])


def test_outputs_keep_their_shape():
    x = np.random.default_rng(0).standard_normal((5, 7)).astype(np.float32)
    program = special(centred, x)
    after = squeeze(program)
    assert [tuple(map(int, t.shape)) for t in after.outputs] == [(5, 7), (5, 1)]
    for a, b in zip(evaluate(after, x), evaluate(program, x)):
        np.testing.assert_array_equal(a, b)


def test_a_dimension_indexed_by_data_stays():
    x = np.random.default_rng(0).standard_normal((5, 7)).astype(np.float32)
    program = special(looked_up, x, np.zeros(5, np.int64))
    after = squeeze(program)
    np.testing.assert_array_equal(evaluate(after, x, np.zeros(5, np.int64))[0], np.full(5, x[:, 0].max()))


@pytest.mark.parametrize("shape", [(1, 1), (1, 6), (6, 1)])
def test_unit_sizes_of_the_arguments(shape):
    x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    program = special(softmax, x)
    np.testing.assert_array_equal(evaluate(squeeze(program), x)[0], evaluate(program, x)[0])
