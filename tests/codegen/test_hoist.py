"""What does not change from round to round leaves the loop; what depends on it, is written or may not run stays."""

from __future__ import annotations

import numpy as np

from codegen.passes.hoist import hoist
from codegen.tile.interp import run
from codegen.tile.text import show
from codegen.tile.text_parse import parse

PROGRAM = """\
program('scaled')
i = axis(3)
k = axis(4)
l = axis(8)
s = input(f32, [3], [1])
x = input(f32, [3, 4, 8], [32, 8, 1])
o = output(f32, [3, 4, 8], [32, 8, 1])
with phase('p', grid=[(i, 3)]):
    for k in loop(0, 4):
        s_1: f32 = load(s, [i])
        x_1: f32[l] = load(x, [i, k, l])
        o_1: f32[l] = load(o, [i, 0, l])
        store(o, [i, k, l], x_1)
"""


def test_only_what_stays_the_same_moves() -> None:
    lines = [line.strip() for line in show(hoist(parse(PROGRAM)), False).splitlines()]
    loop = lines.index("for k in loop(0, 4):")
    assert lines.index("s_1: f32 = load(s, [i])") < loop
    assert all(lines.index(text) > loop for text in lines if text.startswith(("x_1", "o_1", "store")))  # o is written in the loop


def test_a_loop_that_may_not_run_keeps_everything() -> None:
    maybe = PROGRAM.replace("loop(0, 4)", "loop(0, i)")
    assert show(hoist(parse(maybe))) == show(parse(maybe))


def test_results_are_the_same(rng: np.random.Generator) -> None:
    arrays = {"s": rng.random(3, np.float32), "x": rng.random((3, 4, 8), np.float32)}
    want = run(parse(PROGRAM), arrays, {})
    assert all(np.array_equal(v, want[name]) for name, v in run(hoist(parse(PROGRAM)), arrays, {}).items())
