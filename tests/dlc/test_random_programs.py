"""Random programs through the whole CPU path: against the numpy meaning of the definition, and through the tile verifier."""

import numpy as np
import pytest
import torch

from codegen.heuristics import default_schedule
from codegen.lower import lower
from codegen.tile.verify import verify
from dlc.kernel import Kernel
from dlc.runtime.device import host_target
from dsl.dtype import bf16, f32, f64, i32
from dsl.interp import evaluate
from dsl.stages import build_nest
from tests.strategies import random_case

DTYPES = ((f32,), (f64,), (f32, i32), (bf16, f32))
SEEDS = range(64)


def case_of(seed):
    return random_case(seed, symbolic=False, dtypes=DTYPES[seed % 4])


def plain(value):
    wide = value.float() if isinstance(value, torch.Tensor) and value.dtype is torch.bfloat16 else value
    return np.asarray(wide).astype(np.float64)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_agrees_with_the_oracle(seed):
    case = case_of(seed)
    got = Kernel.of(case.program)(*case.arrays)
    tolerance = 2e-2 if bf16 in DTYPES[seed % 4] else 1e-4
    for g, w in zip(got if isinstance(got, tuple) else (got,), evaluate(case.program, *case.arrays), strict=True):
        want = plain(w)
        assert g.shape == w.shape
        finite = np.abs(want[np.isfinite(want)])
        np.testing.assert_allclose(plain(g), want, rtol=tolerance, atol=tolerance * max(1.0, finite.max(initial=0.0)))


@pytest.mark.parametrize("seed", SEEDS)
def test_lowered_programs_verify(seed):
    nest = default_schedule(build_nest(case_of(seed).program), host_target(), {})
    program = lower(nest, {}, "k")
    verify(program)


def test_depth_is_no_limit():
    case = case_of(87)  # some three hundred operations one inside the other
    np.testing.assert_allclose(plain(Kernel.of(case.program)(*case.arrays)), plain(evaluate(case.program, *case.arrays)[0]),
                               rtol=2e-2, atol=2e-2)
