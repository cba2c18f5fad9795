"""dsl.portable: a program that travelled has the same meaning, the same digest and the same schedule."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import dlc
from dlc import bf16, f32, i32
from dlc.compiler import Plan, Request
from dlc.runtime.device import host_target
from dsl.canonical import canonical
from dsl.carrier import SUM, partial
from dsl.errors import UserError
from dsl.interp import evaluate
from dsl.portable import dumps, loads
from dsl.program import reduce_over

M, N, K = dlc.dims("M N K")


@dlc.kernel
def attention(q: f32[M, K], k: f32[N, K], v: f32[N, K]):
    return dlc.softmax(q @ k.T, 1) @ v


@dlc.kernel
def gathered(x: bf16[M, N], at: i32[K], s: f32):
    return dlc.compute((K, N), lambda i, j: x[at[i], (j + 3) % N] * s), dlc.compute((M * N,), lambda n: x[n // N, n % N])


@dlc.kernel
def convolved(x: f32[2, 3, M, N], w: f32[4, 3, 3, 3]):
    return dlc.gelu(dlc.conv2d(x, w, stride=2, padding=1))


@pytest.mark.parametrize("kernel", [attention, gathered, convolved, attention.vjp], ids=lambda k: k.__name__)
def test_the_digest_and_the_printed_form_survive(kernel) -> None:
    there = loads(dumps(kernel.program))
    assert canonical(there) == canonical(kernel.program)
    assert repr(dlc.Kernel.of(there)) == repr(dlc.Kernel.of(kernel.program))
    assert there.loc == kernel.program.loc and there.inputs[0] is not kernel.program.inputs[0]


def test_the_meaning_and_the_schedule_survive(rng: np.random.Generator) -> None:
    args = [rng.normal(size=s).astype(np.float32) for s in ((5, 8), (7, 8), (7, 8))]
    there = loads(dumps(attention.program))
    assert np.array_equal(evaluate(there, *args)[0], evaluate(attention.program, *args)[0])
    shapes, strides = tuple(a.shape for a in args), ((8, 1),) * 3
    plans = [Plan(Request(p, shapes, strides, host_target(), {})) for p in (there, attention.program)]
    assert plans[0].module.text == plans[1].module.text


def test_very_deep_expressions_travel() -> None:
    @dlc.kernel
    def deep(x: f32[M]):
        y = x
        for _ in range(150):
            y = dlc.compute((M,), lambda i, y=y: y[i] + 1.0)
        return y

    @dlc.kernel
    def deep_body(x: f32[M]):
        def body(i):
            e = x[i]
            for n in range(150):
                e = dlc.sin(e) + float(n)
            return e
        return dlc.compute((M,), body)
    for k in (deep, deep_body):
        assert canonical(loads(dumps(k.program))) == canonical(k.program)


def test_a_carrier_of_its_own_is_refused() -> None:
    @dlc.kernel
    def own(x: f32[M, N]):
        k = dlc.reduce_axis(N)
        return dlc.compute((M,), lambda i: reduce_over(partial(SUM), (x[i, k],), (k,)))
    with pytest.raises(UserError, match="carrier"):
        dumps(own.program)
    assert torch.equal(own(torch.ones(3, 4)), torch.full((3,), 4.0))
