"""A grid becomes loops: the same results, whatever the points share."""

from __future__ import annotations

import numpy as np

from codegen.passes.serialize import serialize
from codegen.tile.interp import run
from codegen.tile.text import show
from codegen.tile.text_parse import parse

BEFORE = """\
program('sums')
i = axis(3)
j = axis(4)
l = axis(8)
x = input(f32, [3, 4, 8], [32, 8, 1])
o = output(f32, [3, 4, 8], [32, 8, 1])
with phase('p', grid=[(i, 3), (j, 4)]):
    x_1: f32[l] = load(x, [i, j, l])
    store(o, [i, j, l], x_1)
with phase('q', grid=[(i, 3)]):
    x_2: f32 = load(x, [i, 0, 0])
    store(o, [i, 0, 0], x_2)
"""

AFTER = """\
with phase('p', grid=[], serial=True):
    for i in loop(0, 3):
        for j in loop(0, 4):
            x_1: f32[l] = load(x, [i, j, l])
            store(o, [i, j, l], x_1)
with phase('q', grid=[(i, 3)]):
"""


def test_text() -> None:
    assert AFTER in show(serialize(parse(BEFORE), "p"), False)


def test_same_meaning() -> None:
    x = np.arange(96, dtype=np.float32).reshape(3, 4, 8)
    one, two = (run(p, {"x": x}, {}) for p in (parse(BEFORE), serialize(parse(BEFORE), "p")))
    np.testing.assert_array_equal(one["o"], two["o"])
