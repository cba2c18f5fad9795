"""Cycles of bodies on a target, and the level of cache that holds so many bytes."""

from dataclasses import replace

import dsl as dlc
from codegen.analysis.cycles import cycles, level
from codegen.target import TARGETS
from dsl import f32, f64
from dsl.program import trace

CPU = TARGETS["x86-64-avx2"]


def body_of(fn):
    return trace(fn).outputs[0].body


def test_slow_operations_cost_what_the_target_says() -> None:
    def quotient(x: f32[8]):
        return dlc.compute((8,), lambda i: x[i] / (x[i] + 1.0))

    def root(x: f64[8]):
        return dlc.sqrt(x)

    assert cycles(body_of(quotient), CPU) == 4.5
    assert cycles(body_of(quotient), replace(CPU, slow=(("div", 10.0),))) == 10.5
    assert cycles(body_of(root), CPU) == 10.0  # half as many lanes


def test_dividing_by_a_power_of_two_is_multiplying() -> None:
    def half(x: f32[8]):
        return x / 2.0

    def third(x: f32[8]):
        return x / 3.0

    assert [cycles(body_of(f), CPU) for f in (half, third)] == [0.5, 4.0]


def test_levels_leave_half_for_others() -> None:
    first, second, third = CPU.caches
    assert [level(CPU, n) for n in (first // 2, first, second // 2, third // 2, third)] == [0, 1, 1, 2, 3]
