"""Random legal schedules of programs of every kind: the oracle's results, on the CPU and as tile programs."""

from __future__ import annotations

import numpy as np
import pytest

import dlc
from codegen.heuristics.registers import fit_registers
from codegen.lower import lower
from codegen.tile.interp import run
from dlc import f32
from dlc.kernel import Kernel
from dlc.runtime.device import host_target
from dsl.interp import evaluate
from dsl.replay import replay
from tests.schedules import Shuffler
from tests.strategies import random_case

M, N, K, C = dlc.dims("M N K C")
RNG = np.random.default_rng(1)


@dlc.kernel
def matmul_bias_gelu(x: f32[M, K], w: f32[N, K], b: f32[N]):
    """A product and its epilogue."""
    k = dlc.reduce_axis(K)
    y = dlc.compute((M, N), lambda i, j: dlc.sum(x[i, k] * w[j, k], k), name="y")
    return dlc.gelu(y + b)


@dlc.kernel
def softmax(x: f32[M, N]):
    """Two reductions of a row."""
    return dlc.softmax(x, 1)


@dlc.kernel
def conv(x: f32[2, C, M, N], w: f32[3, C, 3, 3]):
    """Strided and padded."""
    return dlc.relu(dlc.conv2d(x, w, None, stride=2, padding=1))


@dlc.kernel
def moments(x: f32[M, N], w: f32[N]):
    """Several values of state."""
    return dlc.layer_norm(x, w, None)


@dlc.kernel
def extremes(x: f32[M, N]):
    """Positions and values."""
    return dlc.argmax(x, 1), dlc.logsumexp(x, 0)


@dlc.kernel
def prefixes(x: f32[M, N]):
    """Scans."""
    return dlc.cumsum(dlc.tanh(x), 1) * 2.0


@dlc.kernel
def chain(x: f32[M, N], y: f32[N]):
    """Elementwise, and a stencil."""
    e = dlc.compute((M, N), lambda i, j: dlc.tanh(x[i, j]) * y[j], name="e")
    return dlc.compute((M, N - 1), lambda i, j: e[i, j] - e[i, j + 1], name="d"), dlc.compute((M,), lambda i: e[i, 0] + 1.0, name="f")


CASES = {
    "matmul + bias + gelu": (matmul_bias_gelu, ((7, 10), (9, 10), (9,))), "softmax": (softmax, ((5, 13),)),
    "conv": (conv, ((2, 2, 5, 7), (3, 2, 3, 3))), "layer norm": (moments, ((6, 11), (11,))), "extremes": (extremes, ((6, 9),)),
    "scan": (prefixes, ((4, 11),)), "chain": (chain, ((5, 9), (9,))),
}


def check(kernel, arrays, seed, steps, tolerance=1e-4):
    """The kernel by a random schedule agrees with the oracle, and so does its tile program."""
    start = kernel.schedule("cpu", *arrays, default=seed % 3 == 0)
    x = Shuffler(start, seed)
    s = x.run(steps)
    plain = kernel.plan(*arrays).unscheduled
    nest = fit_registers(replay(plain, s.steps), host_target())
    wants = evaluate(kernel.program, *arrays)
    got = kernel.with_schedule(s)(*arrays)
    tiles = run(lower(nest, {}, "k"), {t.name: a for t, a in zip(kernel.program.inputs, arrays)}, {})
    for g, t, want in zip(got if isinstance(got, tuple) else (got,), nest.program.outputs, wants, strict=True):
        finite = np.abs(want[np.isfinite(want)].astype(np.float64))
        for value in (g, tiles[t.name]):
            np.testing.assert_allclose(np.asarray(value).astype(np.float64), want.astype(np.float64), rtol=tolerance,
                                       atol=tolerance * max(1.0, finite.max(initial=0.0)), err_msg=f"{s}\n{x.done}")
    return x


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("name", CASES)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_random_schedules(name, seed):
    kernel, shapes = CASES[name]
    check(kernel, [RNG.standard_normal(s).astype(np.float32) for s in shapes], seed, 14)


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_random_schedules_of_random_programs(seed):
    case = random_case(seed, symbolic=False)
    check(Kernel.of(case.program), case.arrays, seed, 14)


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_many_random_schedules(name):
    kernel, shapes = CASES[name]
    for seed in range(100, 160):
        check(kernel, [RNG.standard_normal(s).astype(np.float32) for s in shapes], seed, 18)


def test_most_steps_are_taken_somewhere():
    taken: set[str] = set()
    for seed in range(25):
        kernel, shapes = CASES[list(CASES)[seed % len(CASES)]]
        x = Shuffler(kernel.schedule("cpu", *(np.zeros(s, np.float32) for s in shapes), default=seed % 2 == 0), seed)
        x.run(30)
        taken |= set(x.done)
    assert taken >= {"split", "tile", "reorder", "fuse", "small tile", "parallel", "compute_at", "compute_inline", "cache_read",
                     "cache_write", "pad"}
