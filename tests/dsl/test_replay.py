"""Traces as data."""

import dlc
from dlc import f32
from dsl.primitives.placement import compute_at
from dsl.program import trace
from dsl.replay import read_trace, replay
from dsl.schedule import Schedule
from dsl.stages import build_nest


def product(x: f32[40, 30], w: f32[20, 30], b: f32[20]):
    """A product and what finishes it."""
    k = dlc.reduce_axis(30)
    y = dlc.compute((40, 20), lambda i, j: dlc.sum(x[i, k] * w[j, k], k), name="y")
    return dlc.compute((40, 20), lambda i, j: dlc.relu(y[i, j] + b[j]), name="z")


def fused():
    return compute_at(build_nest(trace(product)), "y", "z", "")


def test_traces_read_in_every_form():
    s = Schedule(fused()).split("i", 4)
    for form in (s.to_json(), s.trace, s.steps):
        assert read_trace(form) == s.steps
    assert str(Schedule(replay(build_nest(trace(product)), s.steps))) == str(s)
