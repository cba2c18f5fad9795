"""Random programs, made reproducible: one order and the same bits on any number of cores and threads, for every choice of that order."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
import torch

from dlc.compiler import Plan
from dlc.kernel import Kernel
from dsl.dtype import bf16, f32, f64
from tests.strategies import Case, random_case

QUICK, ALL = 8, 120
SIZES = (1, 7, 33, 64, 130, 1000)  # long enough for lanes, chunks and shares of several threads
DTYPES = ((f32,), (f32,), (f64,), (bf16, f32))
CHOICES = 4  # otherwise made for each program
MOST = 3e7  # points of a definition, which numpy would not see the end of, and tests neither

SEEDS = [pytest.param(n, marks=[pytest.mark.slow] if n >= QUICK else []) for n in range(ALL)]


def case_of(seed: int) -> Case:
    """The first case from a seed on whose loops are short enough."""
    for n in range(100):
        case = random_case(1000 * seed + n, symbolic=False, dtypes=DTYPES[seed % len(DTYPES)], sizes=SIZES, computes=2, depth=3)
        nest = Plan(_kernel(case).request([a.shape for a in case.arrays], [_strides(a) for a in case.arrays])).unscheduled
        points = [np.prod([float(v.extent.const) for v in (*s.axes, *s.bound)]) for s in nest.stages]
        if sum(points) <= MOST and any(s.kind == "reduce" for s in nest.stages):
            return case
    raise AssertionError("no case of a moderate size")


def _strides(a: np.ndarray) -> tuple[int, ...]:
    return tuple(s // a.itemsize for s in a.strides)


def _kernel(case: Case) -> Kernel:
    k = Kernel.of(case.program)
    k.reproducible = True
    return k


@contextmanager
def threads(n: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(n)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def bits(results: tuple[torch.Tensor, ...]) -> list[np.ndarray]:
    """Every bit, but all that is not a number alike."""
    out = []
    for r in results:
        held = torch.where(r.isnan(), torch.zeros_like(r), r) if r.is_floating_point() else r
        out += [held.contiguous().view(torch.uint8).numpy().copy() if held.ndim else held.reshape(1).view(torch.uint8).numpy().copy(),
                r.isnan().numpy().copy()]
    return out


@pytest.mark.parametrize("seed", SEEDS)
def test_bits_stay(seed: int) -> None:
    case, rng = case_of(seed), random.Random(seed)
    args = [torch.from_numpy(a.view(np.int16)).view(torch.bfloat16) if a.dtype.name == "bfloat16" else torch.from_numpy(a)
            for a in case.arrays]
    request = _kernel(case).request([a.shape for a in args], [a.stride() for a in args])
    plans = [Plan(replace(request, target=replace(request.target, threads=cores))) for cores in (1, 2, 64)]
    assert len({p.order for p in plans}) == 1
    first = plans[0]
    assert first.nest
    runs = [(n, first) for n in (1, 2, 5)] + [(2, plans[-1])]
    made = [(c.name, v) for c in first.decisions.made.values() for v in c.options if v != c.value]
    for name, value in rng.sample(made, min(CHOICES, len(made))):
        other = Plan(replace(first.request, decisions={name: value}))
        if other.order == first.order:
            runs.append((rng.randint(1, 3), other))
    found = []
    for n, plan in runs:
        with threads(n):
            found.append(bits(plan.launcher()(list(args))))
    for other in found[1:]:
        assert all(np.array_equal(a, b) for a, b in zip(found[0], other, strict=True))
