"""What a nest knows of itself."""

import pytest

import dlc
from dlc import f32
from dsl.nest import Loc, Step
from dsl.program import trace
from dsl.stages import build_nest


def blurred(x: f32[20]):
    """Neighbours added up."""
    y = dlc.compute((20,), lambda i: x[i] * 2.0, name="y")
    return dlc.compute((18,), lambda i: y[i] + y[i + 1] + y[i + 2], name="z")


def summed(x: f32[7, 10]):
    """Prefix sums."""
    y = dlc.cumsum(x, 1)
    return dlc.compute((7, 5), lambda i, j: y[i, 2 * j])


def test_steps_are_plain_data():
    s = Step("split", {"stage": "z", "loop": "i", "factor": 4}, Loc("a.py", 3))
    assert Step.of_data(s.as_data()) == s and Step.of_data(s.as_data()).loc == Loc("a.py", 3)
    with pytest.raises(KeyError):
        Step.of_data({"args": {}})


def test_nests_by_name():
    n = build_nest(trace(blurred))
    assert n["z"] is n.stages[-1] and n.consumers(n["y"]) == [n["z"]] and n.is_output(n["z"])
    with pytest.raises(KeyError):
        n["w"]
