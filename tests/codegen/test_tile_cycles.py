"""Cycles by counts of instructions: what binds a register tile, lanes that memory does not lie along, threads without points."""

from __future__ import annotations

from dataclasses import replace

import dlc
from codegen.analysis.tile_cycles import program_cycles
from codegen.heuristics import Decisions, default_schedule
from codegen.pipelines import make_tile
from codegen.target import by_name
from dlc import f32
from dsl.stages import build_nest

M, N, K = dlc.dims("M N K")
TARGET = replace(by_name("x86-64-avx2"), threads=2)


def cycles(fn, *sizes, target=TARGET, **decisions) -> float:
    kernel = dlc.kernel(fn)
    program = kernel.program.specialize(dict(zip(kernel.program.dims, sizes)))
    preset = Decisions({k.replace("__", "."): v for k, v in decisions.items()})
    nest = default_schedule(build_nest(program), target, {}, preset)
    assert not preset.passed_over
    return program_cycles(make_tile(nest, {}, "kernel", target).program, target)


def product(x: f32[M, K], w: f32[K, N]):
    return x @ w


def turned(x: f32[M, N]):
    return dlc.compute((N, M), lambda i, j: x[j, i])


def total(x: f32[M, N]):
    return dlc.sum(x, 1)


def test_a_product_takes_at_least_its_multiply_adds_and_little_more() -> None:
    least = 480 * 480 * 480 / 8 / 2 / 2  # eight lanes, two units, two threads
    assert least <= cycles(product, 480, 480, 480) <= 1.3 * least


def test_few_accumulators_wait_for_each_other() -> None:
    one, six = (cycles(product, 480, 480, 480, matmul__register_tile=tile) for tile in ((8, 1), (16, 6)))
    assert one > 4 * six


def test_chains_of_a_sum_wait_too() -> None:
    assert cycles(total, 4096, 4096, sum__vectors=1) > 2 * cycles(total, 4096, 4096, sum__vectors=4)


def test_more_threads_take_their_share() -> None:
    assert 1.8 < cycles(product, 960, 960, 960) / cycles(product, 960, 960, 960, target=replace(TARGET, threads=4)) < 2.2
