"""Tile programs survive their text: same text again, same results, same verdicts; bad text is a clear error."""

from __future__ import annotations

import numpy as np
import pytest

from codegen.heuristics import default_schedule
from codegen.lower import lower
from codegen.target import by_name
from codegen.tile.interp import run
from codegen.tile.text import show
from codegen.tile.text_parse import parse
from codegen.tile.verify import verify
from dsl.carrier import SUM
from dsl.errors import TextError
from dsl.stages import build_nest
from tests.codegen.tile_programs import CASES
from tests.strategies import random_case


@pytest.mark.parametrize("name", CASES)
def test_round_trip_of_every_case(name: str, rng: np.random.Generator) -> None:
    case = CASES[name](rng)
    text = show(case.program)
    again = parse(text)
    assert show(again) == text
    verify(again)
    got = run(again, case.arrays, {new: case.sizes[old] for old, new in zip(case.program.sizes, again.sizes)})
    want = run(case.program, case.arrays, case.sizes)
    for key in want:
        np.testing.assert_array_equal(got[key], want[key])


@pytest.mark.parametrize("seed", range(10))
def test_round_trip_of_lowered_programs(seed: int) -> None:
    program = lower(default_schedule(build_nest(random_case(seed).program), by_name("x86-64-avx2"), {}))
    text = show(program, places=False)
    assert show(parse(text)) == text
    assert show(parse(show(program))) == text


def test_text_reads_as_mathematics(rng: np.random.Generator) -> None:
    text = show(CASES["vadd"](rng).program)
    assert "with phase(" in text and "load(x, [" in text and "store(z, [" in text


def test_carriers_that_are_not_built_in_are_given(rng: np.random.Generator) -> None:
    text = show(CASES["softmax"](rng).program).replace("'sum'", "'mine'")
    assert "'mine'" in text
    with pytest.raises(TextError, match="no carrier 'mine'"):
        parse(text)
    assert parse(text, {"mine": SUM}).phases


HEAD = "program('p')\ni = lane(8)\nx = input(f32, [8], [1])\nz = output(f32, [8], [1])\n"


@pytest.mark.parametrize(("body", "why"), [
    ("with phase('p':\n", "line 5"),
    ("x = 3\n", "neither a declaration nor a phase"),
    ("i = axis(4)\n", "i is defined twice"),
    ("with phase('p'):\n    a: f32[i] = load(y, [i])\n", "y is not the name of a buffer"),
    ("with phase('p'):\n    a: f32[i] = lode(x, [i])\n", "no operation 'lode'"),
    ("with phase('p'):\n    a: f32[i] = load(x)\n", "load lacks indices"),
    ("with phase('p'):\n    a: f32[i] = load(x, [i], speed=3)\n", "no such arguments"),
    ("with phase('p'):\n    a: f33[i] = load(x, [i])\n", "f33 is not a dtype"),
    ("with phase('p'):\n    a: f32[i] = load(x, [i ** 2])\n", "not an index"),
    ("with phase('p'):\n    while True:\n        pass\n", "not an operation"),
])
def test_bad_text(body: str, why: str) -> None:
    with pytest.raises(TextError, match=why):
        parse(HEAD + body)
