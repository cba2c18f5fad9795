"""Every operator of the language in float64: reverse mode against central differences, ``<u, J v> = <J^T u, v>``, second derivatives.

The table is operators.py; where that has ties on purpose, or a sign that decides, values lie apart or still here, since there are no
differences to compare with.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.dsl.gradcheck import check
from tests.dsl.operator_checks import arguments, as_numpy, program_for
from tests.dsl.operators import CASES, Case, Spec

pytestmark = pytest.mark.filterwarnings("ignore")

STOPPED = ("embedding_padding",)  # its gradient is no derivative, on purpose
DIFFERENTIABLE = [c for c in CASES if c.grad and c.name not in STOPPED]
SECOND = 3  # of so many cases one is differentiated twice where tests are to be quick
DISCRETE = {"ties": "normal", "sign": "sign!"}


def smooth(spec: Spec) -> Spec:
    named = len(spec) == 2 and isinstance(spec[0], tuple)
    return (spec[0], DISCRETE.get(spec[1], spec[1])) if named else spec


@pytest.mark.parametrize("n,case", list(enumerate(DIFFERENTIABLE)), ids=lambda c: c.name if isinstance(c, Case) else "")
def test_operator(n: int, case: Case, request: pytest.FixtureRequest) -> None:
    case = replace(case, args=tuple(smooth(s) for s in case.args))
    tensors = arguments(case, "f64", 3)
    still = [len(spec) == 2 and isinstance(spec[1], str) and spec[1].endswith("!") for spec in case.args]
    program = program_for(case.ours, tensors, True, case.name)
    wrt = [p.name for p, s in zip(program.inputs, still) if p.dtype.is_float and not s]
    twice = not any(still) and (request.config.getoption("--slow") or n % SECOND == 0)
    check(program, *map(as_numpy, tensors), rng=np.random.default_rng(n), wrt=wrt, order=2 if twice else 1, tol=3e-5, step=1e-6)
